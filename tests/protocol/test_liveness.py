"""Silence is judged by time alone, along the table of the room."""

from __future__ import annotations

import pytest
from tests.protocol.builders import own

from pilotage.protocol.errors import MalformedFrame
from pilotage.protocol.instructions import Card, Dialect, PeerState
from pilotage.protocol.liveness import LivenessRules, Peer, read_stretch, tell_stretch

RULES = LivenessRules(heartbeat_s=2.0, suspect_after_s=5.0, gone_after_s=10.0)


@pytest.mark.parametrize(
    ("state", "silent_s", "judged"),
    [
        (PeerState.ALIVE, 5.0, PeerState.ALIVE),
        (PeerState.ALIVE, 5.1, PeerState.SUSPECT),
        (PeerState.ALIVE, 10.1, PeerState.GONE),
        (PeerState.SUSPECT, 9.9, PeerState.SUSPECT),
        (PeerState.SUSPECT, 10.1, PeerState.GONE),
        (PeerState.JOINING, 9.9, PeerState.JOINING),
        (PeerState.JOINING, 10.1, PeerState.GONE),
    ],
)
def test_the_table(state, silent_s, judged):
    peer = Peer(("listener", b"1"), own("a", 1), 100.0)
    peer.state = state
    assert peer.judge(100.0 + silent_s, RULES) is judged


def test_an_original_owes_no_heartbeat():
    peer = Peer(("listener", b"o"), Card(Dialect.JSON, "o"), 0.0)
    peer.state = PeerState.ALIVE
    assert peer.judge(1e6, RULES) is PeerState.ALIVE


@pytest.mark.parametrize(
    "changes",
    [{"heartbeat_s": 0}, {"heartbeat_s": 6}, {"suspect_after_s": 20}, {"beats_per_s": 0}],
)
def test_rules_that_cannot_work_are_refused(changes):
    with pytest.raises(ValueError, match=r"heartbeat_s|beats_per_s"):
        LivenessRules(**changes)


@pytest.mark.parametrize(
    ("neighbours", "stretch"), [(0, 1.0), (200, 1.0), (500, 2.5), (1000, 5.0), (9999, 10.0)]
)
def test_a_station_wants_no_more_than_so_many_heartbeats_a_second(neighbours, stretch):
    assert RULES.stretch(neighbours) == stretch
    assert read_stretch(tell_stretch(stretch)) == stretch


def test_whoever_may_beat_less_often_may_be_silent_for_longer():
    peer = Peer(("listener", b"1"), own("a", 1), 100.0)
    peer.state, peer.stretch = PeerState.ALIVE, 4.0
    assert [peer.judge(100.0 + silent_s, RULES) for silent_s in (19.9, 20.1, 40.1)] == [
        PeerState.ALIVE,
        PeerState.SUSPECT,
        PeerState.GONE,
    ]


@pytest.mark.parametrize("text", ["much", "nan", "inf", "-3", "0.5", "10.5", "1e999", "2s", "9" * 5000])
def test_a_stretch_that_cannot_be_is_refused(text):
    with pytest.raises(MalformedFrame, match="stretched"):
        read_stretch(text)
