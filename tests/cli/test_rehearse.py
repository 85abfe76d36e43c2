"""The demo's command, as far as it needs no demo; the rest is in `tests/system/test_demo.py`."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from pilotage.cli.rehearse import heed_signals


class Garbage:
    """Something that is interrupted while it is collected."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Leave signals as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_throws_away_ends_the_demo_all_the_same() -> None:
    check = heed_signals()
    check()
    garbage = Garbage()
    del garbage
    with pytest.raises(KeyboardInterrupt):
        check()
    signal.raise_signal(signal.SIGINT)  # the next one changes nothing


@pytest.mark.usefixtures("handlers")
def test_a_signal_is_raised_at_once() -> None:
    heed_signals()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
