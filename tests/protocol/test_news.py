"""What somebody may wait for is said at once; what nobody can ask for a moment later, with others, but always."""

from __future__ import annotations

import pytest
from tests.protocol.builders import RULES, own, packet, parcel, request, sent_packets

from pilotage.protocol.exchange import Exchange, ExchangeConfig
from pilotage.protocol.inbox import Handled, Inbox
from pilotage.protocol.instructions import Link, Service
from pilotage.protocol.liveness import LivenessRules
from pilotage.protocol.news import TOGETHER_S, UNTOLD_MOST, UNWATCHED_WITHIN_S, WITHIN_S, News
from pilotage.protocol.outbox import Outbox
from pilotage.protocol.records import Ack, Greeting, Marks, Parcel
from pilotage.protocol.sends import FOREVER, DeliveryRules
from pilotage.protocol.settlement import DELIVERED, Reason, refused

UNWATCHED = Marks.ORDERED | Marks.UNWATCHED
N1: Link = ("listener", b"1")


@pytest.fixture
def inbox() -> Inbox:
    return Inbox(3)


def said(inbox: Inbox, now: float, *, goes_anyway: bool = False) -> list[tuple[int, int]]:
    return [(ack.received, ack.settled) for ack in inbox.acks(now, goes_anyway=goes_anyway)]


def end(inbox: Inbox, seq: int, **how: object) -> None:
    inbox.settle((7, 1, seq), **{"settlement": DELIVERED, **how})  # type: ignore[arg-type]


def test_an_end_that_nobody_can_ask_for_waits_for_others_for_a_while(inbox: Inbox) -> None:
    inbox.arrived(parcel(1, marks=UNWATCHED), 0.0)
    end(inbox, 1)
    assert said(inbox, 0.0) == [] and inbox.news.due == UNWATCHED_WITHIN_S
    inbox.arrived(parcel(2, marks=UNWATCHED), 0.02)
    end(inbox, 2)
    assert said(inbox, 0.02, goes_anyway=True) == [], "it would be one for each, where something goes often"
    assert inbox.news.due == UNWATCHED_WITHIN_S, "the first one waits no longer for the second one's sake"
    assert said(inbox, UNWATCHED_WITHIN_S) == [(2, 2)]
    assert inbox.news.due == FOREVER and not (inbox.news.flows or inbox.news.unwatched)


def test_only_what_is_due_at_about_the_same_time_is_said_together() -> None:
    news: News[str] = News()
    for number, at in enumerate((0.0, TOGETHER_S, TOGETHER_S + 0.001, 0.02)):
        news.add_unwatched((7, number), str(number), at)
    assert news.take(0.02, goes_anyway=False) == [] and news.due == UNWATCHED_WITHIN_S
    assert news.take(UNWATCHED_WITHIN_S, goes_anyway=False) == ["0", "1"]
    assert news.due == TOGETHER_S + 0.001 + UNWATCHED_WITHIN_S
    assert news.take(news.due, goes_anyway=False) == ["2"]
    assert news.take(1.0, goes_anyway=False) == ["3"] and news.due == FOREVER


def test_what_waits_puts_nothing_else_into_a_hurry() -> None:
    news: News[str] = News()
    news.add_unwatched((7, 1), "unwatched", 5.0)
    news.add((7, 2), "received", 5.0)
    assert news.take(5.0, goes_anyway=False) == [] and news.due == 5.0 + WITHIN_S


def test_it_waits_from_when_its_message_came(inbox: Inbox) -> None:
    inbox.arrived(parcel(1, marks=UNWATCHED), 5.0)
    assert said(inbox, 5.0) == [] and inbox.news.due == 5.0 + UNWATCHED_WITHIN_S


def test_an_end_that_comes_late_waits_no_longer() -> None:
    inbox = Inbox(3)
    inbox.arrived(parcel(1, marks=UNWATCHED), 0.0)
    assert said(inbox, UNWATCHED_WITHIN_S) == [(1, 0)]
    end(inbox, 1)
    assert said(inbox, 2.0) == [(1, 1)], "its message came long ago"


def test_an_end_that_somebody_may_wait_for_is_said_at_once_with_all_that_came_before(inbox: Inbox) -> None:
    inbox.arrived(parcel(1, marks=UNWATCHED), 0.0)
    end(inbox, 1)
    inbox.arrived(parcel(2), 0.0)
    assert said(inbox, 0.0) == [] and inbox.news.due == WITHIN_S
    end(inbox, 2)
    assert said(inbox, 0.0) == [(2, 2)] and inbox.news.due == FOREVER


