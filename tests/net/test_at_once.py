"""A message with nothing before it leaves at once, sent by its own thread, whatever that thread does next."""

from __future__ import annotations

import asyncio
import logging
import mmap
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotage import Net_Node, Outcome, Receipt
from pilotage.net.dispatch import Dispatch
from pilotage.net.drafting import Drafting
from pilotage.net.notes import NoteLog
from pilotage.net.open_sends import OpenSends
from pilotage.protocol.bodies import encode_value
from pilotage.protocol.errors import MisuseError
from pilotage.protocol.records import MAX_HOPS, Parcel
from pilotage.protocol.sends import FOREVER
from pilotage.transport.driver import Driver, Wishes
from pilotage.transport.haste import interval
from pilotage.transport.lookout import waker
from tests.conftest import Eventually
from tests.net.conftest import Gate, MakeNode, StartStation
from tests.net.parts import ProbedStation

pytestmark = pytest.mark.only_on("linux")

WITHIN_S = 10.0


def driver_of(node: Net_Node) -> Driver:
    return node._messenger.driver


def in_thread(work: Callable[[], Any]) -> Any:
    """Have something done by a thread that isn't the main one."""
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(work()))
    thread.start()
    thread.join()
    return got[0]


def parcel_of(verb: str) -> Parcel:
    """A parcel of one message with a key, from nobody in particular."""
    return Parcel(
        ["cam"],
        ["rig"],
        1,
        1,
        1,
        0,
        verb,
        0,
        [encode_value(Drafting("rig").draft("cam", verb, 7, True, None))[0]],
    )


def rest(node: Net_Node, eventually: Eventually) -> None:
    """Wait until a node's loop waits."""
    driver = driver_of(node)
    eventually(lambda: not driver.is_awake and driver._stand_in(lambda: None))


def know_of(node: Net_Node, alarm_at: float, eventually: Eventually) -> None:
    """Have a loop wait until then at least, and nothing due before."""
    driver = driver_of(node)

    def know() -> None:
        if driver._alarm is not None:
            driver._alarm.cancel()
        driver._alarm_at = alarm_at

    driver._loop.call_soon_threadsafe(know)
    eventually(lambda: driver._alarm_at == alarm_at)
    rest(node, eventually)


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads that have sent in the loop's place."""
    threads: list[int] = []
    see_to = Driver._see_to

    def noted(driver: Driver, take: Callable[[], Wishes]) -> None:
        if not driver._results:  # else it tells how listens ended
            threads.append(threading.get_ident())
        see_to(driver, take)

    monkeypatch.setattr(Driver, "_see_to", noted)
    return threads


@pytest.mark.parametrize(
    ("run", "by_itself"),
    [(in_thread, True), (lambda work: work(), False)],
    ids=["a thread", "the main thread"],
)
def test_it_arrives_while_its_thread_keeps_the_interpreter_to_itself(
    node: MakeNode,
    start: StartStation,
    tmp_path: Path,
    sends: list[int],
    eventually: Eventually,
    run: Callable[[Callable[[], bool]], bool],
    by_itself: bool,
) -> None:
    station = start(ProbedStation("S"))
    cam = node("cam", station)
    file = tmp_path / "marked"
    file.write_bytes(b"-")
    rest(cam, eventually)
    before = sys.getswitchinterval()

    def send_and_compute() -> bool:
        with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 1) as seen:
            sys.setswitchinterval(1000)  # no other thread of this process gets the interpreter
            interval.next_at = 0.0
            cam.send("S", "MARK", str(file))
            until = time.monotonic() + WITHIN_S
            while seen[0] != ord("x") and time.monotonic() < until:
                pass
            is_seen = seen[0] == ord("x")
            while sys.getswitchinterval() != 1000 and time.monotonic() < until:
                pass  # the loop may not have come to the end of its turn yet
            interval_s = sys.getswitchinterval()
            sys.setswitchinterval(before)
            return is_seen and interval_s == 1000

    try:
        assert run(send_and_compute) and bool(sends) is by_itself
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "stopped"])
def test_a_loop_that_takes_no_turn_any_more_leaves_nobody_in_haste(
    node: MakeNode, eventually: Eventually, is_closed: bool
) -> None:
    cam = node("cam", node("rig", router_port=0))
    rest(cam, eventually)
    driver, before = driver_of(cam), sys.getswitchinterval()
    loop, stopped = driver._loop, asyncio.new_event_loop()

    def wake(call: object) -> None:
        if is_closed:
            raise RuntimeError("the loop is closed")

    driver._wake_for, interval.next_at = wake, 0.0
    driver._loop = loop if is_closed else stopped
    cam.send("rig", "K", 1)
    assert sys.getswitchinterval() == before and interval.next_at > 0.0
    driver._loop, driver._wake_for, driver.is_awake = loop, waker(loop), False
    stopped.close()
    cam.send("rig", "K", 2)


