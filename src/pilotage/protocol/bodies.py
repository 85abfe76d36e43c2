"""The inside of a parcel: a Message as MessagePack, its arrays as raw buffers beside it.

A body is the array [id, sender, to, value, timestamp, ttl, flags, extra]. A numpy array in it is the MessagePack
extension 1, holding [dtype, shape, order, data]: `data` is the raw bytes, or the number of the frame behind the head
that they are, or [number, first byte] where several arrays share a frame, for a frame costs more than a copy of a
few kilobytes. A numpy scalar is extension 2 with the same content and no shape. Extension 3 is an array whose bytes are
compressed, in a blosc2 container.

Law of this room: sizes are compared before anything is built from them, and nothing here can hold an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, Literal, TypeAlias

import msgspec

from pilotage.protocol.bounds import UNCHECKED_BYTES, check_msgpack
from pilotage.protocol.dtypes import MAX_FIELDS, parse_dtype
from pilotage.protocol.errors import ArrayRefused, InvalidMessage, MalformedArray, MalformedFrame
from pilotage.protocol.late import np
from pilotage.protocol.message import Message
from pilotage.protocol.records import Attached, Frame
from pilotage.protocol.squeezed import Inflation, Squeezed

ARRAY, SCALAR, SQUEEZED = 1, 2, 3
BESIDE_FROM_BYTES = 4096
"""An array of fewer bytes is part of the body."""

OWN_FRAME_FROM_BYTES = 32_768
"""One of fewer bytes shares a frame with others."""

SHARED_FRAME_BYTES = 1024 * 1024
"""A shared frame that has as many bytes takes no more arrays."""

_ALIGNED = 16
_PADDING = bytes(_ALIGNED)
REMEMBERED_BYTES = 64
"""A longer description holds data of its own, or many fields: it is read anew each time."""

BUFFERED = "biufc"
"""Kinds of numbers that Python's buffers know; not dates, text and records."""

MAX_BODY_BYTES = 60 * 2**20
"""What fits into a transmission's head with room for its header: nobody would read a longer one."""
MAX_NDIM = 32
MAX_DTYPE_CHARS = 4096
MAX_SPREAD = 2**62
"""Bytes that an array's shape may span, an empty one's too: numpy counts no further."""

_FOUR_FIELDS = 0x94
"""What MessagePack begins an array of four parts with."""

_Description: TypeAlias = "tuple[np.dtype[Any], tuple[int, ...], int, Literal['C', 'F'], Any, list[Any]]"
_ENVELOPE = frozenset(
    ("id", "sender", "to", "value", "timestamp", "ttl", "flags", "key", "blosc", "changed", "serialized")
)


