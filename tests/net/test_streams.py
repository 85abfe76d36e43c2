"""Streams: batches, time, END, metadata; nothing dropped or reordered; nothing burnt when idle."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any

import numpy as np
import pytest

from pilotage import Message, Net_Node, Receipt, prefs, takes_batches
from pilotage.net.streams import Stream
from pilotage.protocol.errors import Closed, MisuseError
from pilotage.protocol.settlement import DELIVERED
from tests.conftest import Eventually
from tests.net.conftest import Gate, MakeNode

HEADERS = {"subject": "", "pilot": "", "continuous": True}


class Sink:
    """A node that keeps items, and the sizes of the batches they came in."""

    def __init__(self, node: MakeNode, hold: Gate | None = None) -> None:
        self.batches: list[list[Any]] = []
        self.hold = hold
        self.node: Net_Node = node("sink", router_port=0, listens={"K": self.take})

    @takes_batches
    def take(self, items: Any) -> None:
        if self.hold is not None:
            self.hold(len(items))
        self.batches.append(items if isinstance(items, list) else [items])

    @property
    def items(self) -> list[Any]:
        return [item for batch in self.batches for item in batch]


@pytest.fixture
def sink(node: MakeNode) -> Sink:
    return Sink(node)


@pytest.fixture
def cam(node: MakeNode, sink: Sink) -> Net_Node:
    return node("cam", sink.node)


def connected(stream: Stream, eventually: Eventually) -> Stream:
    eventually(lambda: stream._started and stream.statistics().peers)
    return stream


def test_items_leave_in_batches_of_min_size(cam: Net_Node, sink: Sink, eventually: Eventually) -> None:
    stream = connected(cam.get_stream("s", "K", min_size=4), eventually)
    stream._max_wait_s = 60.0
    for number in range(10):
        stream.put({"n": number})
    eventually(lambda: len(sink.items) == 8)
    assert [len(batch) for batch in sink.batches] == [4, 4]
    stream.put("END")
    stream.join()
    assert [len(batch) for batch in sink.batches] == [4, 4, 2]
    assert sink.items == [{**HEADERS, "n": number} for number in range(10)]


def test_an_item_does_not_wait_for_ever_for_its_batch(
    cam: Net_Node, sink: Sink, eventually: Eventually
) -> None:
    stream = connected(cam.get_stream("s", "K", min_size=1000), eventually)
    began = time.monotonic()
    stream.append({"n": 1})
    eventually(lambda: sink.items == [{**HEADERS, "n": 1}], timeout_s=2)
    assert time.monotonic() - began < 1.0


def test_a_batch_leaves_when_it_is_heavy_enough(cam: Net_Node, sink: Sink, eventually: Eventually) -> None:
    stream = connected(cam.get_stream("s", "K", min_size=1000), eventually)
    stream._max_wait_s = 60.0
    frame = np.arange(300_000, dtype="u1")
    for _ in range(4):
        stream.put({"frame": frame})
    eventually(lambda: len(sink.items) == 4)
    assert all(np.array_equal(item["frame"], frame) for item in sink.items)


def test_what_would_only_queue_gathers_into_larger_batches(
    node: MakeNode, gate: Gate, eventually: Eventually
) -> None:
    sink = Sink(node, hold=gate)
    stream = connected(node("cam", sink.node).get_stream("s", "K", min_size=2), eventually)
    stream._max_wait_s = 60.0
    for number in range(100):
        stream.put(number)
    gate.opened.set()
    stream.join()
    assert [len(batch) for batch in sink.batches] == [2, 2, 96], "and nobody had to flush the last one"
    assert sink.items == list(range(100))


def test_flush_and_bare_arrays(cam: Net_Node, sink: Sink, eventually: Eventually) -> None:
    stream = connected(cam.get_stream("s", "K", min_size=1000), eventually)
    stream._max_wait_s = 60.0
    stream.put(np.arange(5))
    stream.put("text")
    stream.flush()
    eventually(lambda: len(sink.items) == 2)
    assert np.array_equal(sink.items[0], np.arange(5)) and sink.items[1] == "text"


@pytest.mark.parametrize("min_size", [1, 5, 64])
def test_ten_thousand_items_arrive_once_and_in_order(cam: Net_Node, sink: Sink, min_size: int) -> None:
    stream = cam.get_stream("s", "K", min_size=min_size)
    for number in range(10_000):
        stream.put(number)
    stream.put("END")
    stream.join()
    assert sink.items == list(range(10_000))
    assert stream.failed == 0
    assert stream.statistics().unsettled == 0


def test_many_threads_put_and_nothing_is_lost(cam: Net_Node, sink: Sink) -> None:
    stream = cam.get_stream("s", "K", min_size=7)

    def work(worker: int) -> None:
        for number in range(500):
            stream.put((worker, number))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stream.put("END")
    stream.join()
    for worker in range(4):
        assert [number for who, number in sink.items if who == worker] == list(range(500))


def test_who_puts_faster_than_the_network_takes_is_made_to_wait(node: MakeNode, gate: Gate) -> None:
    sink = Sink(node, hold=gate)
    cam = node("cam", sink.node)
    stream = cam.get_stream("s", "K", min_size=10)
    stream.maxsize = 50
    done = threading.Event()

    def work() -> None:
        for number in range(200):
            stream.put(number)
        stream.put("END")
        done.set()

    threading.Thread(target=work, daemon=True).start()
    assert gate.entered.wait(5)
    assert not done.wait(0.2)
    assert stream.qsize() == 50 and stream.full()
    gate.opened.set()
    assert done.wait(5)
    stream.join()
    assert sink.items == list(range(200))


def test_min_size_one_carries_its_metadata_in_the_envelope(node: MakeNode, eventually: Eventually) -> None:
    seen: list[Message] = []
    # A station's listens are given the whole message, but in another process: a node stands in for it.
    sink = node("sink", router_port=0, listens={"K": seen.append})
    sink._messenger._dispatch._gives_values = False
    cam = node("cam", sink)
    stream = cam.get_stream(
        "eye", "K", min_size=1, upstream="sink", port=sink.router_port, subject="mouse", pilot="rig"
    )
    for number in range(3):
        stream.put({"n": number})
    eventually(lambda: len(seen) == 3)
    assert [message.value for message in seen] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert {(message["subject"], message["pilot"], message["continuous"]) for message in seen} == {
        ("mouse", "rig", True)
    }
    assert [message.id for message in seen] == ["eye_0", "eye_1", "eye_2"]
    assert {message.sender for message in seen} == {"cam_eye"}


def test_headers_come_from_the_preferences_and_are_merged(
    cam: Net_Node, sink: Sink, eventually: Eventually
) -> None:
    for key, value in (
        ("NAME", "cam_1"),
        ("LINEAGE", "CHILD"),
        ("PARENTID", "rig_a"),
        ("SUBJECT", "mouse_7"),
    ):
        prefs.set(key, value)
    try:
        stream = cam.get_stream("s", "K", min_size=2)
    finally:
        for key in ("NAME", "LINEAGE", "PARENTID", "SUBJECT"):
            prefs.unset(key)
    stream.put({"x": 1, "subject": "its own"})
    stream.put(5)
    eventually(lambda: len(sink.items) == 2)
    assert sink.items == [{"subject": "its own", "pilot": "rig_a", "continuous": True, "x": 1}, 5]


def test_a_listen_without_batches_is_called_for_each_item(node: MakeNode) -> None:
    got: list[Any] = []
    sink = node("sink", router_port=0, listens={"K": got.append})
    stream = node("cam", sink).get_stream("s", "K", min_size=3)
    for number in range(6):
        stream.put({"n": number})
    stream.join()
    assert [item["n"] for item in got] == list(range(6))


def test_what_fails_at_the_recipient_is_counted(node: MakeNode) -> None:
    sink = node("sink", router_port=0, listens={"K": lambda item: 1 / 0})
    stream = node("cam", sink).get_stream("s", "K", min_size=2)
    stream.put(1)
    stream.put(2)
    stream.join()
    assert stream.statistics().settled["refused"] == 1


@pytest.mark.parametrize("min_size", [1, 3])
def test_an_item_that_cant_be_sent_does_not_take_others_along(
    cam: Net_Node, sink: Sink, min_size: int, caplog: pytest.LogCaptureFixture
) -> None:
    stream = cam.get_stream("s", "K", min_size=min_size)
    with caplog.at_level(logging.ERROR):
        for item in (1, object(), 2, 3):
            stream.put(item)
        stream.put("END")
        stream.join()
    assert sink.items == [1, 2, 3]
    assert stream.failed == 1
    assert "object can't be sent" in caplog.text


def test_putting_waits_while_too_many_bytes_are_on_their_way(node: MakeNode, gate: Gate) -> None:
    rig = node("rig", router_port=0, listens={"K": gate})
    stream = node("cam", rig).get_stream("s", "K", min_size=1)
    stream._max_bytes = 4 * 80_000
    frame = np.zeros(10_000)
    for _ in range(4):
        stream.put({"frame": frame}, timeout=5)
    with pytest.raises(queue.Full):
        stream.put({"frame": frame}, timeout=0.3)
    assert stream.unfinished_tasks == 4
    gate.opened.set()
    stream.put({"frame": frame}, timeout=10)
    stream.join()
    assert len(gate.got) == 5


def test_a_send_that_ends_at_once_does_not_lock_the_stream(
    cam: Net_Node, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = connected(cam.get_stream("s", "K", min_size=1), eventually)

    def send(message: Message, path: tuple[str, ...], **more: Any) -> Receipt:
        receipt = Receipt.alone(message)
        receipt.settle(DELIVERED)
        return receipt

    monkeypatch.setattr(stream._messenger.posting, "send", send)
    putter = threading.Thread(target=stream.put, args=(1,), daemon=True)
    putter.start()
    putter.join(5)
    assert not putter.is_alive()
    eventually(lambda: stream.unfinished_tasks == 0 and stream.qsize() == 0)


def test_a_stream_is_read_by_its_recipient_only(cam: Net_Node) -> None:
    stream = cam.get_stream("s", "K")
    with pytest.raises(MisuseError, match="listen for 'K' there"):
        stream.get()
    cam.release()
    with pytest.raises(Closed, match="cam_s was closed"):
        stream.put(1)


def test_release_sends_what_is_left(cam: Net_Node, sink: Sink, eventually: Eventually) -> None:
    stream = connected(cam.get_stream("s", "K", min_size=100), eventually)
    stream.put(1)
    cam.release()
    assert sink.items == [1]


def test_streams_that_idle_use_no_time_of_the_processor(
    cam: Net_Node, sink: Sink, eventually: Eventually
) -> None:
    streams = [connected(cam.get_stream(f"s{number}", "K"), eventually) for number in range(5)]
    for stream in streams:
        stream.put(1)
        stream.put("END")
        stream.join()
    used = time.process_time()
    threading.Event().wait(1.0)
    used = time.process_time() - used
    assert used < 0.08, f"{used:.3f} s of the processor in an idle second"
    assert len(sink.items) == 5
