"""The journal's file: a SQLite database of rows that are added, removed and read back when it is opened.

Laws of this room: what `write` returned from is on the disk; a file that can't be used is set aside whole, under
a name that says when, and never deleted; the file at the journal's name is always a finished one.

The whole of a batch goes to SQLite in few statements, for each statement lets go of the interpreter, and a
program whose other threads are busy gets it back only after 5 ms: `executemany` wrote 59 rows a second then.
"""

from __future__ import annotations

import errno
import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pilotage.protocol.errors import JournalError
from pilotage.transport.disks import sync_folder
from pilotage.transport.journal_entries import Entry, Row, Span, decode_row
from pilotage.transport.journal_overs import Over, has_overs, make_overs, read_overs, write_overs

APPLICATION_ID: Final = 0x504C4A31
VERSION: Final = 2
"""Since 2 an entry holds what was sent in a row; before, one message."""
MAGIC: Final = b"SQLite format 3\0"
SIDES: Final = ("-wal", "-shm", "-journal")
ROWS_AT_ONCE: Final = (256, 32, 4, 1)
MAX_FREE_PAGES: Final = 4096
"""Unused pages of 4 KiB that the file keeps for what comes; beyond, it shrinks."""
SHRINK_PAGES: Final = 1024

PRAGMAS: tuple[str, ...] = (
    "locking_mode=EXCLUSIVE",  # first of all: then the log's index is in memory, and no -shm file is needed
    "journal_mode=WAL",
    "fullfsync=1",  # macOS: through the disk's own cache
    "checkpoint_fullfsync=1",
    f"journal_size_limit={16 << 20}",
)

_UNUSABLE = frozenset({1, 11, 24, 26})  # SQLITE_ERROR (no such table), CORRUPT, FORMAT, NOTADB
_FULL = 13

_open_connections: set[sqlite3.Connection] = set()
"""Held here so that a forked child never collects one: closing it there would end our log under our feet."""

Left = tuple[int, Entry, int]
"""(number, entry, bytes) of what an earlier life left."""


