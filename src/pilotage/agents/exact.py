"""Values as JSON can say them, and back, exactly: what was written to a record can be sent again.

Law: what comes back is digested to the same bytes, arrays with dtype, shape and every bit. What JSON can't say is
tagged with `{"$": kind, ...}`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

import numpy as np

from pilotage.protocol.errors import InvalidMessage

TAG = "$"

_READERS = {"date": date.fromisoformat, "datetime": datetime.fromisoformat, "time": time.fromisoformat}


def to_json(value: object) -> Any:
    """Turn a value into one that JSON can say.

    Raises:
        InvalidMessage: it, or a value in it, is of a type that has no such form.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return _array(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {TAG: "float", "value": repr(float(value))}
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return _other(value)


def from_json(value: Any) -> Any:
    """Undo `to_json`; tuples come back as lists.

    Raises:
        InvalidMessage: a tag is none of ours, or what it marks is broken.
    """
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {key: from_json(item) for key, item in value.items()}
    try:
        return _tagged(value)
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidMessage(f"a value of a record is broken: {error!r}") from error


def _array(value: np.generic | np.ndarray[Any, Any]) -> dict[str, Any]:
    if value.dtype.hasobject or value.dtype.names is not None:
        raise InvalidMessage(
            f"an array of dtype {value.dtype} can't be recorded: use numbers, booleans or text"
        )
    kind = "scalar" if isinstance(value, np.generic) else "array"
    packed = base64.b64encode(value.tobytes()).decode()
    return {TAG: kind, "dtype": value.dtype.str, "shape": list(value.shape), "base64": packed}


def _mapping(value: Mapping[Any, object]) -> dict[str, Any]:
    if TAG not in value and all(isinstance(key, str) for key in value):
        return {key: to_json(item) for key, item in value.items()}
    return {TAG: "mapping", "items": [[to_json(key), to_json(item)] for key, item in value.items()]}


def _other(value: object) -> dict[str, Any]:
    if isinstance(value, bytes | bytearray | memoryview):
        return {TAG: "bytes", "base64": base64.b64encode(value).decode()}
    if isinstance(value, complex):
        return {TAG: "complex", "value": [to_json(value.real), to_json(value.imag)]}
    if isinstance(value, datetime | date | time):
        kind = "datetime" if isinstance(value, datetime) else "date" if isinstance(value, date) else "time"
        return {TAG: kind, "value": value.isoformat()}
    raise InvalidMessage(
        f"a {type(value).__name__} can't be recorded: use plain values, lists, mappings or arrays"
    )


def _tagged(value: dict[str, Any]) -> Any:
    kind = value[TAG]
    if kind in ("array", "scalar"):
        array = np.frombuffer(base64.b64decode(value["base64"]), np.dtype(value["dtype"]))
        shaped = array.reshape(value["shape"]).copy()
        return shaped[()] if kind == "scalar" else shaped
    if kind == "bytes":
        return base64.b64decode(value["base64"])
    if kind == "complex":
        real, imaginary = value["value"]
        return complex(from_json(real), from_json(imaginary))
    if kind == "mapping":
        return {from_json(key): from_json(item) for key, item in value["items"]}
    return float(value["value"]) if kind == "float" else _READERS[kind](value["value"])
