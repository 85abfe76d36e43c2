"""A turn that is for one thing looks for nothing else, and leaves nothing undone (decision 0024)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pilotage.protocol.inbox import Handled
from pilotage.protocol.instructions import Card, Dialect
from pilotage.protocol.sends import FOREVER, Pending
from pilotage.transport.driver import Driver
from pilotage.transport.haste import HASTE_S, interval
from pilotage.transport.lines import Places

ALONE: Any = (("T", b""), Card(Dialect.OWN, "T"), [b"x"])
SEND = Pending(("T",), "K", [b"body"], 0, "handle", ["id"])
ENDED = Handled((1, 2, 3))


class Bench:
    """A driver whose exchange notes what it is given; its lines must not be looked at."""

    def __init__(self) -> None:
        self.given: list[tuple[list[Any], ...]] = []
        self.was_short: list[bool] = []
        self.fails = False
        self.alarms: list[float] = []
        self.soon: list[Any] = []
        self.full_turns = 0
        exchange: Any = SimpleNamespace(
            turn=self._turn, wake_at=lambda: self.due, config=SimpleNamespace(me="bench")
        )
        shell: Any = SimpleNamespace(note=None, taken=lambda sends: None, turn_over=lambda: False)
        loop: Any = SimpleNamespace(
            call_soon=self.soon.append,
            call_soon_threadsafe=self.soon.append,
            call_later=lambda due_s, call: self.alarms.append(due_s),
        )
        self.due = FOREVER
        self.driver: Any = Driver(
            exchange, shell, SimpleNamespace(), Places(), SimpleNamespace(asyncio_loop=loop)  # type: ignore[arg-type]
        )  # fmt: skip
        self.driver.turn = self._full_turn

    def _turn(self, *stimuli: Any) -> list[Any]:
        self.given.append(tuple(list(one) for one in stimuli[:3]))
        self.was_short.append(interval.is_short)
        if self.fails:
            raise ValueError("it fails")
        return []

    def _full_turn(self) -> None:
        self.full_turns += 1


@pytest.fixture
def bench() -> Iterator[Bench]:
    yield Bench()
    interval.calm_down()


def in_haste() -> None:
    interval.hasten()
    assert interval.is_short, f"it is usually longer than {HASTE_S} s"


def test_what_was_left_is_sent_and_told_together_and_nothing_is_looked_for(bench: Bench) -> None:
    driver = bench.driver
    driver.mailbox.leave(SEND)
    driver.handled_all([ENDED])
    assert driver.is_awake and bench.soon == [driver._woken], "woken once"
    driver._woken()
    assert bench.given == [([], [ENDED], [SEND])] and not bench.full_turns and not driver.is_awake
    assert driver.mailbox.sends == [] and not driver._results


@pytest.mark.parametrize(
    "more",
    [
        lambda driver: driver._calls.append(print),
        lambda driver: driver._persisted.append([]),
        lambda driver: driver._put_off.append(None),
        lambda driver: driver._lines.waiting.update({("T", b""): []}),
        lambda driver: setattr(driver._lines, "is_plain", False),
        lambda driver: setattr(driver, "_closed", True),
    ],
    ids=["a call", "the journal", "what was put off", "no room", "a key", "the end"],
)
def test_where_more_waits_all_of_it_is_looked_after(bench: Bench, more: Any) -> None:
    more(bench.driver)
    bench.driver._woken()
    assert bench.full_turns == 1 and not bench.given


@pytest.mark.parametrize(
    "more",
    [
        lambda driver: driver._put_off.append(None),
        lambda driver: setattr(driver._lines, "is_plain", False),
        lambda driver: setattr(driver, "_closed", True),
        lambda driver: in_haste(),
    ],
    ids=["what was put off", "a key", "the end", "somebody is in haste"],
)
def test_what_comes_by_itself_is_left_to_a_turn_for_all_where_there_is_more(bench: Bench, more: Any) -> None:
    more(bench.driver)
    assert not bench.driver.turn_for(ALONE) and not bench.given


def test_what_comes_by_itself_leaves_what_was_left_to_its_own_turn(bench: Bench) -> None:
    driver = bench.driver
    driver.send(SEND)
    assert driver.turn_for(ALONE)
    assert bench.given == [([ALONE], [], [])] and driver.is_awake and driver.mailbox.sends == [SEND]


@pytest.mark.parametrize("fails", [False, True])
def test_the_interval_is_the_users_again_once_what_was_in_haste_has_left(bench: Bench, fails: bool) -> None:
    bench.fails = fails
    bench.driver.mailbox.leave(SEND)
    in_haste()
    bench.driver._woken()
    assert bench.was_short == [True], "else whoever computes may keep the interpreter before it has left"
    assert not interval.is_short and bench.driver.counts["turns failed"] == fails


def test_the_interval_is_not_given_back_by_a_turn_that_came_too_early(bench: Bench) -> None:
    driver = bench.driver

    def leave(*stimuli: Any) -> list[Any]:
        driver.mailbox.leave(SEND)  # after it has looked
        in_haste()
        return []

    driver.exchange.turn = leave
    driver.handled_all([ENDED])
    driver._woken()
    assert interval.is_short and driver.mailbox.sends == [SEND]
    driver.exchange.turn = lambda *stimuli: []
    driver._woken()
    assert not interval.is_short


def test_who_leaves_something_while_it_is_looked_after_wakes_the_loop_again(bench: Bench) -> None:
    driver, awake = bench.driver, list[bool]()

    class Calls(deque[Any]):
        def __bool__(self) -> bool:
            awake.append(driver.is_awake)
            return False

    driver._calls = Calls()
    driver.handled_all([ENDED])
    driver._woken()
    assert awake == [False]


def test_an_interrupt_while_the_loop_is_woken_leaves_it_to_the_next_one(bench: Bench) -> None:
    driver = bench.driver
    wake, driver._wake_for = driver._wake_for, lambda call: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        driver.send(SEND)
    driver._wake_for = wake
    driver.send(SEND)
    assert bench.soon == [driver._woken]


@pytest.mark.parametrize("turn", [lambda driver: driver.turn_for(ALONE), lambda driver: driver._woken()])
def test_what_is_due_sooner_for_it_is_come_back_for(bench: Bench, turn: Any) -> None:
    driver = bench.driver
    turn(driver)
    assert not bench.alarms
    bench.due = 0.0
    turn(driver)
    assert bench.soon == [driver.turn] and driver.is_awake, "at once, for it is over"
    bench.due, driver._wake_at = 1e12, FOREVER
    turn(driver)
    assert driver._wake_at == 1e12, "the turn for it must see that time has passed"
    (alarm_s,) = bench.alarms
    assert alarm_s > 1e9 and driver._alarm_at == 1e12
    turn(driver)
    assert len(bench.alarms) == 1, "it is set already"
