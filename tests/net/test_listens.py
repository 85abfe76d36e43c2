"""What listens may declare about themselves."""

from __future__ import annotations

from typing import Any

from pilotage import Net_Node, on_loop, takes_batches
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
