"""Bytes that are equal exactly for equal values, so that two sides can digest what they hold.

They are MessagePack, the keys of mappings in their order. Law: they depend on the values alone: not on the order of a
mapping's keys, not on whether a list was a tuple, not on which machine they were made.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from pilotage.protocol.errors import InvalidMessage
from pilotage.protocol.late import Array, np

_EXACT_FLOAT = 2**53
_MOST, _LEAST = 2**64 - 1, -(2**63)
_ARRAY, _INTEGER, _MAPPING, _COMPLEX = 1, 2, 3, 4
_PLAIN = frozenset({str, float, bool, type(None)})


class _Unusual(Exception):
    """A value holds something that MessagePack has no word for."""


def _stop(value: object) -> Any:
    raise _Unusual


_encode = msgspec.msgpack.Encoder(enc_hook=_stop, order="deterministic").encode


def canonical(value: object, *, has_no_nan: bool = False) -> bytes:
    """Give bytes that are equal exactly for equal values.

    Tuples equal lists, a mapping's order doesn't matter, NumPy scalars and 0-d arrays equal the Python number
    (which is what a wire makes of them), naive datetimes equal their ISO text, aware ones the same instant; every NaN
    is the same NaN; 1, 1.0 and True differ.

    Args:
        value: None, bool, int, float, complex, str, bytes, datetimes, NumPy arrays, and lists, tuples or
            mappings of these.
        has_no_nan: Whoever knows that may say so: nobody looks for one then.

    Returns:
        Self-delimiting bytes: no concatenation of two values equals another's.

    Raises:
        InvalidMessage: A value, or one inside it, is of another type.
    """
    try:
        said = _encode(value)
    except (_Unusual, TypeError, OverflowError, UnicodeEncodeError):
        return _encode(_sayable(value))
    if has_no_nan:
        return said
    # These begin a NaN, of which there are many, and a few other things, which come out the same.
    return _encode(_sayable(value)) if b"\xcb\x7f" in said or b"\xcb\xff" in said else said


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


DIGESTED_FROM_BYTES = 4096
"""Of an item of as many bytes its digest stands for them: it can be made before it is known what came before it."""

Content = tuple[bytes, bytes | memoryview]
"""The form of items, and what stands for them, one after the other."""


def canonical_items(data: Array) -> Content:
    """Give the form (dtype and shape) of a stream's items, and their bytes, or of large ones their digests.

    Raises:
        InvalidMessage: The dtype holds objects.
    """
    if data.dtype.kind in "US":
        form = f"{data.dtype.kind}{data.shape[1:]}".encode()
        return form, b"".join(canonical(item) for item in data.ravel().tolist())
    plain = _little_endian(data)
    form, content = f"{plain.dtype.str}{plain.shape[1:]}".encode(), plain.reshape(-1).view(np.uint8)
    if len(data) and content.nbytes // len(data) >= DIGESTED_FROM_BYTES:
        return form, b"".join([sha256(item.data).digest() for item in content.reshape(len(data), -1)])
    return form, content.data


def _little_endian(array: Array) -> Array:
    if array.dtype.hasobject:
        raise InvalidMessage("an array of Python objects has no canonical bytes: give it a plain dtype")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)


def _sayable(value: object) -> Any:
    """Turn a value into one that MessagePack can say; what it has no word for into an extension.

    Raises:
        InvalidMessage: It is, or holds, something else than values.
    """
    kind = type(value)
    if kind in _PLAIN or kind.__module__ == "datetime":
        return _plain(value)
    if isinstance(value, np.ndarray | np.generic):
        return _numpy(value)
    if isinstance(value, int):
        return int(value) if _LEAST <= value <= _MOST else _extension(_INTEGER, b"%d" % value)
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, list | tuple):
        return [_sayable(item) for item in value]
    return _other(value)


def _plain(value: object) -> Any:
    if isinstance(value, str):
        return _text(value)
    return math.nan if isinstance(value, float) and math.isnan(value) else value


def _other(value: object) -> Any:
    if isinstance(value, str | float):
        return _plain(str(value) if isinstance(value, str) else float(value))
    if isinstance(value, complex):
        return _extension(_COMPLEX, struct.pack("<dd", _plain(value.real), _plain(value.imag)))
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    raise InvalidMessage(
        f"{type(value).__name__} has no canonical bytes: use plain values, lists, mappings, arrays"
    )


def _text(value: str) -> str | msgspec.msgpack.Ext:
    try:
        value.encode()
    except UnicodeEncodeError:
        return _extension(0, value.encode("utf-8", "surrogatepass"))
    return value


def _mapping(value: Mapping[Any, object]) -> Any:
    if all(type(key) is str and _is_text(key) for key in value):
        return {key: _sayable(item) for key, item in value.items()}
    # Canonical bytes delimit themselves, so sorting the pairs sorts them by their keys.
    pairs = sorted(canonical(key) + canonical(item) for key, item in value.items())
    return _extension(_MAPPING, b"".join(pairs))


def _is_text(value: str) -> bool:
    return isinstance(_text(value), str)


def _numpy(value: Array | np.generic) -> Any:
    if value.ndim == 0 and value.dtype.kind in "biufcUS" and value.dtype.itemsize <= _largest(value.dtype):
        return _sayable(value.item())
    array = _little_endian(np.asarray(value))
    return _extension(_ARRAY, f"{array.dtype.str}{array.shape}:".encode() + array.tobytes())


def _extension(code: int, data: bytes) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, data)


def _largest(dtype: np.dtype[Any]) -> int:
    return {"f": 8, "c": 16}.get(dtype.kind, dtype.itemsize)
