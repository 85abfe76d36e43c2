"""The inside of a parcel: a Message as MessagePack, its arrays as raw buffers beside it.

A body is the array [id, sender, to, value, timestamp, ttl, flags, extra]. A numpy array in it is the MessagePack
extension 1, holding [dtype, shape, order, data]: `data` is either the raw bytes, or the number of the frame behind
the head that carries them; a numpy scalar is extension 2 with the same content and no shape.

Law of this room: sizes are compared before anything is built from them, and nothing here can hold an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np

from pilotage.protocol.dtypes import parse_dtype
from pilotage.protocol.errors import ArrayRefused, InvalidMessage, MalformedArray, MalformedFrame
from pilotage.protocol.message import Message
from pilotage.protocol.records import Attached, Frame

ARRAY, SCALAR = 1, 2
OWN_FRAME_FROM_BYTES = 4096
MAX_NDIM = 32
MAX_DTYPE_CHARS = 4096

_FIELDS = ("id", "sender", "to", "value", "timestamp", "ttl", "flags")
_ENVELOPE = frozenset((*_FIELDS, "key", "blosc", "changed", "serialized"))


def encode_body(message: Message, *, hand_over: bool = False) -> tuple[bytes, Attached | int]:
    """Encode a message but for its key, which the parcel's header carries.

    Args:
        message: what to send.
        hand_over: its arrays won't be changed any more, so that they need not be copied.

    Returns:
        The body, and the raw frames of its arrays (0 for none).

    Raises:
        InvalidMessage: a value that can't be put on a wire.
        ArrayRefused: an array of Python objects.
    """
    fields = message.__dict__
    extra = {name: item for name, item in fields.items() if name not in _ENVELOPE}
    content = [*(getattr(message, name) for name in _FIELDS), extra]
    return encode_value(content, hand_over=hand_over)


def encode_value(
    value: object, *, hand_over: bool = False, own_frame_from: int = OWN_FRAME_FROM_BYTES
) -> tuple[bytes, Attached | int]:
    """Encode any value that a message may carry; see `encode_body`."""
    frames: list[Frame] = []

    def hook(item: object) -> object:
        if isinstance(item, np.ndarray):
            return msgspec.msgpack.Ext(ARRAY, _pack(item, frames, hand_over, own_frame_from))
        if isinstance(item, np.generic):
            return msgspec.msgpack.Ext(SCALAR, _pack(np.asarray(item), frames, hand_over, own_frame_from))
        raise InvalidMessage(
            f"a {type(item).__name__} can't be sent: {item!r:.80}; use numbers, text, lists, dicts and numpy arrays"
        )

    try:
        body = msgspec.msgpack.Encoder(enc_hook=hook).encode(value)
    except (TypeError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise InvalidMessage(f"the value can't be sent: {error}") from error
    return body, (Attached(frames) if frames else 0)


def decode_body(verb: str, body: Frame, frames: Sequence[Frame] = ()) -> Message:
    """Read a message back; its arrays are read-only views of what arrived.

    Raises:
        MalformedFrame: no such body.
        MalformedArray: an array whose description and bytes don't agree.
    """
    content = decode_value(body, frames)
    if not isinstance(content, list) or len(content) != len(_FIELDS) + 1:
        raise MalformedFrame("a message's body needs eight fields")
    *values, extra = content
    fields = dict(zip(_FIELDS, values, strict=True))
    if not isinstance(extra, dict) or not isinstance(fields["flags"], dict):
        raise MalformedFrame("a message's flags and extra fields must be maps")
    if (
        not isinstance(fields["id"], str)
        or not isinstance(fields["sender"], str)
        or type(fields["ttl"]) is not int
    ):
        raise MalformedFrame("a message's id and sender must be text, its ttl a whole number")
    return Message({**extra, **fields, "key": verb}) if extra else Message.from_parts(key=verb, **fields)


def decode_value(body: Frame, frames: Sequence[Frame] = ()) -> Any:
    """Read a value back; see `decode_body`."""

    def hook(code: int, data: memoryview) -> object:
        if code not in (ARRAY, SCALAR):
            raise MalformedArray(f"MessagePack extension {code} is not known here")
        array = _unpack(data, frames)
        return array[()] if code == SCALAR else array

    try:
        return msgspec.msgpack.Decoder(ext_hook=hook).decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedFrame(f"a message's body can't be read: {error}") from error


def _pack(array: np.ndarray, frames: list[Frame], hand_over: bool, own_frame_from: int) -> bytes:
    if array.dtype.hasobject:
        raise ArrayRefused(f"an array of dtype {array.dtype} holds Python objects; send numbers, or a list")
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    flat = array.T if order == "F" else array
    data: bytes | int
    if array.nbytes < own_frame_from:
        data = flat.tobytes()
    else:
        data = len(frames)
        contiguous = hand_over and flat.flags.c_contiguous
        frames.append(flat.reshape(-1).view(np.uint8).data if contiguous else flat.tobytes())
    dtype = array.dtype.descr if array.dtype.names else array.dtype.str
    return msgspec.msgpack.encode([dtype, array.shape, order, data])


def _unpack(description: memoryview, frames: Sequence[Frame]) -> np.ndarray:
    try:
        written, shape, order, data = msgspec.msgpack.decode(description)
        dtype = _dtype(written)
        shape = tuple(int(size) for size in shape)
        if type(data) is int:
            data = frames[data]
    except (ValueError, TypeError, IndexError, msgspec.DecodeError) as error:
        raise MalformedArray(f"an array's description can't be read: {error}") from error
    if len(shape) > MAX_NDIM or any(size < 0 for size in shape) or dtype.hasobject:
        raise MalformedArray(f"an array of {dtype} with {len(shape)} dimensions is not accepted")
    if not isinstance(data, (bytes, memoryview)) or dtype.itemsize * prod(shape) != len(data):
        raise MalformedArray(f"an array of {dtype} and shape {shape} does not fit its bytes")
    if dtype.itemsize == 0 or not len(data):
        return np.zeros(shape, dtype)
    array = np.frombuffer(data, dtype)
    return array.reshape(shape[::-1]).T if order == "F" else array.reshape(shape)


def _dtype(written: Any) -> np.dtype[Any]:
    if isinstance(written, str) and len(written) <= MAX_DTYPE_CHARS:
        return parse_dtype(written)
    if isinstance(written, list):
        return np.dtype([_field(field) for field in written])
    raise MalformedArray("an array's dtype must be a short text or a list of fields")


def _field(field: Any) -> tuple[Any, ...]:
    name, inner, *shape = field
    kind = np.dtype([_field(part) for part in inner]) if isinstance(inner, list) else parse_dtype(inner)
    return (name, kind, tuple(shape[0])) if shape else (name, kind)
