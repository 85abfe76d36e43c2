"""Each send ends once; repetition, floor, window and lives as promised."""

from __future__ import annotations

import pytest
from tests.protocol.builders import RULES, request

from pilotage.protocol.outbox import Outbox
from pilotage.protocol.records import MAX_HOPS, MAX_RUN, MAX_RUN_BYTES, Ack, Attached, Marks, Verdict
from pilotage.protocol.sends import FOREVER, DeliveryRules, Kept
from pilotage.protocol.settlement import DELIVERED, Outcome, Reason


class Way:
    """Where parcels go: kept, while the link is up."""

    def __init__(self) -> None:
        self.is_up = True
        self.seen: list[tuple[int, int, bool]] = []
        self.runs: list[int] = []

    def emit(self, parcel):
        if self.is_up:
            is_probe = bool(parcel.marks & Marks.PROBE)
            places = [parcel.seq + at for at in range(len(parcel.bodies))] or [parcel.seq]
            self.seen += [(seq, parcel.floor, is_probe) for seq in places]
            self.runs.append(len(parcel.bodies))
        return self.is_up

    def seqs(self) -> list[int]:
        seen = [seq for seq, _, is_probe in self.seen if not is_probe]
        self.seen = []
        return seen


@pytest.fixture
def way():
    return Way()


@pytest.fixture
def outbox(way):
    return Outbox(5, way.emit, RULES)


def ack(received: int, settled: int = 0, life: int = 9, verdicts=(), **changes) -> Ack:
    fields = {"received_beyond": [], "settled_beyond": [], **changes}
    return Ack(
        [],
        5,
        1,
        life,
        received,
        fields["received_beyond"],
        settled,
        fields["settled_beyond"],
        0,
        list(verdicts),
    )


def test_a_send_is_delivered_once(outbox, way):
    outbox.send([request("m")], 0.0)
    assert outbox.acked(ack(1, 1), 0.1) == [("m", DELIVERED)]
    assert outbox.acked(ack(1, 1), 0.2) == []
    assert len(outbox) == 0


def test_without_a_word_it_is_transmitted_ttl_times_and_expires(outbox, way):
    outbox.send([request("m", tries=3)], 0.0)
    ended = [outbox.time_passed(at) for at in (0.9, 1.0, 2.0, 2.9, 3.0)]
    assert way.seqs() == [1, 1, 1]
    assert ended[:4] == [[], [], [], []]
    assert [(handle, end.outcome) for handle, end in ended[4]] == [("m", Outcome.EXPIRED)]
    assert outbox.resent == 2


def test_received_ends_repetition_and_is_told_once(outbox, way):
    outbox.send([request("m")], 0.0)
    outbox.acked(ack(1), 0.1)
    outbox.acked(ack(1), 0.2)
    assert outbox.received == ["m"]
    way.seqs()
    outbox.time_passed(1.2)
    assert way.seen == [(1, 1, True)], "only a question goes out"


def test_an_unordered_send_is_transmitted_once(outbox, way):
    outbox.send([request("m", ordered=False, tries=5)], 0.0)
    ended = outbox.time_passed(1.0)
    assert way.seqs() == [1] and ended[0][1].outcome is Outcome.EXPIRED


def test_a_durable_send_goes_on_with_growing_waits(outbox, way):
    outbox.send([request("m", durable=True)], 0.0)
    at, waits = 0.0, []
    while len(waits) < 8:
        due = outbox.next_due()
        assert outbox.time_passed(due) == []
        waits.append(due - at)
        at = due
    assert len(way.seqs()) == 9
    assert waits[0] < waits[1] < waits[2] < waits[3] and max(waits) <= 8.0 * 1.12


@pytest.mark.parametrize("transmitted", [False, True])
def test_without_a_link_a_send_expires_when_patience_ends(outbox, way, transmitted):
    way.is_up = transmitted
    outbox.send([request("m", tries=5)], 0.0)
    way.is_up = False
    ended, at = [], 0.0
    while not ended and at < 60.0:
        at = outbox.next_due()
        ended = outbox.time_passed(at)
    assert ended and ended[0][1].outcome is Outcome.EXPIRED
    assert 9.0 <= at <= 12.0


