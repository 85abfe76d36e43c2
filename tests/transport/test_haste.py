from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from pilotage.transport.haste import HASTE_S, calm_down, hasten

USUAL_S = 0.005


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    """Have the interval that Python begins with, whatever else runs."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(USUAL_S)
    yield
    calm_down()
    sys.setswitchinterval(before)


def test_the_interval_is_short_for_a_while_and_then_the_users_again() -> None:
    hasten()
    assert sys.getswitchinterval() == pytest.approx(HASTE_S)
    hasten()
    calm_down()
    assert sys.getswitchinterval() == pytest.approx(USUAL_S)
    calm_down()
    assert sys.getswitchinterval() == pytest.approx(USUAL_S)


def test_who_has_changed_it_meanwhile_keeps_what_he_wants() -> None:
    hasten()
    sys.setswitchinterval(0.02)
    calm_down()
    assert sys.getswitchinterval() == pytest.approx(0.02)


def test_who_wants_it_shorter_has_it_so() -> None:
    sys.setswitchinterval(HASTE_S / 10)
    hasten()
    assert sys.getswitchinterval() == pytest.approx(HASTE_S / 10)
    calm_down()
    assert sys.getswitchinterval() == pytest.approx(HASTE_S / 10)
