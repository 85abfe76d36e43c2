"""When the disk won't take what is to be stored: which failures are the disk's, and what is told about them.

Law: an entry is refused for reasons of its own only. What the disk refuses waits until it doesn't.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pilotage.protocol.errors import StoreError
from pilotage.services.store.packing import Job

_OWN_ERRNOS = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EISDIR})
"""What the operating system says of a name or a call that no room on the disk would make right."""

_DISK_CODES = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PROTOCOL,
    }
)


class DiskTrouble(StoreError):
    """The disk did not take an entry that is fit to be stored: it is to be tried again."""


class Abandoned(StoreError):
    """The session was closed before the disk took an entry: it may be submitted again once the session is open."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a store tells when the disk begins to refuse, and when it takes again.

    Args:
        file: The session's folder.
        text: What is wrong, in words.
        is_over: Whether everything that had to wait is stored now.
    """

    file: str
    text: str
    is_over: bool


def is_disk_trouble(cause: BaseException) -> bool:
    """Tell whether an error is the disk's, so that the same may succeed later."""
    if isinstance(cause, OSError):
        return cause.errno not in _OWN_ERRNOS
    code = getattr(cause, "sqlite_errorcode", None)
    return isinstance(cause, sqlite3.Error) and code is not None and code & 0xFF in _DISK_CODES


def cut(jobs: Iterable[Job], max_items: int, max_bytes: int) -> Iterator[list[Job]]:
    """Cut jobs into batches, each bounded in entries and bytes; one larger entry makes a batch by itself."""
    batch: list[Job] = []
    size = 0
    for job in jobs:
        if batch and (len(batch) >= max_items or size + job.size > max_bytes):
            yield batch
            batch, size = [], 0
        batch.append(job)
        size += job.size
    if batch:
        yield batch
