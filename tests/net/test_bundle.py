"""Messages that were sent in a row: each ends once, and whoever watches it is told."""

from __future__ import annotations

import gc
import logging
import threading
import weakref

import pytest

from pilotage.net.bundle import ACCEPTED, RECEIVED, Bundle, Part
from pilotage.net.notes import NoteLog
from pilotage.net.open_sends import OpenSends
from pilotage.net.receipt import Receipt
from pilotage.protocol.message import Message
from pilotage.protocol.settlement import DELIVERED, Outcome, Reason, Settlement, Stage, refused
from tests.conftest import wait_eventually


def bundle_of(*names: str) -> tuple[Bundle, list[Receipt]]:
    messages = [Message(id=name, to="rig", sender="cam", key="K") for name in names]
    bundle = Bundle("K", messages[0])
    for message in messages[1:]:
        bundle.append(message)
    return bundle, [Receipt(message, bundle, at) for at, message in enumerate(messages)]


@pytest.fixture
def sends() -> OpenSends:
    return OpenSends("cam", NoteLog(logging.getLogger("pilotage.tests.bundle")))


def test_a_part_of_a_part_is_what_a_list_s_would_be() -> None:
    bundle, _ = bundle_of(*"abcdef")
    for one, other in (
        (slice(2, None), slice(None, 3)),
        (slice(1, 5), slice(2, 3)),
        (slice(None), slice(4, 9)),
    ):
        part = bundle[one][other]
        assert list("abcdef")[one][other] == list("abcdef")[part.first : part.end]


def test_what_has_ended_stays_as_it_ended() -> None:
    bundle, receipts = bundle_of(*"abcd")
    no = refused(Reason.INVALID, "no")
    assert bundle[1:2].settle(no)[0] == 1 and bundle.open_count == 3
    assert bundle[:].settle(DELIVERED)[0] == 3
    assert [receipt.settlement for receipt in receipts] == [DELIVERED, no, DELIVERED, DELIVERED]
    assert bundle.open_count == 0 and bundle[:].settle(no)[0] == 0
    assert [receipt.message.id for receipt in receipts] == list("abcd")


def test_only_those_who_watch_a_message_are_told() -> None:
    _, receipts = bundle_of(*"abc")
    told: list[str] = []
    for receipt in receipts[1:]:
        receipt.add_callback(lambda ended: told.append(str(ended.message.id)))
    bundle = receipts[0]._bundle

    def settle(part: Part) -> None:
        for watcher in part.settle(DELIVERED)[1]:
            watcher.tell_end()

    settle(bundle[:2])
    assert told == ["b"]
    receipts[1].add_callback(lambda ended: told.append("late"))
    settle(bundle[:])
    assert told == ["b", "late", "c"]
    assert bundle._watchers == {}, "nobody is told twice"


def test_what_has_ended_by_now_is_open_no_more(sends: OpenSends) -> None:
    bundle, _ = bundle_of("a", "b")
    sends.add(bundle)
    sends.settle([(bundle[:1], DELIVERED)])
    sends.add(bundle)
    assert sends._open and len(sends) == 1
    sends.settle([(bundle, DELIVERED)])
    sends.add(bundle)  # whoever joined it has slept meanwhile
    assert sends._open == {} and len(sends) == 0


def test_threads_that_wait_for_different_messages_are_woken_by_theirs() -> None:
    _, receipts = bundle_of(*"ab")
    ended: list[str] = []
    threads = [
        threading.Thread(target=lambda one=one: ended.append(one.wait_settled(10).text)) for one in receipts
    ]
    for thread in threads:
        thread.start()
    receipts[1].settle(Settlement(Outcome.EXPIRED, text="second"))
    threads[1].join(10)
    assert ended == ["second"] and threads[0].is_alive()
    receipts[0].settle(Settlement(Outcome.EXPIRED, text="first"))
    threads[0].join(10)
    assert ended == ["second", "first"]


def test_how_far_each_has_come() -> None:
    bundle, receipts = bundle_of(*"abcd")
    bundle[:3].reach(ACCEPTED)
    bundle[1:2].reach(RECEIVED)
    bundle[2:3].settle(DELIVERED)
    assert [receipt.stage for receipt in receipts] == [
        Stage.ACCEPTED, Stage.RECEIVED, Stage.SETTLED, Stage.SENT,
    ]  # fmt: skip
    assert [receipt.is_accepted for receipt in receipts] == [True, True, True, False]


