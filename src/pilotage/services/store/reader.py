"""A session read, while another process writes it or after.

Law: reading never writes and holds no lock while it works on files. One short transaction tells what is
committed; chunks below that length never change again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from pilotage.protocol.coverage import Holding
from pilotage.protocol.errors import StoreError
from pilotage.protocol.ledger import LedgerKey, Mark
from pilotage.services.store import schema
from pilotage.services.store.forms import Array
from pilotage.services.store.holdings import holdings, read_tallies
from pilotage.services.store.streams import StreamRow, read_tail, stream_rows
from pilotage.services.store.values import columns_from_text, value_from_text

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

_IN_JSON = {"values": columns_from_text, "value": value_from_text}
"""Columns of tables that hold JSON, and how it is read."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a stream holds.

    Args:
        pilot: Whose stream it is.
        name: The stream's name.
        length: Committed items.
        dtype: Of its items.
        item_shape: Of each item.
        segment: Counts the changes of dtype, shape, subject or kind of timestamps; 0 for the first form.
        subject: The subject; empty when none was given.
    """

    pilot: str
    name: str
    length: int
    dtype: np.dtype[Any]
    item_shape: tuple[int, ...]
    segment: int
    subject: str


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """What a session holds.

    Args:
        session: Its name.
        pilots: All that sent something, sorted.
        trials: Rows of trials; `complete_trials` of these have ended.
        complete_trials: Trials whose TRIAL_END came.
        data_messages: DATA messages as they came.
        events: Rows of events.
        states: Rows of states.
        parameters: Rows of parameters.
        streams: What each stream holds.
    """

    session: str
    pilots: tuple[str, ...]
    trials: int
    complete_trials: int
    data_messages: int
    events: int
    states: int
    parameters: int
    streams: tuple[StreamInfo, ...]


class SessionReader:
    """Read one session; for one thread.

    Args:
        folder: The session's folder.

    Raises:
        StoreError: There is no session, or one of another version.
    """

    def __init__(self, folder: Path | str) -> None:
        """Open the folder without changing anything in it."""
        self._folder = Path(folder)
        self._connection = schema.connect_reader(self._folder / schema.DATABASE)
        try:
            self._version = schema.check_version(self._connection, self._folder)
        except StoreError:
            self._connection.close()
            raise

    def trials(self) -> pd.DataFrame:
        """Give the merged trials, one column for each value, missing ones as None or NaN.

        Raises:
            StoreError: The session can't be read (this holds for every method).
        """
        fixed = list(schema.FIXED_COLUMNS)
        rows = self._rows(f"SELECT {', '.join(fixed)}, columns FROM trial_rows ORDER BY rowid")
        names = [name for (name,) in self._rows("SELECT name FROM trial_columns ORDER BY name")]
        titles = [f"values.{name}" if name in fixed else name for name in names]
        records = []
        for *head, text in rows:
            values = columns_from_text(text)
            records.append([*head, *(values.get(name) for name in names)])
        table = _frame([*fixed, *titles], records)
        return table.astype({"complete": bool})

    def messages(self, pilot: str | None = None) -> pd.DataFrame:
        """Give DATA messages as they came, of one pilot or of all, in the order in which they were stored."""
        return self._table("data_messages", pilot)

    def events(self) -> pd.DataFrame:
        """Give all events in the order in which they were stored."""
        return self._table("events", None)

    def states(self) -> pd.DataFrame:
        """Give all states in the order in which they were stored."""
        return self._table("states", None)

    def parameters(self) -> pd.DataFrame:
        """Give all parameters in the order in which they were stored."""
        return self._table("parameters", None)

    def provenance(self) -> dict[str, Any]:
        """Give versions, prefs, the hash of the task's code and whatever else was noted."""
        return {key: value_from_text(text) for key, text in self._rows("SELECT key, value FROM provenance")}

    def ledger(self) -> dict[LedgerKey, Mark]:
        """Give counts and digests of everything that is committed."""
        return {key: tally.mark() for key, tally in read_tallies(self._connection).items()}

    def holdings(self) -> list[Holding]:
        """Give what is there of each sender: the rows counted and digested anew, the streams as committed.

        Empty for a session of version 1, whose entries have no running numbers.
        """
        try:
            return holdings(self._connection) if self._version > 1 else []
        except sqlite3.Error as cause:
            raise self._unreadable(cause) from cause

    def next_trial(self, pilot: str, subject: str) -> int:
        """Give the number after the last trial of a pilot and subject; 0 if there is none.

        A trial that the pilot says it had ended before it was interrupted counts also while its row is still missing:
        the row may come from the pilot's record yet, and its number must not be given again.
        """
        found = self._rows(
            "SELECT max(trial_num) + 1 FROM trial_rows WHERE pilot = :pilot AND subject = :subject UNION ALL "
            """SELECT max(json_extract("values", '$.trial')) FROM events WHERE name = 'interrupted' """
            """AND pilot = :pilot AND json_extract("values", '$.subject') = :subject """
            """AND json_type("values", '$.trial') = 'integer'""",
            {"pilot": pilot, "subject": subject},
        )
        return max((int(number) for (number,) in found if number is not None), default=0)

    def streams(self) -> list[StreamInfo]:
        """Give what each stream holds, one entry a segment, in the order in which they began."""
        return [_info(row) for row in stream_rows(self._connection, self._folder / schema.ZARR)]

    def stream(self, pilot: str, name: str, segment: int | None = None) -> xr.DataArray:
        """Give a whole stream in memory, committed chunks and rest joined, with its timestamps as coordinate.

        Args:
            pilot: Whose stream it is.
            name: The stream's name.
            segment: Which form of it; needed only when there are several.

        Raises:
            StoreError: There is no such stream, or it has several segments and none was chosen.
        """
        row, pieces = self._snapshot(pilot, name, segment)
        form = row.layout.form
        stamps = np.empty(row.length, form.timestamp_dtype)
        items = np.empty((row.length, *form.item_shape), form.dtype)
        at = 0
        for some_stamps, some_items in pieces:
            stamps[at : at + len(some_stamps)] = some_stamps
            items[at : at + len(some_stamps)] = some_items
            at += len(some_stamps)
        return _labelled(row, stamps, items)

    def stream_chunks(self, pilot: str, name: str, segment: int | None = None) -> Iterator[xr.DataArray]:
        """Give a stream piece by piece, for one that doesn't fit into memory.

        Returns:
            What was committed when the first piece was asked for.

        Raises:
            StoreError: As for `stream`.
        """
        row, pieces = self._snapshot(pilot, name, segment)
        for stamps, items in pieces:
            yield _labelled(row, stamps, items)

    def summary(self) -> SessionSummary:
        """Give counts of everything."""
        count = {table: self._count(table) for table in ("data_messages", "events", "states", "parameters")}
        pilots = " UNION ".join(f"SELECT pilot FROM {table}" for table in (*count, "streams"))
        return SessionSummary(
            session=self._rows("SELECT value FROM session_info WHERE key = 'session'")[0][0],
            pilots=tuple(pilot for (pilot,) in self._rows(f"{pilots} ORDER BY pilot")),
            trials=self._count("trial_rows"),
            complete_trials=self._count("trial_rows WHERE complete"),
            streams=tuple(self.streams()),
            **count,
        )

    def close(self) -> None:
        """Let go of the files; may be called again."""
        self._connection.close()

    def __enter__(self) -> SessionReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def _snapshot(
        self, pilot: str, name: str, segment: int | None
    ) -> tuple[StreamRow, Iterator[tuple[Array, Array]]]:
        self._connection.execute("BEGIN")
        try:
            row = self._find(pilot, name, segment)
            tail = [(stamps, items) for _, stamps, items in read_tail(self._connection, row)]
        except sqlite3.Error as cause:
            raise self._unreadable(cause) from cause
        finally:
            self._connection.execute("COMMIT")
        return row, _pieces(row, tail)

    def _find(self, pilot: str, name: str, segment: int | None) -> StreamRow:
        rows = stream_rows(self._connection, self._folder / schema.ZARR)
        mine = [row for row in rows if (row.pilot, row.name) == (pilot, name)]
        chosen = [row for row in mine if segment is None or row.segment == segment]
        if len(chosen) == 1:
            return chosen[0]
        if chosen:
            forms = ", ".join(f"{row.segment}: {_info(row).dtype} {_info(row).item_shape}" for row in chosen)
            raise StoreError(f"stream {name!r} of {pilot!r} changed its form; choose a segment ({forms})")
        known = ", ".join(sorted({f"{row.pilot}/{row.name}" for row in rows})) or "none"
        what = f"stream {name!r} of {pilot!r}" if not mine else f"segment {segment} of stream {name!r}"
        raise StoreError(f"{str(self._folder)!r} holds no {what}; its streams: {known}")

    def _table(self, table: str, pilot: str | None) -> pd.DataFrame:
        where, arguments = ("", ()) if pilot is None else (" WHERE pilot = ?", (pilot,))
        titles = [row[1] for row in self._rows(f"PRAGMA table_info({table})")]
        rows = [list(row) for row in self._rows(f"SELECT * FROM {table}{where} ORDER BY id", arguments)]
        for at, title in enumerate(titles):
            if title in _IN_JSON:
                for row in rows:
                    row[at] = _IN_JSON[title](row[at])
        return _frame(titles, rows)

    def _count(self, source: str) -> int:
        return int(self._rows(f"SELECT count(*) FROM {source}")[0][0])

    def _rows(
        self, statement: str, arguments: Sequence[object] | Mapping[str, object] = ()
    ) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, arguments).fetchall()
        except sqlite3.Error as cause:
            raise self._unreadable(cause) from cause

    def _unreadable(self, cause: Exception) -> StoreError:
        return StoreError(
            f"session {str(self._folder)!r} can't be read ({cause}): check the disk, or use a copy"
        )


def _pieces(row: StreamRow, tail: list[tuple[Array, Array]]) -> Iterator[tuple[Array, Array]]:
    for index in range(row.chunked // row.layout.chunk_rows):
        yield row.layout.read(index)
    yield from tail


def _info(row: StreamRow) -> StreamInfo:
    form = row.layout.form
    return StreamInfo(row.pilot, row.name, row.length, form.dtype, form.item_shape, row.segment, form.subject)


def _labelled(row: StreamRow, stamps: Array, items: Array) -> xr.DataArray:
    import xarray as xr  # noqa: PLC0415 - heavy

    names = ("timestamp", *(f"dim_{axis}" for axis in range(1, items.ndim)))
    label = {"pilot": row.pilot, "subject": row.layout.form.subject, "segment": row.segment}
    return xr.DataArray(items, dims=names, coords={"timestamp": stamps}, name=row.name, attrs=label)


def _frame(titles: list[str], rows: list[Any]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415 - heavy

    return pd.DataFrame(rows, columns=titles)
