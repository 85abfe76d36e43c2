"""Streams on the machine of their consumer go straight to it, and lose or double nothing when that way ends."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotage import Net_Node, Terminal_Station, takes_batches
from pilotage.net.streams import Stream
from pilotage.protocol.doors import read_door
from pilotage.transport import doors
from tests.conftest import Eventually
from tests.net.conftest import MakeNode


class Consumer:
    """The inner node of a Terminal's station."""

    def __init__(self, node: MakeNode, terminal: Terminal_Station, *, direct: bool = True) -> None:
        self.items: list[Any] = []
        self.node: Net_Node = node("_T", terminal, {"CONTINUOUS": self.take}, direct=direct)

    @takes_batches
    def take(self, items: list[Any]) -> None:
        self.items += items

    @property
    def numbers(self) -> list[int]:
        return [item["n"] for item in self.items]

    @property
    def door(self) -> str:
        return read_door(self.node._messenger.exchange.doors.own).host


def via(stream: Stream) -> str:
    return next(iter(stream.statistics().peers), "")


def test_a_stream_goes_straight_to_its_consumer(
    node: MakeNode, terminal: Terminal_Station, eventually: Eventually
) -> None:
    consumer = Consumer(node, terminal)
    eventually(lambda: "_T" in terminal.senders)
    before = terminal.statistics().received
    stream = node("rig_a", terminal).get_stream("eye", "CONTINUOUS", min_size=10, pilot="rig_a")
    for number in range(1000):
        stream.put({"n": number, "frame": np.full(300, number)})
    stream.put("END")
    stream.join()
    assert via(stream) == "_T"
    assert consumer.numbers == list(range(1000))
    assert all((item["frame"] == item["n"]).all() for item in consumer.items)
    assert stream.failed == 0 and terminal.statistics().received - before < 10
    assert consumer.node.statistics().duplicates == 0


@pytest.mark.parametrize("min_size", [1, 5])
@pytest.mark.only_on("linux")
def test_it_goes_by_a_socket_that_only_its_user_may_dial(
    node: MakeNode, terminal: Terminal_Station, eventually: Eventually, min_size: int
) -> None:
    consumer = Consumer(node, terminal)
    eventually(lambda: "_T" in terminal.senders)
    stream = node("rig_a", terminal).get_stream("eye", "CONTINUOUS", min_size=min_size)
    stream.put({"n": 1})
    stream.put("END")
    stream.join()
    door = Path(consumer.door)
    assert via(stream) == "_T" and door.is_socket()
    assert door.parent.stat().st_mode & 0o077 == 0
    consumer.node.release()
    eventually(lambda: not door.exists())


def test_without_such_sockets_it_goes_by_a_port(
    node: MakeNode, terminal: Terminal_Station, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotage.transport.clear_listener.door_path", lambda name: "")
    consumer = Consumer(node, terminal)
    eventually(lambda: "_T" in terminal.senders)
    stream = node("rig_a", terminal).get_stream("eye", "CONTINUOUS")
    stream.put({"n": 1})
    stream.join()
    assert consumer.door == doors.LOOPBACK and via(stream) == "_T" and consumer.numbers == [1]


def test_a_consumer_that_has_no_door_is_reached_through_its_station(
    node: MakeNode, terminal: Terminal_Station
) -> None:
    consumer = Consumer(node, terminal, direct=False)
    stream = node("rig_a", terminal).get_stream("eye", "CONTINUOUS")
    stream.put({"n": 1})
    stream.join()
    assert via(stream) == "T" and consumer.numbers == [1]


def test_another_machine_goes_through_the_station(
    node: MakeNode, terminal: Terminal_Station, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = Consumer(node, terminal)
    eventually(lambda: "_T" in terminal.senders)
    monkeypatch.setattr("pilotage.transport.network.machine_mark", lambda: "elsewhere")
    stream = node("rig_a", terminal).get_stream("eye", "CONTINUOUS")
    stream.put({"n": 1})
    stream.join()
    assert via(stream) == "T" and consumer.numbers == [1]


def test_a_door_that_leads_nowhere_is_passed_by(
    node: MakeNode, terminal: Terminal_Station, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = Consumer(node, terminal)
    eventually(lambda: "_T" in terminal.senders)
    if consumer.door != doors.LOOPBACK:
        Path(consumer.door).unlink()
    caplog.set_level(logging.INFO)
    stream = node("rig_a", terminal).get_stream("eye", "CONTINUOUS")
    for number in range(100):
        stream.put({"n": number})
    stream.put("END")
    stream.join()
    assert via(stream) == "T" and consumer.numbers == list(range(100))
    assert "goes by its station" in caplog.text


def test_a_straight_way_that_ends_loses_and_doubles_nothing(
    node: MakeNode, terminal: Terminal_Station, eventually: Eventually
) -> None:
    consumer = Consumer(node, terminal)
    eventually(lambda: "_T" in terminal.senders)
    stream = node("rig_a", terminal).get_stream("eye", "CONTINUOUS", min_size=5)
    stream.put({"n": 0})
    eventually(lambda: via(stream) == "_T")
    ways = set()
    done = threading.Event()

    def work() -> None:
        for number in range(1, 4000):
            stream.put({"n": number})
        stream.put("END")
        done.set()

    threading.Thread(target=work).start()
    while not done.wait(0.02):
        stream._loop.add_callback(stream._messenger.driver._dialling.hang_up)
        ways.add(via(stream))
    stream.join()
    assert consumer.numbers == list(range(4000))
    assert stream.failed == 0 and stream.statistics().unsettled == 0


def test_a_stream_moves_to_a_consumer_that_comes_later(
    node: MakeNode, terminal: Terminal_Station, eventually: Eventually
) -> None:
    stream = node("rig_a", terminal).get_stream("eye", "CONTINUOUS", min_size=2)
    for number in range(100):
        stream.put({"n": number})
    eventually(lambda: via(stream) == "T")
    consumer = Consumer(node, terminal)
    eventually(lambda: via(stream) == "_T")
    for number in range(100, 200):
        stream.put({"n": number})
    stream.put("END")
    stream.join()
    assert consumer.numbers == list(range(200))


def test_only_what_the_station_passes_on_goes_straight(
    node: MakeNode, terminal: Terminal_Station, eventually: Eventually
) -> None:
    Consumer(node, terminal)
    eventually(lambda: "_T" in terminal.senders)
    stream = node("rig_a", terminal).get_stream("states", "STATE", min_size=1)
    stream.put("RUNNING")
    eventually(lambda: via(stream) == "T")
