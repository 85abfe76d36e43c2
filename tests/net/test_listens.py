"""What listens may declare about themselves."""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from pilotage import Net_Node, Outcome, on_loop, takes_batches, takes_many
from pilotage.net.dispatch import _origin
from pilotage.net.listens import Origin, runs_on_loop, takes_origin, wants_batches
from pilotage.protocol.message import Message
from pilotage.protocol.records import Marks, Parcel


class Keeper:
    def __init__(self) -> None:
        self.got: list[tuple[Any, Origin]] = []

    def keep(self, value: Any, origin: Origin) -> None:
        self.got.append((value, origin))

    def plain(self, value: Any) -> None:
        self.got.append((value, Origin(0, 0, 0, None, ())))


def test_bound_methods_can_be_marked() -> None:
    listen = takes_batches(on_loop(Keeper().plain))
    assert runs_on_loop(listen)
    assert wants_batches(listen)


def test_a_streams_items_carry_the_origin_of_their_message() -> None:
    keeper = Keeper()
    listens = {"ITEM": takes_origin(keeper.keep)}
    with (
        Net_Node("keeper", "", 0, listens, router_port=0) as node,
        Net_Node("source", "keeper", node.router_port or 0) as source,
    ):
        stream = source.get_stream("s", "ITEM", min_size=2)
        for number in range(4):
            stream.put(number)
        stream.join()
    assert [value for value, _ in keeper.got] == [0, 1, 2, 3]
    places = [(origin.boot, origin.flow, origin.seq) for _, origin in keeper.got]
    assert places[0] == places[1] != places[2] == places[3]
    assert keeper.got[0][1].trail == ("source_s",)


class Hoard:
    """Takes all that waits, once it is let."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.ends: Any = None
        self.may = threading.Event()

    def __call__(self, many: list[tuple[int, Origin]]) -> Any:
        self.may.wait(10)
        self.calls.append([value for value, _ in many])
        assert [origin.seq for _, origin in many] == sorted(origin.seq for _, origin in many)
        return self.ends(len(many)) if callable(self.ends) else self.ends


def _later(result: object) -> Future[Any]:
    future: Future[Any] = Future()
    threading.Timer(0.01, future.set_result, (result,)).start()
    return future


@pytest.mark.parametrize(
    ("ends", "outcomes"),
    [
        (None, {Outcome.DELIVERED}),
        (lambda count: _later(None), {Outcome.DELIVERED}),
        (lambda count: [None] * count, {Outcome.DELIVERED}),
        (lambda count: [ValueError("no")] * count, {Outcome.REFUSED}),
        (lambda count: _later([ValueError("no")] * count), {Outcome.REFUSED}),
        (lambda count: "nonsense", {Outcome.REFUSED}),
        (lambda count: 1 / 0, {Outcome.REFUSED}),
    ],
)
def test_a_listen_for_many_is_called_once_for_all_that_waits(ends: Any, outcomes: set[Outcome]) -> None:
    hoard = Hoard()
    hoard.ends = ends
    with (
        Net_Node("keeper", "", 0, {"ITEM": takes_many(hoard)}, router_port=0) as node,
        Net_Node("source", "keeper", node.router_port or 0) as source,
    ):
        receipts = [source.send("keeper", "ITEM", number) for number in range(50)]
        hoard.may.set()
        assert {receipt.wait_settled(10).outcome for receipt in receipts} == outcomes
    assert [number for call in hoard.calls for number in call] == list(range(50)) and len(hoard.calls) < 40


def test_each_of_many_may_end_in_its_own_way() -> None:
    def judge(many: list[tuple[int, Origin]]) -> list[Any]:
        return [ValueError(f"{value} is odd") if value % 2 else None for value, _ in many]

    with (
        Net_Node("keeper", "", 0, {"ITEM": takes_many(judge)}, router_port=0) as node,
        Net_Node("source", "keeper", node.router_port or 0) as source,
    ):
        ends = [source.send("keeper", "ITEM", number).wait_settled(10) for number in range(4)]
    assert [end.text for end in ends] == ["", "ValueError: 1 is odd", "", "ValueError: 3 is odd"]


def test_an_originals_message_has_the_same_origin_whoever_stands_in_for_it() -> None:
    def brought_by(boot: int, text: str = "2026-11-22T04:56:42.093565") -> Origin:
        body = json.dumps(
            {"id": "o_0", "sender": "o", "to": "keeper", "key": "DATA", "value": 1, "timestamp": text}
        )
        parcel = Parcel(["keeper"], ["o", "S"], boot, 1, 7, 1, "DATA", Marks.JSON, body.encode())
        return _origin(Message(body), parcel, 0)

    one, other, later = brought_by(5), brought_by(6), brought_by(5, "2026-11-22T05:00:00.000000")
    assert one == other != later and 0 < one.boot < 2**63
