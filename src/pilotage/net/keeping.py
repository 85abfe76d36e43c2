"""Keeping: a messenger's durable sends on this machine's disk, so that they outlive the process.

It joins the core's wishes (keep, drop) to a journal, which is opened when there is something in it or for it.
Law of this room: nobody who sends waits for the disk; a disk that can't be used is told of, and stops nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from pilotage.protocol.errors import JournalError, JournalInUse
from pilotage.protocol.sends import FOREVER, Kept, Place
from pilotage.transport.journal import Entry, Journal, JournalRules, JournalStatistics, Trouble

log = logging.getLogger(__name__)

RULES = JournalRules(max_bytes=256 * 2**20)
OPEN_AGAIN_S = 1.0


class Keeping:
    """The journal of one messenger. Any thread.

    Args:
        folder: where journals lie; None to keep nothing.
        name: the messenger's.
        kept: is told what is synced, on a thread of the journal's.
        trouble: is told what goes wrong with the disk, and when it is right again.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str,
        kept: Callable[[list[Place]], None],
        trouble: Callable[[Trouble], None],
    ) -> None:
        self.file = folder / f"{quote(name, safe=' ')}.sqlite" if folder is not None else None
        self._kept = kept
        self._trouble = trouble
        self._lock = threading.Lock()
        self._journal: Journal | None = None
        self._opener: threading.Thread | None = None
        self._closed = threading.Event()
        self._early: list[Entry] = []

    def left(self) -> list[Kept]:
        """Open the journal if earlier lives have left one, and give what is in it. It reads the disk."""
        if self.file is None or not self.file.exists():
            return []
        try:
            journal = self._open(self.file)
        except JournalInUse as error:
            log.info("%s", error)  # told again if there is something to be kept
            return []
        except JournalError as error:
            self._trouble(Trouble(str(self.file), str(error), is_over=False))
            return []
        left, journal.left = journal.left, []
        with self._lock:
            self._journal = journal
        return [_as_kept(entry) for entry in left]

    def keep(self, sends: Sequence[Kept]) -> None:
        """Put sends into the journal."""
        if self.file is None:
            return
        entries = [_as_entry(one) for one in sends]
        with self._lock:
            if self._journal is not None:
                self._journal.keep(entries)
                return
            self._early += entries
            if self._opener is None:
                work = (self.file,)
                self._opener = threading.Thread(
                    target=self._open_late, args=work, name="journal-opener", daemon=True
                )
                self._opener.start()

    def drop(self, places: Sequence[Place]) -> None:
        """Take sends out of the journal."""
        with self._lock:
            if self._journal is not None:
                self._journal.drop(places)
            elif self._early:
                over = set(places)
                self._early = [entry for entry in self._early if entry.place not in over]

    def statistics(self) -> JournalStatistics | None:
        """Tell what the journal did; None where none was needed."""
        with self._lock:
            return self._journal.statistics() if self._journal is not None else None

    def close(self, timeout_s: float) -> None:
        """Write what waits, and let go of the file."""
        self._closed.set()
        with self._lock:
            opener = self._opener
        if opener is not None:
            opener.join(timeout_s)
        with self._lock:
            journal, lost = self._journal, len(self._early)
        if journal is not None:
            journal.close(timeout_s)
        if lost:
            log.error("%s could not be opened: %d messages are not in it", self.file, lost)

    def _open(self, file: Path) -> Journal:
        journal = Journal(file, RULES, self._kept, self._trouble)
        if journal.note:
            self._trouble(Trouble(str(file), journal.note, is_over=True))
        return journal

    def _try_to_open(self, file: Path, *, told: bool) -> Journal | None:
        try:
            return self._open(file)
        except JournalError as error:
            if not told:
                text = f"{error}. Until then messages are sent all the same, but a crash loses what isn't settled"
                self._trouble(Trouble(str(file), text, is_over=False))
            return None

    def _open_late(self, file: Path) -> None:
        """Open the journal for what is to be kept, again and again while the disk doesn't let us."""
        told = False
        while (journal := self._try_to_open(file, told=told)) is None:
            told = True
            if self._closed.wait(OPEN_AGAIN_S):
                return
        with self._lock:
            early, self._early = self._early, []
            journal.keep(early)
            self._journal = journal
        if told:
            self._trouble(Trouble(str(file), f"the journal {str(file)!r} can be written now", is_over=True))


def _as_entry(kept: Kept) -> Entry:
    """Write a send down; its deadline by the clock on the wall, which goes on when we don't."""
    deadline = None if kept.deadline == FOREVER else time.time() + kept.deadline - time.monotonic()
    frames = tuple(bytes(frame) for frame in kept.frames)
    return Entry(*kept.place, kept.path, kept.verb, kept.name, kept.marks, kept.body, frames, deadline)


def _as_kept(entry: Entry) -> Kept:
    deadline = FOREVER if entry.deadline is None else time.monotonic() + entry.deadline - time.time()
    return Kept(
        entry.place, entry.path, entry.verb, entry.name, entry.marks, entry.body, entry.frames, deadline
    )
