"""Recipients that have really stalled (SIGSTOP): memory stays bounded, others go on, nothing is lost of a record."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest

from pilotage import Terminal_Station
from pilotage.net.streams import MAX_BYTES, Stream
from tests.conftest import Eventually
from tests.net.conftest import MakeNode

pytestmark = [pytest.mark.slow, pytest.mark.only_on("linux", "darwin")]

FRAME = np.random.default_rng(1).integers(0, 255, (480, 640), np.uint8)
STALL_S = 9.0
"""Longer than it takes to send again, shorter than it takes to be given up."""

MARGIN_BYTES = 48 * 2**20
"""What an interpreter may gain that has nothing to do with what is sent."""


class Taker:
    """A process of `scripts.taker`."""

    def __init__(self, root: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.net.scripts.taker", *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, cwd=root, text=True, **pipes)  # type: ignore[call-overload]
        assert self.process.stdout.readline() == "ready\n"

    def count(self) -> int:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        told = json.loads(self.process.stdout.readline())
        assert told["in order"], "something was lost, doubled or came too early"
        return int(told["count"])

    def end(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def takers() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def taker(takers: ExitStack, root: Path, terminal: Terminal_Station, *arguments: str) -> Taker:
    made = Taker(root, arguments[0], "T", str(terminal.listen_port), *arguments[1:])
    takers.callback(made.end)
    return made


class Source:
    """Puts frames as fast as they are taken, on a thread of its own, and notes what memory its process takes."""

    def __init__(self, stream: Stream, *pids: int, first: int = 0) -> None:
        self.stream = stream
        self.put = first
        self._processes = [psutil.Process(pid) for pid in pids]
        self._before = [process.memory_info().rss for process in self._processes]
        self.grown = [0] * len(pids)
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._enough.is_set():
            try:
                self.stream.put({"n": self.put, "timestamp": time.time(), "frame": FRAME.copy()}, timeout=0.1)
                self.put += 1
            except queue.Full:
                continue
        self.stream.put("END")

    def watch(self, seconds: float) -> None:
        """Look at the memory for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sizes = [process.memory_info().rss for process in self._processes]
            grown = [size - before for size, before in zip(sizes, self._before, strict=True)]
            self.grown = [max(pair) for pair in zip(self.grown, grown, strict=True)]
            self._enough.wait(0.05)

    def stop(self) -> None:
        self._enough.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("way", ["routed", "direct"])
def test_a_stalled_consumer(
    node: MakeNode,
    terminal: Terminal_Station,
    takers: ExitStack,
    root: Path,
    eventually: Eventually,
    way: str,
) -> None:
    stalled = taker(takers, root, terminal, "_T", "CONTINUOUS", way)
    other = taker(takers, root, terminal, "other", "K")
    rig = node("rig_a", terminal)
    stream = rig.get_stream("eye", "CONTINUOUS", min_size=5, pilot="rig_a")
    stream.put({"n": 0})
    stream.put("END")
    stream.join()
    assert next(iter(stream.statistics().peers)) == ("T" if way == "routed" else "_T")
    source = Source(stream, psutil.Process().pid, terminal.pid or 0, first=1)
    stalled.process.send_signal(signal.SIGSTOP)
    sent = 0

    def talk() -> None:
        """Send to somebody else through the same station meanwhile."""
        nonlocal sent
        while not source._enough.is_set():
            began = time.monotonic()
            rig.send("other", "K", {"n": sent}).wait_settled(5)
            assert time.monotonic() - began < 1
            sent += 1

    talker = threading.Thread(target=talk)
    talker.start()
    source.watch(STALL_S)
    blocked_at = source.put
    stalled.process.send_signal(signal.SIGCONT)
    eventually(lambda: source.put > blocked_at + 100, timeout_s=30)
    source.stop()
    talker.join(10)
    stream.join()
    ours, station = source.grown
    print(
        f"{way}: grown by {ours / 2**20:.0f} MiB here, {station / 2**20:.0f} MiB at the station; {sent} sent"
    )
    assert blocked_at * FRAME.nbytes < MAX_BYTES * 3
    # The arrays, and what ZeroMQ queues: a copy of each, and one more when it is sent again, once in that time.
    assert ours < 3 * MAX_BYTES + MARGIN_BYTES
    # What was not received is sent again once in that time, and what is there twice is dropped where it arrives.
    assert station < 2 * MAX_BYTES + MARGIN_BYTES
    assert stalled.count() == source.put and stream.failed == 0
    assert other.count() == sent > 100


def test_a_stalled_viewer_slows_no_record(
    node: MakeNode, terminal: Terminal_Station, takers: ExitStack, root: Path
) -> None:
    keeper = taker(takers, root, terminal, "_T", "CONTINUOUS")
    viewer = taker(takers, root, terminal, "P_rig_a", "CONTINUOUS")
    stream = node("rig_a", terminal).get_stream("eye", "CONTINUOUS", min_size=5, pilot="rig_a")
    source = Source(stream, terminal.pid or 0)
    source.watch(2.0)
    before = source.put
    viewer.process.send_signal(signal.SIGSTOP)
    source.watch(STALL_S)
    rate, stalled_rate = before / 2.0, (source.put - before) / STALL_S
    source.stop()
    stream.join()
    print(
        f"{rate:.0f} frames/s, with a stalled viewer {stalled_rate:.0f}; grown by {source.grown[0] / 2**20:.0f} MiB"
    )
    assert stalled_rate > rate / 3
    assert source.grown[0] < 2 * MAX_BYTES + MARGIN_BYTES
    assert terminal.statistics().counts["plots dropped"] > 0
    assert keeper.count() == source.put and stream.failed == 0