def test_a_recipient_gone_for_good_leaves_no_send_open(outbox, way):
    outbox.send([request("m")], 0.0)
    outbox.acked(ack(1), 0.1)
    way.is_up = False
    ended = []
    while not ended and outbox.next_due() < 200.0:
        ended = outbox.time_passed(outbox.next_due())
    assert [(handle, end.reason) for handle, end in ended] == [("m", Reason.INTERRUPTED)]


def test_a_slow_listen_is_waited_for(outbox, way):
    outbox.send([request("m")], 0.0)
    for _ in range(60):
        due = outbox.next_due() if len(way.seen) > 1 else 1.0
        assert outbox.time_passed(due) == []
        outbox.acked(ack(1), due + 0.1)
    assert outbox.acked(ack(1, 1), due + 1.0) == [("m", DELIVERED)]


def test_a_link_that_comes_back_repeats_at_once_what_was_not_received(outbox, way):
    for handle in "abc":
        outbox.send([request(handle)], 0.0)
    outbox.acked(ack(1), 0.1)
    way.seqs()
    outbox.link_restored(lambda path: path == ("b",), 0.2)
    assert way.seqs() == [2, 3]
    outbox.link_restored(lambda path: path == ("elsewhere",), 0.3)
    assert way.seqs() == []


def test_a_link_that_comes_back_asks_at_once_for_ends_that_it_may_have_lost(outbox, way):
    for handle in "ab":
        outbox.send([request(handle)], 0.0)
    outbox.acked(ack(1), 0.1)
    way.seen.clear()
    outbox.link_restored(lambda path: True, 0.2)
    assert way.seen == [(2, 1, False), (2, 1, True)]
    outbox.acked(ack(2), 0.3)
    way.seen.clear()
    outbox.link_restored(lambda path: True, 0.4)
    assert way.seen == [(2, 1, True)], "only a question goes out"
    outbox.acked(ack(2, 2), 0.5)
    way.seen.clear()
    outbox.link_restored(lambda path: True, 0.6)
    assert not way.seen, "nothing is open"
    outbox.send([request("c")], 0.7)
    way.seen.clear()
    outbox.link_restored(lambda path: True, 0.8)
    assert way.seen == [(3, 3, False)], "nothing of it is known to be there"


def test_the_window_holds_further_sends_back_and_the_floor_lets_them_in(outbox, way):
    for handle in range(10):
        outbox.send([request(handle)], 0.0)
    assert way.seqs() == list(range(1, 9))
    outbox.acked(ack(1, 1), 0.1)
    assert way.seen == [(9, 2, False)], "one place is over: one more goes, and tells the floor"


def test_what_follows_each_other_goes_together(way):
    outbox = Outbox(5, way.emit, DeliveryRules())
    outbox.send([request(number) for number in range(5)], 0.0)
    assert way.runs == [5]
    outbox.send([request("a"), request("other", verb="OTHER"), request("b")], 0.0)
    assert way.runs == [5, 2, 1]


