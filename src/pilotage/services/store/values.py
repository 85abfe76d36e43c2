"""Values as JSON text and back, exactly.

Law: what JSON can't say is tagged (`{"$": kind, ...}`), never rounded, never dropped: NaN and infinities,
large integers, bytes, complex numbers, datetimes, arrays and mappings with other keys than text.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
import numpy as np

from pilotage.protocol.errors import StoreError

TAG = "$"

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder()
_PLAIN = frozenset({str, bool, type(None)})
_TEXT, _SAID = frozenset({str}), frozenset({str, bool, int, float})
_HUGE = math.inf
_MOST, _LEAST = 2**63 - 1, -(2**63)


def to_text(value: object) -> str:
    """Write a value that `plain` made as JSON text.

    Raises:
        StoreError: Its text isn't valid Unicode.
    """
    try:
        return _ENCODER.encode(value).decode()
    except (UnicodeError, TypeError, ValueError, msgspec.MsgspecError) as cause:
        raise StoreError(f"a value can't be written as JSON ({cause}): send plain values") from cause


def named(values: Mapping[str, object]) -> Mapping[str, object]:
    """Give columns as a dictionary whose names are plain text; nearly always they are that already.

    Raises:
        StoreError: They are no mapping of names to values.
    """
    if type(values) is dict and are_names(values):
        return values
    if not isinstance(values, Mapping):
        raise StoreError(f"values are a {type(values).__name__}, not a mapping of names to values")
    if not all(isinstance(name, str) for name in values):
        raise StoreError("a column's name is no text")
    return {str.__str__(name): value for name, value in values.items()}


def are_names(names: Iterable[object]) -> bool:
    """Tell whether all of them are text, and nothing that only behaves like it."""
    return _TEXT.issuperset(map(type, names))


def columns_to_text(values: Mapping[str, object]) -> tuple[str, bool]:
    """Write columns as JSON text: a dictionary whose names are plain text (`named`).

    Returns:
        The text, and whether it is known that there is no NaN in them, as nearly always.

    Raises:
        StoreError: One of them can't be stored.
    """
    if _SAID.issuperset(map(type, values.values())):
        text = to_text(values)
        if "null" not in text:  # so no number was one that JSON can't say
            return text, True
    return to_text({name: plain(value) for name, value in values.items()}), False


def from_text(text: str | bytes) -> Any:
    """Read what `to_text` wrote, tags still in place.

    Raises:
        StoreError: The text is no JSON: the session's file was changed by something else.
    """
    try:
        return _DECODER.decode(text)
    except msgspec.DecodeError as cause:
        raise StoreError(
            f"the session holds text that is no JSON ({cause}): it was changed from outside"
        ) from cause


def value_from_text(text: str | bytes) -> Any:
    """Read a value back as it was given to `plain`.

    Raises:
        StoreError: The session's file was changed by something else.
    """
    return restore(from_text(text))


def columns_from_text(text: str | bytes) -> dict[str, Any]:
    """Read back what `columns_to_text` wrote: whatever their names, the columns themselves are no tag.

    Raises:
        StoreError: The session's file was changed by something else.
    """
    columns = from_text(text)
    if not isinstance(columns, dict):
        raise StoreError("the session holds columns without names: it was changed from outside")
    return {name: restore(value) for name, value in columns.items()}


def plain(value: object) -> Any:
    """Turn a value into one that JSON can say, tagging what it can't.

    Raises:
        StoreError: The value, or one inside it, is of a type that can't be stored.
    """
    kind = type(value)
    if (
        kind in _PLAIN
        or (kind is float and -_HUGE < value < _HUGE)  # type: ignore[operator]
        or (kind is int and _LEAST <= value <= _MOST)  # type: ignore[operator]
    ):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return _plain_numpy(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value) if _LEAST <= value <= _MOST else {TAG: "int", "value": str(value)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {TAG: "float", "value": str(float(value))}
    if isinstance(value, Mapping):
        return _plain_mapping(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return _plain_other(value)


def restore(value: Any) -> Any:
    """Undo `plain`: what was tagged comes back as it was given (tuples as lists).

    Raises:
        StoreError: A tag is not one of ours: the session's file was changed by something else.
    """
    if isinstance(value, list):
        return [restore(item) for item in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {key: restore(item) for key, item in value.items()}
    try:
        return _restore_tagged(value)
    except (KeyError, ValueError, TypeError) as cause:
        raise StoreError(
            f"the session holds a broken value ({cause!r}): it was changed from outside"
        ) from cause


def _plain_mapping(value: Mapping[Any, object]) -> dict[str, Any]:
    if TAG not in value and all(isinstance(key, str) for key in value):
        return {key: plain(item) for key, item in value.items()}
    return {TAG: "mapping", "items": [[plain(key), plain(item)] for key, item in value.items()]}


def _plain_numpy(value: np.generic | np.ndarray[Any, Any]) -> Any:
    if value.dtype.hasobject or value.dtype.names is not None or not value.dtype.itemsize:
        raise StoreError(f"an array of dtype {value.dtype} can't be stored: use numbers, booleans or text")
    if isinstance(value, np.generic) and value.dtype.kind in "biufUS" and value.dtype.itemsize <= 8:
        return plain(value.item())
    if isinstance(value, np.str_ | np.bytes_):
        return plain(value.item())
    array = np.asarray(value)
    packed = base64.b64encode(array.tobytes()).decode()
    return {TAG: "array", "dtype": array.dtype.str, "shape": list(array.shape), "base64": packed}


def _as_key(value: Any) -> Any:
    """Give what stands for a mapping's key: tuples had become lists, and numpy's scalars arrays."""
    if isinstance(value, list):
        return tuple([_as_key(item) for item in value])
    return value[()] if isinstance(value, np.ndarray) and not value.shape else value


def _plain_other(value: object) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return {TAG: "bytes", "base64": base64.b64encode(value).decode()}
    if isinstance(value, complex):
        return {TAG: "complex", "value": [plain(value.real), plain(value.imag)]}
    if isinstance(value, datetime):
        return {TAG: "datetime", "value": value.isoformat()}
    raise StoreError(
        f"a {type(value).__name__} can't be stored: send plain values, lists, mappings or arrays"
    )


def _restore_tagged(value: dict[str, Any]) -> Any:
    kind = value[TAG]
    if kind == "array":
        dtype = np.dtype(value["dtype"])
        return np.frombuffer(base64.b64decode(value["base64"]), dtype).reshape(value["shape"]).copy()
    if kind == "bytes":
        return base64.b64decode(value["base64"])
    if kind == "complex":
        real, imaginary = value["value"]
        return complex(restore(real), restore(imaginary))
    if kind == "mapping":
        return {_as_key(restore(key)): restore(item) for key, item in value["items"]}
    readers: dict[str, Callable[[str], Any]] = {
        "int": int,
        "float": float,
        "datetime": datetime.fromisoformat,
    }
    return readers[kind](value["value"])
