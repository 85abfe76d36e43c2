"""Our nodes and stations among the original's: messages, confirmations, arrays, hops, duplicates, death and return."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pilotage import Outcome

from .conftest import Originals
from .harness import free_port, wait_until
from .original.arrays import array_seen, array_spec, make_array
from .ours import Ours

pytestmark = [pytest.mark.interop, pytest.mark.timeout(90)]

ARRAYS: list[tuple[str, list[int], int]] = [
    ("<f8", [40, 3], 1), ("|u1", [48, 64, 3], 2), ("<i2", [200], 3), ("<c16", [9], 4), ("|b1", [30], 5),
    ("<U4", [7], 6), ("<f4", [], 7), ("<i8", [1], 8), (">u2", [5, 2], 9),
]  # fmt: skip
RAW_SAFE = [spec for spec in ARRAYS if spec[0] in ("<f8", "|u1", "<i2", "<c16")]


# Messages


def test_our_node_and_an_original_talk_through_an_original_station(originals: Originals, ours: Ours) -> None:
    station = originals.station("S", free_port()).wait_started()
    theirs = originals.node("theirs", "S", station.port, listens=["DATA"])
    theirs.meet(station)
    node, got = ours.node("node", "S", station.port, listens=["HELLO"])
    receipts = [node.send("theirs", "DATA", {"n": n}) for n in range(20)]
    assert [r.wait_settled(10).outcome for r in receipts] == [Outcome.DELIVERED] * 20
    assert sorted(v["n"] for v in theirs.wait_values("DATA", 20)) == list(range(20))
    theirs.send("node", "HELLO", "a", "b", repeat=True)
    assert sorted(got.wait("HELLO", 2)) == ["a", "b"]
    wait_until(lambda: len(set(theirs.confirms())) == 2, 5, "both confirms")
    wait_until(lambda: theirs.state()["outbox"] == [], 5, "an empty outbox")


def test_an_original_and_our_node_talk_through_our_station(originals: Originals, ours: Ours) -> None:
    station = ours.station("S")
    node, got = ours.node("node", "S", station.listen_port, listens=["HELLO"])
    theirs = originals.node("theirs", "S", station.listen_port, listens=["DATA"])
    theirs.send("node", "HELLO", *range(5), repeat=True)
    assert got.wait("HELLO", 5) == list(range(5))
    wait_until(lambda: len(theirs.confirms()) == 5, 5, "five confirms")
    assert theirs.state()["outbox"] == []
    receipts = [node.send("theirs", "DATA", n) for n in range(5)]
    assert [r.wait_settled(10).outcome for r in receipts] == [Outcome.DELIVERED] * 5
    assert sorted(theirs.wait_values("DATA", 5)) == list(range(5))


def test_two_originals_talk_through_our_station(originals: Originals, ours: Ours) -> None:
    station = ours.station("S")
    a = originals.node("a", "S", station.listen_port)
    b = originals.node("b", "S", station.listen_port, listens=["DATA"])
    a.send("b", "DATA", 1, repeat=True)  # before b is known here: it waits
    b.send(None, "CONFIRM", "hello")
    assert b.wait_values("DATA", 1) == [1]
    wait_until(lambda: a.confirms() == ["a_0"], 5, "the confirm")


def test_an_original_reaches_our_station_itself(originals: Originals, ours: Ours) -> None:
    station = ours.station("S")
    _, got = ours.node("probe", "S", station.listen_port, listens=["SEEN"])
    theirs = originals.node("theirs", "S", station.listen_port)
    theirs.send(None, "DATA", {"n": 1}, repeat=True)
    assert got.wait("SEEN", 1) == [{"key": "DATA", "value": {"n": 1}, "sender": "theirs"}]
    wait_until(lambda: theirs.confirms() == ["theirs_0"], 5, "the confirm")


def test_our_node_dials_an_originals_router_directly(originals: Originals, ours: Ours) -> None:
    port = free_port()
    theirs = originals.node(
        "theirs", "nobody", free_port(), listens=["DATA"], router_port=port
    ).wait_started()
    node, got = ours.node("node", "theirs", port, listens=["HELLO"])
    assert node.send(None, "DATA", 1).wait_settled(10).outcome is Outcome.DELIVERED
    assert theirs.wait_values("DATA", 1) == [1]
    theirs.send("node", "HELLO", 2)
    assert got.wait("HELLO", 1) == [2]


def test_an_original_dials_our_nodes_router_directly(originals: Originals, ours: Ours) -> None:
    node, got = ours.node("node", "", 0, listens=["HELLO"], router_port=0)
    theirs = originals.node("theirs", "node", int(node.router_port or 0), listens=["DATA"])
    theirs.send(None, "HELLO", 1, repeat=True)
    assert got.wait("HELLO", 1) == [1]
    wait_until(lambda: theirs.confirms() == ["theirs_0"], 5, "the confirm")
    assert node.send("theirs", "DATA", 2).wait_settled(10).outcome is Outcome.DELIVERED


def test_stations_push_to_each_other(originals: Originals, ours: Ours) -> None:
    upper = originals.station("U", free_port(), listens=["DATA"]).wait_started()
    lower = ours.station("L", upstream=("U", upper.port))
    assert lower.push("U", "DATA", {"n": 1}).wait_settled(10).outcome is Outcome.DELIVERED
    assert upper.wait_values("DATA", 1) == [{"n": 1}]
    other = ours.station("O")
    _, got = ours.node("probe", "O", other.listen_port, listens=["SEEN"])
    under = originals.station("B", free_port(), upstream=("O", other.listen_port))
    under.push("O", "DATA", {"n": 2})
    assert got.wait("SEEN", 1)[0]["value"] == {"n": 2}
    wait_until(lambda: under.confirms() == ["B_0"], 5, "the confirm")
    wait_until(lambda: under.state()["push_outbox"] == [], 5, "an empty outbox")


def test_an_unconfirmed_message_expires_without_an_error_storm(originals: Originals, ours: Ours) -> None:
    station = ours.station("S")
    node, _ = ours.node("node", "S", station.listen_port)
    theirs = originals.node("theirs", "S", station.listen_port, listens=["DATA"])
    theirs.send(None, "CONFIRM", "hello")
    settlement = node.send("theirs", "DATA", 1, repeat=False).wait_settled(10)
    assert settlement.outcome is not Outcome.REFUSED
    assert theirs.wait_values("DATA", 1) == [1]


def test_our_connecting_and_beating_is_not_counted_by_an_original(originals: Originals, ours: Ours) -> None:
    station = originals.station("S", free_port(), listens=["DATA"]).wait_started()
    node, _ = ours.node("node", "S", station.port)
    quiet = threading.Event()
    node.loop.add_callback(node.loop.call_later, 2.5, quiet.set)  # longer than a heartbeat
    assert quiet.wait(10)
    assert station.state()["msgs_received"] == 0
    assert station.state()["senders"] == []
    node.send(None, "DATA", 1).wait_settled(10)
    node.release()
    assert station.state()["msgs_received"] == 1
    assert station.log_errors() == []


# Arrays


@pytest.mark.parametrize("where", ["our station", "original station"])
def test_arrays_of_ours_reach_an_original(originals: Originals, ours: Ours, where: str) -> None:
    port = _station(originals, ours, where)
    theirs = originals.node("theirs", "S", port, listens=["ARRAYS"])
    theirs.send(None, "CONFIRM", "hello")
    node, _ = ours.node("node", "S", port)
    value = {"arrays": [make_array(*spec) for spec in ARRAYS], "n": 3}
    assert node.send("theirs", "ARRAYS", value).wait_settled(10).outcome is Outcome.DELIVERED
    (seen,) = theirs.wait_values("ARRAYS", 1)
    assert seen["n"] == 3
    for (dtype, shape, seed), array in zip(ARRAYS, seen["arrays"], strict=True):
        # numpy turns what it unpickles, but for protocol 5, into the machine's byte order.
        assert array == array_seen(dtype.replace(">", "<"), shape, seed), dtype


@pytest.mark.parametrize("where", ["our station", "original station"])
@pytest.mark.parametrize("blosc", [True, False])
def test_arrays_of_an_original_reach_us(originals: Originals, ours: Ours, where: str, blosc: bool) -> None:
    port = _station(originals, ours, where)
    node, got = ours.node("node", "S", port, listens=["ARRAYS"])
    if where == "original station":
        node.send(None, "STREAM", None).wait_settled(10)
    theirs = originals.node("theirs", "S", port)
    theirs.send("node", "ARRAYS", [array_spec(*spec) for spec in ARRAYS], blosc=blosc)
    assert got.wait("ARRAYS", 1) == [[array_seen(*spec) for spec in ARRAYS]]


@pytest.mark.parametrize("blosc", [True, False])
def test_arrays_of_an_original_reach_another_through_us(
    originals: Originals, ours: Ours, blosc: bool
) -> None:
    station = ours.station("S")
    a = originals.node("a", "S", station.listen_port)
    b = originals.node("b", "S", station.listen_port, listens=["ARRAYS"])
    b.send(None, "CONFIRM", "hello")
    a.send("b", "ARRAYS", [array_spec(*spec) for spec in RAW_SAFE], blosc=blosc)
    assert b.wait_values("ARRAYS", 1) == [[array_seen(*spec) for spec in RAW_SAFE]]


def _station(originals: Originals, ours: Ours, where: str) -> int:
    if where == "our station":
        return int(ours.station("S").listen_port)
    return originals.station("S", free_port()).wait_started().port


# Hops


def test_a_chain_of_ours_and_theirs_carries_messages_up(originals: Originals, ours: Ours) -> None:
    top = ours.station("S3")
    middle = originals.station("S2", free_port(), upstream=("S3", top.listen_port)).wait_started()
    bottom = ours.station("S1", upstream=("S2", middle.port))
    last, got = ours.node("last", "S3", top.listen_port, listens=["DATA"])
    node, _ = ours.node("first", "S1", bottom.listen_port)
    theirs = originals.node("theirs", "S1", bottom.listen_port)
    frame = array_spec("<f4", [5, 5], 9)
    theirs.send(["S1", "S2", "S3", "last"], "DATA", {"frame": frame})
    assert got.wait("DATA", 1) == [{"frame": array_seen("<f4", [5, 5], 9)}]
    node.send(["S1", "S2", "S3", "last"], "DATA", {"n": 2}, repeat=False)
    assert got.wait("DATA", 2)[1] == {"n": 2}
    assert last.msgs_received >= 2


def test_a_chain_of_theirs_and_ours_carries_messages_up(originals: Originals, ours: Ours) -> None:
    top = originals.station("S3", free_port()).wait_started()
    middle = ours.station("S2", upstream=("S3", top.port))
    bottom = originals.station("S1", free_port(), upstream=("S2", middle.listen_port)).wait_started()
    last = originals.node("last", "S3", top.port, listens=["DATA"])
    last.meet(top)
    first = originals.node("first", "S1", bottom.port)
    first.send(["S1", "S2", "S3", "last"], "DATA", 1)
    assert last.wait_values("DATA", 1) == [1]
    node, _ = ours.node("node", "S1", bottom.port)
    node.send(["S1", "S2", "S3", "last"], "DATA", 2, repeat=False)
    assert sorted(last.wait_values("DATA", 2)) == [1, 2]


def test_what_goes_up_through_an_original_comes_back_down(originals: Originals, ours: Ours) -> None:
    top = ours.station("top")
    middle = originals.station("middle", free_port(), upstream=("top", top.listen_port)).wait_started()
    below, below_got = ours.node("below", "middle", middle.port, listens=["ANSWER"])
    above, above_got = ours.node("above", "top", top.listen_port, listens=["QUESTION"])
    below.send("above", "QUESTION", 1, repeat=False)
    assert above_got.wait("QUESTION", 1) == [1]
    above.send("below", "ANSWER", 2, repeat=False)
    assert below_got.wait("ANSWER", 1) == [2]


# Duplicates


def test_a_resend_is_handled_once_and_confirmed(originals: Originals, ours: Ours) -> None:
    station = ours.station("U")
    go_on = threading.Event()
    handled: list[Any] = []

    def slow(value: Any) -> None:
        handled.append(value)
        go_on.wait(20)

    node, _ = ours.node("store", "U", station.listen_port, also={"DATA": slow})
    lower = originals.station("L", free_port(), upstream=("U", station.listen_port)).wait_started()
    lower.set_attribute("repeat_interval", 0.3)
    lower.push("store", "DATA", {"n": 1})
    wait_until(lambda: station.statistics().received >= 3, 10, "the original's resends")
    assert lower.confirms() == []  # DATA is confirmed when it is stored
    go_on.set()
    wait_until(lambda: "L_0" in lower.confirms(), 5, "the confirm")
    assert handled == [{"n": 1}]
    assert node.statistics().duplicates == 0


# Death and return


def test_an_original_node_dies_and_returns(originals: Originals, ours: Ours) -> None:
    station = ours.station("S")
    node, got = ours.node("node", "S", station.listen_port, listens=["HELLO"])
    first = originals.node("theirs", "S", station.listen_port, listens=["DATA"])
    first.send("node", "HELLO", 1, repeat=True)
    got.wait("HELLO", 1)
    first.kill()
    wait_until(lambda: "theirs" not in station.senders, 5, "its death to be noticed")
    receipt = node.send("theirs", "DATA", {"n": 7})
    second = originals.node("theirs", "S", station.listen_port, listens=["DATA"])
    second.send("node", "HELLO", 2, repeat=True)  # its id is theirs_0 again
    assert got.wait("HELLO", 2) == [1, 2]
    assert second.wait_values("DATA", 1) == [{"n": 7}]
    assert receipt.wait_settled(10).outcome is Outcome.DELIVERED


def test_an_original_station_dies_and_returns(originals: Originals, ours: Ours) -> None:
    port = free_port()
    first = originals.station("S", port, listens=["DATA"]).wait_started()
    node, _ = ours.node("node", "S", port)
    assert node.send(None, "DATA", 1).wait_settled(10).outcome is Outcome.DELIVERED
    first.kill()
    wait_until(lambda: not node.statistics().peers, 5, "its death to be noticed")
    receipt = node.send(None, "DATA", 2)
    second = originals.station("S", port, listens=["DATA"]).wait_started()
    assert second.wait_values("DATA", 1, timeout_s=10) == [2]
    assert receipt.wait_settled(10).outcome is Outcome.DELIVERED
