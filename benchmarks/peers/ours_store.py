"""Pilotage's store: frames that are committed and synced, alone and through a station, beside the disk's own limit.

    python -m benchmarks.peers.ours_store --mode store --seconds 2
    python -m benchmarks.peers.ours_store --mode recorded --seconds 2

`store` hands frames to a session's store in one process, waits for their commits, and reads all of them back.
`recorded` streams them to a node that does with them what a Terminal does: they count when they are settled, which is
when they are committed. Right after each, the same disk is measured: one file is written for as long, in blocks of
4 MiB, and synced as often as the store does. What may be wanted is 300 MB/s, or 0.7 of that limit where the disk is
slower. Files lie in the folder for temporary ones.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.modes import WANTED_MB_PER_S, WANTED_OF_DISK
from pilotage import takes_batches
from pilotage.agents.ports import NoRoom
from pilotage.app.archive import FolderArchive, FolderArchives
from pilotage.services.store import SessionReader

from . import ours
from .bulk import Arrays, BulkArrivals
from .common import Peer, main, role_commands
from .ours import Router
from .roles import Addresses, Counting

PEER = Peer(
    "ours_store",
    lambda: role_commands("ours_store", "router", "receiver", "sender"),
    modes=("store", "recorded"),
    promise="committed",
)
CLOSING_S = 20.0
BLOCK_BYTES = 4 << 20
SYNC_BYTES = 64 << 20
PILOT, STREAM = "rig_a", "camera"


def disk_limit_mb_per_s(folder: Path, seconds: float) -> float:
    """Write one file for so long, synced at every 64 MiB and in the end, and remove it."""
    block = np.random.default_rng(1).bytes(BLOCK_BYTES)
    file = folder / "limit"
    written = 0
    began = time.perf_counter()
    with file.open("wb", buffering=0) as out:
        while time.perf_counter() - began < seconds:
            written += out.write(block)
            if not written % SYNC_BYTES:
                os.fsync(out.fileno())
        os.fsync(out.fileno())
    elapsed_s = time.perf_counter() - began
    file.unlink()
    return written / elapsed_s / 1e6


def beside_the_disk(stored_mb_per_s: float, seconds: float) -> dict[str, float]:
    """Return a rate beside the disk's limit, and its ratio to what is wanted."""
    disk = disk_limit_mb_per_s(Path.home(), seconds)
    wanted = min(WANTED_MB_PER_S, WANTED_OF_DISK * disk)
    return {
        "stored_mb_per_s": round(stored_mb_per_s, 1),
        "disk_mb_per_s": round(disk, 1),
        "of_wanted": round(stored_mb_per_s / wanted, 3),
    }


class Receiver(Counting):
    """Store what streams in as the Terminal does, and count each frame once it is committed."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._lock = threading.Lock()
        self._arrivals = BulkArrivals()
        self._archive = FolderArchives(Path.home() / "sessions").create("bench", {})
        listens = {"CONTINUOUS": self._keep, "ECHO": lambda value: value["n"]}
        self._node = ours.Net_Node(ours.RECEIVER, ours.STATION, addresses["port"], listens, direct=True)
        self._node.wait_connected(ours.MEETING_TIMEOUT_S)

    @takes_batches
    def _keep(self, items: Any) -> Future[None]:
        many = items if isinstance(items, list) else [items]
        stamps, frames = [float(item["n"]) for item in many], np.stack([item["array"] for item in many])
        stored = self._archive.add_items(PILOT, None, STREAM, stamps, frames, None, 0)
        stored.add_done_callback(partial(self._stored, many))
        return stored

    def _stored(self, items: list[dict[str, Any]], future: Future[None]) -> None:
        with self._lock:
            for item in items if future.exception() is None else ():
                self._arrivals.note_array(item["n"], item["array"])

    def close(self) -> None:
        """Release the node and close the store."""
        self._node.release()
        self._archive.close(CLOSING_S)


class Sender(ours.Sender):
    """Stream, or store without a network; then measure the disk."""

    def measure_recorded(
        self, seconds: float, first: int, window: int, size: int, direct: bool
    ) -> dict[str, Any]:
        """Stream frames that the receiver stores."""
        measured = self.measure_bulk(seconds, first, window, size, direct)
        rate = measured["in_time"] * size / measured["elapsed_s"] / 1e6
        return {**measured, "figures": beside_the_disk(rate, seconds)}

    def measure_store(self, seconds: float, first: int, size: int) -> dict[str, Any]:
        """Store frames in this process, and read them back."""
        folders = FolderArchives(Path.home() / "alone")
        archive = folders.create(f"session_{first}", {})
        arrays, waiting, sent = Arrays(size), deque[Future[None]](), 0
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            try:
                waiting.append(_store(archive, first + sent, arrays))
                sent += 1
            except NoRoom:
                waiting.popleft().result(CLOSING_S)
        for future in waiting:
            future.result(CLOSING_S)
        elapsed_s = time.perf_counter() - began
        seen = self._read_back(Path(archive.place))
        archive.discard(CLOSING_S)
        figures = beside_the_disk(sent * size / elapsed_s / 1e6, seconds)
        return {"sent": sent, "confirmed": sent, **seen, "figures": figures}

    def _read_back(self, folder: Path) -> dict[str, int]:
        arrivals = BulkArrivals()
        with SessionReader(folder) as reader:
            for block in reader.stream_chunks(PILOT, STREAM):
                for stamp, frame in zip(block.timestamp.values, block.values, strict=True):
                    arrivals.note_array(int(stamp), frame)
        return arrivals.report()


def _store(archive: FolderArchive, n: int, arrays: Arrays) -> Future[None]:
    return archive.add_items(PILOT, None, STREAM, [float(n)], arrays[n][np.newaxis], None, 0)


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
