"""Each send ends once; repetition, floor, window and lives as promised."""

from __future__ import annotations

import pytest
from tests.protocol.builders import RULES, request

from pilotage.protocol.outbox import FOREVER, Outbox
from pilotage.protocol.records import MAX_HOPS, Ack, Marks, Verdict
from pilotage.protocol.settlement import DELIVERED, Outcome, Reason


class Way:
    """Where parcels go: kept, while the link is up."""

    def __init__(self) -> None:
        self.is_up = True
        self.seen: list[tuple[int, int, bool]] = []

    def emit(self, parcel):
        if self.is_up:
            self.seen.append((parcel.seq, parcel.floor, bool(parcel.marks & Marks.PROBE)))
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
    outbox.send(request("m"), 0.0)
    assert outbox.acked(ack(1, 1), 0.1) == [("m", DELIVERED)]
    assert outbox.acked(ack(1, 1), 0.2) == []
    assert len(outbox) == 0


def test_without_a_word_it_is_transmitted_ttl_times_and_expires(outbox, way):
    outbox.send(request("m", tries=3), 0.0)
    ended = [outbox.time_passed(at) for at in (0.9, 1.0, 2.0, 2.9, 3.0)]
    assert way.seqs() == [1, 1, 1]
    assert ended[:4] == [[], [], [], []]
    assert [(handle, end.outcome) for handle, end in ended[4]] == [("m", Outcome.EXPIRED)]
    assert outbox.resent == 2


def test_received_ends_repetition_and_is_told_once(outbox, way):
    outbox.send(request("m"), 0.0)
    outbox.acked(ack(1), 0.1)
    outbox.acked(ack(1), 0.2)
    assert outbox.received == ["m"]
    way.seqs()
    outbox.time_passed(1.2)
    assert way.seen == [(1, 1, True)], "only a question goes out"


def test_an_unordered_send_is_transmitted_once(outbox, way):
    outbox.send(request("m", ordered=False, tries=5), 0.0)
    ended = outbox.time_passed(1.0)
    assert way.seqs() == [1] and ended[0][1].outcome is Outcome.EXPIRED


def test_a_durable_send_goes_on_with_growing_waits(outbox, way):
    outbox.send(request("m", durable=True), 0.0)
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
    outbox.send(request("m", tries=5), 0.0)
    way.is_up = False
    ended, at = [], 0.0
    while not ended and at < 60.0:
        at = outbox.next_due()
        ended = outbox.time_passed(at)
    assert ended and ended[0][1].outcome is Outcome.EXPIRED
    assert 9.0 <= at <= 12.0


def test_a_recipient_gone_for_good_leaves_no_send_open(outbox, way):
    outbox.send(request("m"), 0.0)
    outbox.acked(ack(1), 0.1)
    way.is_up = False
    ended = []
    while not ended and outbox.next_due() < 200.0:
        ended = outbox.time_passed(outbox.next_due())
    assert [(handle, end.reason) for handle, end in ended] == [("m", Reason.INTERRUPTED)]


def test_a_slow_listen_is_waited_for(outbox, way):
    outbox.send(request("m"), 0.0)
    for _ in range(60):
        due = outbox.next_due() if len(way.seen) > 1 else 1.0
        assert outbox.time_passed(due) == []
        outbox.acked(ack(1), due + 0.1)
    assert outbox.acked(ack(1, 1), due + 1.0) == [("m", DELIVERED)]


def test_a_link_that_comes_back_repeats_at_once_what_was_not_received(outbox, way):
    for handle in "abc":
        outbox.send(request(handle), 0.0)
    outbox.acked(ack(1), 0.1)
    way.seqs()
    outbox.link_restored(lambda path: path == ("b",), 0.2)
    assert way.seqs() == [2, 3]
    outbox.link_restored(lambda path: path == ("elsewhere",), 0.3)
    assert way.seqs() == []


def test_the_window_holds_further_sends_back_and_the_floor_lets_them_in(outbox, way):
    for handle in range(10):
        outbox.send(request(handle), 0.0)
    assert way.seqs() == list(range(1, 9))
    outbox.acked(ack(1, 1), 0.1)
    assert way.seen == [(9, 2, False)], "one place is over: one more goes, and tells the floor"


