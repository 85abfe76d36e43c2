"""A place is handed out once, an ordered flow without gaps, and acknowledgements repeat what matters."""

from __future__ import annotations

import itertools

import pytest
from tests.protocol.builders import parcel

from pilotage.protocol.inbox import Inbox, NoRoom
from pilotage.protocol.records import Marks
from pilotage.protocol.settlement import DELIVERED, Outcome, Reason, refused


@pytest.fixture
def inbox():
    return Inbox(life=3, window=8)


def seqs(parcels):
    return [one.seq for one in parcels]


def test_a_copy_is_counted_and_not_handed_out(inbox):
    assert seqs(inbox.arrived(parcel(1), 0.0)) == [1]
    assert inbox.arrived(parcel(1), 0.0) == [] and inbox.duplicates == 1


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3, 4))))
def test_any_order_of_arrival_is_handed_out_in_the_order_of_sending(inbox, order):
    given = [seq for at in order for seq in seqs(inbox.arrived(parcel(at), 0.0))]
    assert given == [1, 2, 3, 4]


def test_an_unordered_flow_is_handed_out_as_it_comes_and_once(inbox):
    given = [seqs(inbox.arrived(parcel(at, marks=0), 0.0)) for at in (3, 1, 3, 2, 1)]
    assert given == [[3], [1], [], [2], []]


def test_a_raised_floor_gives_up_the_gap(inbox):
    assert inbox.arrived(parcel(3), 0.0) == []
    assert seqs(inbox.arrived(parcel(4, floor=3), 0.0)) == [3, 4]
    assert inbox.arrived(parcel(1), 0.0) == [], "what was given up does not come late"


def test_a_question_raises_the_floor_and_is_answered(inbox):
    inbox.arrived(parcel(2), 0.0)
    assert seqs(inbox.arrived(parcel(2, floor=2, marks=Marks.PROBE), 0.0)) == [2]
    assert inbox.acks()[0].received == 2


def test_a_new_life_begins_at_the_floor(inbox):
    assert seqs(inbox.arrived(parcel(41, floor=41), 0.0)) == [41]
    ack = inbox.acks()[0]
    assert (ack.life, ack.received, ack.settled, ack.fresh) == (3, 41, 40, 1)


def test_beyond_the_window_nothing_is_kept(inbox):
    assert inbox.arrived(parcel(9), 0.0) == [] and inbox.beyond_window == 1
    assert inbox.acks()[0].received_beyond == []


def test_acks_tell_gaps_and_are_said_once(inbox):
    for seq in (1, 3, 4):
        inbox.arrived(parcel(seq), 0.0)
    ack = inbox.acks()[0]
    assert (ack.received, ack.received_beyond, ack.fresh) == (1, [3, 4], 3)
    assert inbox.acks() == []


def test_settling_out_of_order_is_told_as_ranges_and_then_folded(inbox):
    for seq in (1, 2, 3):
        inbox.arrived(parcel(seq), 0.0)
    inbox.settle((7, 1, 3), DELIVERED)
    assert (inbox.acks()[0].settled, inbox.settle((7, 1, 2), DELIVERED)) == (0, None)
    assert inbox.acks()[0].settled_beyond == [2, 3]
    inbox.settle((7, 1, 1), DELIVERED)
    ack = inbox.acks()[0]
    assert (ack.settled, ack.settled_beyond) == (3, [])


def test_a_verdict_is_repeated_until_the_floor_has_passed_it(inbox):
    inbox.arrived(parcel(1), 0.0)
    inbox.settle((7, 1, 1), refused(Reason.LISTEN_FAILED, "why"))
    inbox.settle((7, 1, 1), DELIVERED)
    for _ in range(3):
        verdict = inbox.acks()[0].verdicts[0]
        assert (verdict.outcome, verdict.text) == (Outcome.REFUSED, "why")
        inbox.arrived(parcel(1), 0.0)
    inbox.arrived(parcel(2, floor=2), 0.0)
    assert inbox.acks()[0].verdicts == []


