"""What a session holds, counted and digested, so that it can be compared with what was sent.

Law: rows are counted and digested anew from their table, whatever was noted when they were stored: who changes a row
later, or loses one, is found. Streams may be larger than any memory: theirs are the digests of what was committed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

from pilotage.protocol.canonical import canonical
from pilotage.protocol.coverage import Holding
from pilotage.protocol.ledger import Kind, LedgerKey, RowTally, Tally, row_digest
from pilotage.protocol.ranges import join, ranges_of, size
from pilotage.services.store.numbers import stored_row
from pilotage.services.store.values import columns_from_text, value_from_text

TRIALS = "trials"

AnyTally = Tally | RowTally


def read_tallies(connection: sqlite3.Connection) -> dict[LedgerKey, AnyTally]:
    """Read the ledger's stored state."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    source = "source" if version > 1 else "''"
    rows = connection.execute(f"SELECT pilot, kind, name, {source}, count, digest, pending, form FROM ledger")
    return {
        LedgerKey(pilot, Kind(kind), name, source): RowTally(count, int.from_bytes(digest, "big"))
        if kind == Kind.TABLE
        else Tally(count, digest, pending, form)
        for pilot, kind, name, source, count, digest, pending, form in rows
    }


def write_tallies(connection: sqlite3.Connection, tallies: dict[LedgerKey, AnyTally]) -> None:
    """Put tallies into the running transaction."""
    connection.executemany(
        "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = excluded.count, "
        "digest = excluded.digest, pending = excluded.pending, form = excluded.form",
        [(*_key_fields(key), *_state_fields(tally)) for key, tally in tallies.items()],
    )


def _key_fields(key: LedgerKey) -> tuple[str, str, str, str]:
    return key.pilot, key.kind.value, key.name, key.source


def _state_fields(tally: AnyTally) -> tuple[int, bytes, bytes, bytes]:
    if isinstance(tally, RowTally):
        return tally.count, tally.digest, b"", b""
    return tally.count, tally.digest, tally.pending, tally.form


def recount(connection: sqlite3.Connection) -> dict[LedgerKey, RowTally]:
    """Count and digest all rows of all tables anew."""
    tallies: dict[LedgerKey, RowTally] = {}
    for key, _, digest in _all_rows(connection):
        tallies[key] = tallies.get(key, RowTally()).add(digest)
    return tallies


def holdings(connection: sqlite3.Connection) -> list[Holding]:
    """Give what is stored of the trials' messages and of each stream, by sender."""
    return [*_tables(connection), *_streams(connection)]


def row_digests(
    connection: sqlite3.Connection, pilot: str, source: str, first: int, last: int
) -> dict[int, str]:
    """Give the digests of single rows of the trials' messages, in hexadecimal, by number.

    Args:
        connection: Any.
        pilot: Whose rows.
        source: Who numbered them.
        first: The first number.
        last: The last number.
    """
    found = connection.execute(
        'SELECT row_num, subject, trial_num, "values" FROM data_messages '
        "WHERE pilot = ? AND source = ? AND row_num BETWEEN ? AND ?",
        (pilot, source, first, last),
    )
    return {number: row_digest(number, stored_row(*row)).hex() for number, *row in found}


def _tables(connection: sqlite3.Connection) -> Iterator[Holding]:
    tallies: dict[LedgerKey, RowTally] = {}
    numbers: dict[LedgerKey, list[int]] = {}
    bare: dict[LedgerKey, int] = {}
    for key, number, digest in _trial_rows(connection):
        tallies[key] = tallies.get(key, RowTally()).add(digest)
        if number is None:
            bare[key] = bare.get(key, 0) + 1
        else:
            numbers.setdefault(key, []).append(number)
    for key, tally in sorted(tallies.items()):
        mine = numbers.get(key, [])
        different = set(mine)
        yield Holding(
            key, tally.mark(), ranges_of(sorted(different)), bare.get(key, 0), len(mine) - len(different)
        )


def _streams(connection: sqlite3.Connection) -> Iterator[Holding]:
    runs: dict[tuple[str, str, str], list[tuple[int, int | None]]] = {}
    for pilot, name, source, count, first in connection.execute(
        "SELECT pilot, name, source, count, first FROM stream_numbers ORDER BY pilot, name, position"
    ):
        runs.setdefault((pilot, name, source), []).append((count, first))
    for key, tally in sorted(read_tallies(connection).items()):
        if key.kind is Kind.TABLE:
            continue
        mine = runs.get((key.pilot, key.name, key.source), [])
        numbered = [(first, first + count - 1) for count, first in mine if first is not None]
        numbers = join(numbered)
        known = sum(last - first + 1 for first, last in numbered)
        yield Holding(key, tally.mark(), numbers, tally.count - known, known - size(numbers))


def _trial_rows(connection: sqlite3.Connection) -> Iterator[tuple[LedgerKey, int | None, bytes]]:
    rows = connection.execute(
        'SELECT pilot, source, row_num, subject, trial_num, "values" FROM data_messages'
    )
    for pilot, source, number, *row in rows:
        yield LedgerKey(pilot, Kind.TABLE, TRIALS, source), number, row_digest(number, stored_row(*row))


_PLAIN_TABLES: dict[str, tuple[str, Callable[..., list[object]]]] = {
    "events": (
        'SELECT pilot, name, "values" FROM events',
        lambda name, values: [name, columns_from_text(values)],
    ),
    "states": ("SELECT pilot, state FROM states", lambda state: [state]),
    "parameters": (
        "SELECT pilot, name, value, source FROM parameters",
        lambda name, value, source: [name, value_from_text(value), source],
    ),
}


def _all_rows(connection: sqlite3.Connection) -> Iterator[tuple[LedgerKey, int | None, bytes]]:
    yield from _trial_rows(connection)
    for table, (statement, content) in _PLAIN_TABLES.items():
        with closing(connection.execute(statement)) as rows:
            for pilot, *fields in rows:
                digest = row_digest(None, canonical(content(*fields)))
                yield LedgerKey(pilot, Kind.TABLE, table), None, digest
