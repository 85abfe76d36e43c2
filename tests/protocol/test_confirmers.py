"""Only to whom a message went may say what has become of it (promise X2)."""

from __future__ import annotations

import pytest
from tests.protocol.builders import own, packet, parcel, request, sent_packets, settled
from tests.protocol.test_authority import HELLO, RIG, THIEF, arrive, keyed, make

from pilotage.protocol.authority import Authority, Grant
from pilotage.protocol.confirmers import MAX_KNOWN, Confirmers
from pilotage.protocol.exchange import Exchange
from pilotage.protocol.instructions import Link, Note
from pilotage.protocol.records import Ack

LOCAL: Link = ("listener", b"\x00boss")
RIG_CARD, THIEF_CARD, BOSS_CARD = keyed("rig_a", "K-rig_a"), keyed("rig_b", "K-rig_b"), own("boss", 7)


@pytest.fixture
def station() -> Exchange:
    found = make(Authority({"K-rig_a": Grant("rig_a"), "K-rig_b": Grant("rig_b")}))
    for link, card in ((RIG, RIG_CARD), (THIEF, THIEF_CARD), (LOCAL, BOSS_CARD)):
        arrive(found, link, card, HELLO)
    return found


def ack(path: list[str], boot: int = 7, flow: int = 1, seq: int = 1) -> list[bytes]:
    return packet(acks=[Ack(path, boot, flow, 5, seq, [], seq, [], 1, [])])


def test_what_went_to_one_neighbour_is_not_confirmed_by_another(station: Exchange) -> None:
    out = arrive(station, LOCAL, BOSS_CARD, packet(parcel(1, path=["rig_a"], trail=[])))
    assert len(sent_packets(out, RIG).parcels) == 1
    out = arrive(station, THIEF, THIEF_CARD, ack(["boss"]))
    assert sent_packets(out, LOCAL).acks == [] and station.counts["acks refused"] == 1
    (note,) = (one for one in out if isinstance(one, Note))
    assert (note.who, note.verb) == ("rig_b", "ACK")
    out = arrive(station, RIG, RIG_CARD, ack(["boss"]))
    assert len(sent_packets(out, LOCAL).acks) == 1


def test_nor_is_what_went_to_one_on_loopback_or_to_the_station(station: Exchange) -> None:
    arrive(station, RIG, RIG_CARD, packet(parcel(1, path=["boss"], trail=[], boot=8)))
    out = arrive(station, THIEF, THIEF_CARD, ack(["rig_a"], boot=8))
    assert sent_packets(out, RIG).acks == []
    out = arrive(station, LOCAL, BOSS_CARD, ack(["rig_a"], boot=8))
    assert len(sent_packets(out, RIG).acks) == 1
    arrive(station, RIG, RIG_CARD, packet(parcel(1, path=["T"], trail=[], boot=8, flow=2)))
    out = arrive(station, THIEF, THIEF_CARD, ack(["rig_a"], boot=8, flow=2))
    assert sent_packets(out, RIG).acks == []


def test_nor_what_the_station_itself_has_sent(station: Exchange) -> None:
    out = station.send((request("START", path=("rig_a",)),), 1.0)
    (sent,) = sent_packets(out, RIG).parcels
    forged = ack([], boot=sent.boot, flow=sent.flow)
    assert settled(arrive(station, THIEF, THIEF_CARD, forged)) == []
    ((handle, _),) = settled(arrive(station, RIG, RIG_CARD, forged))
    assert handle == "START"


def test_a_way_that_has_changed_is_confirmed_along_the_new_one(station: Exchange) -> None:
    arrive(station, RIG, RIG_CARD, packet(parcel(1, path=["T"], trail=["child"], boot=8, flow=2)))
    arrive(station, LOCAL, BOSS_CARD, packet(parcel(1, path=["child"], trail=[])))
    station.link_down(RIG, 2.0)
    arrive(
        station, THIEF, THIEF_CARD, packet(parcel(2, path=["T"], trail=["child"], boot=8, flow=2)), now=3.0
    )
    arrive(station, LOCAL, BOSS_CARD, packet(parcel(1, path=["child"], trail=[])), now=3.0)
    out = arrive(station, THIEF, THIEF_CARD, ack(["boss"]), now=3.0)
    assert len(sent_packets(out, LOCAL).acks) == 1


def test_without_keys_nobody_is_looked_at() -> None:
    station = make(Authority())
    arrive(station, LOCAL, BOSS_CARD, HELLO, packet(parcel(1, path=["T"], trail=[])))
    assert len(station._permits.confirmers) == 0


def test_what_is_known_is_bounded_and_what_is_not_known_is_allowed() -> None:
    known = Confirmers()
    for flow in range(MAX_KNOWN + 1):
        known.sent(1, flow, "rig")
    assert len(known) == MAX_KNOWN
    assert known.may_confirm(1, 0, "thief") and not known.may_confirm(1, MAX_KNOWN, "thief")
