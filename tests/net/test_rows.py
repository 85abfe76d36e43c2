"""What is sent in a row goes together only where all that matters for it is the same."""

from __future__ import annotations

import logging
import threading
import time
from copy import copy
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pilotage import Net_Node, Receipt
from pilotage.protocol.errors import Closed
from pilotage.protocol.records import MAX_HOPS, MAX_RUN
from pilotage.protocol.sends import Pending
from tests.conftest import wait_eventually
from tests.net.conftest import MakeNode


def left_by(node: Net_Node, *sends: dict[str, Any]) -> tuple[list[Pending], list[Receipt]]:
    """Send in one turn of the loop, and give what lies in the mailbox then: a send is cut where some of it ends."""
    messenger = node._messenger

    def send() -> tuple[list[Pending], list[Receipt]]:
        receipts = [node.send(**one) for one in sends]
        return list(map(copy, messenger.driver.mailbox.sends)), receipts

    return messenger.ask(send)


ONE = {"to": "rig", "key": "K", "value": 1}


@pytest.mark.parametrize(
    "other",
    [
        {"to": "else"},
        {"to": ["else", "rig"]},
        {"key": "OTHER"},
        {"repeat": False},
        {"flags": {"NOREPEAT": True}},
        {"flags": {"NOLOG": True}},
        {"durable": True},
        {"durable": True, "deadline_s": 9.0},
        {"value": np.zeros(4000)},
        {"force_to": True},
    ],
    ids=str,
)
def test_what_differs_goes_by_itself(node: MakeNode, other: dict[str, Any]) -> None:
    cam = node(
        "cam", node("rig", listens={"K": lambda value: None, "OTHER": lambda value: None}, router_port=0)
    )
    sends, receipts = left_by(cam, ONE, ONE, {**ONE, **other}, ONE)
    assert [len(send.bodies) for send in sends] == [2, 1, 1]
    assert [send.names for send in sends] == [["cam_0", "cam_1"], ["cam_2"], ["cam_3"]]
    assert sends[2].ordered and not sends[2].durable and not sends[2].frames and sends[2].path == ("rig",)
    assert [receipt.message.id for receipt in receipts] == ["cam_0", "cam_1", "cam_2", "cam_3"]
    with_it, _ = left_by(cam, {**ONE, **other}, {**ONE, **other})
    goes_alone = "flags" in other or isinstance(other.get("value"), np.ndarray)
    assert [len(send.bodies) for send in with_it] == ([1, 1] if goes_alone else [2])


def test_two_deadlines_are_two_sends(node: MakeNode) -> None:
    cam = node("cam", node("rig", router_port=0))
    sends, _ = left_by(cam, *({**ONE, "durable": True, "deadline_s": wait} for wait in (9.0, 9.0, None)))
    assert [(len(send.bodies), send.deadline_s) for send in sends] == [(2, 9.0), (1, None)]


def test_keys_that_only_python_takes_for_the_same_are_two(node: MakeNode) -> None:
    cam = node("cam", node("rig", router_port=0))
    sends, _ = left_by(cam, *({**ONE, "key": key} for key in (1, True, "1")))
    assert [send.verb for send in sends] == ["1", "True", "1"]


def test_a_key_that_is_written_otherwise_is_another_one(node: MakeNode) -> None:
    class Word(str, Enum):  # noqa: UP042 - as it was written before Python 3.11, and is written as its name
        DATA = "DATA"

    cam = node("cam", node("rig", router_port=0))
    for keys in ((Word.DATA, "DATA"), ("DATA", Word.DATA)):
        sends, _ = left_by(cam, *({**ONE, "key": key} for key in keys))
        assert [(send.verb, send.durable) for send in sends] == [
            (str(key), key is keys[keys[0] is Word.DATA]) for key in keys
        ]


