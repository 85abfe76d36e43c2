"""Links that send nonsense lose their hearing, and nobody else does."""

from __future__ import annotations

import pytest
from tests.protocol.builders import LISTENER, envelope, exchange, handed_over, original, own, packet, parcel

from pilotage.protocol.exchange import Exchange, ExchangeConfig
from pilotage.protocol.instructions import Link, PeerChanged, PeerState, Service
from pilotage.protocol.patience import MAX_BUCKETS, Buckets, Patience, PatienceRules

OTHER: Link = ("listener", b"\0good")
A, GOOD = own("a", 2), own("good", 3)


def garbage(count: int, link: Link = LISTENER, card: object = A) -> list[tuple[Link, object, list[bytes]]]:
    return [(link, card, [b"garbage %d" % number]) for number in range(count)]


def test_a_bucket_fills_again() -> None:
    buckets: Buckets[str] = Buckets(size=10, a_second=2)
    assert [buckets.take("a", 4, 0.0) for _ in range(3)] == [True, True, False]
    assert buckets.take("b", 10, 0.0), "each has its own"
    assert not buckets.take("a", 4, 0.5) and buckets.take("a", 4, 1.0)
    assert not buckets.take("a", 11, 1e9), "never fuller than full"
    buckets.forget("a")
    assert buckets.take("a", 10, 1e9)


def test_buckets_are_bounded() -> None:
    buckets: Buckets[int] = Buckets(size=1, a_second=1, most=10)
    for key in range(1000):
        buckets.take(key, 1, 0.0)
    assert len(buckets) == 10
    patience: Patience[int] = Patience(PatienceRules(burst=1))
    for key in range(MAX_BUCKETS + 5):
        patience.is_exhausted(key, 10**9, 0.0)
    assert not patience.is_muted(0, 0.0) and patience.is_muted(MAX_BUCKETS, 0.0)


def test_a_link_that_sends_nonsense_is_muted_for_a_while() -> None:
    station = exchange()
    station.frames_arrived([(LISTENER, A, packet(greetings=[]))], 0.0)
    told = station.frames_arrived(garbage(1000), 1.0)
    counts = station.counts
    assert counts["malformed"] + counts["muted"] == 1000 and counts["malformed"] < 250
    assert counts["links muted"] == 1
    gone = [one for one in told if isinstance(one, PeerChanged)]
    assert [(one.name, one.state) for one in gone] == [("a", PeerState.GONE)] and "can't be used" in gone[
        0
    ].text
    good = parcel(1, trail=[], boot=5)
    assert not handed_over(station.frames_arrived([(LISTENER, A, packet(good))], 10.9))
    assert handed_over(station.frames_arrived([(LISTENER, A, packet(good))], 11.1)), "it may come again"


def test_nobody_else_is_muted() -> None:
    station = exchange()
    good = [(OTHER, GOOD, packet(parcel(seq, trail=[], boot=5))) for seq in range(1, 501)]
    mixed = [one for pair in zip(garbage(500), good, strict=True) for one in pair]
    assert len(handed_over(station.frames_arrived(mixed, 0.0))) == 500  # type: ignore[arg-type]
    assert OTHER in station.routing.peers and LISTENER not in station.routing.peers


def test_some_nonsense_now_and_then_is_forgiven() -> None:
    station = exchange()
    for second in range(200):
        station.frames_arrived(garbage(19), float(second))  # type: ignore[arg-type]
    assert station.counts["malformed"] == 3800 and not station.counts["links muted"]


def test_large_nonsense_counts_for_more() -> None:
    station = exchange()
    station.frames_arrived([(LISTENER, A, [bytes(20 * 2**20)])] * 2, 0.0)
    assert station.counts["links muted"] == 1


def test_a_thief_that_was_turned_away_is_muted_too() -> None:
    station = exchange()
    station.frames_arrived([(OTHER, GOOD, packet())], 0.0)
    link, card = original("good")
    thief = [(link, card, [envelope(sender="good", to="S")])] * 1000
    assert not handed_over(station.frames_arrived(thief, 0.1))
    assert (
        station.counts["from strangers"] + station.counts["muted"] == 1000 and station.counts["muted"] > 700
    )
    assert OTHER in station.routing.peers


def test_a_new_connection_is_met_with_new_patience() -> None:
    station = exchange()
    station.frames_arrived(garbage(1000), 0.0)  # type: ignore[arg-type]
    station.link_down(LISTENER, 0.1)
    assert handed_over(station.frames_arrived([(LISTENER, A, packet(parcel(1, trail=[], boot=5)))], 0.2))


def test_a_rate_for_everything_holds_where_it_is_set() -> None:
    rules = PatienceRules(most_a_second=10)
    station = Exchange(ExchangeConfig("S", 1, patience=rules), lambda verb: Service.HANDLE)
    flood = [(LISTENER, A, packet(parcel(seq, trail=[], boot=5))) for seq in range(1, 301)]
    assert len(handed_over(station.frames_arrived(flood, 0.0))) == 100
    assert station.counts["over the rate"] == 200
    assert len(handed_over(station.frames_arrived(flood[100:], 2.0))) == 20, "and they come again"
    assert len(handed_over(station.frames_arrived([(OTHER, GOOD, flood[0][2])], 2.0))) == 0, "a copy"
    assert station.counts["over the rate"] == 380


@pytest.mark.parametrize(
    "wrong", [{"burst": 0}, {"faults_a_second": -1}, {"mute_s": 0}, {"most_a_second": 0}], ids=str
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        PatienceRules(**wrong)
