"""Rows of trials, events, states, parameters and provenance, in batches.

Law: what arrived is kept as it arrived (`data_messages`); the merged rows of `trial_rows` can be made again
from it. A finished trial is never overwritten: what would change one of its values begins a new occurrence.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import lt
from typing import Any

from pilotage.protocol.ranges import ranges_of
from pilotage.services.store.entries import Stamp
from pilotage.services.store.runs import RECEIVED, TEXT, TRIAL, Fields, Run
from pilotage.services.store.schema import VIEW_COLUMNS, view_statements
from pilotage.services.store.values import from_text, to_text

TRIAL_END = "TRIAL_END"
ROWS_A_CALL = (1024, 128, 16, 1)
"""Rows in one statement: few different statements, so that sqlite3 keeps them all prepared."""

_ROW_KEYS = frozenset({TRIAL_END, "pilot", "subject", "trial_num"})
_STAMPS = "received, sent_wall, sent_monotonic"
_INSERTS = {
    "data_messages": f'INSERT INTO data_messages (pilot, subject, trial_num, "values", source, row_num, {_STAMPS}) '
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "events": f'INSERT INTO events (pilot, name, "values", {_STAMPS}) VALUES (?, ?, ?, ?, ?, ?)',
    "states": f"INSERT INTO states (pilot, state, {_STAMPS}) VALUES (?, ?, ?, ?, ?)",
    "parameters": f"INSERT INTO parameters (pilot, name, value, source, {_STAMPS}) VALUES (?, ?, ?, ?, "
    "?, ?, ?)",
    "provenance": "INSERT INTO provenance VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
}


_COPY = (
    'INSERT INTO trial_rows SELECT pilot, subject, trial_num, 0, 0, received, received, "values" '
    "FROM data_messages WHERE id BETWEEN ? AND ? ORDER BY id"
)


TrialKey = tuple[str, str, int]
"""Which trial a row is about: pilot, subject, trial_num."""


@dataclass(slots=True)
class _Row:
    key: TrialKey
    occurrence: int
    complete: bool
    first: float | None
    last: float | None
    columns: Mapping[str, Any]


class TableWriter:
    """Gather rows of one transaction and write them together; for the writer's thread alone."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Start with nothing gathered; `reload` reads which columns trials have."""
        self._connection = connection
        self._rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _INSERTS}
        self._trials: dict[tuple[TrialKey, int], _Row] = {}
        self._latest: dict[TrialKey, _Row] = {}
        self._alone: defaultdict[tuple[str, str], dict[int, int]] = defaultdict(dict)
        self._shown: set[str] = set()
        self._columns: set[str] = set()
        self._highest: dict[tuple[str, str], int] = {}

    def reload(self) -> None:
        """Forget what isn't committed."""
        self._clear()
        self._columns = {name for (name,) in self._connection.execute("SELECT name FROM trial_columns")}
        found = self._connection.execute(
            "SELECT pilot, subject, max(trial_num) FROM trial_rows GROUP BY 1, 2"
        )
        self._highest = {(pilot, subject): trial_num for pilot, subject, trial_num in found}

    def add(self, table: str, fields: tuple[Any, ...]) -> None:
        """Gather one row for a table; the fields in the order of its statement."""
        self._rows[table].append(fields)

    def add_run(self, run: Run) -> None:
        """Gather messages of trial data; where each of them begins a trial, in one step."""
        pilot, subject = run.sender[0], run.subject
        trials, messages = run.trials, self._rows["data_messages"]
        ascend = all(map(lt, trials, trials[1:]))
        if ascend and _ROW_KEYS.isdisjoint(run.names) and self._is_new((pilot, subject, trials[0])):
            self._highest[pilot, subject] = trials[-1]
            self._alone[pilot, subject].update(zip(trials, itertools.count(len(messages)), strict=False))
            self._shown |= run.names
            messages += run.fields
        else:
            for fields in run.fields:
                self.add_message(fields)

    def add_message(self, fields: Fields, *, late: bool = False) -> None:
        """Gather a message of trial data, and merge its columns into its trial's row.

        Args:
            fields: For `data_messages`.
            late: It was sent before others that are stored already: it changes none of their values.
        """
        messages = self._rows["data_messages"]
        if fields[TRIAL] is not None:
            key, values = fields[:3], from_text(fields[TEXT])
            if _ROW_KEYS.isdisjoint(values) and self._is_new(key):
                self._alone[key[:2]][key[2]] = len(messages)
                self._shown.update(values)
            else:
                self._merge(key, values, fields[RECEIVED], late=late)
        messages.append(fields)

    def _is_new(self, key: TrialKey) -> bool:
        """Tell whether nothing of a trial is known, which is so of nearly all, without asking the database."""
        whose = key[:2]
        if key[2] <= self._highest.get(whose, -1):
            return False
        self._highest[whose] = key[2]
        return True

    def _merge(self, key: TrialKey, values: Mapping[str, Any], received: float | None, *, late: bool) -> None:
        columns = {name: value for name, value in values.items() if name not in _ROW_KEYS}
        row = self._latest.get(key) or self._row_of_first(key) or self._stored(key)
        if row is None or (row.complete and not late and _conflicts(row.columns, columns)):
            row = _Row(key, row.occurrence + 1 if row else 0, False, None, None, columns)
        else:
            row.columns = {**columns, **row.columns} if late else {**row.columns, **columns}
        row.complete = row.complete or TRIAL_END in values
        row.last = row.last if received is None else received
        row.first = row.last if row.first is None else row.first
        self._latest[key] = self._trials[key, row.occurrence] = row

    def _row_of_first(self, key: TrialKey) -> _Row | None:
        """Make a row of the one message of a trial, for there is a second one."""
        place = self._alone[key[:2]].pop(key[2], None)
        if place is None:
            return None
        fields = self._rows["data_messages"][place]
        return _Row(key, 0, False, fields[RECEIVED], fields[RECEIVED], from_text(fields[TEXT]))

    def write(self) -> None:
        """Put everything gathered into the running transaction."""
        for table, rows in self._rows.items():
            if rows:
                insert_rows(self._connection, _INSERTS[table], rows)
        if self._trials:
            insert_rows(
                self._connection,
                "INSERT INTO trial_rows VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET complete = "
                "excluded.complete, last_received = excluded.last_received, columns = excluded.columns",
                [
                    (
                        *row.key,
                        row.occurrence,
                        row.complete,
                        row.first,
                        row.last,
                        to_text(row.columns),
                    )
                    for row in self._trials.values()
                ],
            )
            self._shown.update(*(row.columns for row in self._trials.values()))
        self._write_alone()
        self._show(self._shown)
        self._clear()

    def _write_alone(self) -> None:
        """Copy the messages that make a trial by themselves into its row, within the database."""
        places = [place for trials in self._alone.values() for place in trials.values()]
        if not places:
            return
        last = self._connection.execute("SELECT max(id) FROM data_messages").fetchone()[0]
        count = len(self._rows["data_messages"])
        first = last + 1 - count
        is_whole = len(places) == count  # all of them, as nearly always
        for begin, end in ((0, count - 1),) if is_whole else ranges_of(sorted(places)):
            self._connection.execute(_COPY, (first + begin, first + end))

    def _stored(self, key: TrialKey) -> _Row | None:
        if self._is_new(key):
            return None
        found = self._connection.execute(
            "SELECT occurrence, complete, first_received, last_received, columns FROM trial_rows "
            "WHERE pilot = ? AND subject = ? AND trial_num = ? ORDER BY occurrence DESC LIMIT 1",
            key,
        ).fetchone()
        if found is None:
            return None
        occurrence, complete, first, last, columns = found
        return _Row(key, occurrence, bool(complete), first, last, from_text(columns))

    def _show(self, names: set[str]) -> None:
        fresh = names - self._columns
        if not fresh:
            return
        self._connection.executemany(
            "INSERT INTO trial_columns VALUES (?)", [(name,) for name in sorted(fresh)]
        )
        self._columns |= fresh
        make_view(self._connection, sorted(self._columns))

    def _clear(self) -> None:
        for rows in self._rows.values():
            rows.clear()
        self._trials.clear()
        self._latest.clear()
        self._alone.clear()
        self._shown.clear()


