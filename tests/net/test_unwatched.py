"""Ends of sends whose receipts were thrown away are told together; whoever keeps a receipt notices nothing of it."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from pilotage import Message, Net_Node, Outcome, Receipt
from pilotage.net import open_sends as open_sends_module
from pilotage.net.bundle import Bundle
from pilotage.net.dispatch import Dispatch
from pilotage.net.drafting import Drafting
from pilotage.net.messenger import Messenger, MessengerConfig
from pilotage.net.node import LAST_ENDS_S
from pilotage.net.notes import NoteLog
from pilotage.net.open_sends import UNHELD, OpenSends
from pilotage.protocol.bodies import encode_value
from pilotage.protocol.errors import Closed
from pilotage.protocol.inbox import Handled
from pilotage.protocol.news import UNTOLD_MOST, UNWATCHED_WITHIN_S
from pilotage.protocol.records import Marks, Parcel
from pilotage.protocol.sends import Pending
from pilotage.protocol.settlement import DELIVERED
from pilotage.transport.driver import Driver
from pilotage.transport.lines import Places
from tests.conftest import Eventually, wait_eventually
from tests.net.conftest import Gate, MakeNode

ROUNDS = 100


@pytest.fixture
def got() -> list[Any]:
    return []


@pytest.fixture
def rig(node: MakeNode, got: list[Any]) -> Net_Node:
    return node("rig", router_port=0, listens={"K": got.append, "OTHER": got.append})


@pytest.fixture
def cam(node: MakeNode, rig: Net_Node) -> Net_Node:
    return node("cam", rig)


@pytest.fixture
def marks(rig: Net_Node, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What has come to the rig, and whether nobody can ask for its end."""
    seen: list[tuple[str, bool]] = []
    arrived = rig._messenger.exchange.inbox.arrived

    def look(parcel: Parcel, now: float) -> list[Parcel]:
        seen.extend([(parcel.verb, bool(parcel.marks & Marks.UNWATCHED))] * len(parcel.bodies))
        return arrived(parcel, now)

    monkeypatch.setattr(rig._messenger.exchange.inbox, "arrived", look)
    return seen


def taken_late(cam: Net_Node, send: Callable[[], object]) -> None:
    """Send while the loop is busy, so that it takes the message when its sender has gone on."""
    busy, go_on = threading.Event(), threading.Event()

    def be_busy() -> None:
        busy.set()
        go_on.wait(5)

    driver = cam._messenger.driver
    driver.call(be_busy)
    assert busy.wait(5)
    send()
    go_on.set()
    wait_eventually(lambda: not driver.mailbox.sends, interval_s=0.0002)


def throw_away(cam: Net_Node, number: int) -> None:
    cam.send("rig", "K", number)


counts_references = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="only CPython tells who holds a receipt"
)


@counts_references
def test_a_receipt_that_was_thrown_away_is_known_to_be(
    cam: Net_Node, marks: list[tuple[str, bool]], eventually: Eventually
) -> None:
    for number in range(ROUNDS):
        taken_late(cam, partial(throw_away, cam, number))
    eventually(lambda: len(marks) >= ROUNDS)
    assert set(marks) == {("K", True)}


@pytest.mark.parametrize("keep", ["receipt", "callback", "one of a run"])
def test_whoever_keeps_a_receipt_is_told_at_once(
    cam: Net_Node, marks: list[tuple[str, bool]], eventually: Eventually, keep: str
) -> None:
    kept: list[Receipt] = []

    def send(number: int) -> None:
        receipt = cam.send("rig", "K", number)
        if keep == "callback":
            receipt.add_callback(lambda receipt: None)
        else:
            kept.append(receipt)
        if keep == "one of a run":
            cam.send("rig", "K", number)

    for number in range(ROUNDS):
        taken_late(cam, lambda number=number: send(number))
    eventually(lambda: len(marks) >= ROUNDS * (2 if keep == "one of a run" else 1))
    assert set(marks) == {("K", False)}
    for receipt in kept:
        assert receipt.wait_settled(5).outcome is Outcome.DELIVERED


