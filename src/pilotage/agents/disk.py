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
        self._files: dict[str, str] = {}
        self._rows = 0
        self._trials: tuple[int, int] | None = None

    def note(self, trouble: DiskTrouble) -> None:
        """Take note of a trouble that begins or is over; what is told twice counts once."""
        with self._lock:
            before = bool(self._files)
            if trouble.is_over:
                self._files.pop(trouble.file, None)
            else:
                self._files.setdefault(trouble.file, trouble.text)
            if self._files and not before:
                self._begin(trouble)
            elif before and not self._files:
                self._end(trouble)

    def note_row(self, trial: int) -> None:
        """Count a row that is being sent, if it isn't kept."""
        with self._lock:
            if self._files:
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
