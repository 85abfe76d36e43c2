"""Terminals and pilots of both kinds under each other: HANDSHAKE, STATE, DATA, START, STOP and streams."""

from __future__ import annotations

from typing import Any

import pytest

from pilotage import Net_Node, Outcome, Station

from .conftest import Originals
from .harness import OriginalPeer, free_port, wait_until
from .original.arrays import array_seen, array_spec, describe, make_array
from .ours import Got, Ours

pytestmark = [pytest.mark.interop, pytest.mark.timeout(90)]

TRIAL = {"pilot": "rig", "subject": "mouse", "trial_num": 3, "TRIAL_END": True}
TASK = {"subject": "mouse", "task_type": "Free_Water", "current_trial": 0}
HEADERS = {"subject": "mouse", "pilot": "rig", "continuous": True}
AT_TERMINAL = ("DATA", "STATE", "HANDSHAKE", "CONTINUOUS")


class TheirPilot:
    """An original pilot, its station and its node, below a terminal of ours with our `_T`."""

    def __init__(self, originals: Originals, ours: Ours) -> None:
        self.terminal: Station = ours.terminal(["rig"])
        self.inner, self.got = ours.node("_T", "T", self.terminal.listen_port, AT_TERMINAL)
        self.station = originals.pilot("rig", free_port(), self.terminal.listen_port).wait_started()
        self.node = originals.node("_rig", "rig", self.station.port, listens=["START", "STOP", "PARAM"])
        self.node.meet(self.station)

    def shake_hands(self) -> None:
        """Do what an original pilot does first."""
        self.node.send("T", "HANDSHAKE", {"pilot": "rig", "ip": "10.0.0.7", "state": "IDLE", "prefs": {}})
        self.got.wait("HANDSHAKE", 1)


class OurPilot:
    """Our pilot station with a node of ours, below an original terminal with an original `_T`."""

    def __init__(self, originals: Originals, ours: Ours) -> None:
        self.terminal = originals.terminal(free_port(), pilots=["rig"]).wait_started()
        self.inner: OriginalPeer = originals.node("_T", "T", self.terminal.port, listens=AT_TERMINAL)
        self.inner.meet(self.terminal)
        self.station: Station = ours.pilot("rig", self.terminal.port)
        found: tuple[Net_Node, Got] = ours.node("_rig", "rig", self.station.listen_port, ["START", "STOP"])
        self.node, self.got = found


@pytest.fixture
def theirs(originals: Originals, ours: Ours) -> TheirPilot:
    return TheirPilot(originals, ours)


@pytest.fixture
def mine(originals: Originals, ours: Ours) -> OurPilot:
    return OurPilot(originals, ours)


# An original pilot below our terminal


def test_an_original_pilots_handshake_and_state_reach_our_terminal(theirs: TheirPilot) -> None:
    theirs.shake_hands()
    assert theirs.got.values("HANDSHAKE") == [
        {"pilot": "rig", "ip": "10.0.0.7", "state": "IDLE", "prefs": {}}
    ]
    theirs.node.send("rig", "STATE", "RUNNING")
    assert theirs.got.wait("STATE", 1) == [{"state": "RUNNING", "pilot": "rig"}]
    wait_until(lambda: theirs.terminal.senders.get("rig") == "RUNNING", 5, "the state at our station")
    assert theirs.inner.send("rig", "PING", repeat=False) is not None
    assert theirs.got.wait("STATE", 2)[1] == {"state": "RUNNING", "pilot": "rig"}


def test_an_original_pilots_data_are_stored_once_and_in_order(theirs: TheirPilot) -> None:
    theirs.shake_hands()
    for n in range(30):
        theirs.node.send("T", "DATA", {**TRIAL, "trial_num": n, "x": array_spec("<f8", [20], n)})
    expected = [{**TRIAL, "trial_num": n, "x": array_seen("<f8", [20], n)} for n in range(30)]
    assert theirs.got.wait("DATA", 30) == expected


def test_an_original_pilots_pushed_data_are_confirmed(theirs: TheirPilot) -> None:
    theirs.station.push("T", "DATA", TRIAL)
    assert theirs.got.wait("DATA", 1) == [TRIAL]
    wait_until(lambda: "rig_0" in theirs.station.confirms(), 5, "the confirm")
    wait_until(lambda: theirs.station.state()["push_outbox"] == [], 5, "an empty outbox")


