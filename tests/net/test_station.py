"""Station: a process of its own, seen from inside and from outside."""

from __future__ import annotations

import gc
import inspect
import ipaddress
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pilotage import Message, Outcome, Pilot_Station, Reason, Station, Terminal_Station
from pilotage.net.security import Security
from pilotage.protocol.errors import Closed, InvalidMessage, MisuseError, PortInUse, Refused, StationDied
from tests.conftest import Eventually
from tests.net.conftest import Gate, MakeNode, StartStation, settings
from tests.net.parts import ProbedStation


@pytest.fixture
def station(start: StartStation) -> ProbedStation:
    return start(ProbedStation("S"))  # type: ignore[no-any-return]


def test_the_documented_constructor_and_methods() -> None:
    assert issubclass(Station, multiprocessing.Process)
    keywords = inspect.signature(Station).parameters
    assert [*keywords][:7] == ["id", "push_ip", "push_port", "push_id", "pusher", "listen_port", "listens"]
    for method in (Station.send, Station.push):
        parameters = list(inspect.signature(method).parameters.values())[1:]
        assert {one.name: one.default for one in parameters} == {
            "to": None,
            "key": None,
            "value": None,
            "msg": None,
            "repeat": True,
            "flags": None,
            "durable": None,  # beyond the documentation
        }
    prepare = inspect.signature(Station.prepare_message).parameters
    assert [*prepare] == ["self", "to", "key", "value", "repeat", "flags"]
    assert (prepare["repeat"].default, prepare["flags"].default) == (True, None)
    for name in ("run", "repeat", "l_confirm", "l_stream", "handle_listen", "get_ip", "release"):
        assert callable(getattr(Station, name))


def test_the_documented_defaults_before_the_start() -> None:
    station = Station(id="S")
    seen = {
        name: getattr(station, name) for name in ("ctx", "loop", "push_ip", "push_port", "pusher", "listener")
    }
    assert set(seen.values()) == {None}
    assert (station.push_id, station.child, station.repeat_interval) == ("", False, 5.0)
    empty = ("senders", "push_outbox", "send_outbox", "timers", "routes")
    assert [getattr(station, name) for name in empty] == [{}] * 5
    assert set(station.listens) == {"CONFIRM", "STREAM"}
    assert (station.push_outbox is not station.send_outbox) and station.msgs_received.value == 0


def test_the_documented_attributes_are_true_inside(station: ProbedStation, node: MakeNode) -> None:
    cam = node("cam", station)
    seen = cam.send("S", "PROBE").result(5)
    assert seen["pid"] == station.pid != os.getpid()
    assert seen["types"] == {
        "ctx": "Context",
        "loop": "AsyncIOMainLoop",
        "pusher": "NoneType",
        "listener": "ClearListener",
        "logger": "Logger",
        "msg_counter": "count",
        "file_block": "Event",
        "push_ip": "NoneType",
        "push_port": "NoneType",
        "push_id": "str",
        "listen_port": "int",
        "id": "str",
        "ip": "str",
        "child": "bool",
        "repeat_interval": "float",
        "senders": "dict",
        "routes": "dict",
        "timers": "dict",
        "push_outbox": "dict",
        "send_outbox": "dict",
        "listens": "dict",
    }
    assert seen["values"] == {
        "id": "S",
        "child": False,
        "repeat_interval": 5.0,
        "senders": {"cam": ""},
        "push_id": "",
    }


def test_the_parent_can_ask_for_what_the_process_holds(station: ProbedStation, node: MakeNode) -> None:
    cam = node("cam", station)
    cam.send("S", "ECHO", 1).result(5)
    told = station.statistics()
    assert (told.name, told.peers, told.received) == ("S", {"cam": "alive"}, 1)
    assert station.senders == {"cam": ""} and station.routes == {}
    assert station.msgs_received.value == 1


def test_outboxes_hold_what_is_unconfirmed(
    station: ProbedStation, start: StartStation, node: MakeNode, gate: Gate, eventually: Eventually
) -> None:
    low = start(
        ProbedStation("L", push_ip="127.0.0.1", push_port=station.listen_port, push_id="S", pusher=True)
    )
    node("cam", low, {"WAIT": gate})
    node("top", station, {"WAIT": gate})
    down, up = low.send("cam", "WAIT", 1), low.push("top", "WAIT", 2)
    eventually(lambda: gate.inside == 2)
    assert [message.key for message in low.send_outbox.values()] == ["WAIT"]
    assert [message.value for message in low.push_outbox.values()] == [2]
    assert set(low.timers) == {*low.send_outbox, *low.push_outbox}
    assert all(0 <= seconds <= 60 for seconds in low.timers.values())
    low.repeat()
    gate.opened.set()
    assert down.result(5) is None and up.result(5) is None
    eventually(lambda: (low.send_outbox, low.push_outbox, low.timers) == ({}, {}, {}))


