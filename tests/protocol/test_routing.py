"""Names lead to links: neighbours first, then learned ways, then up the tree; never back."""

from __future__ import annotations

from tests.protocol.builders import own, parcel

from pilotage.protocol import routing as module
from pilotage.protocol.liveness import Peer
from pilotage.protocol.routing import Routing

UP = ("pusher", b"")


def peer(name: str, *, dials: bool = True, boot: int = 1) -> Peer:
    link = ("listener", f"{name}{boot}".encode()) if dials else UP
    return Peer(link, own(name, boot, dials=dials), 0.0)


def next_name(routing: Routing, name: str, came_from: str = "x"):
    hop = routing.next_hop(parcel(1, path=[name], trail=[came_from] if came_from else []))
    return hop and hop.name


def test_a_neighbour_is_reached_directly_others_up_the_tree():
    routing = Routing("S", "pusher")
    routing.add(peer("T", dials=False))
    routing.add(peer("a"))
    assert (next_name(routing, "a"), next_name(routing, "elsewhere")) == ("a", "T")


def test_without_a_way_there_is_none_and_nothing_goes_back_up():
    assert next_name(Routing("T"), "elsewhere") is None
    routing = Routing("S", "pusher")
    routing.add(peer("T", dials=False))
    assert next_name(routing, "elsewhere", came_from="T") is None


def test_an_inner_node_is_reached_by_its_station_but_not_from_there():
    routing = Routing("S", "pusher")
    routing.add(peer("T", dials=False))
    assert next_name(routing, "_T") == "T" and next_name(routing, "_T", came_from="T") is None


def test_whoever_spoke_is_reached_through_the_one_that_brought_it():
    routing = Routing("T")
    routing.add(peer("S"))
    routing.learn(["n1", "S0", "S"])
    assert next_name(routing, "n1") == "S" and routing.through() == {"n1": "S", "S0": "S"}
    assert next_name(routing, "n1", came_from="S") is None, "it would only come back"


def test_a_neighbour_outranks_what_was_learned():
    routing = Routing("T")
    routing.add(peer("S"))
    routing.learn(["n1", "S"])
    routing.add(peer("n1"))
    routing.learn(["n1", "S"])
    assert next_name(routing, "n1") == "n1" and "n1" not in routing.through()


def test_our_own_name_is_not_learned():
    routing = Routing("T")
    routing.learn(["T", "S"])
    assert routing.through() == {}


def test_removing_an_old_link_leaves_the_name_with_the_new_one():
    routing = Routing("T")
    old, new = peer("a", boot=1), peer("a", boot=2)
    routing.add(old)
    routing.add(new)
    routing.remove(old)
    assert routing.names["a"] is new and list(routing) == [new]


def test_what_is_learned_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_ROUTES", 2)
    routing = Routing("T")
    routing.learn(["a", "b", "c", "S"])
    assert routing.through() == {"b": "S", "c": "S"}
