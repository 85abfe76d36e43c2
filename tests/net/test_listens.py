"""What listens may declare about themselves."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import pytest

from pilotage import Net_Node, Outcome, on_loop, takes_batches, takes_many
from pilotage.net.listens import Origin, runs_on_loop, takes_origin, wants_batches


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
