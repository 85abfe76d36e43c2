"""Durable sends as they lie on the disk, those of a row together, and their bytes."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

import msgspec

Place = tuple[int, int, int]
"""(boot, flow, seq): which message it is, among all senders and all their lives."""

Span = tuple[int, int]
"""Messages that are over: the place of the first in their flow, and the one behind the last."""

Row = tuple[int, int, bytes]
"""(number, checksum, bytes) of an entry; numbers grow in the order in which entries were kept."""

if TYPE_CHECKING:
    Frame = bytes | memoryview
else:
    Frame = bytes  # what is read back

ENTRY_BYTES: Final = 128
MESSAGE_BYTES: Final = 128
"""What an entry, and each of its messages, takes beside bodies and frames, in memory and on the disk, about."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Messages that were sent in a row; each has the next place in the flow.

    Attributes:
        boot: the life of their originator, up to 63 bits.
        flow: the originator's number for their flow, up to 63 bits.
        seq: the place of the first one in the flow.
        path: names still to be reached; the last one is the recipient.
        verb: the messages' key.
        names: the messages' ids.
        marks: see `protocol.records.Marks`.
        bodies: the messages themselves, opaque here, as many as names.
        frames: the raw frames of its arrays, which must not change until it is kept; read back as `bytes`.
        deadline: wall-clock time in unix seconds after which it isn't sent any more; None for never.
    """

    boot: int
    flow: int
    seq: int
    path: tuple[str, ...]
    verb: str
    names: tuple[str, ...]
    marks: int
    bodies: tuple[bytes, ...]
    frames: tuple[Frame, ...] = ()
    deadline: float | None = None

    @property
    def place(self) -> Place:
        """Which message the first one is."""
        return (self.boot, self.flow, self.seq)


class _FirstEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An entry as version 1 of the file had it: one message."""

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

    def now(self) -> Entry:
        """Give it as it would be written now."""
        names, bodies = (self.name,), (self.body,)
        return Entry(
            self.boot,
            self.flow,
            self.seq,
            self.path,
            self.verb,
            names,
            self.marks,
            bodies,
            self.frames,
            self.deadline,
        )


def weigh_entry(entry: Entry) -> int:
    """Tell about how many bytes an entry takes; cheap, for each is weighed."""
    size = ENTRY_BYTES + MESSAGE_BYTES * len(entry.bodies) + sum(map(len, entry.bodies))
    return size + sum(memoryview(frame).nbytes for frame in entry.frames) if entry.frames else size


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)
_first_decoder = msgspec.msgpack.Decoder(_FirstEntry)


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
        entry = _decode(content)
    except msgspec.MsgspecError as cause:
        raise ValueError(str(cause)) from cause
    if not 0 < len(entry.bodies) == len(entry.names):
        raise ValueError(f"it has {len(entry.names)} ids for {len(entry.bodies)} messages")
    return entry


def _decode(content: bytes) -> Entry:
    try:
        return _decoder.decode(content)
    except msgspec.ValidationError:
        return _first_decoder.decode(content).now()
