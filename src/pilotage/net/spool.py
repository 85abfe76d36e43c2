"""A spool: batches of a stream that don't fit into memory wait on the disk, in order, within a bound.

It is not the journal: that keeps on the disk what is in memory as well, so that it outlives the process; a spool keeps
what is nowhere else, so that memory stays small. Law of this room: its files have no names, so that nothing is left
of them when their process ends, however it ends.
"""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from pilotage.protocol.bodies import decode_value, encode_value
from pilotage.protocol.errors import MachineError
from pilotage.protocol.records import Frame

SEGMENT_BYTES = 64 * 2**20
"""The disk has a file's room back when all of the file was taken out."""


class _Segment(msgspec.Struct):
    file: Any
    written: int = 0


class _Batch(msgspec.Struct):
    segment: _Segment
    begin: int
    sizes: list[int]
    items: int


class Spool:
    """A queue on the disk, for one who calls it under a lock of his own.

    Args:
        folder: where its files lie; made if missing.
        max_bytes: that it may take there, and one batch more.

    Attributes:
        items: that are in it.
        bytes: that its files take.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.items = 0
        self.bytes = 0
        self._batches: deque[_Batch] = deque()
        self._segments: deque[_Segment] = deque()

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def is_full(self) -> bool:
        """Tell whether it takes no more for now."""
        return self.bytes >= self.max_bytes

    def put(self, batch: list[Any]) -> None:
        """Add a batch.

        Raises:
            MisuseError: one of its items can't be sent.
            MachineError: the disk doesn't take it; the spool is as before.
        """
        body, attached = encode_value(batch, hand_over=True)
        frames: list[Frame] = [body, *(attached.frames if not isinstance(attached, int) else ())]
        try:
            segment = self._segment()
            segment.file.seek(segment.written)
            for frame in frames:
                _write_all(segment.file, memoryview(frame))
        except OSError as error:
            raise MachineError(f"a stream can't be spooled in {str(self.folder)!r}: {error}") from error
        sizes = [len(frame) for frame in frames]
        self._batches.append(_Batch(segment, segment.written, sizes, len(batch)))
        segment.written += sum(sizes)
        self.bytes += sum(sizes)
        self.items += len(batch)

    def take(self) -> list[Any]:
        """Take the oldest batch out; its arrays are views of what was read.

        Raises:
            MachineError: the disk doesn't give it back; it is lost.
        """
        batch = self._batches.popleft()
        self.items -= batch.items
        try:
            batch.segment.file.seek(batch.begin)
            frames = [_read_all(batch.segment.file, size) for size in batch.sizes]
        except OSError as error:
            raise MachineError(f"{batch.items} spooled items can't be read: {error}") from error
        finally:
            self._tidy()
        value: list[Any] = decode_value(frames[0], frames[1:])
        return value

    def close(self) -> None:
        """Give the disk its room back."""
        self._batches.clear()
        self._tidy()

    def _segment(self) -> _Segment:
        if not self._segments or self._segments[-1].written >= SEGMENT_BYTES:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(buffering=0, dir=self.folder)  # noqa: SIM115 - it lives as long as its content
            self._segments.append(_Segment(file))
        return self._segments[-1]

    def _tidy(self) -> None:
        """Let go of files of which all was taken out."""
        oldest = self._batches[0].segment if self._batches else None
        while self._segments and self._segments[0] is not oldest:
            segment = self._segments.popleft()
            self.bytes -= segment.written
            segment.file.close()


def _write_all(file: Any, content: memoryview) -> None:
    while content:
        content = content[file.write(content) :]


def _read_all(file: Any, size: int) -> bytes:
    content: bytes = file.read(size)
    if len(content) != size:
        raise OSError(f"{len(content)} of {size} bytes are there")
    return content
