"""Messages that were sent in a row are one send until something parts them: each still has its own end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.protocol.builders import RULES, request
from tests.protocol.test_outbox import Way, ack

from pilotage.protocol.flows import OutFlow
from pilotage.protocol.outbox import Outbox
from pilotage.protocol.records import Ack, Marks, Verdict
from pilotage.protocol.sends import DeliveryRules, Kept, Pending, left_of
from pilotage.protocol.settlement import DELIVERED, Outcome, Reason, Settlement


def run(names: str, **changes: object) -> Pending:
    """Messages in a row, each with its name as its handle."""
    return request(list(names), bodies=[name.encode() for name in names], names=list(names), **changes)


def each(ended: list[tuple[list[str], Settlement]]) -> dict[str, Settlement]:
    """Give each message's end; one that has two fails here."""
    names = [name for handle, _ in ended for name in handle]
    assert len(names) == len(set(names))
    return {name: end for handle, end in ended for name in handle}


@pytest.fixture
def way() -> Way:
    return Way()


@pytest.fixture
def outbox(way: Way) -> Outbox:
    return Outbox(5, way.emit, replace(RULES, window=64))


def test_what_was_sent_in_a_row_goes_and_ends_as_one(outbox: Outbox, way: Way) -> None:
    outbox.send([run("abcd")], 0.0)
    assert way.runs == [4] and way.seqs() == [1, 2, 3, 4] and len(outbox) == 4
    assert outbox.acked(ack(4, 4), 0.1) == [(list("abcd"), DELIVERED)]
    assert len(outbox) == 0


def test_an_acknowledgement_of_the_first_ones_leaves_the_others(outbox: Outbox, way: Way) -> None:
    outbox.send([run("abcd")], 0.0)
    way.seqs()
    assert each(outbox.acked(ack(3, 2), 0.1)) == {"a": DELIVERED, "b": DELIVERED}
    assert outbox.received == [["c"]], "what is over isn't told to be received as well"
    outbox.time_passed(1.0)
    assert [seq for seq, _, is_probe in way.seen if not is_probe] == [4], "only d was never received"
    assert each(outbox.acked(ack(4, 4), 1.1)) == {"c": DELIVERED, "d": DELIVERED}


def test_a_verdict_in_the_middle_ends_that_one_alone(outbox: Outbox) -> None:
    outbox.send([run("abcde")], 0.0)
    verdicts = [
        Verdict(4, Outcome.DELIVERED, answer=b"42"),
        Verdict(2, Outcome.REFUSED, Reason.LISTEN_FAILED, "why"),
    ]
    ends = each(outbox.acked(ack(5, 0, verdicts=verdicts), 0.1))
    assert set(ends) == {"b", "d"} and ends["b"].text == "why" and ends["d"].answer == b"42"
    assert sorted(name for handle in outbox.received for name in handle) == ["a", "c", "e"]
    assert set(each(outbox.acked(ack(5, 5), 0.2))) == {"a", "c", "e"}


def test_ranges_end_what_lies_in_them(outbox: Outbox) -> None:
    outbox.send([run("abcdefgh")], 0.0)
    ends = each(outbox.acked(ack(1, 1, received_beyond=[3, 4, 6, 7], settled_beyond=[3, 3, 6, 7]), 0.1))
    assert set(ends) == {"a", "c", "f", "g"}
    assert [name for handle in outbox.received for name in handle] == ["d"]


def test_ranges_that_make_no_sense_end_nothing_else(outbox: Outbox) -> None:
    outbox.send([run("abc")], 0.0)
    nonsense = [9, 2, -5, -1, 7, 2**63, 1]
    assert outbox.acked(ack(0, 0, received_beyond=nonsense, settled_beyond=nonsense), 0.1) == []
    assert set(each(outbox.acked(ack(3, 3), 0.2))) == set("abc")


def test_the_window_parts_a_run_and_the_rest_follows(way: Way) -> None:
    outbox = Outbox(5, way.emit, replace(RULES, window=3))
    outbox.send([run("abcde")], 0.0)
    assert way.seqs() == [1, 2, 3]
    outbox.acked(ack(2, 2), 0.1)
    assert way.seqs() == [4, 5]
    assert set(each(outbox.acked(ack(5, 5), 0.2))) == set("cde")