class JournalFile:
    """An open journal. The caller holds its lock; one thread at a time.

    Args:
        file: where it is or shall be, in a folder that is there.

    Attributes:
        left: what earlier lives left, in the order in which it was kept.
        over: what of that is over.
        note: empty, or what was done with a file that couldn't be used.

    Raises:
        JournalError: the disk doesn't let us read or begin it.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._connection: sqlite3.Connection | None = None
        self._last_error: Exception | None = None
        self._is_old = False
        self.note = ""
        self.left: list[Left] = []
        self.over: Over = {}
        try:
            self._open()
        except (sqlite3.Error, OSError) as cause:
            self.close()
            raise JournalError(
                f"the journal {str(file)!r} can't be opened ({cause}): make room, check the rights, "
                "or move it away to begin a new one"
            ) from cause

    def write(
        self,
        rows: Sequence[Row],
        drops: Sequence[int],
        doubtful_from: int | None = None,
        over: Mapping[int, Sequence[Span]] = MappingProxyType({}),
    ) -> None:
        """Add and remove rows in one transaction; with rows it is on the disk when this returns.

        Args:
            rows: to be added.
            drops: numbers of rows to be removed. Alone they may still be lost by a power cut.
            doubtful_from: remove what stands from this number on: a write that failed may have got there.
            over: all that is over of rows that stay, by their numbers; the same holds for it.

        Raises:
            sqlite3.Error, OSError: nothing was changed, as far as one can tell; call `mend` and try again.
        """
        try:
            self._write(rows, drops, doubtful_from, over)
        except (sqlite3.Error, OSError) as cause:
            self._last_error = cause
            self._roll_back()
            raise

    def mend(self) -> None:
        """Do what may help after a failed write: empty the log, or open the file again.

        Raises:
            sqlite3.Error, OSError: the file is not to be had now.
        """
        if self._connection is not None:
            if _code_of(self._last_error) == _FULL:
                self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
                return
            self.close()
        self._connection = _connect(self._file)
        if self._read_token() != self._token:
            self.close()
            raise OSError(errno.ESTALE, "another file lies in its place", str(self._file))
        self._identity = self._read_identity()

    def tidy(self) -> bool:
        """Give back some of the unused pages if there are many; tell whether there still are."""
        if self._connection is None:
            return False
        try:
            free = int(self._connection.execute("PRAGMA freelist_count").fetchone()[0])
            if free <= MAX_FREE_PAGES:
                return False
            # As a script, since `execute` ends this statement after its first page.
            self._connection.executescript(f"PRAGMA incremental_vacuum({SHRINK_PAGES})")
            self._connection.execute("PRAGMA wal_checkpoint").fetchall()  # only this cuts the file
        except sqlite3.Error:
            self._roll_back()  # a full disk: it stays as large as it is
            return False
        return free - SHRINK_PAGES > MAX_FREE_PAGES

    def close(self) -> None:
        """Close it; may be called again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            _close(connection)

    def _write(
        self,
        rows: Sequence[Row],
        drops: Sequence[int],
        doubtful_from: int | None,
        over: Mapping[int, Sequence[Span]],
    ) -> None:
        if self._connection is None or not self._is_in_place():
            raise OSError(errno.ENOENT, "it was moved or removed while in use", str(self._file))
        execute = self._connection.execute
        is_urgent = bool(rows) or doubtful_from is not None
        execute(f"PRAGMA synchronous={'FULL' if is_urgent else 'NORMAL'}")
        execute("BEGIN IMMEDIATE")
        grows = bool(rows or over)
        if self._is_old and grows:  # else there may be no room for it, and what is removed makes some
            make_overs(self._connection)
            execute(f"PRAGMA user_version={VERSION}")  # what comes now an older program can't read
        if doubtful_from is not None:
            execute("DELETE FROM entries WHERE number >= ?", (doubtful_from,))
            execute("UPDATE journal SET token = token")  # shows that the disk takes something
        if drops:
            numbers = json.dumps(list(drops))
            for table in ("entries",) if self._is_old else ("entries", "overs"):
                execute(f"DELETE FROM {table} WHERE number IN (SELECT value FROM json_each(?))", (numbers,))
        _insert(self._connection, rows)
        write_overs(self._connection, over)
        execute("COMMIT")
        if self._is_old and grows:
            self._is_old = False
            with suppress(sqlite3.Error):  # on a full disk an older program learns it later
                execute("PRAGMA wal_checkpoint").fetchall()

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _open(self) -> None:
        finished = _beside(self._file, ".new")
        if finished.exists() and not self._file.exists():
            finished.replace(self._file)  # we died between setting the old one aside and this
        fault = _judge(self._file)
        rows: list[Row] = []
        if not fault and _has_content(self._file):
            rows, fault = self._read()
        if fault or self._connection is None:
            self._begin(fault, rows)
            _, fault = self._read()
            if fault:
                raise OSError(errno.EIO, f"what was just written {fault}")
        self._token = self._read_token()
        self._identity = self._read_identity()
        self._is_old = self._connection is not None and not has_overs(self._connection)

    def _read(self) -> tuple[list[Row], str]:
        """Connect and read everything; without a fault the connection stays."""
        try:
            self._connection = _connect(self._file)
            fault = _check(self._connection)
            rows, broken = _read_rows(self._connection)
        except sqlite3.Error as cause:
            self.close()
            if _code_of(cause) not in _UNUSABLE:
                raise
            return [], f"is damaged ({cause})"
        self.left, undecodable = _decode(rows)
        self.over = read_overs(self._connection)
        fault = fault or broken or undecodable
        if fault:
            self.close()
        whole = {number for number, _, _ in self.left}
        return [row for row in rows if row[0] in whole], fault

    def _begin(self, fault: str, rows: Sequence[Row]) -> None:
        """Make a new file of these rows, and only then move the old one away."""
        finished = _beside(self._file, ".new")
        _build(self._file, rows, self.over).replace(finished)
        if fault:
            aside = _set_aside(self._file)
            self.note = (
                f"the journal {str(self._file)!r} {fault}. It was set aside as {aside.name!r} and a new one was "
                f"begun with the {len(rows)} messages that could be read from it. Have a look at the disk, "
                "and keep that file until you know what was lost"
            )
        finished.replace(self._file)
        sync_folder(self._file.parent)

    def _read_token(self) -> bytes:
        assert self._connection is not None
        found = self._connection.execute("SELECT token FROM journal").fetchone()
        return bytes(found[0]) if found else b""

    def _is_in_place(self) -> bool:
        try:
            return self._read_identity() == self._identity
        except FileNotFoundError:
            return False

    def _read_identity(self) -> tuple[int, int]:
        status = self._file.stat()
        return (status.st_dev, status.st_ino)


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)


