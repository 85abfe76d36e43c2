"""Who may speak under which name (promise X2): the table of the room, and what the exchange makes of it."""

from __future__ import annotations

import pytest
from tests.protocol.builders import RULES, packet, parcel, sent_packets

from pilotage.protocol.admission import Admission
from pilotage.protocol.authority import Authority, Grant, Original, belongs_to
from pilotage.protocol.exchange import Exchange, ExchangeConfig
from pilotage.protocol.instructions import Card, Dialect, Hangup, Link, PeerChanged, PeerState, Service
from pilotage.protocol.liveness import LivenessRules, Peer
from pilotage.protocol.records import Greeting
from pilotage.protocol.routing import Routing
from pilotage.protocol.settlement import Reason

GRANTS = {
    "K-rig": Grant("rig"),
    "K-rig_a": Grant("rig_a"),
    "K-cam": Grant("cam", via="rig_a"),
    "K-eye": Grant("eye", via="cam"),
    "K-loop": Grant("loop", via="pool"),
    "K-pool": Grant("pool", via="loop"),
    "K-desk": Grant("desk", "operator"),
}


@pytest.fixture
def authority():
    return Authority(GRANTS, [Original("old", "10.0.0.7")])


def keyed(name: str, key: str, boot: int = 1, *, dials: bool = True) -> Card:
    return Card(Dialect.OWN, name, boot, dials, key)


@pytest.mark.parametrize(
    ("name", "owner", "belongs"),
    [
        ("rig", "rig", True),
        ("_rig", "rig", True),
        ("rig_video", "rig", True),
        ("_rig_video", "rig", True),
        ("__rig", "rig", False),
        ("rigged", "rig", False),
        ("xrig", "rig", False),
        ("", "rig", False),
        ("rig", "rig_a", False),
    ],
)
def test_what_belongs_to_a_name(name, owner, belongs):
    assert belongs_to(name, owner) is belongs


@pytest.mark.parametrize(
    ("card", "refusal"),
    [
        (Card(Dialect.OWN, "anybody", 1), ""),
        (keyed("rig", "K-rig"), ""),
        (keyed("_rig", "K-rig"), ""),
        (keyed("rig_b", "K-rig"), ""),
        (keyed("rig_a", "K-rig"), "the key of rig can't speak for 'rig_a'"),
        (keyed("rig_a_x", "K-rig"), "the key of rig can't speak for 'rig_a_x'"),
        (keyed("rig", "K-rig_a"), "the key of rig_a can't speak for 'rig'"),
        (keyed("nobody", "K-rig"), "the key of rig can't speak for 'nobody'"),
        (keyed("", "K-rig"), "the key of rig can't speak for ''"),
        (keyed("rig", "K-new"), "the key K-new… of 'rig' is not known here (any more)"),
        (keyed("old", "K-rig"), "the key of rig can't speak for 'old'"),
        (Card(Dialect.JSON, "rig_a", key="K-rig_a"), ""),
        (Card(Dialect.JSON, "old", address="10.0.0.7"), ""),
        (Card(Dialect.JSON, "old", address="10.0.0.8"), "'old' at 10.0.0.8 is not among the originals"),
        (Card(Dialect.OWN, "rig", 1, address="10.0.0.7"), "'rig' at 10.0.0.7 is not among the originals"),
    ],
)
def test_who_may_come_in_under_which_name(authority, card, refusal):
    assert authority.refusal(card).startswith(refusal) and bool(authority.refusal(card)) == bool(refusal)


@pytest.mark.parametrize(
    ("card", "name", "may"),
    [
        (Card(Dialect.OWN, "here", 1), "rig_a", True),
        (keyed("T", "K-rig", dials=False), "rig_a", True),
        (keyed("rig_a", "K-rig_a"), "_rig_a", True),
        (keyed("rig_a", "K-rig_a"), "child", True),
        (keyed("rig_a", "K-rig_a"), "cam", True),
        (keyed("rig_a", "K-rig_a"), "_cam_video", True),
        (keyed("rig_a", "K-rig_a"), "eye", True),
        (keyed("rig_a", "K-rig_a"), "desk", False),
        (keyed("rig_a", "K-rig_a"), "old", False),
        (keyed("rig_a", "K-rig_a"), "loop", False),
        (keyed("rig", "K-rig"), "cam", False),
        (keyed("rig", "K-new"), "child", False),
        (Card(Dialect.JSON, "old", address="10.0.0.7"), "child", True),
        (Card(Dialect.JSON, "old", address="10.0.0.7"), "_old", True),
        (Card(Dialect.JSON, "old", address="10.0.0.7"), "rig", False),
    ],
)
def test_who_may_bring_whose_messages(authority, card, name, may):
    assert authority.may_bring(card, name) is may


@pytest.mark.parametrize(
    ("way", "name", "may"),
    [
        (("_rig_a", "rig_a"), "rig_a", True),
        (("rig_a_eye",), "rig_a", True),
        (("_rig", "rig"), "rig_a", False),
        (("_rig_a", "rig_a"), "rig", False),
        (("desk",), "rig_a", False),
        # A child speaks as its parent, by way of it or straight; and so does what is behind the child.
        (("cam", "rig_a"), "rig_a", True),
        (("cam_eye",), "rig_a", True),
        (("eye",), "rig_a", True),
        (("stranger", "rig_a"), "rig_a", True),
        (("rig_a",), "cam", False),
        (("cam", "rig_a"), "rig", False),
        # Without keys, as on loopback: nobody knows better.
        (("stranger",), "rig_a", True),
        ((), "rig_a", True),
        (("desk",), "newcomer", True),
        # Two that each say to come through the other.
        (("loop",), "rig_a", False),
    ],
)
def test_who_may_speak_of_itself_as_whom(authority, way, name, may):
    assert authority.speaks_for(way, name) is may