def test_a_full_queue_refuses(way):
    from dataclasses import replace

    outbox = Outbox(5, way.emit, replace(RULES, max_waiting=1))
    ends = [end for handle in range(10) for end in outbox.send(request(handle), 0.0)]
    assert [(handle, end.reason) for handle, end in ends] == [(9, Reason.QUEUE_FULL)]


def test_a_path_too_long_is_refused(outbox, way):
    ended = outbox.send(request("m", path=("x",) * (MAX_HOPS + 1)), 0.0)
    assert ended[0][1].reason is Reason.INVALID and way.seqs() == []


def test_a_verdict_ends_a_send_with_its_reason_or_answer(outbox):
    outbox.send(request("bad"), 0.0)
    outbox.send(request("asked"), 0.0)
    verdicts = [
        Verdict(1, Outcome.REFUSED, Reason.LISTEN_FAILED, "why"),
        Verdict(2, Outcome.DELIVERED, answer=b"42"),
    ]
    ends = dict(outbox.acked(ack(2, 2, verdicts=verdicts), 0.1))
    assert ends["bad"].reason is Reason.LISTEN_FAILED and ends["bad"].text == "why"
    assert ends["asked"].outcome is Outcome.DELIVERED and ends["asked"].answer == b"42"


def test_a_station_on_the_way_cannot_refuse_what_was_received(outbox):
    outbox.send(request("m"), 0.0)
    outbox.acked(ack(1), 0.1)
    refusal = [Verdict(1, Outcome.REFUSED, Reason.UNKNOWN_RECIPIENT, "late copy")]
    assert outbox.acked(ack(0, life=0, verdicts=refusal), 0.2) == []
    assert outbox.acked(ack(1, 1), 0.3) == [("m", DELIVERED)]


def test_a_recipient_started_anew_interrupts_what_it_had_received_and_gets_durable_again(outbox, way):
    outbox.send(request("plain"), 0.0)
    outbox.send(request("safe", durable=True), 0.0)
    outbox.acked(ack(2), 0.1)
    way.seqs()
    ended = outbox.acked(ack(0, life=10), 0.2)
    assert [(handle, end.reason) for handle, end in ended] == [("plain", Reason.INTERRUPTED)]
    assert way.seqs() == [2]


def test_acks_of_an_earlier_life_or_unknown_flow_change_nothing(outbox):
    outbox.send(request("m"), 0.0)
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
        outbox.send(request(handle), 0.0)
    ended = outbox.acked(ack(1, 1, received_beyond=[3, 4], settled_beyond=[3, 3]), 0.1)
    assert [handle for handle, _ in ended] == [1, 3]
    assert outbox.received == [4]


def test_an_expired_place_raises_the_floor_by_a_question(outbox, way):
    outbox.send(request("lost", tries=1), 0.0)
    outbox.send(request("held", tries=1), 0.0)
    outbox.acked(ack(0, received_beyond=[2, 2]), 0.1)
    way.seqs()
    outbox.time_passed(1.0)
    assert (2, 2, True) in way.seen


def test_interrupt_ends_all_and_a_later_send_finds_the_floor_raised(outbox, way):
    for handle in range(12):
        outbox.send(request(handle), 0.0)
    ended = outbox.interrupt("released")
    assert sorted(handle for handle, _ in ended) == list(range(12)) and len(outbox) == 0
    way.seqs()
    outbox.send(request("next"), 1.0)
    assert way.seen == [(9, 9, False)]


def test_flows_are_bounded_and_open_ones_kept(way):
    from dataclasses import replace

    outbox = Outbox(5, way.emit, replace(RULES, max_flows=2))
    outbox.send(request("open", verb="A"), 0.0)
    outbox.send(request("over", verb="B"), 0.0)
    outbox.acked(Ack([], 5, 2, 9, 1, [], 1, []), 0.1)
    outbox.send(request("new", verb="C"), 0.2)
    assert [pending.name for pending in outbox.unsettled()] == ["open", "new"]


def test_nothing_is_due_when_nothing_is_open(outbox):
    assert outbox.next_due() == FOREVER
