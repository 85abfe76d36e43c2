"""Which numbered rows and items are stored: nothing twice, and every gap can be named.

Law: for the writer's thread alone. The tables say what is stored; what is kept in memory only saves looking.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import Enum, auto

from pilotage.protocol.canonical import canonical
from pilotage.protocol.ledger import row_digest
from pilotage.services.store.entries import StreamItems, TrialData
from pilotage.services.store.runs import Fields, Run
from pilotage.services.store.values import columns_from_text

Sender = tuple[str, str]
"""Pilot and source."""


class Place(Enum):
    """What a numbered row is to those that are stored."""

    NEXT = auto()
    LATE = auto()
    STORED = auto()
    TAKEN = auto()


class RowNumbers:
    """The running numbers of rows.

    Args:
        connection: The writer's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._last: dict[Sender, int] = {}
        self._fresh: dict[Sender, dict[int, bytes]] = {}

    def reload(self) -> None:
        """Forget what isn't committed."""
        self._last.clear()
        self._fresh.clear()

    def place(self, entry: TrialData, digest: bytes) -> Place:
        """Tell where a row belongs.

        Args:
            entry: The row.
            digest: Its digest, number included.

        Returns:
            NEXT beyond all that are stored (also for a row without a number), LATE before one of them, STORED if
            this very row is there, TAKEN if another one has its number.
        """
        number = entry.row_num
        if number is None or number > self._highest((entry.pilot, entry.source)):
            return Place.NEXT
        stored = self._digest(entry, number)
        if stored is None:
            return Place.LATE
        return Place.STORED if stored == digest else Place.TAKEN

    def note(self, entry: TrialData, digest: bytes) -> None:
        """Take note of a row that the running transaction stores."""
        if entry.row_num is not None:
            sender = (entry.pilot, entry.source)
            self._last[sender] = max(entry.row_num, self._highest(sender))
            self._fresh.setdefault(sender, {})[entry.row_num] = digest

    def are_next(self, run: Run) -> bool:
        """Tell whether all rows of a run are beyond those that are stored; see `place`."""
        return not run.numbers or run.numbers[0] > self._highest(run.sender)

    def note_run(self, run: Run) -> None:
        """Take note of rows that the running transaction stores."""
        if run.numbers:
            self._last[run.sender] = run.numbers[-1]
            self._fresh.setdefault(run.sender, {}).update(zip(run.numbers, run.digests, strict=True))

    def written(self) -> None:
        """Take note that all rows are in their table."""
        self._fresh.clear()

    def _highest(self, sender: Sender) -> int:
        if sender not in self._last:
            found = self._connection.execute(
                "SELECT max(row_num) FROM data_messages WHERE pilot = ? AND source = ? AND row_num IS NOT NULL",
                sender,
            ).fetchone()[0]
            self._last[sender] = -1 if found is None else int(found)
        return self._last[sender]

    def _digest(self, entry: TrialData, number: int) -> bytes | None:
        fresh = self._fresh.get((entry.pilot, entry.source), {}).get(number)
        if fresh is not None:
            return fresh
        found = self._connection.execute(
            'SELECT subject, trial_num, "values" FROM data_messages WHERE pilot = ? AND source = ? AND row_num = ?',
            (entry.pilot, entry.source, number),
        ).fetchone()
        return None if found is None else row_digest(number, stored_row(*found))


def stored_row(subject: str, trial_num: int | None, values: str) -> bytes:
    """Give the canonical bytes of a row of `data_messages`, the same as those of the row that was sent."""
    return canonical([subject, trial_num, columns_from_text(values)])


def unnumbered(fields: Fields) -> tuple[Fields, bytes]:
    """Give a row of `data_messages` without its number, and its digest."""
    _, subject, trial_num, values, source, _, *stamps = fields
    without = (*fields[:4], source, None, *stamps)
    return without, row_digest(None, stored_row(subject, trial_num, values))


@dataclass(slots=True)
class _Stretch:
    position: int
    count: int
    source: str
    first: int | None

    @property
    def end(self) -> int:
        return self.position + self.count

    def goes_on_with(self, source: str, first: int | None) -> bool:
        if source != self.source or (first is None) != (self.first is None):
            return False
        return self.first is None or first == self.first + self.count


class StreamNumbers:
    """Which running numbers the items of each stream have, in runs: a new one begins where numbers jump.

    Args:
        connection: The writer's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._runs: dict[tuple[str, str], _Stretch] = {}
        self._changed: dict[tuple[str, str, int], _Stretch] = {}

    def reload(self) -> None:
        """Forget what isn't committed."""
        self._runs.clear()
        self._changed.clear()

    def add(self, entry: StreamItems, count: int) -> None:
        """Take note of items that the running transaction stores."""
        key = (entry.pilot, entry.stream)
        run = self._runs.get(key) or self._stored(key)
        if run.count and not run.goes_on_with(entry.source, entry.first):
            run = _Stretch(run.end, 0, entry.source, entry.first)
        if not run.count:
            run.source, run.first = entry.source, entry.first
        run.count += count
        self._runs[key] = self._changed[*key, run.position] = run

    def write(self) -> None:
        """Put what changed into the running transaction."""
        self._connection.executemany(
            "INSERT INTO stream_numbers VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = excluded.count",
            [(*key, run.count, run.source, run.first) for key, run in self._changed.items()],
        )
        self._changed.clear()

    def _stored(self, key: tuple[str, str]) -> _Stretch:
        found = self._connection.execute(
            "SELECT position, count, source, first FROM stream_numbers WHERE pilot = ? AND name = ? "
            "ORDER BY position DESC LIMIT 1",
            key,
        ).fetchone()
        return _Stretch(*found) if found else _Stretch(0, 0, "", None)
