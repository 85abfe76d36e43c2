"""The writer's side of streams: unfilled tails as rows in SQLite, full chunks as files.

Law: memory follows the database. After a transaction that failed, `reload` reads everything anew, and
nothing that was not committed survives in memory, in rows or in files.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pilotage.protocol.errors import StoreError
from pilotage.services.store.chunks import Layout, Sync, Unsynced, sync_folder
from pilotage.services.store.forms import Array, Block, Form, TimestampForm
from pilotage.services.store.mirror import Mirror, drop_unknown

CHUNK_ITEMS = 65_536
"""Items in a chunk at most, however small they are: a tail stays quick to gather."""

JOINED_BYTES = 65_536
"""Pieces of a tail below that are joined in memory: each is two arrays, which take more than small items."""

MAX_SEGMENTS = 256
"""Changes of form that one stream may make in a session."""


Piece = tuple[Array, Array]
"""Timestamps and the items that belong to them."""

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Segment:
    """One segment's layout, its committed length in chunks, and the items that fill no chunk yet."""

    id: int
    number: int
    layout: Layout
    chunked: int
    shown: int
    tail: list[Piece] = field(default_factory=list)
    tail_rows: int = 0
    waiting: list[Piece] = field(default_factory=list)
    listed: bool = True

    def append(self, piece: Piece) -> None:
        """Add to the tail. Small pieces are joined to those before, if no larger: few stay, few are copied."""
        self.tail_rows += len(piece[0])
        while self.tail:
            before, count = self.tail[-1], len(piece[0])
            if len(before[0]) > count or before[1].nbytes >= JOINED_BYTES:
                break
            stamps, items = (
                first.tobytes() + second.tobytes() for first, second in zip(before, piece, strict=True)
            )
            piece = _unpacked(self.layout.form, len(before[0]) + count, stamps, items)
            del self.tail[-1]
        self.tail.append(piece)


