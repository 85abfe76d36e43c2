"""Arrays as JSON documents: the three forms of the original, written and read.

Law: what is written, every peer of that form can read (with the oldest numpy and Python too); what is
read is judged by its own bytes, cross-checked with what stands beside it, and bounded before it is
unpacked. Nothing read is ever unpickled: see `packed`.
"""

from __future__ import annotations

import binascii
import pickle
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from pilotage.protocol.container import compress, decompress, is_chunk, store
from pilotage.protocol.dtypes import parse_dtype, plain_dtype, shorten
from pilotage.protocol.errors import ArrayRefused, InvalidMessage, MalformedArray
from pilotage.protocol.late import Array, np
from pilotage.protocol.layout import check_shape, lay_out
from pilotage.protocol.packed import MAX_BYTES, unpack

MAX_NESTING: Final = 100
_PACKING_BYTES: Final = 2**17
_ARRAY, _DTYPE, _SHAPE = "NUMPY_ARRAY", "DTYPE", "SHAPE"
_PICKLE_PROTOCOL: Final = 3


class ArrayForm(Enum):
    """How an array stands in a JSON document; peers of one form can't read another."""

    AUTOPILOT_03 = "one key, packed: Autopilot 0.3 and 0.4"
    AUTOPILOT_05 = "three keys, packed: Autopilot 0.5 with its blosc flag"
    RAW = "three keys, plain bytes: Autopilot 0.5 without its blosc flag"


def serialize_array(array: Array | np.generic) -> dict[str, Any]:
    """Pack an array as the documented one-key document.

    Args:
        array: any shape, layout and dtype but objects.

    Returns:
        `{'NUMPY_ARRAY': text}`, the text being the base64 of the packed array.

    Raises:
        ArrayRefused: a dtype that can't travel (objects), a masked array, or more than 256 MiB.

    Example:
        >>> decode_array(serialize_array(np.arange(3.0)))
        array([0., 1., 2.])
    """
    return encode_array(array, ArrayForm.AUTOPILOT_03)