def test_our_start_and_stop_reach_an_original_pilots_node(theirs: TheirPilot) -> None:
    theirs.shake_hands()
    assert theirs.inner.send("rig", "START", TASK).wait_settled(10).outcome is Outcome.DELIVERED
    assert theirs.node.wait_values("START", 1) == [TASK]
    assert theirs.inner.send("rig", "STOP").wait_settled(10).outcome is Outcome.DELIVERED
    assert theirs.node.wait_values("STOP", 1) == [None]
    theirs.inner.send("T", "STOPALL").wait_settled(10)
    assert theirs.node.wait_values("STOP", 2) == [None, None]


def test_a_node_behind_an_original_pilot_is_reached(originals: Originals, theirs: TheirPilot) -> None:
    theirs.shake_hands()
    task = originals.node("rig_TASK", "rig", theirs.station.port, listens=["LEVEL"])
    task.meet(theirs.station)
    value = {"gain": 2, "mask": make_array("|u1", [8, 8], 4)}
    receipt = theirs.inner.send(["rig", "rig_TASK"], "LEVEL", value)
    assert task.wait_values("LEVEL", 1) == [describe(value)]
    assert receipt.wait_settled(10).outcome is Outcome.DELIVERED
    # The pilot has not taken us for one of its nodes: it still reaches its terminal.
    theirs.node.send("T", "DATA", TRIAL)
    assert theirs.got.wait("DATA", 1) == [TRIAL]


def test_an_original_pilot_returns_under_its_name(originals: Originals, theirs: TheirPilot) -> None:
    theirs.shake_hands()
    theirs.station.kill()
    wait_until(lambda: "rig" not in theirs.terminal.senders, 5, "its death to be noticed")
    station = originals.pilot("rig", free_port(), theirs.terminal.listen_port).wait_started()
    station.push("T", "DATA", TRIAL)
    assert theirs.got.wait("DATA", 1, timeout_s=10) == [TRIAL]
    wait_until(lambda: "rig_0" in station.confirms(), 5, "the confirm")


# Our pilot below an original terminal


def test_our_pilots_handshake_state_and_data_reach_an_original_terminal(mine: OurPilot) -> None:
    shake = {"pilot": "rig", "ip": "10.0.0.7", "state": "IDLE", "prefs": {}}
    # An original terminal can't confirm to a node behind a pilot: that ends as expired, once and at once.
    assert mine.node.send("T", "HANDSHAKE", shake).wait_settled(5).outcome is Outcome.EXPIRED
    assert mine.inner.wait_values("HANDSHAKE", 1) == [shake]
    mine.node.send("rig", "STATE", "RUNNING").wait_settled(10)
    mine.inner.wait_for(lambda seen: {"state": "RUNNING", "pilot": "rig"} in [e["value"] for e in seen])
    value = {**TRIAL, "x": make_array("<f8", [20], 5), "n": 1}
    assert mine.node.send("T", "DATA", value).wait_settled(5).outcome is Outcome.EXPIRED
    assert mine.inner.wait_values("DATA", 1) == [describe(value)]
    assert mine.inner.log_errors() == []


def test_an_original_terminals_start_and_stop_reach_our_pilots_node(mine: OurPilot) -> None:
    mine.node.send("T", "HANDSHAKE", {"pilot": "rig", "ip": "", "state": "IDLE"}).wait_settled(10)
    mine.inner.send("rig", "START", TASK, repeat=True)
    assert mine.got.wait("START", 1) == [TASK]
    wait_until(lambda: len(mine.inner.confirms()) == 1, 5, "the confirm of START")
    mine.inner.send("rig", "STOP", None, repeat=True)
    assert mine.got.wait("STOP", 1) == [None]
    mine.inner.send("T", "STOPALL", None)
    assert mine.got.wait("STOP", 2) == [None, None]


def test_an_original_terminals_ping_is_answered_with_our_pilots_state(mine: OurPilot) -> None:
    mine.node.send("rig", "STATE", "IDLE").wait_settled(10)
    mine.inner.wait_values("STATE", 1)
    mine.inner.send("rig", "PING", None)
    assert mine.inner.wait_values("STATE", 2)[1] == {"state": "IDLE", "pilot": "rig"}