def test_listens_are_given_the_message(station: ProbedStation, node: MakeNode) -> None:
    told = node("cam", station).send("S", "WHO", flags={"MINPRINT": True}).result(5)
    assert told == {"sender": "cam", "to": "S", "key": "WHO", "id": "cam_0", "flags": {"MINPRINT": True}}


def test_sends_from_the_parent_and_from_inside(station: ProbedStation, node: MakeNode) -> None:
    got: list[Any] = []
    cam = node("cam", station, {"K": got.append, "ASK": lambda value: value * 2, "BAD": lambda value: 1 / 0})
    receipt = station.send("cam", "K", {"from": "the parent"})
    assert receipt.wait_settled(5).outcome is Outcome.DELIVERED
    assert receipt.message.sender == "S" and str(receipt.message.id).startswith("S_")
    assert station.send("cam", "ASK", 4).result(5) == 8
    with pytest.raises(Refused, match="ZeroDivisionError"):
        station.send("cam", "BAD").result(5)
    assert cam.send("S", "SEND", {"to": "cam", "key": "ASK", "value": 5}).result(5) == 10
    message = Message(id="S_x", to="cam", sender="S", key="K", value="made before")
    station.send(msg=message).result(5)
    assert got == [{"from": "the parent"}, "made before"]


def test_misuse_is_told(station: ProbedStation) -> None:
    with pytest.raises(InvalidMessage, match="needs `to`"):
        station.send(key="K")
    with pytest.raises(InvalidMessage, match="no pusher"):
        station.push(key="K")
    with pytest.raises(Refused, match="key"):
        station.send(to="cam").result(5)
    with pytest.raises(Closed, match="wasn't started"):
        Station(id="X").send("cam", "K")
    with pytest.raises(MisuseError, match="needs an id"):
        Station()
    with pytest.raises(MisuseError, match="push_ip"):
        Station(id="X", pusher=True)
    with pytest.raises(MisuseError, match="started before"):
        station.start()


def test_a_port_in_use_is_told_by_the_parent(station: ProbedStation) -> None:
    other = Station(id="other", listen_port=station.listen_port)
    with pytest.raises(PortInUse, match=f"other can't listen on port {station.listen_port}"):
        other.start()
    assert not other.is_alive()


def test_a_process_that_dies_is_told_to_the_parent(
    station: ProbedStation, node: MakeNode, eventually: Eventually
) -> None:
    died: list[bool] = []
    station.on_died = lambda: died.append(True)
    node("cam", station, {"K": hangs})
    waiting = station.send("cam", "K")
    assert station.pid is not None
    os.kill(station.pid, signal.SIGKILL)
    eventually(lambda: died == [True])
    assert waiting.wait_settled(5).reason is Reason.INTERRUPTED
    with pytest.raises((StationDied, Closed)):
        station.statistics()


def hangs(value: Any) -> None:
    time.sleep(30)  # a listen that takes longer than its sender lives


@pytest.mark.parametrize("key", ["HANG", "STUCK", None])
def test_release_ends_within_two_seconds(
    station: ProbedStation, node: MakeNode, key: str | None, eventually: Eventually, tmp_path: Path
) -> None:
    cam = node("cam", station)
    if key is not None:
        begun = tmp_path / "begun"
        cam.send("S", key, str(begun))
        eventually(begun.exists)
    began = time.monotonic()
    station.release()
    assert time.monotonic() - began < 2.0
    assert not station.is_alive()
    station.release()


def test_a_station_finds_its_address_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    station = Station(id="S")
    assert ipaddress.ip_address(station.get_ip()).version == 4
    assert station.ip == station.get_ip()

    class Offline(socket.socket):
        def connect(self, address: Any) -> None:
            raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "socket", Offline)
    assert station.get_ip() == "127.0.0.1"


# Through several stations


def test_a_message_hops_along_a_list_of_three_stations(
    start: StartStation, node: MakeNode, eventually: Eventually
) -> None:
    third = start(ProbedStation("station_3"))
    node_3_got: list[Any] = []
    node_3 = node("node_3", third, {"GOTIT": node_3_got.append})
    second = start(_pushing("station_2", third))
    first = start(_pushing("station_1", second))
    node_1 = node("node_1", first)
    eventually(lambda: "station_1" in second.senders and "station_2" in third.senders)
    for one, name in ((node_1, "station_1"), (node_3, "station_3")):
        one.send(name, "ECHO", "").wait_settled(5)
    sent = node_1.send(["station_1", "station_2", "station_3", "node_3"], "GOTIT", 0, repeat=True)
    assert sent.wait_settled(5).outcome is Outcome.DELIVERED
    assert node_3_got == [0]
    # As the original counts: what arrived for or through each, with the confirmation where it came in.
    stations = (first, second, third)
    eventually(lambda: [station.msgs_received.value for station in stations] == [2, 1, 3])
    assert [node_1.msgs_received, node_3.msgs_received] == [1, 2]


