"""A program that writes a session until it is killed, and says on its standard output what was confirmed.

Run as: crash_writer.py FOLDER TRIALS NUMBERS FRAMES, each number the first message of that flow not
confirmed yet.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import numpy as np

from pilotage.services.store import MessageId, SessionStore, StoreConfig, StreamItems, TrialData
from pilotage.services.store.entries import Entry

BOOT = 2**64 - 5
TRIALS, NUMBERS, FRAMES = 0, 1, 2
NUMBERS_EACH, FRAMES_EACH = 7, 2
CONFIG = StoreConfig(chunk_bytes=16 * 1024)
EPOCH = np.datetime64("2026-01-01T00:00:00", "us")


def number_items(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    index = np.arange(first, first + count)
    return index / 1000 + 0.1, np.sqrt(index + 1.0)


def frame_items(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    index = np.arange(first, first + count)
    pixels = (index[:, None, None] * 7 + np.arange(24)[:, None] * 3 + np.arange(20)) % 251 + 1
    return EPOCH + index.astype("m8[us]") * 33333, pixels.astype("u1")


def entry(flow: int, seq: int) -> Entry:
    message = MessageId(BOOT, flow, seq)
    if flow == TRIALS:
        half = {"choice": "LR"[seq // 2 % 2]} if seq % 2 == 0 else {"rt": seq / 7, "TRIAL_END": True}
        return TrialData("rig", "mouse", seq // 2, half, message)
    if flow == NUMBERS:
        stamps, data = number_items(seq * NUMBERS_EACH, NUMBERS_EACH)
        return StreamItems("rig", "mouse", "numbers", stamps.tolist(), data, message)
    stamps, data = frame_items(seq * FRAMES_EACH, FRAMES_EACH)
    return StreamItems("rig", "mouse", "frames", [str(stamp) for stamp in stamps], data, message)


def main(folder: Path, starts: list[int]) -> None:
    store = SessionStore.open(folder, CONFIG)
    room = threading.BoundedSemaphore(48)
    nexts = list(starts)

    def submit(flow: int) -> None:
        seq = nexts[flow]
        nexts[flow] += 1

        def done(error: Exception | None) -> None:
            os.write(1, f"{flow} {seq} {error or 'ok'}\n".encode())
            room.release()

        room.acquire()
        store.submit(entry(flow, seq), done)

    os.write(1, b"ready\n")
    while True:
        for flow in (TRIALS, NUMBERS, FRAMES):
            submit(flow)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(text) for text in sys.argv[2:]])