def _code_of(error: Exception | None) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _connect(file: Path) -> sqlite3.Connection:
    address = f"{file.resolve().as_uri()}?mode=rw"
    connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=1)
    _open_connections.add(connection)
    try:
        for pragma in PRAGMAS:
            found = connection.execute(f"PRAGMA {pragma}").fetchone()
            if pragma == "journal_mode=WAL" and found[0] != "wal":
                raise OSError(
                    errno.ENOTSUP, f"the disk allows no write-ahead log, only {found[0]!r}", str(file)
                )
    except BaseException:
        _close(connection)
        raise
    return connection


def _close(connection: sqlite3.Connection) -> None:
    _open_connections.discard(connection)
    with suppress(sqlite3.Error):
        connection.close()


def _judge(file: Path) -> str:
    """Tell from its first bytes what is wrong with a file, before SQLite touches it; empty for nothing."""
    if not _has_content(file):
        sides = [side for side in SIDES if _has_content(_beside(file, side))]
        return "is missing or empty, but a log of it is there" if sides else ""
    with file.open("rb") as stream:
        head = stream.read(100)
    if len(head) < 100 or not head.startswith(MAGIC):
        return "is damaged, or no journal at all (no SQLite file)"
    if int.from_bytes(head[68:72], "big") != APPLICATION_ID:
        return "belongs to another program"
    version = int.from_bytes(head[60:64], "big")
    if 0 < version <= VERSION:
        return ""
    if version > VERSION:
        return f"was written by a newer Pilotage (version {version}, this one reads {VERSION}; open it with that)"
    return f"has a version that never was ({version})"


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:
        return False


def _check(connection: sqlite3.Connection) -> str:
    try:
        found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        connection.execute("SELECT token FROM journal").fetchone()
    except sqlite3.Error as cause:
        if _code_of(cause) not in _UNUSABLE:
            raise
        found = str(cause)
    return "" if found == "ok" else f"is damaged ({found})"


def _read_rows(connection: sqlite3.Connection) -> tuple[list[Row], str]:
    rows, fault = _read_some(connection, "ASC", 0)
    if fault:  # what lies behind the damage is reached from the other end
        behind, _ = _read_some(connection, "DESC", rows[-1][0] if rows else 0)
        rows += reversed(behind)
    return rows, fault


def _read_some(connection: sqlite3.Connection, order: str, above: int) -> tuple[list[Row], str]:
    rows: list[Row] = []
    query = f"SELECT number, checksum, entry FROM entries WHERE number > ? ORDER BY number {order}"
    try:
        for row in connection.execute(query, (above,)):
            rows.append(row)  # noqa: PERF402 - what was read before the damage counts
    except sqlite3.Error as cause:
        if _code_of(cause) not in _UNUSABLE:
            raise
        return rows, f"is damaged ({cause})"
    return rows, ""


def _decode(rows: Sequence[Row]) -> tuple[list[Left], str]:
    left: list[Left] = []
    bad: list[str] = []
    for number, checksum, content in rows:
        try:
            left.append((number, decode_row(checksum, content), len(content)))
        except ValueError as cause:
            bad.append(f"entry {number}: {cause}")
    return left, f"is damaged ({len(bad)} entries can't be read, first {bad[0]})" if bad else ""


def _build(file: Path, rows: Sequence[Row], over: Over) -> Path:
    building = _beside(file, ".building")
    for ending in ("", *SIDES):
        _beside(building, ending).unlink(missing_ok=True)
    connection = sqlite3.connect(building, isolation_level=None)
    try:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN")
        connection.execute(
            "CREATE TABLE entries (number INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, entry BLOB NOT NULL)"
        )
        make_overs(connection)
        connection.execute("CREATE TABLE journal (token BLOB NOT NULL)")
        connection.execute("INSERT INTO journal VALUES (?)", (secrets.token_bytes(16),))
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
        _insert(connection, rows)
        numbers = {number for number, _, _ in rows}
        write_overs(connection, {number: spans for number, spans in over.items() if number in numbers})
        connection.execute("COMMIT")
    finally:
        connection.close()
    return building


def _insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    start = 0
    for size in ROWS_AT_ONCE:
        statement = f"INSERT INTO entries VALUES (?, ?, ?){', (?, ?, ?)' * (size - 1)}"
        while len(rows) - start >= size:
            connection.execute(statement, _flat(rows[start : start + size]))
            start += size


def _flat(rows: Iterable[Row]) -> list[Any]:
    return list(chain.from_iterable(rows))


def _set_aside(file: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = _beside(file, f".set-aside-{stamp}")
    # The log keeps the ending by which SQLite finds it.
    for side in ("", *SIDES):
        with suppress(FileNotFoundError):
            _beside(file, side).rename(_beside(aside, side))
    return aside