def test_our_pilot_outlives_its_original_terminal(originals: Originals, mine: OurPilot) -> None:
    mine.node.send("T", "DATA", TRIAL).wait_settled(10)
    mine.terminal.kill()
    wait_until(lambda: "T" not in mine.station.statistics().peers, 5, "its death to be noticed")
    receipt = mine.node.send("T", "DATA", {**TRIAL, "trial_num": 4})
    terminal = originals.terminal(mine.terminal.port, pilots=["rig"]).wait_started()
    terminal.wait_for(lambda seen: any(e["value"] == {**TRIAL, "trial_num": 4} for e in seen), timeout_s=15)
    assert receipt.wait_settled(15).outcome is Outcome.EXPIRED


def test_what_our_pilots_station_pushes_itself_is_confirmed(mine: OurPilot) -> None:
    assert mine.station.push("T", "DATA", TRIAL).wait_settled(10).outcome is Outcome.DELIVERED
    assert mine.inner.wait_values("DATA", 1) == [TRIAL]


# Streams


def frames(count: int, make: Any) -> list[dict[str, Any]]:
    return [{"n": n, "frame": make("|u1", [24, 32], n)} for n in range(count)]


@pytest.mark.parametrize("min_size", [1, 5])
def test_an_originals_stream_reaches_our_terminals_node(
    theirs: TheirPilot, originals: Originals, min_size: int
) -> None:
    source = originals.node("cam", "T", theirs.terminal.listen_port, prefs={"NAME": "rig"})
    source.open_stream("eye", "CONTINUOUS", min_size=min_size, subject="mouse")
    for first in range(0, 10, 5):
        source.put_stream("eye", *frames(10, array_spec)[first : first + 5])
        theirs.got.wait("CONTINUOUS", first + 5)
    # An item that came alone has its headers in the envelope: they reach the listen all the same.
    assert theirs.got.values("CONTINUOUS") == [{**HEADERS, **item} for item in frames(10, array_seen)]


@pytest.mark.parametrize("min_size", [1, 5])
def test_an_originals_stream_reaches_our_node_directly(
    originals: Originals, ours: Ours, min_size: int
) -> None:
    node, got = ours.node("sink", "", 0, ["FRAME"], router_port=0)
    source = originals.node("cam", "sink", int(node.router_port or 0), prefs={"NAME": "rig"})
    source.open_stream("eye", "FRAME", min_size=min_size, subject="mouse")
    for first in range(0, 10, 5):
        source.put_stream("eye", *frames(10, array_spec)[first : first + 5])
        got.wait("FRAME", first + 5)
    seen = [{name: item[name] for name in ("n", "frame")} for item in got.values("FRAME")]
    assert seen == frames(10, array_seen)


@pytest.mark.parametrize("min_size", [1, 5])
def test_our_stream_reaches_an_original_node_directly(
    originals: Originals, ours: Ours, min_size: int
) -> None:
    port = free_port()
    sink = originals.node("sink", "nobody", free_port(), listens=["FRAME"], router_port=port).wait_started()
    node, _ = ours.node("cam", "sink", port)
    stream = node.get_stream("eye", "FRAME", min_size=min_size, subject="mouse", pilot="rig")
    for item in frames(12, make_array):
        stream.put(item)
    stream.put("END")
    seen = sorted(sink.wait_values("FRAME", 12), key=lambda item: item["n"])
    assert [{name: item[name] for name in ("n", "frame")} for item in seen] == frames(12, array_seen)
    stream.join()


@pytest.mark.parametrize("min_size", [1, 5])
def test_our_stream_reaches_an_original_station(originals: Originals, ours: Ours, min_size: int) -> None:
    station = originals.station("S", free_port(), listens=["FRAME"]).wait_started()
    node, _ = ours.node("cam", "S", station.port)
    stream = node.get_stream("eye", "FRAME", min_size=min_size, subject="mouse", pilot="rig")
    for n in range(7):
        stream.put({"n": n})
    stream.put("END")
    seen = sorted(station.wait_values("FRAME", 7), key=lambda item: item["n"])
    headers = HEADERS if min_size > 1 else {}
    assert seen == [{**headers, "n": n} for n in range(7)]
    if min_size == 1:
        envelope = station.received("FRAME")[0]["message"]
        assert {name: envelope[name] for name in HEADERS} == HEADERS