def test_the_loop_may_take_and_cut_what_a_message_has_just_joined(
    node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    messenger = node("cam", node("rig", router_port=0))._messenger
    mailbox, open_sends = messenger.driver.mailbox, messenger.posting.open
    join, taken = mailbox.join, list[Pending]()

    def join_and_be_cut(*what: Any) -> int:
        at = join(*what)
        taken.extend(mailbox.take())
        open_sends.look_at(taken)
        taken.append(taken[0].cut(1))
        return at

    monkeypatch.setattr(mailbox, "join", join_and_be_cut)

    def send() -> Receipt:
        messenger.posting.post("rig", "K", 1)
        return messenger.posting.post("rig", "K", 2)

    receipt = messenger.ask(send)
    assert not receipt.is_settled and receipt.message.value == 2
    assert [one.unwatched for one in taken] == [False, False], "who is about to hold it can ask for its end"


def test_nothing_joins_what_lies_there_when_its_sender_is_released(node: MakeNode) -> None:
    messenger = node("cam", node("rig", router_port=0))._messenger

    def send_and_end() -> list[Pending]:
        messenger.posting.post("rig", "K", 1)
        messenger.posting.end()
        with pytest.raises(Closed):
            messenger.posting.post("rig", "K", 2)
        return list(messenger.driver.mailbox.sends)

    (left,) = messenger.ask(send_and_end)
    assert left.names == ["cam_0"]


def test_what_ends_before_its_sender_goes_on_leaves_nothing_behind(
    node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    messenger = node("cam", node("rig", router_port=0))._messenger
    send = messenger.driver.send

    def send_and_see_it_end(*request: Any, **how: Any) -> None:
        send(*request, **how)
        wait_eventually(lambda: not request[0].handle.open_count)

    monkeypatch.setattr(messenger.driver, "send", send_and_see_it_end)
    path = ("x",) * (MAX_HOPS + 1)
    assert messenger.posting.post(path, "K", 1).is_settled
    assert messenger.posting.open._open == {}


def test_a_message_that_joins_wakes_the_loop_itself(node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    cam = node("cam", node("rig", listens={"K": lambda value: None}, router_port=0))
    driver = cam._messenger.driver
    woken: list[int] = []

    def send() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(driver, "_wake", lambda: woken.append(len(woken)))
            for value in range(3):
                cam.send("rig", "K", value)

    cam._messenger.ask(send)
    assert woken == [0, 1, 2], "whoever left the first one may never come to wake it"


def test_what_joins_a_send_that_was_confirmed_before_it_went_is_open(node: MakeNode) -> None:
    messenger = node("cam", node("rig", listens={"K": lambda value: None}, router_port=0))._messenger

    def send() -> tuple[Receipt, bool]:
        messenger.posting.post("rig", "K", 1)
        messenger.confirm("cam_0")
        receipt = messenger.posting.post("rig", "K", 2)
        return receipt, messenger.unsettled() == {"cam_1": receipt.message}

    receipt, is_open = messenger.ask(send)  # all of it on the loop's thread, which ends it afterwards
    assert is_open
    assert receipt.wait_settled(5).outcome == "delivered" and messenger.unsettled() == {}


@pytest.mark.parametrize(("keys", "size"), [("K", 1), ("KL", 1), ("K", 4000)])
def test_only_who_has_left_a_lot_gives_way_to_the_loop(
    node: MakeNode, monkeypatch: pytest.MonkeyPatch, keys: str, size: int
) -> None:
    cam = node("cam", node("rig", listens={"K": lambda value: None}, router_port=0))
    driver = cam._messenger.driver
    waits: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=waits.append)
    monkeypatch.setattr("pilotage.transport.driver.time", clock)
    driver.wake()
    assert cam.send("rig", "K").wait_settled(5).outcome == "delivered" and waits == []
    entered, released = threading.Event(), threading.Event()
    driver.call(lambda: entered.set() or released.wait(10))
    assert entered.wait(5)
    for at in range(2 * MAX_RUN):
        assert len(waits) == at // MAX_RUN
        cam.send("rig", keys[at // 2 % len(keys)], "x" * size)
    released.set()
    assert len(waits) == 2


def test_nothing_is_kept_of_long_rows_that_have_ended(node: MakeNode) -> None:
    cam = node("cam", node("rig", listens={"K": lambda value: None}, router_port=0))
    for _ in range(20):
        receipts = [cam.send("rig", "K", value) for value in range(2 * MAX_RUN)]
        for receipt in receipts:
            assert receipt.wait_settled(10).outcome == "delivered"
    assert cam._messenger.posting.open._open == {}


def test_a_long_row_is_cut_and_each_message_has_its_own_end(node: MakeNode) -> None:
    got: list[int] = []

    def listen(value: int) -> int | None:
        got.append(value)
        if value % 100 == 7:
            raise ValueError(f"not {value}")
        return value if value % 50 == 3 else None

    cam = node("cam", node("rig", listens={"K": listen}, router_port=0))
    sends, receipts = left_by(cam, *({**ONE, "value": n} for n in range(2 * MAX_RUN + 5)))
    assert [len(send.bodies) for send in sends] == [MAX_RUN, MAX_RUN, 5]
    ends = [receipt.wait_settled(20) for receipt in receipts]
    assert got == list(range(len(ends)))
    for n, end in enumerate(ends):
        assert str(end.outcome) == ("refused" if n % 100 == 7 else "delivered")
        assert end.answer == (n if n % 50 == 3 else None)
        assert (f"not {n}" in end.text) is (n % 100 == 7)
    assert cam.outbox == {} and cam.statistics().unsettled == 0


def test_the_log_shows_each_message_of_a_row(node: MakeNode, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("pilotage.node.talkative").setLevel(logging.DEBUG)
    talkative = node("talkative", node("rig", listens={"K": lambda value: None}, router_port=0))
    with caplog.at_level(logging.DEBUG, "pilotage.node.talkative"):
        left_by(talkative, ONE, ONE, ONE)
    sent = [text for text in caplog.messages if text.startswith("SENT")]
    assert [f"talkative_{n}" in text for n, text in enumerate(sent)] == [True] * 3
