"""What a stream's items and timestamps look like, in memory and in Zarr.

Law: an item comes back bit for bit, and a timestamp as the value it was; what can't is refused or starts a
new segment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from pilotage.protocol.errors import StoreError

Array = np.ndarray[Any, Any]

_CORE_NAMES = {
    "b1": "bool", "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64", "u1": "uint8", "u2": "uint16",
    "u4": "uint32", "u8": "uint64", "f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64",
    "c16": "complex128",
}  # fmt: skip
_NAIVE_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?", re.ASCII)
_EXACT_FLOAT = 2**53
_TEXT_WIDTH = 32


class TimestampForm(StrEnum):
    """How a segment's timestamps are kept."""

    FLOAT = "float"
    INTEGER = "integer"
    DATETIME = "datetime"
    TEXT = "text"


class Form(NamedTuple):
    """All that is constant within one segment of a stream."""

    subject: str
    dtype: np.dtype[Any]
    item_shape: tuple[int, ...]
    timestamp_form: TimestampForm
    timestamp_dtype: np.dtype[Any]

    def item_bytes(self) -> int:
        """Bytes of one item's data."""
        return int(np.prod(self.item_shape, dtype=np.int64)) * self.dtype.itemsize


class Block(NamedTuple):
    """Some items of a stream in the forms in which they are stored."""

    form: Form
    timestamps: Array
    data: Array

    def fitted(self, form: Form) -> Block | None:
        """Give these items in the form of a segment, or None where a value would change by it."""
        mine = self.form
        if (
            mine.subject != form.subject
            or mine.item_shape != form.item_shape
            or not _fits(form.dtype, mine.dtype)
        ):
            return None
        if mine.timestamp_form is not form.timestamp_form and not self._whole_seconds_fit(form):
            return None
        if form.timestamp_form is TimestampForm.TEXT and not _fits(
            form.timestamp_dtype, mine.timestamp_dtype
        ):
            return None
        stamps = self.timestamps.astype(form.timestamp_dtype, copy=False)
        return Block(form, stamps, self.data.astype(form.dtype, copy=False))

    def _whole_seconds_fit(self, form: Form) -> bool:
        kinds = (form.timestamp_form, self.form.timestamp_form)
        if kinds != (TimestampForm.FLOAT, TimestampForm.INTEGER):
            return False
        return not self.timestamps.size or _largest(self.timestamps) <= _EXACT_FLOAT


def block_of(subject: str | None, timestamps: Sequence[Any] | Array, data: Array) -> Block:
    """Bring items into the form in which they are stored (little-endian, C order).

    Raises:
        StoreError: The dtype can't be stored, or timestamps and items don't pair up; the text says which.
    """
    if data.ndim == 0 or len(timestamps) != len(data):
        raise StoreError(
            f"{len(timestamps)} timestamps came with an array of shape {data.shape}: give one for each item"
        )
    dtype = storable(data.dtype)
    form, stamps = _stamps(timestamps)
    items = np.ascontiguousarray(data, dtype=dtype).reshape(data.shape)
    return Block(Form(subject or "", dtype, data.shape[1:], form, stamps.dtype), stamps, items)


def storable(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Give the little-endian dtype under which values are stored.

    Raises:
        StoreError: The dtype has no place in a Zarr array: objects, records, long doubles.
    """
    plain = dtype.newbyteorder("<")
    if dtype.kind in "US":
        return plain if dtype.itemsize else np.dtype(f"<{dtype.kind}1")
    if plain.str[1:] in _CORE_NAMES or (dtype.kind in "mM" and np.datetime_data(dtype)[0] != "generic"):
        return plain
    raise StoreError(
        f"items of dtype {dtype} can't be stored: use numbers, booleans, text of fixed width or datetimes"
    )


def zarr_type(dtype: np.dtype[Any]) -> tuple[str | dict[str, Any], Any]:
    """Give Zarr's name for a dtype, and its fill value (which no committed chunk ever shows)."""
    code = dtype.str[1:]
    if code in _CORE_NAMES:
        fill: Any = False if dtype.kind == "b" else ([0.0, 0.0] if dtype.kind == "c" else 0)
        return _CORE_NAMES[code], float(fill) if dtype.kind == "f" else fill
    if dtype.kind in "mM":
        unit, scale = np.datetime_data(dtype)
        name = "numpy.datetime64" if dtype.kind == "M" else "numpy.timedelta64"
        return {"name": name, "configuration": {"unit": unit, "scale_factor": scale}}, "NaT"
    name = "fixed_length_utf32" if dtype.kind == "U" else "null_terminated_bytes"
    return {"name": name, "configuration": {"length_bytes": dtype.itemsize}}, ""


def _largest(integers: Array) -> int:
    return max(-int(integers.min()), int(integers.max()))


def _fits(room: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    return room == dtype or (
        room.kind in "US" and room.kind == dtype.kind and dtype.itemsize <= room.itemsize
    )


def _stamps(timestamps: Sequence[Any] | Array) -> tuple[TimestampForm, Array]:
    values = timestamps if isinstance(timestamps, np.ndarray) else list(timestamps)
    array = np.asarray(values) if not isinstance(values, list) or values else np.empty(0)
    if array.ndim != 1:
        raise StoreError(f"timestamps have shape {array.shape}: give one number or text for each item")
    if array.dtype.kind == "f" and array.dtype.itemsize <= 8:
        return TimestampForm.FLOAT, _floats(values, array)
    if array.dtype.kind in "iu" and array.dtype != np.uint64:
        return TimestampForm.INTEGER, array.astype("<i8")
    if array.dtype.kind == "M":
        return _datetimes(array)
    return _texts(array.tolist() if isinstance(values, np.ndarray) else values)


def _floats(values: list[Any] | Array, array: Array) -> Array:
    whole = [value for value in values if isinstance(value, int)] if isinstance(values, list) else []
    if any(abs(value) > _EXACT_FLOAT for value in whole):
        raise StoreError(
            "timestamps mix fractions with integers beyond 2**53, which no float holds: send one kind"
        )
    return array.astype("<f8")


def _datetimes(array: Array) -> tuple[TimestampForm, Array]:
    exact = array.astype("<M8[us]")
    if ((exact == array) | np.isnat(array)).all():
        return TimestampForm.DATETIME, exact
    return TimestampForm.TEXT, _padded(np.datetime_as_string(array).tolist())


def _texts(values: list[Any]) -> tuple[TimestampForm, Array]:
    texts = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    if not all(isinstance(text, str) for text in texts):
        kinds = sorted({type(value).__name__ for value in values})
        raise StoreError(
            f"timestamps of type {', '.join(kinds)} can't be stored: use seconds, integers below 2**63 "
            f"or text"
        )
    if all(_NAIVE_ISO.fullmatch(text) for text in texts):
        try:
            return TimestampForm.DATETIME, np.array(texts, dtype="<M8[us]")
        except ValueError:
            return TimestampForm.TEXT, _padded(texts)
    return TimestampForm.TEXT, _padded(texts)


def _padded(texts: list[str]) -> Array:
    if any(text.endswith("\0") for text in texts):
        raise StoreError(
            "a timestamp ends with a NUL character, which text of fixed width can't keep: send plain text"
        )
    return np.array(texts, dtype=f"<U{max(_TEXT_WIDTH, *map(len, texts))}")
