"""Arrays named by dtype, shape and seed, and described by a digest, so that both ends check without the wire.

Needs numpy only, of either major version: it runs beside the original and beside us. In JSON an array to be
built is `{"$array": {"dtype": "<f8", "shape": [3, 2], "seed": 7}}`, and one that was received is
`{"$array": {"dtype": "<f8", "shape": [3, 2], "sha256": "…"}}`. Both sides are made of the same seeded bytes.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np


def make_array(dtype: str, shape: list[int] | tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    """Build the one array that `dtype`, `shape` and `seed` name, with finite values of that dtype."""
    kind = np.dtype(dtype)
    numbers = np.random.default_rng(seed).integers(0, 120, size=tuple(shape), dtype="i8")
    if kind.kind == "b":
        return np.asarray(numbers % 2, dtype=kind)
    if kind.kind in "fc":
        return np.asarray(numbers / 7, dtype=kind)
    if kind.kind in "SU":
        return np.asarray(numbers.astype("U"), dtype=kind)
    return np.asarray(numbers, dtype=kind)


def describe_array(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Describe `array` by dtype, shape and the SHA-256 of its bytes in C order."""
    digest = hashlib.sha256(np.asarray(array, order="C").tobytes()).hexdigest()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": digest}


def array_spec(dtype: str, shape: list[int] | tuple[int, ...], seed: int) -> dict[str, Any]:
    """Name an array that a peer shall build and send."""
    return {"$array": {"dtype": dtype, "shape": list(shape), "seed": seed}}


def array_seen(dtype: str, shape: list[int] | tuple[int, ...], seed: int) -> dict[str, Any]:
    """Return what a peer reports that received the array of this name."""
    return {"$array": describe_array(make_array(dtype, shape, seed))}


def build(value: Any) -> Any:
    """Replace every array spec inside `value` by its array."""
    if isinstance(value, dict):
        spec = value.get("$array")
        if spec is not None:
            return make_array(spec["dtype"], spec["shape"], spec["seed"])
        return {key: build(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [build(inner) for inner in value]
    return value


def describe(value: Any) -> Any:
    """Replace every array inside `value` by its description, so that it can be written as JSON."""
    if isinstance(value, np.ndarray | np.generic):
        return {"$array": describe_array(np.asarray(value))}
    if isinstance(value, dict):
        return {str(key): describe(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [describe(inner) for inner in value]
    return value