def test_only_what_the_journal_has_is_told_so() -> None:
    bundle, (first, second) = bundle_of(*"ab")
    waiting = threading.Thread(target=lambda: second.wait_accepted(10))
    waiting.start()
    while not bundle._watchers:
        waiting.join(0.001)
    bundle[:1].reach(ACCEPTED)
    with pytest.raises(TimeoutError):
        second.wait_accepted(0.05)
    first.wait_accepted(0)
    bundle[1:].reach(ACCEPTED)
    waiting.join(10)
    assert not waiting.is_alive()


def test_open_sends_are_those_that_have_not_ended(sends: OpenSends) -> None:
    bundle, receipts = bundle_of(*"abc")
    sends.add(bundle)
    sends.settle([(bundle[1:2], DELIVERED)])
    assert len(sends) == 2 and set(sends.messages()) == {"a", "c"}
    assert sends.messages()["c"] is receipts[2].message
    sends.confirm("c", "somebody else")
    assert len(sends) == 2
    sends.confirm("c", "rig")
    sends.settle(
        [(bundle[2:], refused(Reason.INVALID, "too late")), (bundle[:1], refused(Reason.INVALID, "no"))]
    )
    assert sends.settled == {"delivered": 2, "expired": 0, "refused": 1} and len(sends) == 0
    assert sends._open == {}


def test_a_bundle_that_is_over_may_still_grow(sends: OpenSends) -> None:
    bundle, (first,) = bundle_of("a")
    sends.add(bundle)
    sends.confirm("a", None)
    later = Message(id="b", to="rig", sender="cam", key="K")
    bundle.append(later)
    second = Receipt(later, bundle, 1)
    assert (first.is_settled, second.is_settled, second.message) == (True, False, later)
    other, (third,) = bundle_of("c")
    sends.add(other)
    sends.settle([(bundle[1:], refused(Reason.INVALID, "no")), (other, DELIVERED)])
    assert (second.stage, third.stage) == (Stage.SETTLED, Stage.SETTLED)


def test_what_has_ended_is_not_held_for_what_has_not() -> None:
    told = [Message(id=name, to="rig", sender="cam", key="K") for name in "abc"]
    gone = [weakref.ref(message) for message in told]
    bundle = Bundle("K", told[0])
    for message in told[1:]:
        bundle.append(message)
    del told, message
    bundle[1:].settle(DELIVERED)
    gc.collect()
    assert [one() is None for one in gone] == [False, True, True]


def test_ends_that_callbacks_bring_about_are_counted(sends: OpenSends) -> None:
    bundle, (first, second) = bundle_of(*"ab")
    sends.add(bundle)
    counted: list[int] = []
    first.add_callback(lambda ended: sends.confirm("b", "rig"))
    second.add_callback(lambda ended: counted.append(sends.settled["delivered"]))
    sends.settle([(bundle[:1], DELIVERED)])
    assert counted == [2] and sends.settled["delivered"] == 2 and len(sends) == 0


def test_an_interruption_ends_what_is_open(sends: OpenSends) -> None:
    bundle, receipts = bundle_of(*"abc")
    sends.add(bundle)
    sends.settle([(bundle[:1], DELIVERED)])
    sends.interrupt_all()
    assert [one.settlement.reason for one in receipts if one.settlement] == [
        None, Reason.INTERRUPTED, Reason.INTERRUPTED,
    ]  # fmt: skip
    assert sends.settled["refused"] == 2 and len(sends) == 0


def test_all_who_wait_for_one_end_are_woken() -> None:
    _, (receipt,) = bundle_of("a")
    ends: list[Settlement] = []
    waiting = [threading.Thread(target=lambda: ends.append(receipt.wait_settled(30))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    gate = wait_eventually(lambda: receipt._gate)
    receipt.settle(DELIVERED)
    for thread in waiting:
        thread.join(10)
    assert ends == [DELIVERED] * 3 and gate.acquire(blocking=False), "it stays open"