def test_what_was_never_sent_can_t_be_received_or_settled(way: Way) -> None:
    outbox = Outbox(5, way.emit, replace(RULES, window=3))
    outbox.send([run("abcdef")], 0.0)
    assert set(each(outbox.acked(ack(2**60, 1), 0.1))) == {"a"}
    assert [name for handle in outbox.received for name in handle] == ["b", "c"]
    assert set(each(outbox.acked(ack(2**60, 2**60), 0.2))) == {"b", "c", "d"}, "d has gone meanwhile"


def test_a_full_queue_takes_what_it_has_room_for(way: Way) -> None:
    outbox = Outbox(5, way.emit, replace(RULES, window=2, max_waiting=3))
    outbox.send([run("ab")], 0.0)
    ends = each(outbox.send([run("cdefg"), run("h")], 0.0))
    assert set(ends) == {"f", "g", "h"} and {end.reason for end in ends.values()} == {Reason.QUEUE_FULL}
    assert ends["g"].text == "g: 3 messages to b with key DATA wait already" and len(outbox) == 5
    outbox.acked(ack(2, 2), 0.1)
    assert way.seqs() == [1, 2, 3, 4]
    assert outbox.send([run("xy")], 0.2) == [], "there is room again"


def test_what_the_window_has_room_for_need_not_wait(way: Way) -> None:
    outbox = Outbox(5, way.emit, replace(RULES, window=6, max_waiting=2))
    ends = each(outbox.send([run("ab"), run("cdefghij")], 0.0))
    assert set(ends) == {"i", "j"} and len(outbox) == 8
    assert way.seqs() == [1, 2, 3, 4, 5, 6]


