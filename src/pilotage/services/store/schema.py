"""The session's tables, and how connections to them are opened.

Law: every statement that makes a table is here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from pilotage.protocol.errors import StoreError

DATABASE = "session.sqlite"
ZARR = "streams.zarr"
SCHEMA_VERSION = 2
"""What a new session gets. Readers take every version from 1 on; a writer brings an older session to this one."""
VIEW_COLUMNS = 1000
"""Trial columns that the view `trials` shows at most; SQLite allows 2,000 in a result."""

TABLES = """
CREATE TABLE session_info (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE provenance (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE trial_rows (
    pilot TEXT NOT NULL, subject TEXT NOT NULL, trial_num INTEGER NOT NULL, occurrence INTEGER NOT NULL,
    complete INTEGER NOT NULL, first_received REAL, last_received REAL, columns TEXT NOT NULL,
    UNIQUE (pilot, subject, trial_num, occurrence));
CREATE TABLE trial_columns (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE data_messages (
    id INTEGER PRIMARY KEY, pilot TEXT NOT NULL, subject TEXT NOT NULL, trial_num INTEGER,
    received REAL, sent_wall REAL, sent_monotonic REAL, "values" TEXT NOT NULL,
    source TEXT NOT NULL DEFAULT '', row_num INTEGER);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, pilot TEXT NOT NULL, name TEXT NOT NULL, "values" TEXT NOT NULL,
    received REAL, sent_wall REAL, sent_monotonic REAL);
CREATE TABLE states (
    id INTEGER PRIMARY KEY, pilot TEXT NOT NULL, state TEXT NOT NULL,
    received REAL, sent_wall REAL, sent_monotonic REAL);
CREATE TABLE parameters (
    id INTEGER PRIMARY KEY, pilot TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
    source TEXT NOT NULL, received REAL, sent_wall REAL, sent_monotonic REAL);
CREATE TABLE streams (
    id INTEGER PRIMARY KEY, pilot TEXT NOT NULL, name TEXT NOT NULL, segment INTEGER NOT NULL,
    subject TEXT NOT NULL, path TEXT NOT NULL UNIQUE, dtype TEXT NOT NULL, item_shape TEXT NOT NULL,
    timestamp_form TEXT NOT NULL, compressor TEXT NOT NULL, chunk_rows INTEGER NOT NULL,
    chunked INTEGER NOT NULL, length INTEGER NOT NULL, UNIQUE (pilot, name, segment));
CREATE TABLE stream_tail (
    stream INTEGER NOT NULL REFERENCES streams (id), start INTEGER NOT NULL, count INTEGER NOT NULL,
    timestamps BLOB NOT NULL, data BLOB NOT NULL, PRIMARY KEY (stream, start));
CREATE TABLE message_ids (
    boot INTEGER NOT NULL, flow INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (boot, flow, first)) WITHOUT ROWID;
"""

NUMBERED = """
CREATE UNIQUE INDEX data_rows ON data_messages (pilot, source, row_num) WHERE row_num IS NOT NULL;
CREATE TABLE stream_numbers (
    pilot TEXT NOT NULL, name TEXT NOT NULL, position INTEGER NOT NULL, count INTEGER NOT NULL,
    source TEXT NOT NULL, first INTEGER, PRIMARY KEY (pilot, name, position)) WITHOUT ROWID;
CREATE TABLE ledger (
    pilot TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, source TEXT NOT NULL, count INTEGER NOT NULL,
    digest BLOB NOT NULL, pending BLOB NOT NULL, form BLOB NOT NULL,
    PRIMARY KEY (pilot, kind, name, source)) WITHOUT ROWID;
"""
"""What version 2 has beyond version 1, but for two columns."""

FIXED_COLUMNS = ("pilot", "subject", "trial_num", "occurrence", "complete", "first_received", "last_received")


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the database for the one writer: WAL, and a commit that returns is on the disk.

    Raises:
        StoreError: The file can't be opened, or can't be put into WAL mode.
    """
    connection = None
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        _writers.add(connection)
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        for pragma in ("synchronous=FULL", "wal_autocheckpoint=4000", f"journal_size_limit={64 << 20}"):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error as cause:
        if connection is not None:
            close_writer(connection)
        raise StoreError(
            f"{str(path)!r} can't be opened for writing ({cause}): check rights and free space"
        ) from cause
    if mode != "wal":
        close_writer(connection)
        raise StoreError(
            f"{str(path)!r}: this disk allows no write-ahead log (journal mode {mode!r}): use a local disk"
        )
    return connection


_writers: set[sqlite3.Connection] = set()
"""Held here so that a forked child (a station is one) never collects one: that would end our log under our feet."""


def close_writer(connection: sqlite3.Connection) -> None:
    """Close what `connect_writer` has opened."""
    _writers.discard(connection)
    connection.close()


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the database read-only, while it is being written or after.

    Raises:
        StoreError: There is no session at that place, or it can't be read.
    """
    if not path.is_file():
        raise StoreError(
            f"{str(path.parent)!r} holds no session ({path.name} is missing): give a session's folder"
        )
    address = path.resolve().as_uri()
    try:
        return _probed(f"{address}?mode=ro")
    except sqlite3.OperationalError as cause:
        if path.with_name(path.name + "-wal").exists():
            raise StoreError(
                f"{str(path)!r} can't be read ({cause}): check the rights of the folder"
            ) from cause
    except sqlite3.DatabaseError as cause:
        raise StoreError(f"{str(path)!r} is no readable session ({cause}): restore it from a copy") from cause
    try:
        return _probed(f"{address}?immutable=1")
    except sqlite3.Error as cause:
        raise StoreError(f"{str(path)!r} can't be read ({cause}): check the rights of the folder") from cause


def check_version(connection: sqlite3.Connection, folder: Path) -> int:
    """Make sure that the tables are ones that this version knows, and give their version.

    Raises:
        StoreError: They are missing or newer.
    """
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if not 1 <= found <= SCHEMA_VERSION:
        raise StoreError(
            f"session {str(folder)!r} has table version {found}, this program reads 1 to {SCHEMA_VERSION}: "
            + (
                "use a newer Pilotage"
                if found > SCHEMA_VERSION
                else "it was never wholly created, start a new one"
            )
        )
    return found


def view_statements(names: Iterable[str]) -> list[str]:
    """Give the statements that make the view `trials` show these columns beside the fixed ones."""
    columns = [*FIXED_COLUMNS, *(_view_column(name) for name in names if _can_show(name))]
    return [
        "DROP VIEW IF EXISTS trials",
        f"CREATE VIEW trials AS SELECT {', '.join(columns)} FROM trial_rows",
    ]


def _can_show(name: str) -> bool:
    # A path inside SQLite's JSON functions has no way to write these characters in a quoted key.
    return not set(name) & {'"', "\\", "\0"} and name.isprintable()


def _view_column(name: str) -> str:
    quoted = name.replace("'", "''")
    path = f"""'$."{quoted}"'"""
    tagged = f"""json_extract(columns, '$."{quoted}".value')"""
    title = f"values.{name}" if name.lower() in FIXED_COLUMNS else name
    number = f"CASE {tagged} WHEN 'inf' THEN 9e999 WHEN '-inf' THEN -9e999 ELSE NULL END"
    is_float = f"""json_extract(columns, '$."{quoted}"."$"') = 'float'"""
    return f'CASE WHEN {is_float} THEN {number} ELSE json_extract(columns, {path}) END AS "{title}"'


def _probed(address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