def test_whoever_waits_beside_others_that_dont_is_not_kept_waiting(
    cam: Net_Node, rig: Net_Node, got: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig._messenger.exchange.inbox.news, "_unwatched_within_s", 60.0)
    for number in range(ROUNDS):
        cam.send("rig", "OTHER", number)
        cam.send("rig", "K", number)
        assert cam.send("rig", "K", number).wait_settled(5).outcome is Outcome.DELIVERED
    assert len(got) >= 2 * ROUNDS


@counts_references
def test_what_nobody_waits_for_is_told_together(
    cam: Net_Node, rig: Net_Node, got: list[Any], monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    acks: list[int] = []
    route = cam._messenger.exchange._route_ack
    monkeypatch.setattr(
        cam._messenger.exchange, "_route_ack", lambda ack: (acks.append(ack.settled), route(ack))
    )
    monkeypatch.setattr(rig._messenger.exchange.inbox.news, "_unwatched_within_s", 0.2)
    for number in range(20):
        taken_late(cam, partial(throw_away, cam, number))
        eventually(lambda number=number: len(got) > number)
    eventually(lambda: cam.statistics().settled["delivered"] == 20)
    assert len(acks) <= 10, f"20 messages in less than 0.2 s each, told by {acks}"


def has_news(driver: Driver) -> bool:
    news = driver.exchange.inbox.news
    return bool(news.flows or news.unwatched)


@counts_references
def test_the_end_of_a_listen_that_takes_long_is_told_as_well(
    node: MakeNode, gate: Gate, eventually: Eventually
) -> None:
    rig = node("rig", router_port=0, listens={"K": gate})
    cam, driver = node("cam", rig), rig._messenger.driver
    taken_late(cam, partial(throw_away, cam, 1))
    assert gate.entered.wait(5)
    eventually(lambda: not has_news(driver) and driver._wake_at > time.monotonic() + 2 * UNWATCHED_WITHIN_S)
    gate.opened.set()
    eventually(lambda: cam.statistics().settled["delivered"] == 1)


def test_a_burst_without_receipts_does_not_wait_for_its_ends(
    cam: Net_Node, rig: Net_Node, got: list[Any], monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(rig._messenger.exchange.inbox.news, "_unwatched_within_s", 60.0)
    for number in range(20_000):
        cam.send("rig", "K", number)
    eventually(lambda: len(got) == 20_000, 20)


@counts_references
def test_what_was_sent_last_ends_before_its_sender_goes(
    rig: Net_Node, got: list[Any], monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(rig._messenger.exchange.inbox.news, "_unwatched_within_s", 60.0)
    cam = Net_Node("cam", "rig", rig.router_port or 0, {})
    cam.wait_connected(5)
    taken_late(cam, partial(throw_away, cam, 1))
    eventually(lambda: got == [1])
    cam.release()
    assert cam.statistics().settled == {"delivered": 1, "expired": 0, "refused": 0}


def test_what_is_sent_and_left_at_once_goes_out_and_is_asked_for(rig: Net_Node, got: list[Any]) -> None:
    with Net_Node("cam", "rig", rig.router_port or 0, {}) as cam:
        cam.wait_connected(5)
        throw_away(cam, 1)
    assert got == [1]


def test_what_still_lies_in_the_mailbox_goes_out_before_its_end_is_asked_for(cam: Net_Node) -> None:
    driver = cam._messenger.driver

    def send_and_ask() -> int:
        throw_away(cam, 1)
        driver.ask_for_ends()
        return len(driver.mailbox.sends)

    assert cam._messenger.ask(send_and_ask) == 0


def test_whoever_goes_waits_only_for_what_may_be_told_late(
    node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    cam = node("cam", router_port=0)
    waited: list[float] = []
    monkeypatch.setattr(cam._messenger, "wait_for_ends", waited.append)
    cam.release(timeout_s=0.01)
    assert waited[0] <= 0.01 < LAST_ENDS_S
    other = node("other", router_port=0)
    receipt = other.send("nobody", "K", 1)
    other.release()
    assert receipt.settlement is not None and not other._messenger.posting.open._unwatched


def test_while_whoever_goes_waits_his_listens_may_send(node: MakeNode) -> None:
    rig = node("rig", router_port=0, listens={"K": lambda value: rig.send("cam", "BACK")})
    cam = node("cam", rig, {"BACK": lambda value: None})
    messenger, went_on = rig._messenger, threading.Event()

    def wait_for_ends(timeout_s: float) -> None:
        assert cam.send("rig", "K").wait_settled(5).outcome is Outcome.DELIVERED
        went_on.set()

    messenger.wait_for_ends = wait_for_ends  # type: ignore[method-assign]
    rig.release()
    assert went_on.is_set()


def test_a_release_that_was_interrupted_can_be_repeated(
    node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    cam = node("cam", router_port=0)
    # Who runs in the background may ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(cam._messenger, "wait_for_ends", lambda _: signal.raise_signal(signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                cam.release()
    finally:
        signal.signal(signal.SIGINT, before)
    cam.send("nobody", "K")
    cam.release()
    with pytest.raises(Closed):
        cam.send("nobody", "K")


def test_a_node_that_goes_on_its_own_loop_waits_for_nothing(
    node: MakeNode, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    cam = node("cam", router_port=0)
    receipt = cam.send("nobody", "K", 1)
    waited: list[float] = []
    monkeypatch.setattr(cam._messenger, "wait_for_ends", waited.append)
    cam.loop.add_callback(cam.release)
    eventually(lambda: receipt.settlement is not None)
    assert not waited


def test_a_node_on_a_loop_of_its_users_and_a_station_are_told_all_ends_at_once(
    rig: Net_Node, got: list[Any], marks: list[tuple[str, bool]]
) -> None:
    async def go() -> set[tuple[str, bool]]:
        with Net_Node("cam", "rig", rig.router_port or 0, {}, instance=True) as cam:
            for number in range(10):
                cam.send("rig", "K", number)
            deadline = time.monotonic() + 5
            while len(got) < 10 and time.monotonic() < deadline:
                await asyncio.sleep(0.001)
        return set(marks)

    assert asyncio.run(go()) == {("K", False)}
    station = Messenger(MessengerConfig("st", Places()), {}, logging.getLogger("st"))
    assert not station.posting.open.may_be_late
    assert rig._messenger.posting.open.may_be_late


@counts_references
def test_what_has_a_deadline_is_told_at_once(cam: Net_Node, marks: list[tuple[str, bool]]) -> None:
    for number in range(10):
        taken_late(
            cam, lambda number=number: [cam.send("rig", "K", number, durable=True, deadline_s=9.0), None][1]
        )
    assert set(marks) <= {("K", False)}


@counts_references
def test_what_nobody_can_ask_for_makes_nobody_less_alone(
    cam: Net_Node, rig: Net_Node, got: list[Any], monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(rig._messenger.exchange.inbox.news, "_unwatched_within_s", 60.0)
    open_sends = cam._messenger.posting.open
    taken_late(cam, partial(throw_away, cam, 1))
    eventually(lambda: got == [1])
    assert len(open_sends) == 1
    kept = cam.send("rig", "OTHER", 2)
    assert open_sends.is_alone and kept.wait_settled(5).outcome is Outcome.DELIVERED
    assert [message.value for message in cam._messenger.unsettled().values()] == [1]


def test_whoever_waits_for_what_may_be_late_waits_no_longer() -> None:
    open_sends = OpenSends("cam", NoteLog(logging.getLogger("cam")))
    open_sends.may_be_late = True
    open_sends.wait_unwatched(20.0)
    messages = [Message(id=f"cam_{n}", to="rig", sender="cam", key="K") for n in range(2)]
    sends = [Pending(("rig",), "K", [b""], 0, Bundle("K", message), [""]) for message in messages]
    for send in sends:
        open_sends.add(send.handle)
    open_sends.look_at(sends)
    waiting = threading.Thread(target=open_sends.wait_unwatched, args=(20.0,))
    waiting.start()
    for send in sends:
        assert waiting.is_alive() or not UNHELD > 0
        open_sends.settle([(send.handle, DELIVERED)])
    waiting.join(10.0)
    assert not waiting.is_alive() and not open_sends


@pytest.mark.parametrize(
    "counts", [lambda held: 0, lambda held: sys.maxsize, lambda held: sys.getrefcount(held) + 1]
)
def test_where_references_are_not_counted_everybody_may_ask(
    monkeypatch: pytest.MonkeyPatch, counts: Callable[[object], int]
) -> None:
    monkeypatch.setattr("pilotage.net.open_sends.getrefcount", counts)
    assert open_sends_module._unheld() == -1


@pytest.mark.parametrize(
    ("values", "marks", "may_wait"),
    [
        ([None], Marks.UNWATCHED, True),
        ([None], Marks.ORDERED, False),
        (["answer"], Marks.UNWATCHED, False),
        ([None, None], Marks.UNWATCHED, False),
        ([None, "answer"], Marks.UNWATCHED, False),
        (["fail"], Marks.UNWATCHED, False),
    ],
)
def test_only_the_plain_end_of_a_single_message_may_wait(
    values: list[Any], marks: int, may_wait: bool
) -> None:
    told: list[bool] = []

    def listen(value: object) -> object:
        if value == "fail":
            raise LookupError("on purpose")
        return value

    dispatch = Dispatch(
        "cam",
        {"K": listen},
        lambda results, is_last=False, may_wait=False: told.append(may_wait),
        NoteLog(logging.getLogger("cam")),
        gives_values=True,
        expands=False,
        max_workers=1,
    )
    drafting = Drafting("rig")
    bodies = [encode_value(drafting.draft("cam", "K", value, True, None))[0] for value in values]
    dispatch._work([Parcel(["cam"], ["rig"], 1, 1, 1, 1, "K", marks, bodies)])
    assert told == [may_wait]


def test_an_end_that_may_wait_wakes_the_loop_only_where_it_has_no_turn_soon(
    rig: Net_Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = rig._messenger.driver
    woken: list[None] = []
    monkeypatch.setattr(driver, "_wake", lambda: woken.append(None))
    end = Handled((1, 1, 1))
    for due_s, left, may_wait, wakes in (
        (0.0, 1, True, False),
        (UNWATCHED_WITHIN_S / 2, UNTOLD_MOST - 1, True, False),
        (0.0, 1, False, True),
        (0.0, UNTOLD_MOST, True, True),
        (60.0, 1, True, True),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(driver, "_results", deque())
            patch.setattr(driver, "_wake_at", time.monotonic() + due_s)
            driver.handled_all([end] * left, may_wait=may_wait)
        assert bool(woken) is wakes, (due_s, left, may_wait)
        woken.clear()


def test_an_end_that_is_left_while_the_loop_goes_to_rest_is_looked_at(
    rig: Net_Node, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    driver, exchange = rig._messenger.driver, rig._messenger.exchange
    asked: list[float] = []

    def wake_at() -> float:
        if not asked:
            driver._wake_at = 0.0  # as where this turn is the one that was due
            driver.handled_all([Handled((1, 1, 1))], may_wait=True)
            assert driver._results and not driver.is_awake
        asked.append(time.monotonic())
        return time.monotonic() + 60.0

    settled: list[Any] = []
    monkeypatch.setattr(exchange.inbox, "settle", lambda *end: settled.append(end))
    monkeypatch.setattr(exchange, "wake_at", wake_at)
    driver.call(lambda: None)
    eventually(lambda: settled)