class Content(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What a message's body holds: the message but for its key.

    Attributes:
        name: its id.
        sender: who has sent it.
        to: its recipient, or the names on the way.
        value: what it says.
        timestamp: when it was made.
        ttl: how often it may be transmitted.
        flags: see `Flag`.
        extra: all fields beside those above.
    """

    name: str
    sender: str
    to: Any
    value: Any
    timestamp: Any
    ttl: int
    flags: dict[Any, Any]
    extra: dict[Any, Any]


class _HasArrays(Exception):
    """A body holds arrays, for which the quick way is not made."""


def _stop_at_arrays(code: int, data: memoryview) -> object:
    raise _HasArrays


encode_plain = msgspec.msgpack.Encoder().encode
"""Encodes a value without arrays; raises one of `NOT_PLAIN` for others, and for what can't be sent at all."""

NOT_PLAIN = (TypeError, OverflowError, RecursionError, UnicodeEncodeError)
_plain_decoder = msgspec.msgpack.Decoder(ext_hook=_stop_at_arrays)
_content_decoder = msgspec.msgpack.Decoder(Content, ext_hook=_stop_at_arrays)


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
    names = fields.keys()
    extra = {} if names <= _ENVELOPE else {name: fields[name] for name in names - _ENVELOPE}
    content = (
        str(message.id),
        str(message.sender),
        message.to,
        message.value,
        message.timestamp,
        message.ttl,
        message.flags,
        extra,
    )
    return encode_value(content, hand_over=hand_over)


def encode_value(
    value: object, *, hand_over: bool = False, beside_from: int = BESIDE_FROM_BYTES
) -> tuple[bytes, Attached | int]:
    """Encode any value that a message may carry; see `encode_body`."""
    attached: Attached | int = 0
    try:
        body = encode_plain(value)
    except NOT_PLAIN:
        body, attached = _encode_with_arrays(value, _Beside(hand_over, beside_from))
    if len(body) > MAX_BODY_BYTES:
        raise InvalidMessage(
            f"a message of {len(body)} bytes beside its arrays is too long (at most {MAX_BODY_BYTES}): "
            "send numbers and bytes as arrays, or in parts"
        )
    return body, attached


class _Beside:
    """Where the bytes of one body's arrays go: into it, into a frame that they share, or into one of their own."""

    def __init__(self, hand_over: bool, beside_from: int) -> None:
        self._hand_over = hand_over
        self._beside_from = beside_from
        self._frames: list[Frame] = []
        self._shared: dict[int, list[Any]] = {}
        self._at = 0
        self._size = SHARED_FRAME_BYTES

    def place(self, flat: np.ndarray, *, is_whole: bool = True) -> bytes | int | tuple[int, int]:
        """Give what stands for an array's bytes in its description; `is_whole` if they lie one behind the other."""
        size = flat.nbytes
        if size < self._beside_from:
            return flat.tobytes()
        if size < OWN_FRAME_FROM_BYTES:
            return self._share(flat if is_whole and flat.dtype.kind in BUFFERED else flat.tobytes(), size)
        self._frames.append(_raw(flat) if self._hand_over and is_whole else flat.tobytes())
        return len(self._frames) - 1

    def _share(self, content: Any, size: int) -> tuple[int, int]:
        if self._size >= SHARED_FRAME_BYTES:
            self._at, self._size = len(self._frames), 0
            self._shared[self._at] = []
            self._frames.append(b"")
        begin, gap = self._size, -size % _ALIGNED
        self._shared[self._at] += (content, _PADDING[:gap]) if gap else (content,)
        self._size += size + gap
        return self._at, begin

    def frames(self) -> Attached | int:
        """Give the frames; 0 for none."""
        for at, parts in self._shared.items():
            self._frames[at] = b"".join(parts)
        return Attached(self._frames) if self._frames else 0


def _raw(flat: np.ndarray) -> memoryview:
    """Give a contiguous array's bytes."""
    if flat.dtype.kind in BUFFERED and flat.size:
        return flat.data.cast("B")
    return flat.reshape(-1).view(np.uint8).data


def _encode_with_arrays(value: object, beside: _Beside) -> tuple[bytes, Attached | int]:
    def hook(item: object) -> object:
        if isinstance(item, np.ndarray):
            return msgspec.msgpack.Ext(ARRAY, _pack(item, beside))
        if isinstance(item, Squeezed):
            return msgspec.msgpack.Ext(SQUEEZED, _pack(item.array, beside, item.content))
        if isinstance(item, np.generic):
            return msgspec.msgpack.Ext(SCALAR, _pack(np.asarray(item), beside))
        raise InvalidMessage(
            f"a {type(item).__name__} can't be sent: {item!r:.80}; use numbers, text, lists, dicts and numpy arrays"
        )

    try:
        body = msgspec.msgpack.Encoder(enc_hook=hook).encode(value)
    except (TypeError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise InvalidMessage(f"the value can't be sent: {error}") from error
    return body, beside.frames()


def decode_body(verb: str, body: Frame, frames: Sequence[Frame] = ()) -> Message:
    """Read a message back; its arrays are read-only views of what arrived.

    Raises:
        MalformedFrame: no such body.
        MalformedArray: an array whose description and bytes don't agree.
    """
    content = read_content(body, frames)
    message = Message.from_parts(
        id=content.name,
        sender=content.sender,
        to=content.to,
        key=verb,
        value=content.value,
        timestamp=content.timestamp,
        ttl=content.ttl,
        flags=content.flags,
    )
    return Message({**content.extra, **message.__dict__}) if content.extra else message


def read_content(body: Frame, frames: Sequence[Frame] = ()) -> Content:
    """Read what a message holds, without making the message; see `decode_body`.

    Raises:
        MalformedFrame: no such body.
        MalformedArray: an array whose description and bytes don't agree.
    """
    content: Content = _decode(_content_decoder, body, frames)
    return content


def decode_value(body: Frame, frames: Sequence[Frame] = ()) -> Any:
    """Read a value back; see `decode_body`."""
    return _decode(_plain_decoder, body, frames)


def _decode(decoder: msgspec.msgpack.Decoder[Any], body: Frame, frames: Sequence[Frame]) -> Any:
    """Read a body, which has arrays only seldom."""
    if len(body) > UNCHECKED_BYTES:
        check_msgpack(body)
    if frames:
        return _decode_with_arrays(decoder.type, body, frames)
    try:
        return decoder.decode(body)
    except _HasArrays:
        return _decode_with_arrays(decoder.type, body, frames)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedFrame(f"a message's body can't be read: {error}") from error


def _decode_with_arrays(kind: Any, body: Frame, frames: Sequence[Frame]) -> Any:
    inflation = Inflation()

    def hook(code: int, data: memoryview) -> object:
        if code not in (ARRAY, SCALAR, SQUEEZED):
            raise MalformedArray(f"MessagePack extension {code} is not known here")
        array = _unpack(data, frames, inflation if code == SQUEEZED else None)
        return _scalar(array) if code == SCALAR else array

    try:
        return msgspec.msgpack.Decoder(kind, ext_hook=hook).decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedFrame(f"a message's body can't be read: {error}") from error


def _scalar(array: np.ndarray) -> Any:
    """Give the one value of an array.

    Raises:
        MalformedArray: its bytes are none.
    """
    try:
        return array[()]
    except (SystemError, ValueError) as error:
        raise MalformedArray(f"a number or text of {array.dtype} can't be read: {error}") from error


def _pack(array: np.ndarray, beside: _Beside, content: np.ndarray | None = None) -> bytes:
    flags = array.flags
    is_whole = flags.c_contiguous or flags.f_contiguous
    order = "C" if flags.c_contiguous or not is_whole else "F"
    # Of times, dtypes with different units may be equal to numpy.
    describe = _described_form if array.dtype.kind in BUFFERED else _new_described_form
    described = describe(array.dtype, array.shape, order)
    if content is not None:
        placed = encode_plain(beside.place(content)) + encode_plain(content.nbytes)
        return bytes((_FOUR_FIELDS + 1,)) + described + placed
    place = beside.place(array.T if order == "F" else array, is_whole=is_whole)
    return bytes((_FOUR_FIELDS,)) + described + encode_plain(place)


def _new_described_form(dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> bytes:
    """Encode what a description says before it tells where an array's bytes are.

    Raises:
        ArrayRefused: an array of that kind can't be sent.
    """
    if dtype.kind == "V" and dtype.names is None:
        raise ArrayRefused(
            f"an array of dtype {dtype} holds bytes without a meaning; send uint8, or a record"
        )
    if dtype.hasobject:
        raise ArrayRefused(f"an array of dtype {dtype} holds Python objects; send numbers, or a list")
    written = dtype.descr if dtype.names else dtype.str
    return b"".join(map(encode_plain, (written, shape, order)))


_described_form = lru_cache(1024)(_new_described_form)
"""The same for what was asked before: most arrays have the form of the one before them."""


def _unpack(
    description: memoryview, frames: Sequence[Frame], inflation: Inflation | None = None
) -> np.ndarray:
    is_short = len(description) <= REMEMBERED_BYTES
    try:
        found = _read_description(bytes(description)) if is_short else _newly_read_description(description)
        dtype, sizes, size, order, data, stored = found
        content, at, length = _place(data, stored[0] if stored else size, frames)
        if inflation is not None:
            # A copy: what is checked must stay as it is until it is unpacked, and may lie in shared memory.
            content, at, length = (
                inflation.inflate(bytes(memoryview(content)[at : at + length]), size),
                0,
                size,
            )
        if length != size or at + length > len(content):
            raise MalformedArray(f"an array of {dtype} and shape {sizes} does not fit its bytes")
        if not size:
            return np.zeros(sizes, dtype)
        array = np.ndarray(sizes, dtype, content, at, order=order)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise MalformedArray(f"an array's description can't be read: {error}") from error
    array.setflags(write=False)
    return array


def _newly_read_description(description: bytes | memoryview) -> _Description:
    """Read an array's description.

    Raises:
        MalformedArray: no array of that form is accepted, or it is none.
        ValueError: the same; and TypeError, OverflowError.
    """
    check_msgpack(description)
    written, shape, order, data, *stored = msgspec.msgpack.decode(description)
    if type(shape) is not list:
        raise MalformedArray("an array's shape must be a list")
    form = _form(written, tuple(shape)) if type(written) is str else _new_form(written, shape)
    return *form, "F" if order == "F" else "C", data, stored


_read_description = lru_cache(4096)(_newly_read_description)
"""The same for what was asked before: the arrays of a stream are described alike from batch to batch."""


def _place(data: Any, size: Any, frames: Sequence[Frame]) -> tuple[Frame, int, int]:
    """Tell where an array's bytes lie: in what, from which on, and how many there are.

    Raises:
        MalformedArray: a part of a frame that can't be there.
        IndexError: no such frame.
        TypeError: no place.
    """
    if type(data) is not list:
        content = frames[data] if type(data) is int and data >= 0 else data
        return content, 0, memoryview(content).nbytes
    number, begin = data
    if not (type(number) is type(begin) is type(size) is int) or number < 0 or begin < 0 or size < 0:
        raise MalformedArray(f"an array can't lie at {begin!r:.20} of frame {number!r:.20}")
    return frames[number], begin, size


def _new_form(written: Any, shape: Sequence[Any]) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Read an array's dtype and shape, and tell how many bytes it has.

    Raises:
        MalformedArray: no array of that form is accepted.
    """
    if len(shape) > MAX_NDIM:
        raise MalformedArray(f"an array with {len(shape)} dimensions is not accepted")
    dtype = _dtype(written)
    sizes = tuple([int(size) for size in shape])
    spread = prod([max(1, one) for one in sizes]) * max(1, dtype.itemsize)
    if min(sizes, default=0) < 0 or dtype.hasobject or spread > MAX_SPREAD:
        raise MalformedArray(f"an array of {dtype} with {len(sizes)} dimensions is not accepted")
    return dtype, sizes, dtype.itemsize * prod(sizes)


_form = lru_cache(1024)(_new_form)
"""The same for what was asked before: most arrays have the form of the one before them."""


def _dtype(written: Any) -> np.dtype[Any]:
    if isinstance(written, str) and len(written) <= MAX_DTYPE_CHARS:
        return parse_dtype(written)
    if isinstance(written, list) and len(written) <= MAX_FIELDS:
        return np.dtype([_field(field) for field in written])
    raise MalformedArray("an array's dtype must be a short text or a list of fields")


def _field(field: Any) -> tuple[Any, ...]:
    name, inner, *shape = field
    kind = np.dtype([_field(part) for part in inner]) if isinstance(inner, list) else parse_dtype(inner)
    return (name, kind, tuple(shape[0])) if shape else (name, kind)
