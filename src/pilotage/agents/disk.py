"""Disk: what a pilot says and does while its disk refuses what it would keep (promise B4).

Law: it is told once when it begins, and once when it is over, with what wasn't kept meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol


class DiskTrouble(Protocol):
    """What is wrong with a file, or that it is right again."""

    @property
    def file(self) -> str:
        """What can't be written."""

    @property
    def text(self) -> str:
        """Why, in words."""

    @property
    def is_over(self) -> bool:
        """Whether it can be written again."""


ROOM_TEXTS = ("full:", "has room again")
"""What a journal's texts say when its own bounds are reached, and when they aren't any more."""


class DiskWatch:
    """Takes note of troubles of several files, and counts what is sent while there is one. Any thread.

    Args:
        pause: called with the reason when the first trouble begins.
        resume: called when the last one is over.
        tell: reports an EVENT: its name, and what it says.
    """

    def __init__(
        self,
        pause: Callable[[str], None],
        resume: Callable[[], None],
        tell: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self._pause, self._resume, self._tell = pause, resume, tell
        self._lock = threading.RLock()
        self._troubles: dict[tuple[str, str], str] = {}
        self._rows = 0
        self._trials: tuple[int, int] | None = None

    def note(self, trouble: DiskTrouble) -> None:
        """Take note of a trouble that begins or is over; what is told twice counts once."""
        with self._lock:
            before, which = bool(self._troubles), (trouble.file, _kind_of(trouble.text))
            if trouble.is_over:
                self._troubles.pop(which, None)
            else:
                self._troubles.setdefault(which, trouble.text)
            if self._troubles and not before:
                self._begin(trouble)
            elif before and not self._troubles:
                self._end(trouble)

    def note_row(self, trial: int) -> None:
        """Count a row that is being sent, if it isn't kept."""
        with self._lock:
            if self._troubles:
                first, last = self._trials or (trial, trial)
                self._rows, self._trials = self._rows + 1, (min(first, trial), max(last, trial))

    def _begin(self, trouble: DiskTrouble) -> None:
        self._rows, self._trials = 0, None
        self._tell("disk", {"file": trouble.file, "text": trouble.text, "is_over": False})
        self._pause(f"paused: {trouble.text}")

    def _end(self, trouble: DiskTrouble) -> None:
        text = f"{trouble.file} can be written again; {self._rows} rows were sent without being kept there"
        if self._trials is not None:
            text += f", of trials {self._trials[0]} to {self._trials[1]}"
        told = {"file": trouble.file, "is_over": True, "rows": self._rows, "trials": list(self._trials or ())}
        self._tell("disk", {**told, "text": text})
        self._resume()


def _kind_of(text: str) -> str:
    """Tell apart what can go wrong with one file at the same time: its bounds, and its disk."""
    return "bounds" if any(said in text for said in ROOM_TEXTS) else "disk"