def test_who_goes_on_sending_is_in_no_haste(node: MakeNode, gate: Gate, eventually: Eventually) -> None:
    cam = node("cam", node("rig", router_port=0, listens={"K": gate}))
    rest(cam, eventually)
    driver, before = driver_of(cam), sys.getswitchinterval()
    driver._loop.call_soon_threadsafe(gate.opened.wait, 5)  # it has no turn meanwhile
    interval.next_at = 0.0
    cam.send("rig", "K", 1)
    assert sys.getswitchinterval() < before
    cam.send("rig", "K", 2)
    assert sys.getswitchinterval() == before
    gate.opened.set()


def test_nobody_is_in_haste_again_and_again(node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    cam = node("cam", node("rig", router_port=0, listens={"K": lambda value: None}))
    asked: list[float] = []
    monkeypatch.setattr(interval, "hasten", lambda: asked.append(interval.next_at))
    interval.next_at = 0.0
    assert cam.send("rig", "K", 1).wait_settled(5).outcome is Outcome.DELIVERED and len(asked) == 1
    interval.next_at = FOREVER
    assert cam.send("rig", "K", 2).wait_settled(5).outcome is Outcome.DELIVERED and len(asked) == 1
    assert asked[0] < interval.next_at < FOREVER, "and who goes on doesn't wait for it for ever"


def test_only_what_is_alone_goes_so_and_never_from_the_main_thread(
    node: MakeNode, gate: Gate, sends: list[int], eventually: Eventually
) -> None:
    rig = node("rig", router_port=0, listens={"K": lambda value: None, "HELD": gate})
    cam = node("cam", rig)
    rest(cam, eventually)
    assert cam.send("rig", "K", 1).wait_settled(5).outcome is Outcome.DELIVERED and not sends
    rest(cam, eventually)
    mine = in_thread(lambda: (cam.send("rig", "HELD", 2), threading.get_ident())[1])
    assert sends == [mine]
    eventually(gate.entered.is_set)
    rest(cam, eventually)
    second = in_thread(lambda: cam.send("rig", "K", 3))
    assert second.wait_settled(5).outcome is Outcome.DELIVERED and sends == [mine], "another was before it"
    gate.opened.set()


@pytest.mark.parametrize("value", [1, np.zeros(100_000)])
@pytest.mark.parametrize("key", ["K", "DATA"])
def test_what_the_journal_has_first_and_arrays_are_left_to_the_loop(
    node: MakeNode, sends: list[int], eventually: Eventually, key: str, value: object
) -> None:
    rig = node("rig", router_port=0, listens={key: lambda value: None})
    cam = node("cam", rig)
    rest(cam, eventually)
    assert in_thread(lambda: cam.send("rig", key, value)).wait_settled(5).outcome is Outcome.DELIVERED
    assert len(sends) == (key == "K" and isinstance(value, int))


def test_what_listens_has_its_loop_send(node: MakeNode, sends: list[int], eventually: Eventually) -> None:
    rig = node("rig", router_port=0, listens={"K": lambda value: None})
    hub = node("hub", rig, router_port=0)
    rest(hub, eventually)
    assert in_thread(lambda: hub.send("rig", "K", 1)).wait_settled(5).outcome is Outcome.DELIVERED
    assert not sends


def test_what_ends_at_once_is_told_by_the_loop(
    node: MakeNode, sends: list[int], monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """Whoever holds a lock while he sends must not meet his own callback in it."""
    cam = node("cam", node("rig", router_port=0))
    rest(cam, eventually)
    told: list[int] = []
    settle = OpenSends.settle

    def noted(opened: OpenSends, ended: Any) -> None:
        told.append(threading.get_ident())
        settle(opened, ended)

    monkeypatch.setattr(OpenSends, "settle", noted)
    know_of(cam, 0.0, eventually)
    receipt: Receipt = in_thread(lambda: cam.send(["x"] * (MAX_HOPS + 1), "K", 1))
    assert receipt.wait_settled(5).outcome is Outcome.REFUSED
    assert len(sends) == 1 and told == [driver_of(cam)._thread] != sends


def test_what_has_no_room_yet_is_sent_by_the_loop(
    node: MakeNode, sends: list[int], eventually: Eventually
) -> None:
    got: list[int] = []
    rig = node("rig", router_port=0, listens={"K": got.append})
    cam = node("cam", rig)
    rest(cam, eventually)
    dialer: Any = driver_of(cam).dialer
    whole, tries = dialer.send, []

    def send(link: Any, frames: Any) -> None:
        tries.append(threading.get_ident())
        if len(tries) == 1:
            raise BlockingIOError
        whole(link, frames)

    dialer.send = send
    know_of(cam, 0.0, eventually)
    receipt = in_thread(lambda: cam.send("rig", "K", 1))
    assert receipt.wait_settled(2).outcome is Outcome.DELIVERED and got == [1]
    assert sends == tries[:1] != tries[1:2]


def test_the_loop_looks_at_what_is_due_earlier_than_it_knew(
    node: MakeNode, sends: list[int], eventually: Eventually
) -> None:
    cam = node("cam", node("rig", router_port=0))
    dialer: Any = driver_of(cam).dialer
    dialer.send = lambda link, frames: None  # it is lost, and nothing comes back
    know_of(cam, FOREVER, eventually)
    in_thread(lambda: cam.send("rig", "K", 1))
    assert len(sends) == 1
    eventually(lambda: driver_of(cam)._alarm_at < FOREVER)


def test_a_fault_of_ours_is_logged_and_does_not_reach_who_sends(
    node: MakeNode, sends: list[int], monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    rig = node("rig", router_port=0, listens={"K": lambda value: None})
    cam = node("cam", rig)
    rest(cam, eventually)

    def fail(*_: object) -> None:
        raise LookupError("on purpose")

    with monkeypatch.context() as patched:
        patched.setattr(driver_of(cam).exchange, "turn", fail)
        assert in_thread(lambda: isinstance(cam.send("rig", "K", 1), Receipt)) and len(sends) == 1
    assert cam.statistics().counts["turns failed"] >= 1


def test_what_comes_between_looking_and_sending_is_left_to_the_loop(
    node: MakeNode, sends: list[int], eventually: Eventually
) -> None:
    got: list[str] = []
    rig = node("rig", router_port=0, listens={"K": got.append, "DATA": got.append})
    cam = node("cam", rig)
    driver, dialer = driver_of(cam), driver_of(cam).dialer
    assert dialer is not None
    stand_in, send, by = driver._stand_in, dialer.send, list[int]()
    dialer.send = lambda link, frames: (by.append(threading.get_ident()), send(link, frames))  # type: ignore[assignment]

    woken: list[None] = []
    wake = driver._wake
    driver._wake = lambda: (woken.append(None), wake())[1]  # type: ignore[method-assign]

    def after(meanwhile: Callable[[], object]) -> None:
        rest(cam, eventually)
        by.clear()
        woken.clear()
        driver._stand_in = lambda work: (meanwhile(), woken.clear(), stand_in(work))[2]
        assert in_thread(lambda: cam.send("rig", "K", "mine")).wait_settled(5).outcome is Outcome.DELIVERED
        driver._stand_in = stand_in
        assert by and set(by) == {driver._thread} and woken

    after(lambda: cam.send("rig", "DATA", "another's"))
    # Of different keys: workers may begin either first.
    eventually(lambda: sorted(got) == ["another's", "mine"])
    after(lambda: setattr(dialer, "is_plain", False))
    assert len(sends) <= 2


def test_what_a_node_sends_itself_stays_in_order(
    node: MakeNode, sends: list[int], eventually: Eventually
) -> None:
    got: list[int] = []
    cam = node("cam", node("rig", router_port=0), listens={"K": got.append})

    def send_two(first: int) -> list[Receipt]:
        return [cam.send("cam", "K", first), cam.send("cam", "K", first + 1)]

    for first in range(0, 40, 2):
        rest(cam, eventually)
        receipts = in_thread(partial(send_two, first))
        assert all(receipt.wait_settled(5).outcome is Outcome.DELIVERED for receipt in receipts)
    assert got == list(range(40)) and sends


def test_nobody_waits_for_the_loop_in_whose_place_he_is(
    node: MakeNode, gate: Gate, eventually: Eventually
) -> None:
    """As a finalizer would that Python calls in the middle of a send."""
    rig = node("rig", router_port=0, listens={"HELD": gate})
    cam = node("cam", rig)
    receipt = cam.send("rig", "HELD", 1)
    eventually(gate.entered.is_set)
    refused: list[str] = []

    def wait() -> None:
        for call in (receipt.wait_settled, receipt.wait_accepted, cam.statistics):
            try:
                call()
            except MisuseError as error:
                refused.append(str(error))

    eventually(lambda: driver_of(cam)._stand_in(wait))
    assert len(refused) == 3 and "finalizers" in refused[0]
    gate.opened.set()
    assert receipt.wait_settled(5).outcome is Outcome.DELIVERED
    driver = driver_of(cam)
    eventually(lambda: driver._stand_in(cam.release))
    eventually(lambda: driver._closed)


def test_who_has_called_the_last_listen_tells_of_it_himself(
    node: MakeNode, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    rig = node("rig", router_port=0)
    called: list[int] = []
    cam = node("cam", rig, listens={"K": lambda value: (called.append(threading.get_ident()), value)[1]})
    told: list[int] = []
    see_to = Driver._see_to

    def noted(driver: Driver, take: Callable[[], Wishes]) -> None:
        told.extend([threading.get_ident()] * len(driver._results))
        see_to(driver, take)

    monkeypatch.setattr(Driver, "_see_to", noted)

    def is_told() -> bool:
        rest(cam, eventually)
        return rig.send("cam", "K", 7).result(5) == 7 and bool(told)

    eventually(is_told)
    assert told[-1] == called[-1] != driver_of(cam)._thread


def test_only_the_last_one_is_told_so_where_no_other_waits_for_the_thread() -> None:
    told: list[bool] = []
    dispatch = Dispatch(
        "cam",
        {"K": lambda value: None},
        lambda results, is_last=False, may_wait=False: told.append(is_last),
        NoteLog(logging.getLogger("cam")),
        gives_values=True,
        expands=False,
        max_workers=1,
    )
    dispatch._work([parcel_of("K"), parcel_of("K")])
    dispatch._workers.unserved.append(object())  # type: ignore[arg-type]
    dispatch._work([parcel_of("K")])
    assert told == [False, True, False], "what ends together is told together"


def test_nothing_is_told_of_listens_that_end_later(node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = driver_of(node("cam", node("rig", router_port=0)))
    woken: list[None] = []
    monkeypatch.setattr(driver, "_wake", lambda: woken.append(None))
    monkeypatch.setattr(driver, "_stand_in", lambda work: woken.append(None))
    driver.handled_all([], at_once=True)
    assert not woken


def test_threads_that_stand_in_for_one_loop_lose_and_mix_up_nothing(node: MakeNode, sends: list[int]) -> None:
    got: dict[str, list[int]] = {}
    rig = node(
        "rig", router_port=0, listens={"K": lambda value: got.setdefault(value[0], []).append(value[1])}
    )
    cams = [node(f"cam_{n}", rig) for n in range(4)]
    before = sys.getswitchinterval()

    def work(cam: Net_Node) -> None:
        for number in range(150):
            receipt = cam.send("rig", "K", [cam.id, number])
            if number % 3:
                assert receipt.wait_settled(20).outcome is Outcome.DELIVERED

    threads = [threading.Thread(target=work, args=(cam,)) for cam in cams]
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert got == {cam.id: list(range(150)) for cam in cams}
    assert len(sends) > 10 and len(set(sends)) > 1
    assert all(cam.statistics().counts.get("turns failed", 0) == 0 for cam in cams)
