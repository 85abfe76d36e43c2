"""One durable send as it lies on the disk, and its bytes."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

import msgspec

Place = tuple[int, int, int]
"""(boot, flow, seq): which send it is, among all senders and all their lives."""

Row = tuple[int, int, bytes]
"""(number, checksum, bytes) of an entry; numbers grow in the order in which entries were kept."""

if TYPE_CHECKING:
    Frame = bytes | memoryview
else:
    Frame = bytes  # what is read back

OVERHEAD_BYTES: Final = 256
"""What an entry takes beside its body and frames, in memory and on the disk, about."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One durable send.

    Attributes:
        boot: the life of its originator, up to 63 bits.
        flow: the originator's number for its flow, up to 63 bits.
        seq: its place in the flow.
        path: names still to be reached; the last one is the recipient.
        verb: the message's key.
        name: the message's id.
        marks: see `protocol.records.Marks`.
        body: the message itself, opaque here.
        frames: the raw frames of its arrays, which must not change until it is kept; read back as `bytes`.
        deadline: wall-clock time in unix seconds after which it isn't sent any more; None for never.
    """

    boot: int
    flow: int
    seq: int
    path: tuple[str, ...]
    verb: str
    name: str
    marks: int
    body: bytes
    frames: tuple[Frame, ...] = ()
    deadline: float | None = None

    @property
    def place(self) -> Place:
        """Which send it is."""
        return (self.boot, self.flow, self.seq)


def weigh_entry(entry: Entry) -> int:
    """Tell about how many bytes an entry takes; cheap, for each send is weighed."""
    if entry.frames:
        return len(entry.body) + OVERHEAD_BYTES + sum(memoryview(frame).nbytes for frame in entry.frames)
    return len(entry.body) + OVERHEAD_BYTES


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def encode_row(number: int, entry: Entry) -> Row:
    """Make an entry's row.

    Raises:
        TypeError, ValueError, OverflowError, msgspec.MsgspecError: it holds what can't be written down.
    """
    content = _encoder.encode(entry)
    return (number, zlib.crc32(content), content)


def decode_row(checksum: object, content: object) -> Entry:
    """Read an entry back.

    Raises:
        ValueError: the bytes are not those that were written, or no entry.
    """
    if not isinstance(content, bytes) or zlib.crc32(content) != checksum:
        raise ValueError("its checksum doesn't fit")
    try:
        return _decoder.decode(content)
    except msgspec.MsgspecError as cause:
        raise ValueError(str(cause)) from cause