def test_what_has_frames_of_its_own_or_other_marks_or_is_much_travels_alone(way):
    outbox = Outbox(5, way.emit, DeliveryRules())
    framed = request("framed", frames=Attached([b"array"]))
    outbox.send([request(1), framed, request(2), request(3, durable=True), request(4, durable=True)], 0.0)
    assert way.runs == [1, 1, 1, 2]
    way.runs = []
    outbox.send([request(number) for number in range(MAX_RUN + 1)], 0.0)
    outbox.send([request(number, body=bytes(MAX_RUN_BYTES // 2)) for number in range(5)], 0.0)
    assert way.runs == [MAX_RUN, 1, 2, 2, 1]


def test_a_gap_ends_a_run(outbox, way):
    outbox.send([request(number) for number in range(6)], 0.0)
    outbox.acked(ack(6, 0, verdicts=[Verdict(3, Outcome.REFUSED, Reason.INVALID, "no")]), 0.1)
    outbox.acked(ack(0, life=10), 0.2)
    way.runs = []
    outbox.send([request(number, verb="D", durable=True) for number in range(3)], 0.3)
    outbox.link_restored(lambda path: True, 0.4)
    assert way.runs == [3, 3]


def test_a_full_queue_refuses(way):
    from dataclasses import replace

    outbox = Outbox(5, way.emit, replace(RULES, max_waiting=1))
    ends = [end for handle in range(10) for end in outbox.send([request(handle)], 0.0)]
    assert [(handle, end.reason) for handle, end in ends] == [(9, Reason.QUEUE_FULL)]


def test_a_path_too_long_is_refused(outbox, way):
    ended = outbox.send([request("m", path=("x",) * (MAX_HOPS + 1))], 0.0)
    assert ended[0][1].reason is Reason.INVALID and way.seqs() == []


def test_a_verdict_ends_a_send_with_its_reason_or_answer(outbox):
    outbox.send([request("bad")], 0.0)
    outbox.send([request("asked")], 0.0)
    verdicts = [
        Verdict(1, Outcome.REFUSED, Reason.LISTEN_FAILED, "why"),
        Verdict(2, Outcome.DELIVERED, answer=b"42"),
    ]
    ends = dict(outbox.acked(ack(2, 2, verdicts=verdicts), 0.1))
    assert ends["bad"].reason is Reason.LISTEN_FAILED and ends["bad"].text == "why"
    assert ends["asked"].outcome is Outcome.DELIVERED and ends["asked"].answer == b"42"


def test_a_station_on_the_way_cannot_refuse_what_was_received(outbox):
    outbox.send([request("m")], 0.0)
    outbox.acked(ack(1), 0.1)
    refusal = [Verdict(1, Outcome.REFUSED, Reason.UNKNOWN_RECIPIENT, "late copy")]
    assert outbox.acked(ack(0, life=0, verdicts=refusal), 0.2) == []
    assert outbox.acked(ack(1, 1), 0.3) == [("m", DELIVERED)]


def test_a_recipient_started_anew_interrupts_what_it_had_received_and_gets_durable_again(outbox, way):
    outbox.send([request("plain")], 0.0)
    outbox.send([request("safe", durable=True)], 0.0)
    outbox.acked(ack(2), 0.1)
    way.seqs()
    ended = outbox.acked(ack(0, life=10), 0.2)
    assert [(handle, end.reason) for handle, end in ended] == [("plain", Reason.INTERRUPTED)]
    assert way.seqs() == [2]


def test_acks_of_an_earlier_life_or_unknown_flow_change_nothing(outbox):
    outbox.send([request("m")], 0.0)
    strange = ack(1, 1)
    strange.boot = 6
    assert outbox.acked(strange, 0.1) == []
    strange.boot, strange.flow = 5, 99
    assert outbox.acked(strange, 0.1) == []
    assert outbox.acked(ack(2**60, 2**60), 0.1) == [("m", DELIVERED)], (
        "an ack beyond what was sent harms nothing"
    )


def test_ranges_settle_beyond_a_gap(outbox):
    for handle in (1, 2, 3, 4):
        outbox.send([request(handle)], 0.0)
    ended = outbox.acked(ack(1, 1, received_beyond=[3, 4], settled_beyond=[3, 3]), 0.1)
    assert [handle for handle, _ in ended] == [1, 3]
    assert outbox.received == [4]


def test_an_expired_place_raises_the_floor_by_a_question(outbox, way):
    outbox.send([request("lost", tries=1)], 0.0)
    outbox.send([request("held", tries=1)], 0.0)
    outbox.acked(ack(0, received_beyond=[2, 2]), 0.1)
    way.seqs()
    outbox.time_passed(1.0)
    assert (2, 2, True) in way.seen


def test_interrupt_ends_all_and_a_later_send_finds_the_floor_raised(outbox, way):
    for handle in range(12):
        outbox.send([request(handle)], 0.0)
    ended = outbox.interrupt(Reason.INTERRUPTED, "released", durable_too=True)
    assert sorted(handle for handle, _ in ended) == list(range(12)) and len(outbox) == 0
    way.seqs()
    outbox.send([request("next")], 1.0)
    assert way.seen == [(13, 13, False)]


def test_flows_are_bounded_and_open_ones_kept(way):
    from dataclasses import replace

    outbox = Outbox(5, way.emit, replace(RULES, max_flows=2))
    outbox.send([request("open", verb="A")], 0.0)
    outbox.send([request("over", verb="B")], 0.0)
    outbox.acked(Ack([], 5, 2, 9, 1, [], 1, []), 0.1)
    outbox.send([request("new", verb="C")], 0.2)
    assert [pending.names[0] for pending in outbox.unsettled()] == ["open", "new"]


def test_nothing_is_due_when_nothing_is_open(outbox):
    assert outbox.next_due() == FOREVER


# What is kept


def test_what_is_to_be_kept_is_named_once_and_again_when_it_is_over(outbox):
    outbox.send([request("m", durable=True, kept=True)], 0.0)
    outbox.send([request("quick", durable=True)], 0.0)
    assert [(one.place, one.path, one.names) for one in outbox.unkept] == [((5, 1, 1), ("b",), ["m"])]
    assert outbox.persisted([(5, 1, 1), (5, 1, 9), (6, 1, 1)]) == ["m"]
    outbox.acked(ack(2, 2), 0.1)
    assert outbox.over == [(5, 1, 1)] and outbox.persisted([(5, 1, 1)]) == []


def test_what_waits_for_the_window_is_kept_too(outbox, way):
    for number in range(12):
        outbox.send([request(number, durable=True, kept=True)], 0.0)
    assert len(way.seqs()) == 8 and [one.place[2] for one in outbox.unkept] == list(range(1, 13))


def test_an_interruption_leaves_it_in_the_journal(outbox):
    outbox.send([request("m", durable=True, kept=True)], 0.0)
    outbox.send([request("unsafe", durable=True, kept=True)], 0.0)
    outbox.persisted([(5, 1, 1)])
    ended, unsafe = outbox.interrupt(Reason.INTERRUPTED, "released", durable_too=True)
    assert "journal" in ended[1].text and "journal" not in unsafe[1].text and outbox.over == []


def test_a_name_that_is_taken_does_not_end_what_is_durable(outbox):
    outbox.send([request("m", durable=True)], 0.0)
    outbox.send([request("quick", verb="PING")], 0.0)
    ended = outbox.interrupt(Reason.NAME_TAKEN, "taken", durable_too=False)
    assert [handle for handle, _ in ended] == ["quick"] and len(outbox) == 1


def kept(
    *places: tuple[int, int], boot: int = 4, deadline: float = FOREVER, verb: str = "DATA"
) -> list[Kept]:
    marks = Marks.ORDERED | Marks.DURABLE
    return [
        Kept((boot, flow, seq), ("b",), verb, [f"n_{seq}"], marks, [b"body"], (), deadline)
        for flow, seq in places
    ]


def restored_ack(settled: int, **changes) -> Ack:
    fields = {"received_beyond": [], "settled_beyond": [], **changes}
    return Ack([], 4, 1, 9, settled, fields["received_beyond"], settled, fields["settled_beyond"], 0, [])


def test_an_earlier_life_goes_on_as_itself_and_before_this_one(outbox, way):
    outbox.restore(kept((1, 3), (1, 5)), lambda one: one.names[0], 0.0)
    assert way.seqs() == [3, 5]
    outbox.send([request("new", durable=True)], 0.1)
    outbox.send([request("other key", verb="PING")], 0.1)
    assert len(way.seqs()) == 1, "only the other key goes"
    assert outbox.acked(restored_ack(3), 0.2) == [("n_3", DELIVERED)] and way.seqs() == []
    assert outbox.acked(restored_ack(5), 0.3) == [("n_5", DELIVERED)]
    assert way.seen[-1] == (1, 1, False), "the new life's first place"
    assert outbox.over == [(4, 1, 3), (4, 1, 5)]


def test_lives_before_the_last_come_first(outbox, way):
    outbox.restore([*kept((1, 1), boot=3), *kept((1, 1))], lambda one: one.place, 0.0)
    assert way.seqs() == [1]
    outbox.acked(Ack([], 3, 1, 9, 1, [], 1, [], 0, []), 0.1)
    assert way.seqs() == [1], "the next life"


def test_a_gap_that_an_earlier_life_left_does_not_hold_up_its_recipient(outbox, way):
    outbox.restore(kept((1, 3), (1, 9)), lambda one: one.names[0], 0.0)
    way.seen = []
    outbox.acked(restored_ack(3, received_beyond=[9, 9]), 0.2)
    assert way.seen == [(9, 9, True)], "its floor is told"


def test_a_deadline_ends_what_is_durable(outbox, way):
    outbox.restore(kept((1, 1), deadline=50.0), lambda one: one.names[0], 0.0)
    outbox.send([request("m", verb="OTHER", durable=True, deadline_s=30.0)], 0.0)
    ends, at = {}, 0.0
    while len(ends) < 2 and at < 100.0:
        at = outbox.next_due()
        ends |= {handle: (at, end.outcome) for handle, end in outbox.time_passed(at)}
    assert ends == {"m": (30.0, Outcome.EXPIRED), "n_1": (50.0, Outcome.EXPIRED)}


def test_a_deadline_holds_also_for_what_waits(outbox):
    for number in range(12):
        outbox.send([request(number, durable=True, deadline_s=None if number < 11 else 3.0)], 0.0)
    assert [handle for handle, _ in outbox.time_passed(3.0)] == [11]


def test_what_is_not_durable_waits_for_an_earlier_life_with_patience(outbox):
    outbox.restore(kept((1, 1)), lambda one: one.names[0], 0.0)
    outbox.send([request("m")], 0.0)
    ended, at = [], 0.0
    while not ended and at < 60.0:
        at = outbox.next_due()
        ended = outbox.time_passed(at)
    assert at == RULES.patience_s and ended[0][0] == "m" and "earlier life" in ended[0][1].text


def test_an_idle_flow_tells_that_all_of_it_is_over(outbox, way):
    outbox.send([request("m")], 0.0)
    outbox.acked(ack(1, 1), 0.1)
    way.seen = []
    outbox.time_passed(outbox.next_due())
    assert way.seen == [(1, 2, True)] and outbox.next_due() == FOREVER


def test_a_station_that_refuses_a_copy_says_nothing_of_the_one_before(outbox, way):
    outbox.send([request("m")], 0.0)
    outbox.time_passed(1.0)
    refusal = Verdict(1, Outcome.REFUSED, Reason.QUEUE_FULL, "too many wait")
    ((_, end),) = outbox.acked(ack(0, life=0, verdicts=[refusal]), 1.5)
    assert end.outcome is Outcome.EXPIRED and "too many wait" in end.text


def test_what_is_past_its_deadline_is_not_sent_any_more(outbox, way):
    outbox.restore(kept((1, 1), deadline=5.0), lambda one: one.names[0], 3600.0)
    assert way.seqs() == [] and outbox.next_due() <= 3600.0
    assert [(handle, end.outcome) for handle, end in outbox.time_passed(3600.0)] == [("n_1", Outcome.EXPIRED)]


def test_a_deadline_holds_behind_an_earlier_life(outbox):
    outbox.restore([*kept((1, 1), boot=3), *kept((1, 1), deadline=10.0)], lambda one: one.place, 0.0)
    at, ended = 0.0, []
    while not ended and at < 60.0:
        at = outbox.next_due()
        ended = outbox.time_passed(at)
    assert (at, ended[0][0]) == (10.0, (4, 1, 1))


def test_a_journal_that_opens_late_comes_before_what_has_not_gone_yet(outbox, way):
    for number in range(12):
        outbox.send([request(number, durable=True)], 0.0)
    assert way.seqs() == list(range(1, 9))
    outbox.restore([*kept((1, 1), boot=3), *kept((1, 1))], lambda one: one.place, 1.0)
    assert [(seq, is_probe) for seq, _, is_probe in way.seen] == [(1, False)]
    way.seen = []
    outbox.acked(ack(8, 8), 2.0)
    assert way.seqs() == [], "those that wait, wait for the earlier lives"
    outbox.acked(Ack([], 3, 1, 9, 1, [], 1, [], 0, []), 3.0)
    outbox.acked(restored_ack(1), 4.0)
    assert way.seqs() == [1, 9, 10, 11, 12]


def test_what_expired_while_it_waited_leaves_room(way):
    from dataclasses import replace

    outbox = Outbox(5, way.emit, replace(RULES, max_waiting=4))
    for number in range(12):
        outbox.send([request(number, durable=True, deadline_s=1.0 if number >= 8 else None)], 0.0)
    assert outbox.send([request("one more", durable=True)], 0.5)[0][1].reason is Reason.QUEUE_FULL
    outbox.time_passed(1.0)
    assert outbox.send([request("one more", durable=True)], 1.1) == []


def test_a_flow_is_looked_at_when_the_first_of_its_sends_is_due(outbox):
    outbox.send([request(durable=True, frames=Attached([b"array"])) for _ in range(3)], 0.0)
    dues = [pending.due for pending in outbox.unsettled()]
    assert min(dues) < dues[0] and min(dues) < dues[-1] and outbox.next_due() == min(dues)
