"""The log's file: SQLite, whose triggers refuse to change or remove an entry, written by a thread of its own.

Laws of this room: whoever notes something never waits for the disk; entries reach it in their order, synced; what can't
be written waits and is tried again, and what doesn't fit any more is counted in an entry of its own.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.protocol.errors import StoreError
from pilotage.services.audit.chain import FIRST, Link, bind, canonical

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
MAX_CONTENT_CHARS = 8_192
RETRY_S = 1.0
GUARDS = ("audit_no_change", "audit_no_removal", "audit_in_order")
APPLICATION_ID = 0x504C4131

SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY, content TEXT NOT NULL, previous BLOB NOT NULL, digest BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS audit_no_change BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'an audit entry is never changed'); END;
CREATE TRIGGER IF NOT EXISTS audit_no_removal BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'an audit entry is never removed'); END;
CREATE TRIGGER IF NOT EXISTS audit_in_order BEFORE INSERT ON audit
    WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM audit)
    BEGIN SELECT RAISE(ABORT, 'audit entries are numbered without gaps'); END;
"""


@dataclass(frozen=True, slots=True)
class AuditStatistics:
    """What a log has done.

    Attributes:
        written: entries that are on the disk, of this life.
        waiting: entries that aren't yet.
        lost: entries for which there was no room, so far uncounted in the log itself.
        trouble: why the disk refuses; "" if it doesn't.
    """

    written: int
    waiting: int
    lost: int
    trouble: str


class AuditLog:
    """An audit log, open for adding. Any thread; several processes may add to one file.

    Args:
        file: where it is or shall be; its folder is made if missing.

    Raises:
        StoreError: it can't be opened, or is no audit log.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._waiting: deque[str] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._written = self._lost = 0
        self._trouble = ""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600, exist_ok=True)
            with contextlib.closing(_connect(file)) as connection:
                connection.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"the audit log {str(file)!r} can't be opened ({error}): check the disk's room and rights, "
                "or move the file away to begin a new one"
            ) from error
        self._writer = threading.Thread(target=self._write_all, name="audit", daemon=True)
        self._writer.start()

    def note(self, fields: Mapping[str, Any]) -> None:
        """Add an entry; never waits. What JSON can't say is written as its `repr`, what is too long is cut."""
        content = _fitting({"at": time.time(), **fields})
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                self._lost += 1
                return
            self._waiting.append(content)
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was noted is on the disk; tell whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def newest(self) -> tuple[int, str]:
        """Give the newest entry's number and digest, to be written elsewhere; (0, zeros) for none.

        Raises:
            StoreError: it can't be read.
        """
        with _reading(self.file) as connection:
            number, digest = _last(connection)
        return number, digest.hex()

    def statistics(self) -> AuditStatistics:
        """Tell what it has done."""
        with self._changed:
            return AuditStatistics(self._written, len(self._waiting), self._lost, self._trouble)

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what waits, as far as the disk takes it in time, and let go."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._writer.join(timeout_s)
        if self._waiting:
            log.error("%d entries could not be written to the audit log %s", len(self._waiting), self.file)

    def _write_all(self) -> None:
        connection: sqlite3.Connection | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    break
                batch, lost = list(self._waiting), self._lost
            if lost:
                batch.append(_fitting({"at": time.time(), "verb": "LOST", "detail": {"entries": lost}}))
            try:
                connection = connection or _connect(self.file)
                _add(connection, batch)
            except (OSError, sqlite3.Error) as error:
                self._refused(error)
                if self._closing:
                    break
                continue
            self._took(len(batch) - bool(lost), lost)
        if connection is not None:
            connection.close()

    def _refused(self, error: Exception) -> None:
        if not self._trouble:
            log.error("the audit log %s can't be written, which is tried again: %s", self.file, error)
        with self._changed:
            self._trouble = str(error)
            self._changed.wait_for(lambda: self._closing, RETRY_S)

    def _took(self, count: int, lost: int) -> None:
        with self._changed:
            for _ in range(count):
                self._waiting.popleft()
            self._written += count
            self._lost -= lost
            self._trouble = ""
            self._changed.notify_all()


def read_log(file: Path) -> tuple[list[Link], str]:
    """Read all entries, in the order of their numbers.

    Args:
        file: the log.

    Returns:
        The entries, and what is wrong with the file as such ("" for nothing): a guard that is missing.

    Raises:
        StoreError: there is none, or it can't be read.
    """
    with _reading(file) as connection:
        rows = connection.execute(
            "SELECT number, content, previous, digest FROM audit ORDER BY number"
        ).fetchall()
        found = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        }
    missing = [name for name in GUARDS if name not in found]
    fault = f"the guard {missing[0]} is missing: somebody has removed it" if missing else ""
    return [Link(int(n), str(c), bytes(p or b""), bytes(d or b"")) for n, c, p, d in rows], fault


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    if not file.is_file():
        raise StoreError(
            f"there is no audit log {str(file)!r}: a Terminal writes one into its DATADIR; name that one"
        )
    try:
        with contextlib.closing(
            sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
        ) as connection:
            yield connection
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise StoreError(
            f"the audit log {str(file)!r} can't be read ({error}): restore it from a copy"
        ) from error


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        connection.execute("PRAGMA synchronous=FULL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _last(connection: sqlite3.Connection) -> tuple[int, bytes]:
    row = connection.execute("SELECT number, digest FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    return (int(row[0]), bytes(row[1])) if row else (0, FIRST)


def _add(connection: sqlite3.Connection, contents: list[str]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        number, digest = _last(connection)
        for content in contents:
            link = bind(number + 1, content, digest)
            connection.execute(
                "INSERT INTO audit VALUES (?, ?, ?, ?)",
                (link.number, link.content, link.previous, link.digest),
            )
            number, digest = link.number, link.digest
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _fitting(fields: dict[str, Any]) -> str:
    """Write an entry's content so that it surely can be stored."""
    try:
        content = canonical(fields)
    except (TypeError, ValueError, RecursionError):
        content = canonical({name: _plain(value) for name, value in fields.items()})
    if len(content) <= MAX_CONTENT_CHARS:
        return content
    cut = {name: value if isinstance(value, float) else _plain(value)[:500] for name, value in fields.items()}
    return canonical({**cut, "cut": len(content)})


def _plain(value: object) -> Any:
    if isinstance(value, float) and value == value and abs(value) != float("inf"):  # noqa: PLR0124 - not NaN
        return value
    return value if isinstance(value, str) else f"{value!r:.2000}"
