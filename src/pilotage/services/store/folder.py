"""How a session's folder is made and opened, and what the errors on the way say.

Law: whatever fails on the way, nothing stays open or locked.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from pilotage.protocol.errors import StoreError
from pilotage.services.store import schema
from pilotage.services.store.chunks import Sync, sync_folder
from pilotage.services.store.lock import WriterLock
from pilotage.services.store.tables import make_view


def made(folder: Path, session: str, facts: Mapping[str, str], sync: Sync) -> sqlite3.Connection:
    """Make the tables of a new session, and give the connection.

    Raises:
        StoreError: there is a session already.
    """
    connection = schema.connect_writer(folder / schema.DATABASE)
    if connection.execute("PRAGMA user_version").fetchone()[0]:
        schema.close_writer(connection)
        raise StoreError(
            f"session {session!r} exists already in {str(folder)!r}: open it, or choose another name"
        )
    connection.execute("BEGIN IMMEDIATE")
    for statement in (schema.TABLES + schema.NUMBERED).split(";"):
        connection.execute(statement)
    make_view(connection, ())
    connection.execute("INSERT INTO session_info VALUES ('session', ?)", (session,))
    connection.executemany("INSERT INTO provenance VALUES (?, ?)", list(facts.items()))
    connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION}")
    connection.execute("COMMIT")
    (folder / schema.ZARR).mkdir(exist_ok=True)
    for parent in (folder, folder.parent):
        sync_folder(parent, sync)
    return connection


def checked_name(session: str) -> str:
    """Give a session's name, if it can be a folder's.

    Raises:
        StoreError: it can't.
    """
    # The strictest of the file systems we meet decides, so that a session can be copied anywhere.
    usable = session.strip(" .") == session and session.isprintable() and not set(session) & set('/\\:*?"<>|')
    if not session or not usable or len(session.encode()) > 200:
        raise StoreError(
            f"session name {session!r} can't be a folder's name: use letters, digits, '-' and '_'"
        )
    return session


@contextlib.contextmanager
def named(folder: Path, verb: str) -> Iterator[None]:
    """Name the folder in what goes wrong meanwhile.

    Raises:
        StoreError: instead of an error of the disk or of SQLite.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as cause:
        raise StoreError(
            f"session {str(folder)!r} can't be {verb} ({cause}): check the disk's room and rights"
        ) from cause


@contextlib.contextmanager
def released_on_error(lock: WriterLock) -> Iterator[None]:
    """Let go of a lock if something goes wrong meanwhile."""
    try:
        yield
    except BaseException:
        lock.release()
        raise


@contextlib.contextmanager
def closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    """Close a connection if something goes wrong meanwhile."""
    try:
        yield
    except BaseException:
        schema.close_writer(connection)
        raise


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """Give a connection for reading.

    Raises:
        StoreError: it can't be read.
    """
    connection = schema.connect_reader(folder / schema.DATABASE)
    try:
        yield connection
    except sqlite3.Error as cause:
        raise StoreError(f"session {str(folder)!r} can't be read ({cause}): check the disk") from cause
    finally:
        connection.close()
