from __future__ import annotations

import multiprocessing
import os
import sys

import pytest

from pilotage.transport.haste import HASTE_S, Interval, interval

USUAL_S = 0.005


class Kept:
    """An interval as Python keeps it: in whole microseconds."""

    def __init__(self) -> None:
        self.us = int(USUAL_S * 1e6)
        self.interval = Interval(self.get, self.put)

    def get(self) -> float:
        return 1e-6 * self.us

    def put(self, value_s: float) -> None:
        self.us = int(value_s * 1e6)


def test_the_interval_is_short_for_a_while_and_then_the_users_again() -> None:
    kept = Kept()
    kept.interval.hasten()
    assert kept.get() == pytest.approx(HASTE_S, abs=1.5e-6) and kept.interval.is_short
    kept.interval.hasten()
    kept.interval.calm_down()
    assert kept.get() == USUAL_S and not kept.interval.is_short
    kept.interval.calm_down()
    assert kept.get() == USUAL_S


def test_who_has_changed_it_meanwhile_keeps_what_he_wants() -> None:
    kept = Kept()
    kept.interval.hasten()
    kept.put(0.02)
    kept.interval.calm_down()
    assert kept.get() == 0.02
    kept.interval.hasten()
    kept.interval.calm_down()
    assert kept.get() == 0.02


def test_who_has_noted_and_given_back_the_short_one_has_his_own_again() -> None:
    kept = Kept()
    kept.interval.hasten()
    noted_s = kept.get()
    kept.put(1.0)
    kept.interval.calm_down()
    kept.put(noted_s)
    kept.interval.hasten()
    kept.interval.calm_down()
    assert kept.get() == USUAL_S


def test_who_wants_it_shorter_has_it_so() -> None:
    kept = Kept()
    kept.put(1e-5)
    kept.interval.hasten()
    assert kept.us == 10
    kept.interval.calm_down()
    assert kept.us == 10


def test_an_interrupt_loses_nothing() -> None:
    kept = Kept()

    def interrupted(value_s: float) -> None:
        kept.put(value_s)
        raise KeyboardInterrupt

    interval = Interval(kept.get, interrupted)
    kept.put(0.02)
    for step in (interval.hasten, interval.calm_down):
        with pytest.raises(KeyboardInterrupt):
            step()
    assert kept.get() == 0.02


def _tell(told: multiprocessing.SimpleQueue[float]) -> None:
    told.put(sys.getswitchinterval())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_fork_is_in_no_haste() -> None:
    context = multiprocessing.get_context("fork")
    told: multiprocessing.SimpleQueue[float] = context.SimpleQueue()
    before = sys.getswitchinterval()
    interval.hasten()
    child = context.Process(target=_tell, args=(told,))
    child.start()
    assert told.get() == before
    child.join()
    sys.setswitchinterval(before)
