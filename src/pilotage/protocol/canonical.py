"""Bytes that are equal exactly for equal values, so that two sides can digest what they hold.

Law: they depend on the values alone: not on the order of a mapping's keys, not on whether a list was a tuple, not on
which machine they were made.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from pilotage.protocol.errors import InvalidMessage

Array = np.ndarray[Any, Any]

_EXACT_FLOAT = 2**53
_NAME_CHARS = 64


def canonical(value: object) -> bytes:
    """Give bytes that are equal exactly for equal values.

    Tuples equal lists, a mapping's order doesn't matter, NumPy scalars and 0-d arrays equal the Python number
    (which is what a wire makes of them), datetimes equal their ISO text; every NaN is the same NaN; 1, 1.0
    and True differ.

    Args:
        value: None, bool, int, float, complex, str, bytes, datetimes, NumPy arrays, and lists, tuples or
            mappings of these.

    Returns:
        Self-delimiting bytes: no concatenation of two values equals another's.

    Raises:
        InvalidMessage: A value, or one inside it, is of another type.
    """
    writer = _EXACT.get(type(value))
    return writer(value) if writer is not None else _other(value)


def canonical_timestamps(timestamps: Sequence[Any] | Array) -> bytes:
    """Give the bytes of timestamps, item by item, so that batches may be cut anywhere.

    Raises:
        InvalidMessage: A timestamp is neither a number nor text nor a datetime64.
    """
    array = np.asarray(timestamps) if not isinstance(timestamps, np.ndarray) else timestamps
    if array.dtype.kind == "f" and array.dtype.itemsize <= 8:
        return array.astype("<f8").tobytes()
    if array.dtype.kind in "iu" and (
        array.size == 0 or max(-int(array.min()), int(array.max())) <= _EXACT_FLOAT
    ):
        return array.astype("<f8").tobytes()
    return b"".join(_timestamp(stamp) for stamp in timestamps)


def _timestamp(stamp: object) -> bytes:
    if isinstance(stamp, np.datetime64):
        return canonical(str(stamp))
    if hasattr(stamp, "isoformat"):
        return canonical(stamp)
    plain = stamp.item() if isinstance(stamp, np.generic) else stamp
    if isinstance(plain, int) and not isinstance(plain, bool) and abs(plain) <= _EXACT_FLOAT:
        return struct.pack("<d", plain)
    if isinstance(plain, float):
        return struct.pack("<d", plain)
    if isinstance(plain, int | str) and not isinstance(plain, bool):
        return canonical(plain)
    raise InvalidMessage(f"a timestamp is a number or text, not {type(stamp).__name__}")


def canonical_items(data: Array) -> tuple[bytes, bytes | memoryview]:
    """Give the form (dtype and shape) of a stream's items, and their bytes one after the other.

    Raises:
        InvalidMessage: The dtype holds objects.
    """
    if data.dtype.kind in "US":
        form = f"{data.dtype.kind}{data.shape[1:]}".encode()
        return form, b"".join(canonical(item) for item in data.ravel().tolist())
    plain = _little_endian(data)
    return f"{plain.dtype.str}{plain.shape[1:]}".encode(), plain.reshape(-1).view(np.uint8).data


def _little_endian(array: Array) -> Array:
    if array.dtype.hasobject:
        raise InvalidMessage("an array of Python objects has no canonical bytes: give it a plain dtype")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)


def _constant(value: bool | None) -> bytes:
    return b"n" if value is None else b"t" if value else b"f"


def _integer(value: int) -> bytes:
    return b"i%d;" % value


def _float(value: float) -> bytes:
    return b"d" + _double(value)


def _complex(value: complex) -> bytes:
    return b"c" + _double(value.real) + _double(value.imag)


def _text(value: str) -> bytes:
    try:
        text = value.encode()
    except UnicodeEncodeError:
        text = value.encode("utf-8", "surrogatepass")
    return b"s%d:" % len(text) + text


def _binary(value: bytes | bytearray | memoryview) -> bytes:
    data = bytes(value)
    return b"b%d:%b" % (len(data), data)


def _sequence(value: Sequence[object]) -> bytes:
    return b"l%d:%b" % (len(value), b"".join(map(canonical, value)))


def _mapping(value: Mapping[Any, object]) -> bytes:
    # Canonical bytes delimit themselves, so sorting the pairs sorts them by their keys.
    pairs = sorted([_key(key) + canonical(item) for key, item in value.items()])
    return b"m%d:%b" % (len(pairs), b"".join(pairs))


def _key(value: object) -> bytes:
    return _name(value) if type(value) is str and len(value) <= _NAME_CHARS else canonical(value)


@lru_cache(maxsize=4096)
def _name(value: str) -> bytes:
    """Give a short text's bytes: the names of columns come again with each row."""
    return _text(value)


def _numpy(value: Array | np.generic) -> bytes:
    if value.ndim == 0 and value.dtype.kind in "biufcUS" and value.dtype.itemsize <= _largest(value.dtype):
        return canonical(value.item())
    array = _little_endian(np.asarray(value))
    return f"a{array.dtype.str}{array.shape}:".encode() + array.tobytes()


def _other(value: object) -> bytes:
    if hasattr(value, "isoformat"):
        return _text(str(value.isoformat()))
    for kinds, writer in _BY_BASE:
        if isinstance(value, kinds):
            return writer(value)
    raise InvalidMessage(
        f"{type(value).__name__} has no canonical bytes: use plain values, lists, mappings, arrays"
    )


def _double(value: float) -> bytes:
    return _PACK(value if value == value else math.nan)  # noqa: PLR0124 - the quickest test for NaN


_PACK = struct.Struct("<d").pack

_Writer = Callable[[Any], bytes]

_EXACT: dict[type, _Writer] = {
    str: _text,
    float: _float,
    int: _integer,
    bool: _constant,
    type(None): _constant,
    dict: _mapping,
    list: _sequence,
    tuple: _sequence,
}

_BY_BASE: tuple[tuple[tuple[type, ...], _Writer], ...] = (
    ((np.ndarray, np.generic), _numpy),
    ((int,), _integer),
    ((float,), _float),
    ((complex,), _complex),
    ((str,), _text),
    ((bytes, bytearray, memoryview), _binary),
    ((Mapping,), _mapping),
    ((list, tuple), _sequence),
)


def _largest(dtype: np.dtype[Any]) -> int:
    return {"f": 8, "c": 16}.get(dtype.kind, dtype.itemsize)
