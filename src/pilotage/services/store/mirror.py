"""Zarr's metadata, as a mirror of what SQLite committed.

Law: whoever opens the group sees data and timestamps of one length, for the whole tree of lengths is
replaced in one rename. A mirror need not survive a power cut: it is made anew from SQLite on opening, and
synced on closing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pilotage.services.store.chunks import Layout, Sync
from pilotage.services.store.forms import TimestampForm, zarr_type

MARK = "pilotage"
"""The attribute by which we know a group of ours."""

_DATETIME_ATTRIBUTES = {"units": "microseconds since 1970-01-01", "calendar": "proleptic_gregorian"}

Document = dict[str, Any]


class Mirror:
    """The metadata below one root, for the writer's thread alone.

    Args:
        root: The session's Zarr group.
        sync: Puts a file descriptor's content on the disk.
    """

    def __init__(self, root: Path, sync: Sync) -> None:
        """Start with nothing known."""
        self._root = root
        self._sync = sync
        self._documents: dict[str, Document] = {}

    def clear(self) -> None:
        """Forget all segments."""
        self._documents.clear()

    def note(self, layout: Layout, length: int) -> None:
        """Know a segment's length without writing it."""
        pilot = layout.path.partition("/")[0]
        self._documents.setdefault(pilot, _group({}))
        self._documents[layout.path] = _group({MARK: layout.label})
        for name, document in _arrays(layout, length).items():
            self._documents[f"{layout.path}/{name}"] = document

    def show(self, layout: Layout, length: int, *, safe: bool = False) -> None:
        """Let a segment have this length for whoever opens its own group or arrays."""
        self.note(layout, length)
        arrays = _arrays(layout, length)
        for name, document in arrays.items():
            self._write(f"{layout.path}/{name}", document, safe)
        self._write(layout.path, _consolidated(_group({MARK: layout.label}), arrays), safe)

    def show_tree(self, *, safe: bool = False) -> None:
        """Let all segments have their lengths at once for whoever opens the session's group."""
        for path, document in self._documents.items():
            if "/" not in path and not (self._root / path / "zarr.json").exists():
                self._write(path, document, safe)
        self._write("", _consolidated(_group({}), self._documents), safe)

    def _write(self, path: str, document: Document, safe: bool) -> None:
        folder = self._root / path
        fresh = folder / ".zarr.json.new"
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(document, file)
            file.flush()
            if safe:
                self._sync(file.fileno())
        fresh.replace(folder / "zarr.json")


def drop_unknown(root: Path, known: set[str]) -> Iterator[str]:
    """Remove segments that were made but never committed, and give their paths."""
    for marker in sorted(root.glob("*/*/zarr.json")):
        path = marker.parent.relative_to(root).as_posix()
        if path not in known and _is_ours(marker):
            shutil.rmtree(marker.parent)
            yield path


def _is_ours(marker: Path) -> bool:
    try:
        return MARK in json.loads(marker.read_text(encoding="utf-8")).get("attributes", {})
    except ValueError:
        # A power cut may tear the mirror of a segment that was just made.
        return (marker.parent / "timestamp").is_dir()


def _arrays(layout: Layout, length: int) -> dict[str, Document]:
    form = layout.form
    names = ["timestamp", *(f"dim_{axis}" for axis in range(1, len(form.item_shape) + 1))]
    datetimes = form.timestamp_form is TimestampForm.DATETIME
    stamps = np.dtype("<i8") if datetimes else form.timestamp_dtype
    return {
        "data": _array((length, *form.item_shape), layout.chunk_rows, form.dtype, layout.compressor, names),
        "timestamp": _array((length,), layout.chunk_rows, stamps, "none", ["timestamp"])
        | ({"attributes": _DATETIME_ATTRIBUTES} if datetimes else {}),
    }


def _consolidated(group: Document, documents: dict[str, Document]) -> Document:
    return group | {
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": documents}
    }


def _group(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _array(
    shape: tuple[int, ...], chunk_rows: int, dtype: np.dtype[Any], compressor: str, names: list[str]
) -> Document:
    data_type, fill = zarr_type(dtype)
    chunk = [chunk_rows, *(max(1, size) for size in shape[1:])]
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, *_codecs(compressor, dtype)]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": {},
        "dimension_names": names,
        "storage_transformers": [],
    }


def _codecs(compressor: str, dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    if compressor == "zstd":
        return [{"name": "zstd", "configuration": {"level": 1, "checksum": False}}]
    if compressor == "blosc":
        settings = {
            "typesize": dtype.itemsize,
            "cname": "lz4",
            "clevel": 5,
            "shuffle": "shuffle",
            "blocksize": 0,
        }
        return [{"name": "blosc", "configuration": settings}]
    return []
