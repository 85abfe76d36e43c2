"""The task that the fault tests run: rows and items whose content can be verified, each noted before it is sent.

Its notes are the ground truth, kept apart from all that Pilotage keeps: a line reaches the operating system before
the row is handed over, so that what was sent before a kill -9 is always in them.
"""

from __future__ import annotations

import json
import secrets
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from pilotage.agents.task import Fixed, Item, Source, Task, TaskParams, TrialRow

NAME = "load"
ITEM_SIZE = 16


class LoadParams(TaskParams):
    """How much to send, and where the ground truth goes."""

    truth: Annotated[str, Fixed(), Field(description="folder of the notes")]
    rate_hz: Annotated[float, Field(gt=0, description="rows per second")] = 50.0
    stream: Annotated[str, Fixed(), Field(description="name of the stream")] = "wave"
    stream_hz: Annotated[float, Fixed(), Field(ge=0, description="items per second; 0: no stream")] = 0.0
    text_chars: Annotated[int, Fixed(), Field(ge=0, description="how long each row's text is")] = 40


class LoadRow(TrialRow):
    """A row: which life of the task sent it, its number there, some text and a checksum over the three."""

    life: str
    n: int
    text: str
    check: int


def make_text(life: str, n: int, chars: int) -> str:
    """Make a row's text, another for each row."""
    unit = f"{life}:{n}|"
    return (unit * (chars // len(unit) + 1))[:chars]


def checksum(life: str, n: int, text: str) -> int:
    return zlib.crc32(f"{life}\0{n}\0{text}".encode())


def make_item(n: int) -> Any:
    """Make an item's data from its number alone."""
    return np.arange(n, n + ITEM_SIZE, dtype=np.int64)


class Notes:
    """One file of ground truth, a JSON object a line."""

    def __init__(self, folder: Path, life: str, what: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / f"{life}.{what}.jsonl").open("a", encoding="utf-8", buffering=1)

    def note(self, told: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(told) + "\n")

    def close(self) -> None:
        self._file.close()


class Load(Task[LoadParams]):
    """Send rows, and items of a stream, at a set rate until stopped."""

    Params = LoadParams
    TrialData = LoadRow
    stage_methods = ("row",)

    def begin(self) -> None:
        """Open the notes."""
        self._life = secrets.token_hex(6)
        folder = Path(self.params.truth)
        self._rows = Notes(folder, self._life, "rows")
        self._items = Notes(folder, self._life, "items")
        self._n = 0
        self._due = time.monotonic()

    def end(self) -> None:
        self._rows.close()
        self._items.close()

    def row(self) -> dict[str, Any]:
        """Send a row, when it is due."""
        # What was missed while the process stood still isn't caught up with: the rate is a bound.
        self._due = max(self._due + 1 / self.params.rate_hz, time.monotonic() - 0.2)
        self.sleep_until(self._due)
        n, self._n = self._n, self._n + 1
        text = make_text(self._life, n, self.params.text_chars)
        row = {"life": self._life, "n": n, "text": text, "check": checksum(self._life, n, text)}
        self._rows.note({**row, "trial_num": self.trial_num})
        return {**row, "TRIAL_END": True}

    def sources(self) -> dict[str, Source]:
        """Offer the stream, if there is one."""
        return {self.params.stream: self._wave} if self.params.stream_hz else {}

    def _wave(self) -> Iterator[Item]:
        due, n, name = time.monotonic(), 0, self.params.stream
        while True:
            due = max(due + 1 / self.params.stream_hz, time.monotonic() - 0.2)
            self.sleep_until(due)
            self._items.note({"life": self._life, "n": n})
            yield {"timestamp": self.wall_time(), name: make_item(n)}
            n += 1