def test_ranges_that_are_told_again_and_again_are_looked_at_once(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.send([run("abcdef")], 0.0)
    looked: list[tuple[int, int]] = []
    part = OutFlow.part

    def watched(flow: OutFlow, first: int, end: int) -> list[Pending]:
        looked.append((first, end))
        return part(flow, first, end)

    monkeypatch.setattr(OutFlow, "part", watched)
    outbox.acked(ack(0, received_beyond=[2, 5] * 1000), 0.1)
    assert [(first, end) for first, end in looked if first < end] == [(2, 6)]


def test_whatever_ends_them_otherwise_names_each(outbox: Outbox, way: Way) -> None:
    outbox.send([run("ab", tries=1)], 0.0)
    ends = each(outbox.time_passed(1.0))
    assert [end.text.partition(":")[0] for end in ends.values()] == ["a", "b"]
    outbox.send([run("cd")], 1.0)
    outbox.acked(ack(4, 2), 1.1)
    ends = each(outbox.acked(ack(0, life=10), 1.2))
    assert [(name, end.text.partition(":")[0]) for name, end in ends.items()] == [("c", "c"), ("d", "d")]
    assert outbox.resent == 0


def test_a_deadline_holds_for_what_is_left_of_a_run(outbox: Outbox, way: Way) -> None:
    outbox.send([run("abcd", durable=True, deadline_s=3.0)], 0.0)
    outbox.acked(ack(2, 2), 0.1)
    assert outbox.next_due() <= 3.0
    ends = {}
    while outbox.next_due() <= 3.0:
        ends |= each(outbox.time_passed(outbox.next_due()))
    assert set(ends) == {"c", "d"} and {end.outcome for end in ends.values()} == {Outcome.EXPIRED}


def test_the_journal_keeps_as_one_what_was_sent_in_a_row(outbox: Outbox) -> None:
    outbox.send([run("abcd", durable=True, kept=True), run("e", durable=True, kept=True)], 0.0)
    assert [(one.names, one.place, one.bodies) for one in outbox.unkept] == [
        (list("abcd"), (5, 1, 1), [b"a", b"b", b"c", b"d"]),
        (["e"], (5, 1, 5), [b"e"]),
    ]
    outbox.acked(ack(4, 1, settled_beyond=[3, 3]), 0.1)
    assert outbox.persisted([(5, 1, 1), (5, 9, 4), (5, 1, 6)]) == [["b"], ["d"]]
    ends = each(outbox.interrupt(Reason.INTERRUPTED, "released", durable_too=True))
    assert {name: "journal" in end.text for name, end in ends.items()} == {"b": True, "d": True, "e": False}
    assert outbox.over == []


def test_the_journal_may_drop_a_run_when_all_of_it_is_over(outbox: Outbox) -> None:
    outbox.send([run("abc", durable=True, kept=True)], 0.0)
    outbox.acked(ack(3, 1, settled_beyond=[3, 3]), 0.1)
    assert outbox.over == [] and outbox.partly_over == [((5, 1, 1), 1, 2), ((5, 1, 1), 3, 4)]
    outbox.partly_over = []
    outbox.acked(ack(3, 3), 0.2)
    assert outbox.over == [(5, 1, 1)] and outbox.partly_over == []


@pytest.mark.parametrize(
    ("over", "left"),
    [
        ([], ["abcde"]),
        ([(1, 3)], ["cde"]),
        ([(5, 6)], ["abcd"]),
        ([(4, 5), (2, 3)], ["a", "c", "e"]),
        ([(2, 4), (3, 5), (2, 3)], ["a", "e"]),
        ([(1, 3), (3, 6)], []),
        ([(1, 6), (9, 12)], []),
        ([(-7, 2), (5, 99)], ["bcd"]),
        ([(9, 12)], ["abcde"]),
        ([(4, 2)], ["abc", "de"]),
    ],
)
def test_what_is_left_of_messages_of_which_some_are_over(
    over: list[tuple[int, int]], left: list[str]
) -> None:
    bodies = [name.encode() for name in "abcde"]
    kept = Kept((4, 1, 1), ("b",), "DATA", list("abcde"), 0, bodies, ())
    pieces = left_of(kept, over)
    assert [("".join(piece.names), b"".join(piece.bodies).decode()) for piece in pieces] == [
        (names, names) for names in left
    ]
    assert [piece.seq for piece in pieces] == [1 + "abcde".index(names[0]) for names in left]
    assert all(piece.place == (4, 1, 1) for piece in pieces)


def test_what_is_left_of_a_row_goes_on_in_the_next_life_and_is_dropped_as_one(
    outbox: Outbox, way: Way
) -> None:
    marks = Marks.ORDERED | Marks.DURABLE
    kept = Kept((4, 1, 1), ("b",), "DATA", list("abcde"), marks, [b""] * 5, ())
    outbox.restore(left_of(kept, [(1, 2), (3, 4)]), lambda one: list(one.names), 0.0)
    assert way.seen[0][1] == 2, "its floor lies behind what is over"
    assert way.seqs() == [2, 4, 5]
    outbox.acked(Ack([], 4, 1, 9, 4, [], 4, [], 0, []), 0.1)
    assert outbox.over == [] and outbox.partly_over == [((4, 1, 1), 2, 3), ((4, 1, 1), 4, 5)]
    outbox.acked(Ack([], 4, 1, 9, 5, [], 5, [], 0, []), 0.2)
    assert outbox.over == [(4, 1, 1)]


def test_a_run_that_comes_back_goes_again_with_what_follows_it(way: Way) -> None:
    outbox = Outbox(5, way.emit, DeliveryRules())
    outbox.send([run("abc"), run("de"), run("f")], 0.0)
    assert way.runs == [6]
    outbox.acked(ack(1, 1), 0.1)
    way.runs = []
    outbox.link_restored(lambda path: True, 0.2)
    assert way.runs == [5] and outbox.resent == 5


def test_looking_for_places_finds_what_is_open_and_nothing_else() -> None:
    flow = OutFlow(5, 1, ("b",), "DATA")
    first, second = run("abc", seq=2), run("de", seq=7)
    flow.open = [first, second]
    assert [flow.find(place) for place in (1, 2, 4, 5, 7, 8, 9)] == [
        None, first, first, None, second, second, None,
    ]  # fmt: skip
    assert (flow.holds(1, 2), flow.holds(4, 5), flow.holds(5, 7), flow.holds(5, 8)) == (
        False, True, False, True,
    )  # fmt: skip
    assert flow.part(9, 3) == flow.take(4, 4) == [] and flow.open == [first, second]
    assert [one.names for one in flow.take(3, 8)] == [["b", "c"], ["d"]]
    assert [(one.seq, one.names, one.handle) for one in flow.open] == [(2, ["a"], ["a"]), (8, ["e"], ["e"])]
