"""Keeping: a messenger's durable sends on this machine's disk, so that they outlive the process.

It joins the core's wishes (keep, drop) to a journal, which is opened when there is something in it or for it.
Law of this room: nobody who sends waits for the disk; a disk that can't be used is told of, and stops nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from urllib.parse import quote

from pilotage.protocol.errors import JournalError, JournalInUse
from pilotage.protocol.sends import FOREVER, Kept, Part, Place, left_of
from pilotage.transport.journal import Entry, Journal, JournalRules, JournalStatistics, Trouble
from pilotage.transport.journal_entries import weigh_entry

log = logging.getLogger(__name__)

RULES = JournalRules(max_bytes=256 * 2**20)
OPEN_AGAIN_S = 1.0
WAIT_FOR_HOLDER_S, LOOK_AGAIN_S = 1.0, 0.02


class Keeping:
    """The journal of one messenger. Any thread.

    Args:
        folder: where journals lie; None to keep nothing.
        name: the messenger's.
        kept: is told what is synced, on a thread of the journal's.
        trouble: is told what goes wrong with the disk, and when it is right again.
        late: is given what earlier lives have left, where the journal opens only after `left` was asked.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str,
        kept: Callable[[list[Place]], None],
        trouble: Callable[[Trouble], None],
        late: Callable[[list[Kept]], None] = lambda left: None,
    ) -> None:
        self.file = folder / f"{quote(name, safe=' ')}.sqlite" if folder is not None else None
        self._kept = kept
        self._told = trouble
        self._late = late
        self._lock = threading.Lock()
        self._journal: Journal | None = None
        self._opener: threading.Thread | None = None
        self._closed = threading.Event()
        self._early: dict[Place, Entry] = {}
        self._early_parts: dict[Place, list[Part]] = {}
        self._early_bytes = 0
        self._lost = 0
        self._wanted = False

    def left(self) -> list[Kept]:
        """Open the journal if earlier lives have left one, and give what is in it. It reads the disk.

        One that can't be opened now, since its last holder isn't quite gone, is given to `late` when it can.
        """
        if self.file is None or not self.file.exists():
            return []
        end = time.monotonic() + WAIT_FOR_HOLDER_S
        while True:
            try:
                journal = self._open(self.file)
            except JournalInUse as error:
                if time.monotonic() < end:
                    time.sleep(LOOK_AGAIN_S)
                    continue
                log.info("%s", error)  # told to others if there is something to be kept
            except JournalError as error:
                self._trouble(str(error), is_over=False)
            else:
                with self._lock:
                    self._journal = journal
                return _taken_from(journal)
            with self._lock:
                self._open_soon(self.file)
            return []

    def keep(self, sends: Sequence[Kept]) -> None:
        """Put sends into the journal."""
        if self.file is None:
            return
        entries = [_as_entry(one) for one in sends]
        with self._lock:
            if self._journal is not None:
                self._journal.keep(entries)
                return
            self._wanted = True
            for entry in entries:
                size = weigh_entry(entry)
                if self._early_bytes + size > RULES.max_waiting_bytes:
                    self._lost += len(entry.bodies)
                else:
                    self._early[entry.place] = entry
                    self._early_bytes += size
            self._open_soon(self.file)

    def drop(self, places: Sequence[Place], parts: Sequence[Part] = ()) -> None:
        """Take sends out of the journal, or some of those at a place."""
        with self._lock:
            if self._journal is not None:
                self._journal.drop(places, parts)
                return
            for part in parts:
                if part[0] in self._early:
                    self._early_parts.setdefault(part[0], []).append(part)
            for place in places:
                self._early_parts.pop(place, None)
                entry = self._early.pop(place, None)
                if entry is not None:
                    self._early_bytes -= weigh_entry(entry)

    def statistics(self) -> JournalStatistics | None:
        """Tell what the journal did; None where none was needed."""
        with self._lock:
            return self._journal.statistics() if self._journal is not None else None

    def close(self, timeout_s: float) -> None:
        """Write what waits, and let go of the file."""
        self._closed.set()
        with self._lock:
            opener = self._opener
        if opener is not None and opener is not threading.current_thread():
            opener.join(timeout_s)
        with self._lock:
            journal = self._journal
            lost = sum(len(entry.bodies) for entry in self._early.values()) + self._lost
        if journal is not None:
            journal.close(timeout_s)
        if lost:
            log.error("%s could not be opened in time: %d messages are not in it", self.file, lost)

    def _open(self, file: Path) -> Journal:
        journal = Journal(file, RULES, self._kept, self._told)
        if journal.note:
            log.warning("%s", journal.note)
            self._trouble(journal.note, is_over=True)
        return journal

    def _open_soon(self, file: Path) -> None:
        if self._opener is None:
            self._opener = threading.Thread(
                target=self._open_late, args=(file,), name="journal-opener", daemon=True
            )
            self._opener.start()

    def _try_to_open(self, file: Path, *, told: bool) -> Journal | None:
        try:
            return self._open(file)
        except JournalError as error:
            if not told and self._wanted:
                self._trouble(
                    f"{error}. Until then messages are sent all the same, but a crash loses what isn't settled",
                    is_over=False,
                )
            return None

    def _open_late(self, file: Path) -> None:
        """Open the journal, again and again while the disk or its holder doesn't let us."""
        told = False
        while (journal := self._try_to_open(file, told=told)) is None:
            told = told or self._wanted
            if self._closed.wait(OPEN_AGAIN_S):
                return
        left = _taken_from(journal)
        with self._lock:
            early, self._early, self._early_bytes = list(self._early.values()), {}, 0
            parts, self._early_parts = list(chain.from_iterable(self._early_parts.values())), {}
            journal.keep(early)
            journal.drop((), parts)
            self._journal = journal
        if left:
            self._late(left)
        if told:
            lost = f"; {self._lost} messages were not kept in it meanwhile" if self._lost else ""
            self._lost = 0
            self._trouble(f"the journal {str(file)!r} can be written now{lost}", is_over=True)

    def _trouble(self, text: str, *, is_over: bool) -> None:
        try:
            self._told(Trouble(str(self.file), text, is_over))
        except Exception:
            # Somebody else's code must not keep the journal from being opened.
            log.exception("%s: who was told of it raised", self.file)


def _taken_from(journal: Journal) -> list[Kept]:
    left, journal.left = journal.left, []
    pieces: list[Kept] = []
    for entry in left:
        of_entry = left_of(_as_kept(entry), journal.over.get(entry.place, ()))
        pieces += of_entry
        if not of_entry:
            journal.drop([entry.place])
    return pieces


def _as_entry(kept: Kept) -> Entry:
    """Write sends down; their deadline by the clock on the wall, which goes on when we don't."""
    deadline = None if kept.deadline == FOREVER else time.time() + kept.deadline - time.monotonic()
    frames = tuple(map(bytes, kept.frames)) if kept.frames else ()
    names, bodies = tuple(kept.names), tuple(kept.bodies)
    return Entry(*kept.place, kept.path, kept.verb, names, kept.marks, bodies, frames, deadline)


def _as_kept(entry: Entry) -> Kept:
    deadline = FOREVER if entry.deadline is None else time.monotonic() + entry.deadline - time.time()
    return Kept(
        entry.place, entry.path, entry.verb, entry.names, entry.marks, entry.bodies, entry.frames, deadline
    )
