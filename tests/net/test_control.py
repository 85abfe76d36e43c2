"""The line between a station's process and its maker, at the moment at which the process dies."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pilotage.net.control import ParentEnd, make_line
from pilotage.protocol.errors import Closed, StationDied


class DyingLine:
    """Ends while somebody is sending by it, and is seen to have ended before that fails."""

    def __init__(self) -> None:
        self.ends = threading.Event()
        self.has_ended = threading.Event()

    def recv(self) -> Any:
        self.ends.wait(10)
        raise EOFError

    def send(self, request: object) -> None:
        self.ends.set()
        self.has_ended.wait(10)
        raise BrokenPipeError


def test_a_question_at_the_moment_of_death_says_that_the_station_is_not_running() -> None:
    line = DyingLine()
    end = ParentEnd(line, "T")  # type: ignore[arg-type]
    end.listen(line.has_ended.set)
    with pytest.raises(Closed, match="T isn't running"):
        end.ask("stop")
    assert isinstance(end.ready.exception(1), StationDied)


def test_a_question_after_death_is_refused_though_a_copy_of_the_line_is_open_elsewhere() -> None:
    ours, theirs = make_line()
    end, died = ParentEnd(ours, "T"), threading.Event()
    end._line = DyingLine()  # type: ignore[assignment]
    end._line.ends.set()  # type: ignore[attr-defined]
    end.listen(died.set)
    assert died.wait(5)
    end._line = ours
    with pytest.raises(Closed, match="T isn't running"):
        end.ask("stop")
    theirs.close()
    ours.close()