def test_what_comes_behind_it_does_not_hold_up_the_end_that_somebody_may_wait_for(inbox: Inbox) -> None:
    inbox.arrived(parcel(1), 0.0)
    assert said(inbox, 0.0) == []
    inbox.arrived(parcel(2, marks=UNWATCHED), 0.0)
    assert said(inbox, WITHIN_S) == [(2, 0)], "received is said as soon as without it"
    end(inbox, 1)
    assert said(inbox, WITHIN_S) == [(2, 1)]
    end(inbox, 2)
    assert said(inbox, WITHIN_S) == []


def test_no_more_than_so_many_ends_wait(inbox: Inbox) -> None:
    for seq in range(1, UNTOLD_MOST):
        inbox.arrived(parcel(seq, marks=UNWATCHED), 0.0)
        end(inbox, seq)
    assert said(inbox, 0.0) == []
    run = Parcel(["S"], ["a"], 7, 1, UNTOLD_MOST, 1, "K", UNWATCHED, [b"body"] * 3)
    inbox.arrived(run, 0.0)
    end(inbox, UNTOLD_MOST, messages=3)
    assert said(inbox, 0.0) == [(UNTOLD_MOST + 2, UNTOLD_MOST + 2)]
    inbox.arrived(parcel(UNTOLD_MOST + 3, marks=UNWATCHED), 0.0)
    end(inbox, UNTOLD_MOST + 3)
    assert said(inbox, 0.0) == [], "the count begins anew"


@pytest.mark.parametrize("how", [{"settlement": refused(Reason.LISTEN_FAILED, "x")}, {"answer": b"\x01"}])
def test_what_is_more_than_delivered_does_not_wait(inbox: Inbox, how: dict[str, object]) -> None:
    inbox.arrived(parcel(1, marks=UNWATCHED), 0.0)
    end(inbox, 1, **how)
    assert said(inbox, 0.0) == [(1, 1)]


def test_a_question_and_a_copy_are_answered_at_once(inbox: Inbox) -> None:
    inbox.arrived(parcel(1, marks=UNWATCHED), 0.0)
    end(inbox, 1)
    inbox.arrived(parcel(1, marks=Marks.PROBE), 0.0)
    assert said(inbox, 0.0) == [(1, 1)]
    inbox.arrived(parcel(1, marks=UNWATCHED), 0.0)
    assert said(inbox, 0.0) == [(1, 1)], "its originator hasn't heard of it"


def test_a_gap_is_told_at_once(inbox: Inbox) -> None:
    inbox.arrived(parcel(2, marks=UNWATCHED), 0.0)
    (ack,) = inbox.acks(0.0)
    assert (ack.received, ack.received_beyond) == (0, [2, 2])


def test_flows_that_are_forgotten_are_not_spoken_of() -> None:
    inbox = Inbox(3, max_flows=1)
    for number, (now, marks) in enumerate(((0.0, UNWATCHED), (1e5, Marks.ORDERED), (2e5, UNWATCHED)), 1):
        inbox.arrived(parcel(1, flow=number, marks=marks), now)
    assert [ack.flow for ack in inbox.acks()] == [3]


def test_of_a_flow_that_is_forgotten_nothing_is_due_any_more() -> None:
    news: News[str] = News()
    news.add((7, 1), "watched", 0.0)
    assert news.take(0.0, goes_anyway=False) == [] and news.due == WITHIN_S
    news.forget((7, 1))
    assert news.due == FOREVER
    news.add_unwatched((7, 2), "first", 0.0)
    assert news.due == UNWATCHED_WITHIN_S
    news.add_unwatched((7, 3), "second", 0.001)
    news.forget((7, 2))
    assert news.due == 0.001 + UNWATCHED_WITHIN_S
    news.add((7, 4), "watched", 0.02)
    assert news.due == 0.001 + UNWATCHED_WITHIN_S, "one of another flow changes nothing"
    news.add((7, 3), "second", 0.021)
    assert news.due == 0.02 + WITHIN_S, "the first one waits no longer for the second one's sake"


