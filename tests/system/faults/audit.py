"""Compare what the session's database holds with the ground truth that the load wrote down."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Set
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pilotage.services.store import SessionReader
from tests.system.faults.load import checksum, make_item

Key = tuple[str, int]
SHOWN = 5


@dataclass
class Audit:
    """What an audit found; `faults` is empty if the store is right."""

    rows: int = 0
    items: int = 0
    excused: int = 0
    faults: list[str] = field(default_factory=list)

    def check(self, what: str = "") -> None:
        """Fail unless the store is right."""
        assert not self.faults, f"{what}: {len(self.faults)} faults: " + "; ".join(self.faults[:SHOWN])
        assert self.rows, f"{what}: nothing was sent, so that nothing was tested"


def read_notes(folder: Path, what: str) -> dict[Key, dict[str, Any]]:
    """Read the ground truth: what was noted of each row or item."""
    found: dict[Key, dict[str, Any]] = {}
    for file in sorted(folder.glob(f"*.{what}.jsonl")):
        lines = file.read_text(encoding="utf-8").splitlines()
        for line in lines:
            told = json.loads(line)
            found[told["life"], told["n"]] = told
    return found


def stored_rows(place: Path, pilot: str, subject: str) -> list[dict[str, Any]]:
    """Read all messages of trial data, as they lie in the database, in the order in which they were stored."""
    database = f"{(place / 'session.sqlite').as_uri()}?mode=ro"
    statement = 'SELECT trial_num, "values" FROM data_messages WHERE pilot = ? AND subject = ? ORDER BY id'
    with closing(sqlite3.connect(database, uri=True, timeout=10)) as connection:
        rows = connection.execute(statement, (pilot, subject)).fetchall()
    return [{**json.loads(text), "trial_num": trial} for trial, text in rows]


def count_rows(place: Path) -> Counter[str]:
    """Count each subject's messages of trial data; none while there is no database."""
    if not (place / "session.sqlite").exists():
        return Counter()
    database = f"{(place / 'session.sqlite').as_uri()}?mode=ro"
    with closing(sqlite3.connect(database, uri=True, timeout=10)) as connection:
        counts = connection.execute("SELECT subject, count(*) FROM data_messages GROUP BY subject").fetchall()
    return Counter(dict(counts))


def read_record(places: Iterable[Path]) -> set[Key]:
    """Read which rows a pilot had taken from its task, by its own record; a line that a kill cut short is none."""
    found: set[Key] = set()
    for place in places:
        for line in place.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                values = json.loads(line).get("values") or {}
                if "life" in values:
                    found.add((values["life"], values["n"]))
    return found


def audit_rows(
    audit: Audit,
    place: Path,
    truth: Path,
    pilot: str,
    subject: str,
    cut_short: Set[str],
    recorded: Set[Key] = frozenset(),
) -> None:
    """See that each row that was sent is stored exactly once, unchanged.

    Args:
        audit: where it is noted.
        place: the session's folder.
        truth: the folder of the load's notes.
        pilot: under whose name the rows came.
        subject: whose they are.
        cut_short: lives of the task that a kill of its process ended. The last row of such a life may be missing: it
            was noted, and perhaps the process died before it was handed over.
        recorded: rows that the pilot's own record has: these were handed over.
    """
    sent = read_notes(truth, "rows")
    stored = stored_rows(place, pilot, subject)
    audit.rows += len(sent)
    counts = Counter((row["life"], row["n"]) for row in stored)
    last = dict(sorted(sent))
    for key in sent:
        life, n = key
        if counts[key] == 0 and life in cut_short and n == last[life] and key not in recorded:
            audit.excused += 1
        elif counts[key] != 1:
            audit.faults.append(f"{pilot}/{subject}: row {n} of life {life} is stored {counts[key]} times")
    for row in stored:
        _audit_row(audit, row, sent, f"{pilot}/{subject}")


def _audit_row(audit: Audit, row: dict[str, Any], sent: dict[Key, dict[str, Any]], whose: str) -> None:
    life, n = row["life"], row["n"]
    told = sent.get((life, n))
    where = f"{whose}: row {n} of life {life}"
    if told is None:
        audit.faults.append(f"{where} was never sent")
    elif any(row.get(name) != told[name] for name in told):
        audit.faults.append(f"{where} differs from what was sent")
    elif row["check"] != checksum(life, n, row["text"]):
        audit.faults.append(f"{where} has a wrong checksum")


def audit_items(audit: Audit, place: Path, truth: Path, pilot: str, stream: str, cut_short: Set[str]) -> None:
    """See that each item of the stream is stored exactly once, unchanged and in order, life after life."""
    sent = read_notes(truth, "items")
    audit.items += len(sent)
    if not sent:
        return
    lives: dict[str, int] = {}
    for life, n in sent:
        lives[life] = max(lives.get(life, -1), n)
    numbers = _stored_items(audit, place, pilot, stream)
    counts = _runs(numbers)
    if cut_short:
        # What a killed process had not got rid of of a stream isn't promised; what is there must be in order.
        if len(counts) > len(lives):
            audit.faults.append(f"{pilot}/{stream}: it has {len(counts)} runs, {len(lives)} were sent")
        return
    if sorted(counts) != sorted(n + 1 for n in lives.values()):
        wanted = sorted(n + 1 for n in lives.values())
        audit.faults.append(f"{pilot}/{stream}: it has runs of {sorted(counts)[:9]} items, not {wanted[:9]}")


def _stored_items(audit: Audit, place: Path, pilot: str, stream: str) -> list[int]:
    numbers: list[int] = []
    with SessionReader(place) as reader:
        for info in (one for one in reader.streams() if one.pilot == pilot and one.name == stream):
            for chunk in reader.stream_chunks(pilot, stream, info.segment):
                for item in np.asarray(chunk.values):
                    numbers.append(int(item[0]))
                    if not np.array_equal(item, make_item(int(item[0]))):
                        audit.faults.append(f"{pilot}/{stream}: item {item[0]} differs from what was sent")
    return numbers


def _runs(numbers: list[int]) -> list[int]:
    """Give the lengths of the runs 0, 1, 2, … that follow each other; a gap or a repetition begins a run too."""
    lengths: list[int] = []
    expected = -1
    for number in numbers:
        if number == expected and lengths:
            lengths[-1] += 1
        else:
            lengths.append(1)
        expected = number + 1
    return lengths
