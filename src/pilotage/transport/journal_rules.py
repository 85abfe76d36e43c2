"""What a journal is given, and what it tells: bounds, troubles, statistics."""

from __future__ import annotations

import msgspec


class JournalRules(msgspec.Struct, frozen=True):
    """The bounds of a journal.

    Attributes:
        max_bytes: of entries that are on the disk or wait for it; what would go beyond isn't journaled.
        max_waiting_bytes: of entries that wait for the disk; the same.
        max_batch: messages in one transaction; the last of its entries may go beyond.
        retry_s: between tries while the disk doesn't take anything.
    """

    max_bytes: int = 1 << 30
    max_waiting_bytes: int = 64 << 20
    max_batch: int = 4096
    retry_s: float = 1.0


class Trouble(msgspec.Struct, frozen=True):
    """What is wrong with the disk, for people, or that it is right again.

    Attributes:
        file: the journal.
        text: what happened, what it means, what to do.
        is_over: it is right again.
    """

    file: str
    text: str
    is_over: bool


class JournalStatistics(msgspec.Struct, frozen=True):
    """What a journal did since it was opened.

    Attributes:
        kept: messages synced to the disk.
        dropped: messages removed from the disk.
        skipped: messages that were dropped before they were written.
        refused: messages beyond the bounds, or that can't be written down: not journaled.
        commits: transactions.
        waiting: messages that wait for the disk now.
        waiting_bytes: their size, about.
        on_disk: messages on the disk now.
        on_disk_bytes: their size.
        troubles: times that something began to be wrong.
    """

    kept: int
    dropped: int
    skipped: int
    refused: int
    commits: int
    waiting: int
    waiting_bytes: int
    on_disk: int
    on_disk_bytes: int
    troubles: int