def test_messages_that_are_refused_together_are_refused_one_by_one(inbox):
    for seq in (1, 2, 3):
        inbox.arrived(parcel(seq), 0.0)
    inbox.settle((7, 1, 1), refused(Reason.LISTEN_FAILED, "why"), messages=3)
    (ack,) = inbox.acks()
    assert ack.settled == 3 and [verdict.seq for verdict in ack.verdicts] == [1, 2, 3]


def test_an_answer_is_a_verdict(inbox):
    inbox.arrived(parcel(1), 0.0)
    inbox.settle((7, 1, 1), DELIVERED, b"answer")
    assert inbox.acks()[0].verdicts[0].answer == b"answer"


def test_lives_and_flows_are_kept_apart(inbox):
    assert seqs(inbox.arrived(parcel(1), 0.0)) == [1]
    assert seqs(inbox.arrived(parcel(1, boot=8), 0.0)) == [1]
    assert seqs(inbox.arrived(parcel(1, flow=2), 0.0)) == [1]


def test_a_flow_is_forgotten_only_when_no_copy_of_it_can_come_any_more():
    inbox = Inbox(life=3, max_flows=2, forget_after_s=60.0)
    inbox.arrived(parcel(1, flow=1), 0.0)
    inbox.arrived(parcel(1, flow=2), 0.0)
    for flow in (1, 2):
        inbox.settle((7, flow, 1), DELIVERED)
    with pytest.raises(NoRoom):
        inbox.arrived(parcel(1, flow=3), 1000.0)  # their originator may not know that they are over
    inbox.arrived(parcel(1, floor=2, marks=Marks.PROBE, flow=2), 1000.0)
    with pytest.raises(NoRoom):
        inbox.arrived(parcel(1, flow=3), 1030.0)  # a copy may still be on its way
    assert seqs(inbox.arrived(parcel(1, flow=3), 1070.0)) == [1]
    assert len(inbox) == 2 and inbox.arrived(parcel(1, flow=1), 1070.0) == []


def test_a_flow_whose_end_was_never_told_is_forgotten_after_a_day():
    inbox = Inbox(life=3, max_flows=1, forget_after_s=60.0)
    inbox.arrived(parcel(1, flow=1), 0.0)
    with pytest.raises(NoRoom):
        inbox.arrived(parcel(1, flow=1, boot=8), 86_000.0)
    assert seqs(inbox.arrived(parcel(1, flow=1, boot=8), 86_500.0)) == [1]


def run(first: int, last: int, **changes):
    return parcel(first, bodies=[b"%d" % seq for seq in range(first, last + 1)], **changes)


def bodies(ready) -> list[int]:
    return [int(body) for one in ready for body in one.bodies]


def test_a_run_is_taken_in_and_settled_as_one():
    inbox = Inbox(1)
    ready = inbox.arrived(run(1, 50), 0.0)
    assert len(ready) == 1 and bodies(ready) == list(range(1, 51))
    inbox.settle((7, 1, 1), DELIVERED, messages=20)
    inbox.settle((7, 1, 22), DELIVERED, messages=29)
    (said,) = inbox.acks()
    assert (said.received, said.settled, said.settled_beyond, said.fresh) == (50, 20, [22, 50], 50)
    inbox.settle((7, 1, 21), DELIVERED)
    assert inbox.acks()[0].settled == 50


@pytest.mark.parametrize(
    "cuts", [[(1, 5), (3, 9)], [(4, 6), (1, 9)], [(6, 9), (2, 4), (1, 7), (1, 9)], [(2, 3), (1, 9)]]
)
def test_runs_that_overlap_are_handed_out_once_and_in_order(cuts):
    inbox = Inbox(1)
    given = [seq for first, last in cuts for seq in bodies(inbox.arrived(run(first, last), 0.0))]
    assert given == list(range(1, 10))
    assert inbox.duplicates == sum(last - first + 1 for first, last in cuts) - 9
