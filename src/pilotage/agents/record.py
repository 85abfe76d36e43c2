"""Record: what a pilot did and sent in each session, on its own disk, one JSON object a line.

Law: a row's line is written before the row is sent, with its running number and every bit of its values, so that it can
be accounted for, and sent again, by this life of the pilot or a later one. A disk that fails costs the record, is
logged, and stops no task. The last line of a life that was killed may be torn; its row was not sent.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pilotage.agents.exact import from_json, to_json
from pilotage.protocol.errors import InvalidMessage, MachineError

log = logging.getLogger(__name__)

FOLDER = "records"


@dataclass(frozen=True, slots=True)
class RecordedRow:
    """A row that was sent, or was about to be.

    Args:
        pilot: under whose name.
        number: its running number.
        subject: the subject.
        trial_num: the trial.
        values: its columns.
    """

    pilot: str
    number: int
    subject: str
    trial_num: int
    values: dict[str, Any]


class Record:
    """The records of one pilot. Any thread.

    Args:
        datadir: the pilot's folder of data; the lines go to `records/{pilot}/{session}.jsonl` in it.
        pilot: its name.
        life: what tells this life of the pilot from others.
    """

    def __init__(self, datadir: Path, pilot: str, life: str = "") -> None:
        self._folder = datadir / FOLDER / quote(pilot, safe=" ")
        self._life = life
        self._lock = threading.Lock()
        self._running: str | None = None
        self._whole: set[Path] = set()

    def place(self, session: str) -> Path:
        """Give the file of a session, whether it is there or not."""
        # Quoted, since the name came by the wire and must lead nowhere else.
        return self._folder / f"{quote(session, safe=' ')}.jsonl"

    def begin(self, session: str, told: Mapping[str, Any]) -> None:
        """Write down that a task begins."""
        self._running = session
        self._write(session, "start", {"life": self._life, **told})

    def add_row(self, session: str, row: RecordedRow) -> None:
        """Write down a row that is about to be sent.

        Raises:
            InvalidMessage: one of its values is of a type that can't be recorded, nor stored.
        """
        told = {"pilot": row.pilot, "row_num": row.number, "subject": row.subject, "trial_num": row.trial_num}
        self._write(session, "trial", {**told, "values": to_json(row.values)})

    def end(self, told: Mapping[str, Any]) -> None:
        """Write down that the task has ended; does nothing if none was running."""
        session, self._running = self._running, None
        if session is not None:
            self._write(session, "end", told)

    @property
    def running(self) -> str | None:
        """The session of the task that runs, None if none does."""
        return self._running

    def rows(self, session: str) -> Iterator[RecordedRow]:
        """Read the numbered rows of all lives; lines that are torn or broken are logged and left out."""
        place = self.place(session)
        try:
            with place.open(encoding="utf-8", errors="replace") as lines:
                for number, line in enumerate(lines, 1):
                    row = _row(place, number, line)
                    if row is not None:
                        yield row
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("the record %s can't be read: %s", place, error)

    def trial_after(self, left: Mapping[str, Any]) -> Any:
        """Tell which trial ran when a life ended, by its diary and by the rows of trials that it recorded as ended.

        Args:
            left: what the diary says: `session`, `subject`, `trial`; the last is given back where it is no number.
        """
        trial = left.get("trial")
        if not isinstance(trial, int):
            return trial
        rows = self.rows(str(left.get("session")))
        ended = (
            row.trial_num + 1
            for row in rows
            if row.subject == left.get("subject") and "TRIAL_END" in row.values
        )
        return max(trial, max(ended, default=trial))

    def _write(self, session: str, what: str, told: Mapping[str, Any]) -> None:
        line = json.dumps({"what": what, "at": time.time(), **told}, default=repr) + "\n"
        place = self.place(session)
        try:
            with self._lock:
                place.parent.mkdir(parents=True, exist_ok=True)
                if place not in self._whole:
                    line = "\n" * _is_torn(place) + line
                with place.open("a", encoding="utf-8", newline="\n") as file:
                    file.write(line)
                self._whole.add(place)
        except OSError as error:
            # Part of the line may be there.
            self._whole.discard(place)
            log.warning("%s can't be written: %s", place, error)


def read_record(place: Path) -> Iterator[dict[str, Any]]:
    """Read a record's lines, the values of trials as they were sent.

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
        if isinstance(found.get("values"), dict):
            found["values"] = _restored(place, number, found["values"])
        yield found


def _restored(place: Path, number: int, values: dict[str, Any]) -> Any:
    try:
        return from_json(values)
    except InvalidMessage as error:
        raise MachineError(f"the record {place}, line {number}: {error}") from error


def _row(place: Path, at: int, line: str) -> RecordedRow | None:
    """Read a line; None if it is no numbered row, or can't be read."""
    try:
        found = json.loads(line) if line.strip() else {}
        if found.get("what") != "trial" or "row_num" not in found:
            return None
        who = str(found["pilot"]), int(found["row_num"]), str(found["subject"]), int(found["trial_num"])
        return RecordedRow(*who, from_json(found["values"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("the record %s, line %d, is left out: %s", place, at, error)
        return None


def _is_torn(place: Path) -> bool:
    """Tell whether a file ends in the middle of a line."""
    if not place.exists() or not place.stat().st_size:
        return False
    with place.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) != b"\n"