def _pushing(name: str, upstream: Station) -> ProbedStation:
    return ProbedStation(
        name, push_ip="127.0.0.1", push_port=upstream.listen_port, push_id=upstream.id, pusher=True
    )


def test_names_below_are_learned_and_inner_nodes_are_reached(
    start: StartStation, node: MakeNode, eventually: Eventually
) -> None:
    top = start(ProbedStation("top"))
    rig = start(_pushing("rig", top))
    inner = node("_rig", rig, {"K": lambda value: f"inner {value}"})
    boss = node("_top", top, {"K": lambda value: f"boss {value}"})
    assert inner.send("_top", "K", 1).result(5) == "boss 1"
    assert top.routes == {"_rig": "rig"}
    assert boss.send("_rig", "K", 2).result(5) == "inner 2"
    assert boss.send(["top", "rig", "_rig"], "K", 3).result(5) == "inner 3"
    assert rig.push(key="ECHO", value="up").result(5) == "up"
    assert rig.push("_top", "K", 4).result(5) == "boss 4"


def test_a_station_answers_for_an_inner_node_that_is_not_there(start: StartStation, node: MakeNode) -> None:
    rig = start(ProbedStation("rig"))
    assert node("cam", rig).send("_rig", "ECHO", 5).result(5) == 5


# The other two classes


def test_the_terminals_station_as_documented(terminal: Terminal_Station) -> None:
    assert (
        issubclass(Terminal_Station, Station)
        and next(iter(inspect.signature(Terminal_Station).parameters)) == "pilots"
    )
    table = {
        "PING": "l_ping",
        "INIT": "l_init",
        "CHANGE": "l_change",
        "STOPALL": "l_stopall",
        "KILL": "l_kill",
    }
    table |= {"DATA": "l_data", "STATE": "l_state", "HANDSHAKE": "l_handshake", "FILE": "l_file"}
    table |= {"CONTINUOUS": "l_continuous"}
    assert {key: terminal.listens[key].__name__ for key in table} == table
    assert (terminal.id, terminal.pusher, terminal.has_pusher, terminal.sent_plot) == ("T", None, False, {})
    terminal.start_plot_timer()
    assert terminal.plot_timer == 1 / 10


def test_the_pilots_station_as_documented(pilot: Pilot_Station) -> None:
    table = {"STATE": "l_state", "COHERE": "l_cohere", "PING": "l_ping", "START": "l_start", "STOP": "l_stop"}
    table |= {"PARAM": "l_change", "FILE": "l_file", "CONTINUOUS": "l_continuous", "CHILD": "l_child"}
    table |= {"HANDSHAKE": "l_noop"}
    assert {key: pilot.listens[key].__name__ for key in table} == table
    assert callable(pilot.l_forward)
    assert (pilot.id, pilot.push_id, pilot.has_pusher, pilot.child) == ("rig_a", "T", True, False)


def test_stations_take_what_they_need_from_the_preferences() -> None:
    child = Pilot_Station(
        settings(
            NAME="cam_1",
            LINEAGE="CHILD",
            PARENTID="rig_a",
            PARENTIP="127.0.0.1",
            PARENTPORT=6001,
            MSGPORT=6002,
        )
    )
    assert (child.push_id, child.push_ip, child.push_port, child.listen_port) == (
        "rig_a",
        "127.0.0.1",
        6001,
        6002,
    )
    assert child.child
    lone, terminal = Pilot_Station(settings(NAME="rig_a")), Terminal_Station({}, settings())
    assert lone.push_port == terminal.listen_port, "by default a Pilot and a Terminal must meet"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system doesn't list a process's handles")
def test_released_stations_leave_no_handles_to_the_collector() -> None:
    def handles() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with Station(id="first", listen_port=0) as first:
        first.start()
    gc.collect()
    gc.disable()
    try:
        before = handles()
        for number in range(3):
            station = Station(id=f"next_{number}", listen_port=0)
            station.start()
            station.release()
            assert not station.is_alive()
        assert handles() <= before
    finally:
        gc.enable()


def test_a_station_takes_no_more_from_one_connection_than_it_was_told(
    start: StartStation, node: MakeNode, eventually: Eventually
) -> None:
    hub = start(ProbedStation("hub", security=Security.of(settings(MAXRATE=5, PUSHPORT=0))))
    eager = node("eager", hub)

    def are_dropped() -> bool:
        eager.send("hub", "ECHO", "", repeat=False)
        return hub.statistics().counts.get("over the rate", 0) > 0

    eventually(are_dropped)


@pytest.mark.parametrize("comes_back", [True, False])
def test_what_counts_leaves_the_end_of_a_turn_as_it_is(comes_back: bool) -> None:
    station = Station(id="S")
    messenger: Any = SimpleNamespace(exchange=SimpleNamespace(received=3), turn_over=lambda: comes_back)
    station._count(messenger)
    assert messenger.turn_over() is comes_back and station.msgs_received.value == 3