def test_roles_hang_on_the_key(authority):
    grant = authority.grant(keyed("desk_cli", "K-desk"))
    assert grant is not None and grant.role == "operator"
    assert authority.grant(Card(Dialect.OWN, "desk", 1)) is None


# Admission by key


def claims(routing: Routing, admission: Admission, link: bytes, boot: int, key: str = "K-rig"):
    peer = Peer(("outward", link), keyed("rig", key, boot), 10.0)
    verdict = admission.claim(peer)
    if verdict.hang_up is not None:
        routing.remove(routing.peers[verdict.hang_up])
    if verdict.admitted:
        routing.add(peer)
    return verdict


def test_a_later_life_with_the_same_key_takes_over_and_the_ousted_one_has_to_ask(authority):
    routing = Routing("T", authority=authority)
    admission = Admission(routing, LivenessRules(), authority)
    assert claims(routing, admission, b"1", boot=1).admitted
    assert claims(routing, admission, b"2", boot=2).hang_up == ("outward", b"1")
    back = claims(routing, admission, b"3", boot=1)
    assert not back.admitted and back.probe == ("outward", b"2")


def test_another_key_is_refused_before_the_holder_is_even_asked(authority):
    routing = Routing("T", authority=authority)
    admission = Admission(routing, LivenessRules(), authority)
    claims(routing, admission, b"1", boot=1)
    verdict = claims(routing, admission, b"2", boot=2, key="K-rig_a")
    assert verdict.refusal and verdict.probe is None


# The exchange


def arrive(exchange: Exchange, link: Link, card: Card, *frames, now: float = 1.0):
    return exchange.frames_arrived([(link, card, one) for one in frames], now)


def make(authority: Authority, me: str = "T") -> Exchange:
    return Exchange(
        ExchangeConfig(me, 9, "", RULES, ack_within_s=0.0), lambda verb: Service.HANDLE, authority
    )


RIG, THIEF = ("outward", b"\x00rig"), ("outward", b"\x00thf")
HELLO = packet(greetings=[Greeting("hello")])


def test_a_stolen_origin_is_refused_with_the_reason_and_handed_to_nobody(authority):
    exchange = make(authority)
    card = keyed("rig_a", "K-rig_a")
    out = arrive(exchange, RIG, card, HELLO, packet(parcel(1, path=["T"], trail=["desk"])))
    (ack,) = sent_packets(out, RIG).acks
    assert ack.path == ["rig_a", "desk"] and ack.verdicts[0].reason is Reason.NOT_ALLOWED
    assert "rig_a can't speak for 'desk'" in ack.verdicts[0].text
    assert exchange.counts["names refused"] == 1 and "desk" not in exchange.routing.through()


def test_a_name_that_one_neighbour_brings_is_not_anothers_while_that_one_is_here(authority):
    exchange = make(authority)
    arrive(exchange, RIG, keyed("rig_a", "K-rig_a"), HELLO, packet(parcel(1, path=["T"], trail=["child"])))
    theft = packet(parcel(1, path=["T"], trail=["child"], boot=8))
    arrive(exchange, THIEF, keyed("rig", "K-rig"), HELLO, theft)
    assert (exchange.counts["names refused"], exchange.routing.through()) == (1, {"child": "rig_a"})
    exchange.link_down(RIG, 2.0)
    arrive(exchange, THIEF, keyed("rig", "K-rig"), theft, now=3.0)
    assert exchange.routing.through() == {"child": "rig"}


def test_a_key_that_is_taken_away_ends_its_link_and_nothing_more_is_read(authority):
    exchange = make(authority)
    card = keyed("rig", "K-rig")
    arrive(exchange, RIG, card, HELLO)
    authority.change({key: grant for key, grant in GRANTS.items() if key != "K-rig"})
    out = exchange.authority_changed(2.0)
    assert [greeting.word for greeting in sent_packets(out, RIG).greetings] == ["refused"]
    assert PeerState.GONE in [one.state for one in out if isinstance(one, PeerChanged)]
    assert arrive(exchange, RIG, card, HELLO, packet(parcel(1, path=["T"])), now=3.0) == []
    assert exchange.counts["from strangers"] == 2


def test_a_station_whose_key_is_taken_away_is_hung_up_on(authority):
    exchange = Exchange(
        ExchangeConfig("rig", 9, "pusher", RULES), lambda verb: Service.HANDLE, Authority({"K-T": Grant("T")})
    )
    up = ("pusher", b"")
    exchange.link_up(up, keyed("T", "K-T", dials=False), 1.0)
    arrive(exchange, up, keyed("T", "K-T", dials=False), packet(greetings=[Greeting("welcome")]))
    exchange.authority.change({})
    out = exchange.authority_changed(2.0)
    assert [one.link for one in out if isinstance(one, Hangup)] == [up]
