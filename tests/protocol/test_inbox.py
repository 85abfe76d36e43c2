"""A place is handed out once, an ordered flow without gaps, and acknowledgements repeat what matters."""

from __future__ import annotations

import itertools

import pytest
from tests.protocol.builders import parcel

from pilotage.protocol.inbox import Inbox
from pilotage.protocol.records import Marks
from pilotage.protocol.settlement import DELIVERED, Outcome, Reason, refused


@pytest.fixture
def inbox():
    return Inbox(life=3, window=8)


def seqs(parcels):
    return [one.seq for one in parcels]


def test_a_copy_is_counted_and_not_handed_out(inbox):
    assert seqs(inbox.arrived(parcel(1))) == [1]
    assert inbox.arrived(parcel(1)) == [] and inbox.duplicates == 1


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3, 4))))
def test_any_order_of_arrival_is_handed_out_in_the_order_of_sending(inbox, order):
    given = [seq for at in order for seq in seqs(inbox.arrived(parcel(at)))]
    assert given == [1, 2, 3, 4]


def test_an_unordered_flow_is_handed_out_as_it_comes_and_once(inbox):
    given = [seqs(inbox.arrived(parcel(at, marks=0))) for at in (3, 1, 3, 2, 1)]
    assert given == [[3], [1], [], [2], []]


def test_a_raised_floor_gives_up_the_gap(inbox):
    assert inbox.arrived(parcel(3)) == []
    assert seqs(inbox.arrived(parcel(4, floor=3))) == [3, 4]
    assert inbox.arrived(parcel(1)) == [], "what was given up does not come late"


def test_a_question_raises_the_floor_and_is_answered(inbox):
    inbox.arrived(parcel(2))
    assert seqs(inbox.arrived(parcel(2, floor=2, marks=Marks.PROBE))) == [2]
    assert inbox.acks()[0].received == 2


def test_a_new_life_begins_at_the_floor(inbox):
    assert seqs(inbox.arrived(parcel(41, floor=41))) == [41]
    ack = inbox.acks()[0]
    assert (ack.life, ack.received, ack.settled, ack.fresh) == (3, 41, 40, 1)


def test_beyond_the_window_nothing_is_kept(inbox):
    assert inbox.arrived(parcel(9)) == [] and inbox.beyond_window == 1
    assert inbox.acks()[0].received_beyond == []


def test_acks_tell_gaps_and_are_said_once(inbox):
    for seq in (1, 3, 4):
        inbox.arrived(parcel(seq))
    ack = inbox.acks()[0]
    assert (ack.received, ack.received_beyond, ack.fresh) == (1, [3, 4], 3)
    assert inbox.acks() == []


def test_settling_out_of_order_is_told_as_ranges_and_then_folded(inbox):
    for seq in (1, 2, 3):
        inbox.arrived(parcel(seq))
    inbox.settle((7, 1, 3), DELIVERED)
    assert (inbox.acks()[0].settled, inbox.settle((7, 1, 2), DELIVERED)) == (0, None)
    assert inbox.acks()[0].settled_beyond == [2, 3]
    inbox.settle((7, 1, 1), DELIVERED)
    ack = inbox.acks()[0]
    assert (ack.settled, ack.settled_beyond) == (3, [])


def test_a_verdict_is_repeated_until_the_floor_has_passed_it(inbox):
    inbox.arrived(parcel(1))
    inbox.settle((7, 1, 1), refused(Reason.LISTEN_FAILED, "why"))
    inbox.settle((7, 1, 1), DELIVERED)
    for _ in range(3):
        verdict = inbox.acks()[0].verdicts[0]
        assert (verdict.outcome, verdict.text) == (Outcome.REFUSED, "why")
        inbox.arrived(parcel(1))
    inbox.arrived(parcel(2, floor=2))
    assert inbox.acks()[0].verdicts == []


def test_an_answer_is_a_verdict(inbox):
    inbox.arrived(parcel(1))
    inbox.settle((7, 1, 1), DELIVERED, b"answer")
    assert inbox.acks()[0].verdicts[0].answer == b"answer"


def test_lives_and_flows_are_kept_apart(inbox):
    assert seqs(inbox.arrived(parcel(1))) == [1]
    assert seqs(inbox.arrived(parcel(1, boot=8))) == [1]
    assert seqs(inbox.arrived(parcel(1, flow=2))) == [1]


def test_flows_are_bounded_and_idle_ones_go_first():
    inbox = Inbox(life=3, max_flows=2)
    inbox.arrived(parcel(1, flow=1))
    inbox.arrived(parcel(1, flow=2))
    inbox.settle((7, 2, 1), DELIVERED)
    inbox.arrived(parcel(1, flow=3))
    assert len(inbox) == 2 and inbox.arrived(parcel(1, flow=1)) == []
    inbox.arrived(parcel(1, flow=4))
    inbox.arrived(parcel(1, flow=5))
    assert len(inbox) == 2, "the bound holds where nothing is idle"
    assert len(inbox.acks()) == 2


def test_what_an_earlier_life_committed_is_not_handed_out_again(inbox):
    inbox.restore([((7, 1), 12)])
    assert [seqs(inbox.arrived(parcel(seq, floor=10))) for seq in (10, 12, 13)] == [[], [], [13]]
