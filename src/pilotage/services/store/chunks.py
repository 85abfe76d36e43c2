"""The files of a stream's chunks, in a Zarr v3 group with the arrays `data` and `timestamp`.

Law: a chunk is written once and whole, and is on the disk before its length is told to anyone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from io import BufferedIOBase, RawIOBase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pilotage.protocol.errors import StoreError
from pilotage.services.store.forms import Array, Form

Sync = Callable[[int], None]
"""Puts a file descriptor's content on the disk: `os.fsync`, or a test's recorder around it."""

COMPRESSORS = ("none", "zstd", "blosc")

SYNC_THREADS = 2

MAX_UNSYNCED = 64
"""Files that are held open at most until they are synced."""

_LARGE_PIECE = 65_536
"""Bytes from which a call to the system costs less than a copy."""


class Layout(NamedTuple):
    """Where a segment lies and how it is cut.

    Args:
        root: The session's Zarr group.
        path: The segment's group below it, "pilot/stream".
        form: What its items look like.
        chunk_rows: Items in each chunk, 1 or more.
        compressor: One of `COMPRESSORS`.
        label: Written into the group's attributes, for people who find the folder.
    """

    root: Path
    path: str
    form: Form
    chunk_rows: int
    compressor: str
    label: dict[str, Any]

    @property
    def folder(self) -> Path:
        """The segment's group."""
        return self.root / self.path

    def make(self) -> None:
        """Make the folders of a new segment; what an uncommitted predecessor left is removed."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for array in ("data", "timestamp"):
            (self.folder / array).mkdir(parents=True)

    def write(self, index: int, stamps: Sequence[Array], items: Sequence[Array], unsynced: Unsynced) -> None:
        """Write chunk number `index` of both arrays.

        Args:
            index: The chunk's number, from 0.
            stamps: Pieces of timestamps, together `chunk_rows`.
            items: The pieces of data that belong to them.
            unsynced: Puts it on the disk, with others.
        """
        integers = [_as_integers(piece) for piece in stamps]
        _write_chunk(self._chunk("timestamp", index), integers, "none", unsynced)
        if self.form.item_bytes():
            _write_chunk(self._chunk("data", index), items, self.compressor, unsynced)

    def read(self, index: int) -> tuple[Array, Array]:
        """Read chunk number `index`: timestamps and data.

        Raises:
            StoreError: A committed chunk is missing or has another size: the folder was changed from outside.
        """
        form = self.form
        stamps = _decode(self._chunk("timestamp", index), "none", form.timestamp_dtype, (self.chunk_rows,))
        shape = (self.chunk_rows, *form.item_shape)
        if not form.item_bytes():
            return stamps, np.empty(shape, form.dtype)
        return stamps, _decode(self._chunk("data", index), self.compressor, form.dtype, shape)

    def drop_beyond(self, length: int) -> None:
        """Remove the chunks beyond `length` items; `show` that length first."""
        chunks = length // self.chunk_rows
        for array in ("data", "timestamp"):
            for path in (self.folder / array / "c").glob("*"):
                if not path.name.isdecimal() or int(path.name) >= chunks:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _chunk(self, array: str, index: int) -> Path:
        rest = ["0"] * len(self.form.item_shape) if array == "data" else []
        return self.folder.joinpath(array, "c", str(index), *rest)


def sync_folder(folder: Path, sync: Sync) -> None:
    """Put a folder's entries on the disk (Windows has no such call, nor need of it)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def _as_integers(stamps: Array) -> Array:
    return stamps.view("<i8") if stamps.dtype.kind == "M" else stamps


class Unsynced:
    """Files that were written and may not be on the disk yet: it takes them while others are being written.

    Args:
        sync: Puts a file descriptor's content on the disk; called on threads of ours.
    """

    def __init__(self, sync: Sync) -> None:
        """Start with none."""
        self._sync = sync
        self._threads = ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="store-sync")
        self._files: list[tuple[BufferedIOBase | RawIOBase, Future[None]]] = []
        self._folders: dict[Path, None] = {}

    def add(self, file: BufferedIOBase | RawIOBase, *folders: Path) -> None:
        """Take a file, which is closed in the end, and the folders whose entries have changed."""
        self._files.append((file, self._threads.submit(self._sync, file.fileno())))
        self._folders.update(dict.fromkeys(folders))
        if len(self._files) >= MAX_UNSYNCED:
            self.sync()

    def sync(self) -> None:
        """Wait until all of them are on the disk, the folders after what is in them.

        Raises:
            OSError: The disk doesn't take them; none counts as synced.
        """
        try:
            for _, synced in self._files:
                synced.result()
            for synced in [self._threads.submit(sync_folder, folder, self._sync) for folder in self._folders]:
                synced.result()
        finally:
            self.drop()

    def drop(self) -> None:
        """Let go of them as they are."""
        files, self._files, self._folders = self._files, [], {}
        for file, synced in files:
            wait((synced,))
            file.close()

    def close(self) -> None:
        """Let go of the threads."""
        self.drop()
        self._threads.shutdown()


def _write_chunk(path: Path, pieces: Sequence[Array], compressor: str, unsynced: Unsynced) -> None:
    folder = path.parent
    folders = (folder,) if folder.exists() else (folder, folder.parent, folder.parent.parent)
    folder.mkdir(parents=True, exist_ok=True)
    file = path.open("wb", buffering=0)
    try:
        for content in _encoded(pieces, compressor):
            _write_all(file.write, content)
    except BaseException:
        file.close()
        raise
    unsynced.add(file, *folders)


def _encoded(pieces: Sequence[Array], compressor: str) -> Iterator[memoryview]:
    if compressor == "none" and sum(piece.nbytes for piece in pieces) >= len(pieces) * _LARGE_PIECE:
        for piece in pieces:
            yield piece.reshape(-1).view(np.uint8).data
        return
    whole = np.ascontiguousarray(np.concatenate(pieces))
    if compressor == "none":
        yield whole.reshape(-1).view(np.uint8).data
        return
    yield memoryview(_codec(compressor).encode(whole)).cast("B")


def _write_all(write: Callable[[memoryview], int | None], content: memoryview) -> None:
    while content:
        content = content[write(content) or 0 :]


def _decode(path: Path, compressor: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    try:
        content: Any = np.fromfile(path, dtype=np.uint8)
        if compressor != "none":
            content = np.frombuffer(_codec(compressor).decode(content), dtype=np.uint8)
        return np.asarray(content.view(dtype).reshape(shape))
    except (OSError, ValueError, RuntimeError) as cause:
        raise StoreError(
            f"chunk {str(path)!r} can't be read ({cause}): it was changed from outside, use a copy"
        ) from cause


def _codec(compressor: str) -> Any:
    import numcodecs  # type: ignore[import-untyped]  # noqa: PLC0415 - only for who compresses

    return (
        numcodecs.Zstd(level=1)
        if compressor == "zstd"
        else numcodecs.Blosc("lz4", 5, numcodecs.Blosc.SHUFFLE)
    )
