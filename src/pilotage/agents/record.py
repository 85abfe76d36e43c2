"""Record: what a pilot did and sent in each session, on its own disk, one JSON object a line.

Law: a trial's line is written before the trial is sent. A disk that fails costs the record, is logged, and stops no
task: the record is there to be compared with, the data are kept by the Terminal.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from pilotage.protocol.errors import MachineError
from pilotage.protocol.ledger import canonical

log = logging.getLogger(__name__)

FOLDER = "records"


class Record:
    """The records of one pilot. Any thread.

    Args:
        datadir: the pilot's folder of data; the lines go to `records/{pilot}/{session}.jsonl` in it.
        pilot: its name.
    """

    def __init__(self, datadir: Path, pilot: str) -> None:
        self._folder = datadir / FOLDER / quote(pilot, safe=" ")
        self._lock = threading.Lock()
        self._running: str | None = None

    def place(self, session: str) -> Path:
        """Give the file of a session, whether it is there or not."""
        # Quoted, since the name came by the wire and must lead nowhere else.
        return self._folder / f"{quote(session, safe=' ')}.jsonl"

    def begin(self, session: str, told: Mapping[str, Any]) -> None:
        """Write down that a task begins."""
        self._running = session
        self._write(session, "start", told)

    def add_trial(
        self, session: str, pilot: str, subject: str, trial: int, values: Mapping[str, Any]
    ) -> None:
        """Write down what is about to be sent of a trial."""
        row = {"pilot": pilot, "subject": subject, "trial_num": trial, "values": values}
        self._write(session, "trial", row)

    def end(self, told: Mapping[str, Any]) -> None:
        """Write down that the task has ended; does nothing if none was running."""
        session, self._running = self._running, None
        if session is not None:
            self._write(session, "end", told)

    @property
    def running(self) -> str | None:
        """The session of the task that runs, None if none does."""
        return self._running

    def _write(self, session: str, what: str, told: Mapping[str, Any]) -> None:
        line = json.dumps({"what": what, "at": time.time(), **told}, default=_describe)
        place = self.place(session)
        try:
            with self._lock:
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("a", encoding="utf-8", newline="\n") as file:
                    file.write(line + "\n")
        except OSError as error:
            log.warning("%s can't be written: %s", place, error)


def read_record(place: Path) -> Iterator[dict[str, Any]]:
    """Read a record's lines.

    Raises:
        MachineError: it can't be read, or a line is no JSON object; the text names the line.
    """
    try:
        lines = place.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MachineError(f"the record {place} can't be read: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)
        except ValueError as error:
            raise MachineError(f"the record {place}, line {number}, is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise MachineError(f"the record {place}, line {number}, is no JSON object")
        yield found


def _describe(value: object) -> object:
    """Stand for what JSON can't say: arrays and bytes by their canonical bytes."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | bytes | bytearray | complex):
        return {"canonical": canonical(value).hex()}
    return repr(value)