def insert_rows(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Execute an INSERT for many rows, with few calls.

    sqlite3 lets go of the interpreter's lock for each row of `executemany`, and waits to get it back while other
    threads compute, up to 5 ms each time.

    Args:
        connection: in a transaction.
        statement: an INSERT of one row, its values all given as question marks.
        rows: their values.
    """
    before, places, after = _cut(statement)
    start = 0
    for size in ROWS_A_CALL:
        while len(rows) - start >= size:
            values = [value for row in rows[start : start + size] for value in row]
            connection.execute(f"{before}{', '.join([places] * size)}{after}", values)
            start += size


def _cut(statement: str) -> tuple[str, str, str]:
    start = statement.index("VALUES (") + len("VALUES ")
    end = statement.index(")", start) + 1
    return statement[:start], statement[start:end], statement[end:]


def make_view(connection: sqlite3.Connection, names: Iterable[str]) -> None:
    """Let the view `trials` show these columns."""
    for statement in view_statements(list(names)[:VIEW_COLUMNS]):
        connection.execute(statement)


def stamp_fields(stamp: Stamp | None) -> tuple[float | None, float | None, float | None]:
    """Give a stamp's three columns."""
    return (None, None, None) if stamp is None else (stamp.received, stamp.sent_wall, stamp.sent_monotonic)


def _conflicts(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return any(name in old and old[name] != value for name, value in new.items())
