"""Parcels wait, bounded in number, bytes and time, and leave once."""

from __future__ import annotations

from tests.protocol.builders import parcel

from pilotage.protocol.sends import FOREVER
from pilotage.protocol.waiting import OVER_AT_ONCE, WaitingRoom


def test_they_are_claimed_in_order_and_once():
    room = WaitingRoom(5.0)
    parcels = [parcel(seq, path=[name]) for seq, name in ((1, "a"), (2, "b"), (3, "a"))]
    for one in parcels:
        assert room.hold(one, 0.0) == []
    assert room.claim(lambda one: one.path == ["a"]) == [parcels[0], parcels[2]]
    assert room.claim(lambda one: one.path == ["a"]) == [] and len(room) == 1


def test_a_copy_adds_nothing_but_may_come_again_later():
    room = WaitingRoom(5.0)
    room.hold(parcel(1), 0.0)
    assert room.hold(parcel(1), 1.0) == [] and len(room) == 1
    room.claim(lambda one: True)
    room.hold(parcel(1), 2.0)
    assert len(room) == 1


def test_after_their_time_they_are_given_back_with_the_name_that_never_came():
    room = WaitingRoom(5.0)
    room.hold(parcel(1), 0.0)
    room.hold(parcel(2), 3.0)
    assert room.next_due() == 5.0 and room.time_passed(4.9) == []
    assert [(one.seq, name) for one, name in room.time_passed(5.0)] == [(1, "S")]
    assert room.next_due() == 8.0
    room.time_passed(8.0)
    assert room.next_due() == FOREVER


def test_too_many_or_too_heavy_ones_are_given_back_at_once():
    few, light = WaitingRoom(5.0, max_messages=1), WaitingRoom(5.0, max_bytes=7)
    for room in (few, light):
        room.hold(parcel(1), 0.0)
        late = parcel(2)
        assert room.hold(late, 0.0) == [late]
        room.claim(lambda one: True)
        assert room.hold(late, 0.0) == [], "room that was left is free again"


def test_of_many_that_are_over_a_few_are_given_back_at_a_time():
    room = WaitingRoom(5.0)
    for seq in range(OVER_AT_ONCE * 2 + 1):
        room.hold(parcel(seq), 0.0)
    given = []
    while room.next_due() <= 5.0:
        given.append([one.seq for one, _ in room.time_passed(5.0)])
    assert [len(some) for some in given] == [OVER_AT_ONCE, OVER_AT_ONCE, 1]
    assert [seq for some in given for seq in some] == list(range(OVER_AT_ONCE * 2 + 1)) and len(room) == 0