def encode_array(array: Array | np.generic, form: ArrayForm, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Write an array as a JSON document of one form.

    Records have no raw form that a reader could parse: they are packed there too, which each reader
    of the raw form accepts.

    Args:
        array: a numpy array or scalar; any shape, layout and dtype but objects.
        form: whom it is for.
        max_bytes: the most bytes that the array may have.

    Returns:
        The document: one key, or three of which NUMPY_ARRAY is the first.

    Raises:
        ArrayRefused: a dtype that can't travel (objects), a masked array, or too large.
    """
    plain = _plain(array, max_bytes)
    if form is ArrayForm.AUTOPILOT_03:
        return {_ARRAY: _base64(store(_pack(plain), plain.itemsize))}
    if form is ArrayForm.RAW and plain.dtype.names is None:
        content = plain.tobytes()
    else:
        content = compress(_pack(plain), plain.itemsize)
    return {_ARRAY: _base64(content), _DTYPE: str(plain.dtype), _SHAPE: list(plain.shape)}


def _plain(array: Array | np.generic, max_bytes: int) -> Array | np.generic:
    if type(array) is not np.ndarray and isinstance(array, np.ma.MaskedArray):
        raise ArrayRefused("a masked array would lose its mask; send .filled(), or data and mask")
    dtype = plain_dtype(array.dtype)
    if array.nbytes > max_bytes:
        raise ArrayRefused(f"{array.nbytes} bytes exceed an array's limit of {max_bytes}; send it in parts")
    if isinstance(array, np.generic) and dtype.names is None:
        return array
    return (
        np.asarray(array).view(dtype) if array.dtype.names is not None else _relabel(np.asarray(array), dtype)
    )


def _relabel(array: Array, dtype: np.dtype[Any]) -> Array:
    return array if array.dtype.metadata is None else array.view(dtype)


def _pack(array: Array | np.generic) -> bytes:
    """Pickle with the names that every numpy knows and the protocol that every Python 3 reads."""
    packed = pickle.dumps(array, protocol=_PICKLE_PROTOCOL)
    new, old = b"\x80\x03cnumpy._core.", b"\x80\x03cnumpy.core."
    return old + packed[len(new) :] if packed.startswith(new) else packed


def _base64(content: bytes) -> str:
    return binascii.b2a_base64(content, newline=False).decode("ascii")


def is_array_document(value: object) -> bool:
    """Tell whether a JSON value stands for an array: one key or three, NUMPY_ARRAY among them."""
    return isinstance(value, dict) and len(value) in (1, 3) and _ARRAY in value


def decode_array(document: Mapping[str, Any], max_bytes: int = MAX_BYTES) -> Array:
    """Read an array from any of the forms.

    Args:
        document: a dict for which `is_array_document` holds.
        max_bytes: the most bytes that the array may have, checked before anything is unpacked.

    Returns:
        The array: writeable if it came packed, read-only if raw; a numpy scalar comes as 0-d array.

    Raises:
        MalformedArray: no such document, broken base64, container or content, sizes that contradict
            each other or exceed `max_bytes`, or anything but plain numbers, text and times.
        MachineError: the array is compressed and blosc2 isn't installed.
    """
    if not is_array_document(document):
        raise MalformedArray("an array document has the key NUMPY_ARRAY, alone or with DTYPE and SHAPE")
    content = _content(document[_ARRAY], max_bytes)
    if len(document) == 1:
        return unpack(decompress(content, max_bytes + _PACKING_BYTES), max_bytes)
    if _DTYPE not in document or _SHAPE not in document:
        raise MalformedArray("an array document of three keys lacks DTYPE or SHAPE")
    if not is_chunk(content):
        return _raw(content, document, max_bytes)
    try:
        return _cross_checked(unpack(decompress(content, max_bytes + _PACKING_BYTES), max_bytes), document)
    except MalformedArray as cause:
        return _raw_after(cause, content, document, max_bytes)


def _content(text: object, max_bytes: int) -> bytes:
    if not isinstance(text, str):
        raise MalformedArray(f"NUMPY_ARRAY holds {shorten(text)}, not base64 text")
    if len(text) > (max_bytes + _PACKING_BYTES) * 4 // 3 + 4:
        raise MalformedArray(f"NUMPY_ARRAY holds {len(text)} characters, more than {max_bytes} bytes need")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as cause:
        raise MalformedArray(f"NUMPY_ARRAY is not base64: {cause}") from cause


def _raw(content: bytes, document: Mapping[str, Any], max_bytes: int) -> Array:
    return lay_out(content, parse_dtype(document[_DTYPE]), check_shape(document[_SHAPE]), "C", max_bytes)


def _raw_after(cause: MalformedArray, content: bytes, document: Mapping[str, Any], max_bytes: int) -> Array:
    """Take bytes that only look like a container as what they are; else keep to the first finding."""
    try:
        return _raw(content, document, max_bytes)
    except MalformedArray:
        raise cause from None


def _cross_checked(array: Array, document: Mapping[str, Any]) -> Array:
    name, shape = document[_DTYPE], check_shape(document[_SHAPE])
    if shape != array.shape:
        raise MalformedArray(f"SHAPE says {list(shape)}, the packed array has {list(array.shape)}")
    if array.dtype.names is not None:
        agrees = isinstance(name, str) and name[:1] in ("[", "{")
    else:
        agrees = parse_dtype(name) == array.dtype
    if not agrees:
        raise MalformedArray(f"DTYPE says {shorten(name)}, the packed array has {array.dtype.str}")
    return array


def expand_arrays(value: Any, max_bytes: int = MAX_BYTES) -> Any:
    """Replace each array document inside a value by its array.

    Args:
        value: nested dicts, lists and tuples; anything else is passed on.
        max_bytes: the most bytes that all arrays together may have.

    Returns:
        A new value with the arrays in place.

    Raises:
        MalformedArray: see `decode_array`; or nested deeper than `MAX_NESTING`.
        MachineError: an array is compressed and blosc2 isn't installed.
    """
    return _Expansion(max_bytes).walk(value, 0)


class _Expansion:
    """One walk through one value; its arrays share one bound, so that many small texts can't add up."""

    __slots__ = ("left",)

    def __init__(self, max_bytes: int) -> None:
        self.left = max_bytes

    def walk(self, value: Any, depth: int) -> Any:
        if depth > MAX_NESTING:
            raise MalformedArray(f"a value is nested deeper than {MAX_NESTING} levels")
        below = depth + 1
        if isinstance(value, dict):
            if is_array_document(value):
                return self.decode(value)
            return {k: self.walk(v, below) if isinstance(v, _CONTAINERS) else v for k, v in value.items()}
        if isinstance(value, list | tuple):
            items = [self.walk(v, below) if isinstance(v, _CONTAINERS) else v for v in value]
            return items if isinstance(value, list) else tuple(items)
        return value

    def decode(self, document: Mapping[str, Any]) -> Array:
        array = decode_array(document, self.left)
        self.left -= array.nbytes
        return array


_CONTAINERS: Final = (dict, list, tuple)
_PLAIN: Final = frozenset((str, int, float, bool, type(None)))


def collapse_arrays(value: Any, form: ArrayForm) -> Any:
    """Replace each array inside a value by its document; numpy numbers that JSON knows become plain.

    As with the original, numpy's float64 is a plain number and other scalars travel as arrays
    without axes; numpy booleans become plain ones.

    Args:
        value: nested dicts, lists and tuples; anything else is passed on.
        form: whom it is for.

    Returns:
        A new value without arrays.

    Raises:
        ArrayRefused: see `encode_array`.
        InvalidMessage: nested deeper than `MAX_NESTING`, perhaps in itself.
    """
    return _collapse(value, form, 0)


def _collapse(value: Any, form: ArrayForm, depth: int) -> Any:
    if depth > MAX_NESTING:
        raise InvalidMessage(f"value nested deeper than {MAX_NESTING} levels; flatten it, or look for a loop")
    if isinstance(value, dict):
        below = depth + 1
        return {k: v if type(v) in _PLAIN else _collapse(v, form, below) for k, v in value.items()}
    if isinstance(value, list | tuple):
        items = [v if type(v) in _PLAIN else _collapse(v, form, depth + 1) for v in value]
        return items if isinstance(value, list) else tuple(items)
    return collapse_leaf(value, form) if isinstance(value, np.ndarray | np.generic) else value


def collapse_leaf(value: Array | np.generic, form: ArrayForm) -> Any:
    """Give one numpy array or scalar as JSON may carry it.

    Args:
        value: the array or scalar.
        form: whom it is for.

    Returns:
        A plain number, boolean or text where JSON has it, else the array's document.

    Raises:
        ArrayRefused: see `encode_array`.
    """
    if isinstance(value, float | str):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    return encode_array(value, form)