def test_a_flow_is_spoken_of_once_and_the_next_one_is_in_no_hurry() -> None:
    news: News[str] = News()
    news.add((7, 1), "watched", 0.0)
    news.add_unwatched((7, 1), "watched", 0.0)
    assert news.take(0.0, goes_anyway=True) == ["watched"] and not (news.flows or news.unwatched)
    news.add_unwatched((7, 1), "unwatched", 0.0)
    news.hurry()
    assert news.take(0.0, goes_anyway=False) == ["unwatched"] and not (news.flows or news.unwatched)
    news.add((7, 2), "another", 0.0)
    assert news.take(0.0, goes_anyway=False) == [] and news.due == WITHIN_S
    assert news.take(0.0, goes_anyway=True) == ["another"]


def test_a_run_says_that_nobody_can_ask_where_that_holds_for_each_of_it() -> None:
    sent: list[tuple[int, int]] = []

    def emit(one: Parcel) -> bool:
        sent.append((len(one.bodies), one.marks & Marks.UNWATCHED))
        return True

    outbox = Outbox(5, emit, DeliveryRules())
    for watched in (False, False), (False, True), (True, False):
        outbox.send([request(unwatched=not one) for one in watched], 0.0)
    assert sent == [(2, Marks.UNWATCHED), (2, 0), (2, 0)]
    Outbox(5, emit, RULES).send([request(unwatched=True)], 0.0)
    assert sent[-1] == (1, 0), "with a window of 8 each end may let something through"


def unhurried() -> Exchange:
    station = Exchange(ExchangeConfig("S", 1, "", RULES, LivenessRules()), lambda verb: Service.HANDLE)
    card = own("a", 7)
    hello = packet(greetings=[Greeting("hello")])
    station.frames_arrived([(N1, card, hello)], 0.0)
    station.time_passed(0.0)
    station.frames_arrived([(N1, card, packet(parcel(1, trail=[], marks=UNWATCHED)))], 0.0)
    return station


def test_a_flow_that_is_taken_up_late_has_its_ends_told_together_from_its_first_one_on(inbox: Inbox) -> None:
    inbox.arrived(parcel(101, floor=101, marks=UNWATCHED), 0.0)
    end(inbox, 101)
    assert said(inbox, 0.0) == []


def test_only_flows_in_which_something_is_under_way_are_asked_about() -> None:
    asked: list[str] = []

    def emit(one: Parcel) -> bool:
        asked.extend([one.path[-1]] if one.marks & Marks.PROBE else [])
        return True

    outbox = Outbox(5, emit, DeliveryRules())
    outbox.send([request(path=("over",)), request(path=("open",))], 0.0)
    outbox.acked(Ack([], 5, 1, 9, 1, [], 1, []), 0.0)
    outbox.ask_for_ends()
    assert asked == ["open"]


def test_an_exchange_wakes_to_say_it() -> None:
    station = unhurried()
    assert sent_packets(station.handled([Handled((7, 1, 1))], 0.0), N1).acks == []
    assert station.wake_at() == UNWATCHED_WITHIN_S
    (ack,) = sent_packets(station.time_passed(UNWATCHED_WITHIN_S), N1).acks
    assert ack.settled == 1 and station.wake_at() > UNWATCHED_WITHIN_S


def test_an_exchange_says_at_once_what_somebody_may_wait_for() -> None:
    station = unhurried()
    came = station.frames_arrived([(N1, own("a", 7), packet(parcel(1, flow=2, trail=[])))], 0.001)
    assert sent_packets(came, N1).acks == [] and station.wake_at() == 0.001 + WITHIN_S
    (ack,) = sent_packets(station.handled([Handled((7, 2, 1))], 0.002), N1).acks
    assert (ack.flow, ack.settled) == (2, 1)


def test_what_was_received_is_said_with_what_goes_to_anybody_anyway() -> None:
    station = unhurried()
    station.frames_arrived([(N1, own("a", 7), packet(parcel(1, flow=2, trail=[])))], 0.001)
    sent = sent_packets(station.send([request(path=("a",))], 0.002), N1)
    assert len(sent.parcels) == 1 and [(ack.flow, ack.received) for ack in sent.acks] == [(2, 1)]


def test_whoever_goes_has_said_it_before() -> None:
    station = unhurried()
    station.handled([Handled((7, 1, 1))], 0.0)
    last = sent_packets(station.release(0.0), N1)
    assert [ack.settled for ack in last.acks] == [1] and last.greetings == [Greeting("bye")]


def test_where_nothing_may_wait_nothing_does() -> None:
    inbox = Inbox(3, news=News(0.0, 0.0))
    inbox.arrived(parcel(1, marks=UNWATCHED), 0.0)
    assert said(inbox, 0.0) == [(1, 0)]
