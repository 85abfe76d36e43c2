"""Lanes: a record loses nothing and waits, in memory or on the disk; a preview keeps the newest and counts the rest."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotage import Net_Node, takes_batches
from pilotage.net.spool import SEGMENT_BYTES, Spool
from pilotage.net.streams import PREVIEW_BATCHES, Stream
from pilotage.protocol.errors import MachineError, MisuseError
from tests.conftest import Eventually
from tests.net.conftest import Gate, MakeNode


class Sink:
    """A node whose listen waits at a gate."""

    def __init__(self, node: MakeNode, gate: Gate) -> None:
        self.items: list[Any] = []
        self.gate = gate
        self.node: Net_Node = node("sink", router_port=0, listens={"K": self.take})

    @takes_batches
    def take(self, items: Any) -> None:
        self.gate(None)
        self.items += items if isinstance(items, list) else [items]


@pytest.fixture
def sink(node: MakeNode, gate: Gate) -> Sink:
    return Sink(node, gate)


def fill(stream: Stream, item: Callable[[int], Any]) -> int:
    """Put until `put` would wait; give how many went in."""
    for number in range(1000):
        try:
            stream.put(item(number), timeout=0.2)
        except queue.Full:
            return number
    raise AssertionError("it has taken everything")


def dropped(stream: Stream) -> int:
    return stream.statistics().counts.get("items dropped", 0)


@pytest.mark.parametrize("min_size", [1, 10])
def test_a_preview_blocks_nobody_keeps_the_newest_and_counts_the_rest(
    node: MakeNode, sink: Sink, eventually: Eventually, min_size: int
) -> None:
    stream = node("cam", sink.node).get_stream("s", "K", min_size=min_size, lane="preview")
    eventually(lambda: stream._started and stream.statistics().peers)
    began = time.monotonic()
    for number in range(20_000):
        stream.put(number)
    assert time.monotonic() - began < 5
    kept = min_size * (PREVIEW_BATCHES + 1)
    assert dropped(stream) == 20_000 - kept
    sink.gate.opened.set()
    stream.put("END")
    eventually(lambda: len(sink.items) == kept)
    stream.join()
    assert sink.items == sorted(sink.items) and sink.items[-min_size:] == list(
        range(20_000 - min_size, 20_000)
    )
    assert stream.failed == 0


def test_a_preview_that_is_taken_in_time_drops_nothing(node: MakeNode, sink: Sink) -> None:
    sink.gate.opened.set()
    stream = node("cam", sink.node).get_stream("s", "K", min_size=2, lane="preview")
    for number in range(20):
        stream.put(number)
        stream.join()
    assert sink.items == list(range(20)) and dropped(stream) == 0


@pytest.mark.parametrize("min_size", [1, 10])
def test_a_spool_takes_what_memory_does_not_and_gives_it_back_in_order(
    node: MakeNode, sink: Sink, tmp_path: Path, eventually: Eventually, min_size: int
) -> None:
    stream = node("cam", sink.node).get_stream("s", "K", min_size=min_size, spool=tmp_path / "spool")
    stream.maxsize = 50
    eventually(lambda: stream._started)
    for number in range(3000):
        stream.put({"n": number, "frame": np.full(500, number)}, timeout=5)
    counts = stream.statistics().counts
    assert counts["items in the spool"] == counts["items spooled"] >= 2900
    assert stream._on_the_way <= 50 + min_size
    sink.gate.opened.set()
    stream.put("END")
    stream.join()
    assert [item["n"] for item in sink.items] == list(range(3000)) and stream.failed == 0
    assert all((item["frame"] == item["n"]).all() for item in sink.items)
    assert stream.statistics().counts["items in the spool"] == 0
    eventually(lambda: stream._draining is None)
    stream.put({"n": 3000})
    stream.join()
    assert sink.items[-1]["n"] == 3000


def test_a_spool_has_a_bound_at_which_put_waits(
    node: MakeNode, sink: Sink, tmp_path: Path, eventually: Eventually
) -> None:
    stream = node("cam", sink.node).get_stream("s", "K", min_size=2, spool=tmp_path, spool_bytes=100_000)
    stream.maxsize = 10
    eventually(lambda: stream._started)
    count = fill(stream, lambda number: {"n": number, "frame": np.zeros(1000, "u1")})
    assert 90 < count < 130
    sink.gate.opened.set()
    stream.put({"n": count}, timeout=5)
    stream.put("END")
    stream.join()
    assert [item["n"] for item in sink.items] == list(range(count + 1))


def test_where_the_disk_takes_nothing_put_waits_and_nothing_is_lost(
    node: MakeNode, sink: Sink, tmp_path: Path, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    stream = node("cam", sink.node).get_stream("s", "K", min_size=2, spool=tmp_path / "file")
    stream.maxsize = 10
    eventually(lambda: stream._started)
    count = fill(stream, lambda number: number)
    assert count <= 14 and "can't be spooled" in caplog.text
    sink.gate.opened.set()
    for number in range(count, 100):
        stream.put(number, timeout=5)
    stream.put("END")
    stream.join()
    assert sink.items == list(range(100))


def test_what_is_spooled_when_its_stream_closes_counts_as_failed(
    node: MakeNode, sink: Sink, tmp_path: Path, eventually: Eventually
) -> None:
    stream = node("cam", sink.node).get_stream("s", "K", min_size=2, spool=tmp_path)
    stream.maxsize = 10
    eventually(lambda: stream._started)
    for number in range(100):
        stream.put(number)
    spooled = stream.statistics().counts["items in the spool"]
    stream.close(0.2)
    assert spooled >= 80 and stream.failed == 100, "the others end as interrupted"
    assert list(tmp_path.iterdir()) == []


def test_an_item_that_cannot_be_sent_is_told_and_the_others_are_spooled(
    node: MakeNode, sink: Sink, tmp_path: Path, eventually: Eventually
) -> None:
    stream = node("cam", sink.node).get_stream("s", "K", min_size=4, spool=tmp_path)
    stream.maxsize = 4
    eventually(lambda: stream._started)
    for item in [0, 1, 2, 3, 4, object(), 6, 7, 8, 9]:
        stream.put(item)
    sink.gate.opened.set()
    stream.put("END")
    stream.join()
    assert sink.items == [0, 1, 2, 3, 4, 6, 7, 8, 9] and stream.failed == 1


def test_lanes_have_names(node: MakeNode, sink: Sink, tmp_path: Path) -> None:
    cam = node("cam", sink.node)
    with pytest.raises(MisuseError, match="lane"):
        cam.get_stream("s", "K", lane="fast")
    with pytest.raises(MisuseError, match="spool"):
        cam.get_stream("s", "K", lane="preview", spool=tmp_path)


def test_a_spools_files_go_as_they_are_read(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 2**40)
    frame = np.zeros(SEGMENT_BYTES // 2 + 1, "u1")
    for number in range(6):
        spool.put([{"n": number, "frame": frame}])
    full = spool.bytes
    assert [spool.take()[0]["n"] for _ in range(4)] == [0, 1, 2, 3]
    assert spool.bytes < full / 2 and spool.items == 2
    assert [spool.take()[0]["n"] for _ in range(2)] == [4, 5]
    assert spool.bytes == 0 and not spool
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="file"):
        Spool(tmp_path / "file", 100).put([1])