class StreamWriter:
    """All streams of a session, for the writer's thread alone.

    Args:
        connection: The writer's connection.
        root: The Zarr group of the session.
        chunk_bytes: Bytes of data in a chunk, about; a larger item makes a chunk by itself.
        compressor: For segments that begin from now on.
        sync: Puts a file on the disk.
    """

    def __init__(
        self, connection: sqlite3.Connection, root: Path, chunk_bytes: int, compressor: str, sync: Sync
    ) -> None:
        """Keep what is needed; `recover` or `reload` reads the state."""
        self._connection = connection
        self._root = root
        self._chunk_bytes = chunk_bytes
        self._compressor = compressor
        self._sync = sync
        self._unsynced = Unsynced(sync)
        self._segments: dict[tuple[str, str], Segment] = {}
        self._touched: dict[str, Segment] = {}
        self._mirror = Mirror(root, sync)

    def recover(self) -> None:
        """Bring every array to its committed length, remove what never was committed, read the tails."""
        rows = stream_rows(self._connection, self._root)
        for row in rows:
            self._mirror.show(row.layout, row.chunked)
            row.layout.drop_beyond(row.chunked)
        self._mirror.show_tree()
        for _ in drop_unknown(self._root, {row.layout.path for row in rows}):
            sync_folder(self._root, self._sync)
        self.reload()

    def reload(self) -> None:
        """Forget what isn't committed, in memory and in files."""
        self._unsynced.drop()
        uncommitted, self._touched, self._segments = self._touched, {}, {}
        self._mirror.clear()
        for row in stream_rows(self._connection, self._root):
            before = uncommitted.pop(row.layout.path, None)
            self._mirror.note(row.layout, row.chunked)
            shown = self._undo(row, before.shown) if before else row.chunked
            segment = Segment(row.id, row.segment, row.layout, row.chunked, shown)
            for _, stamps, items in read_tail(self._connection, row):
                segment.append((stamps, items))
            self._segments[row.pilot, row.name] = segment
        for segment in uncommitted.values():
            shutil.rmtree(segment.layout.folder, ignore_errors=True)

    def close(self) -> None:
        """Put the mirror on the disk, and let go."""
        self._unsynced.close()  # first: what follows may fail
        for row in stream_rows(self._connection, self._root):
            self._mirror.show(row.layout, row.chunked, safe=True)
        self._mirror.show_tree(safe=True)

    def add(self, pilot: str, name: str, block: Block) -> None:
        """Take items into the running transaction; `write` puts them into rows and files.

        Raises:
            StoreError: The stream changed its form too often; nothing was taken.
        """
        segment = self._segments.get((pilot, name))
        fitted = block.fitted(segment.layout.form) if segment else None
        if segment is None or fitted is None:
            segment, fitted = (
                self._begin(pilot, name, block.form, segment.number + 1 if segment else 0),
                block,
            )
        segment.waiting.append((fitted.timestamps, fitted.data))
        self._touched[segment.layout.path] = segment

    def write(self) -> None:
        """Write full chunks and rest rows of everything that was added."""
        before = {path: segment.shown for path, segment in self._touched.items()}
        for segment in self._touched.values():
            self._write_segment(segment)
        self._unsynced.sync()
        for path, segment in self._touched.items():
            if segment.shown != before[path]:
                self._mirror.show(segment.layout, segment.shown)
        if any(
            segment.shown != before[path] or not segment.listed for path, segment in self._touched.items()
        ):
            self._mirror.show_tree()
            for segment in self._touched.values():
                segment.listed = True

    def committed(self) -> None:
        """Note that the transaction is on the disk."""
        self._touched.clear()

    def _write_segment(self, segment: Segment) -> None:
        fresh, segment.waiting = segment.waiting, []
        rows = segment.tail_rows + sum(len(stamps) for stamps, _ in fresh)
        if rows >= segment.layout.chunk_rows:
            fresh = self._write_chunks(segment, segment.tail + fresh, rows)
        self._keep_tail(segment, fresh)
        statement = "UPDATE streams SET chunked = ?, length = ? WHERE id = ?"
        self._connection.execute(
            statement, (segment.chunked, segment.chunked + segment.tail_rows, segment.id)
        )

    def _write_chunks(self, segment: Segment, pieces: list[Piece], rows: int) -> list[Piece]:
        layout = segment.layout
        first = segment.chunked // layout.chunk_rows
        for index in range(first, first + rows // layout.chunk_rows):
            chunk, pieces = _split(pieces, layout.chunk_rows)
            layout.write(
                index, [stamps for stamps, _ in chunk], [items for _, items in chunk], self._unsynced
            )
        segment.chunked += rows - rows % layout.chunk_rows
        segment.shown = segment.chunked
        self._connection.execute("DELETE FROM stream_tail WHERE stream = ?", (segment.id,))
        segment.tail, segment.tail_rows = [], 0
        return pieces

    def _keep_tail(self, segment: Segment, pieces: list[Piece]) -> None:
        count = sum(len(stamps) for stamps, _ in pieces)
        if not count:
            return
        stamps = b"".join(stamps.tobytes() for stamps, _ in pieces)
        items = b"".join(items.tobytes() for _, items in pieces)
        row = (segment.id, segment.chunked + segment.tail_rows, count, stamps, items)
        self._connection.execute("INSERT INTO stream_tail VALUES (?, ?, ?, ?, ?)", row)
        segment.append(_unpacked(segment.layout.form, count, stamps, items))

    def _begin(self, pilot: str, name: str, form: Form, number: int) -> Segment:
        if number >= MAX_SEGMENTS:
            raise StoreError(
                f"stream {name!r} of pilot {pilot!r} changed its dtype, shape, subject or kind of timestamps "
                f"{MAX_SEGMENTS} times in this session: send items of one form under one name"
            )
        path = self._free_path(pilot, name)
        chunk_rows = max(1, min(CHUNK_ITEMS, self._chunk_bytes // max(1, form.item_bytes())))
        shape, stamps = json.dumps(form.item_shape), _form_text(form)
        cursor = self._connection.execute(
            "INSERT INTO streams (pilot, name, segment, subject, path, dtype, item_shape, timestamp_form, "
            "compressor, chunk_rows, chunked, length) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)",
            (
                pilot,
                name,
                number,
                form.subject,
                path,
                form.dtype.str,
                shape,
                stamps,
                self._compressor,
                chunk_rows,
            ),
        )
        label = {"pilot": pilot, "stream": name, "segment": number, "subject": form.subject}
        layout = Layout(self._root, path, form, chunk_rows, self._compressor, label)
        layout.make()
        self._mirror.show(layout, 0)
        sync_folder(self._root, self._sync)
        sync_folder(layout.folder.parent, self._sync)
        segment = Segment(int(cursor.lastrowid or 0), number, layout, 0, 0, listed=False)
        self._segments[pilot, name] = segment
        return segment

    def _undo(self, row: StreamRow, shown: int) -> int:
        # Metadata first: a chunk that is still shown must not vanish, for Zarr would show fill values in
        # its place.
        try:
            if shown != row.chunked:
                self._mirror.show(row.layout, row.chunked)
                self._mirror.show_tree()
            row.layout.drop_beyond(row.chunked)
        except OSError as cause:
            _logger.warning(
                "%s: an uncommitted chunk stays until the next write: %s", row.layout.folder, cause
            )
            return shown
        return row.chunked

    def _free_path(self, pilot: str, name: str) -> str:
        taken = {path.lower() for (path,) in self._connection.execute("SELECT path FROM streams")}
        stem = f"{_safe(pilot)}/{_safe(name)}"
        candidates = (stem if not number else f"{stem}~{number}" for number in range(len(taken) + 1))
        return next(path for path in candidates if path.lower() not in taken)


@dataclass(frozen=True, slots=True)
class StreamRow:
    """One row of the table `streams`, read."""

    id: int
    pilot: str
    name: str
    segment: int
    layout: Layout
    chunked: int
    length: int


def stream_rows(connection: sqlite3.Connection, root: Path) -> list[StreamRow]:
    """Read the table `streams`, in the order in which segments began."""
    found = connection.execute(
        "SELECT id, pilot, name, segment, subject, path, dtype, item_shape, timestamp_form, compressor, "
        "chunk_rows, "
        "chunked, length FROM streams ORDER BY id"
    )
    return [_stream_row(row, root) for row in found]


def read_tail(connection: sqlite3.Connection, row: StreamRow) -> Iterable[tuple[int, Array, Array]]:
    """Read a segment's rest: (start, timestamps, data) blocks in order."""
    found = connection.execute(
        "SELECT start, count, timestamps, data FROM stream_tail WHERE stream = ? ORDER BY start", (row.id,)
    )
    for start, count, stamps, items in found:
        yield start, *_unpacked(row.layout.form, count, stamps, items)


def _stream_row(row: tuple[Any, ...], root: Path) -> StreamRow:
    (
        identity,
        pilot,
        name,
        segment,
        subject,
        path,
        dtype,
        shape,
        stamps,
        compressor,
        chunk_rows,
        chunked,
        length,
    ) = row
    kind, _, stamp_dtype = stamps.partition(" ")
    form = Form(
        subject, np.dtype(dtype), tuple(json.loads(shape)), TimestampForm(kind), np.dtype(stamp_dtype)
    )
    label = {"pilot": pilot, "stream": name, "segment": segment, "subject": subject}
    layout = Layout(root, path, form, chunk_rows, compressor, label)
    return StreamRow(identity, pilot, name, segment, layout, chunked, length)


def _form_text(form: Form) -> str:
    return f"{form.timestamp_form} {form.timestamp_dtype.str}"


def _unpacked(form: Form, count: int, stamps: bytes, items: bytes) -> tuple[Array, Array]:
    shape = (count, *form.item_shape)
    data = np.frombuffer(items, form.dtype).reshape(shape) if items else np.empty(shape, form.dtype)
    return np.frombuffer(stamps, form.timestamp_dtype), data


def _split(pieces: list[Piece], rows: int) -> tuple[list[Piece], list[Piece]]:
    taken: list[Piece] = []
    for index, (stamps, items) in enumerate(pieces):
        if len(stamps) >= rows:
            taken.append((stamps[:rows], items[:rows]))
            rest = [(stamps[rows:], items[rows:])] if len(stamps) > rows else []
            return taken, rest + pieces[index + 1 :]
        taken.append((stamps, items))
        rows -= len(stamps)
    return taken, []


def _safe(name: str) -> str:
    text = re.sub(
        r"[^A-Za-z0-9_-]", lambda match: "".join(f"%{byte:02x}" for byte in match[0].encode()), name
    )
    # Windows keeps some names for devices, and a path may be no longer than its limits: both get a mark.
    return f"_{text[:80]}" if len(text) > 80 or not text or _DEVICE.fullmatch(text) else text


_DEVICE = re.compile(r"(?i)con|prn|aux|nul|(com|lpt)[0-9]|c|zarr")
