"""The journal: durable sends on the originator's own disk, until they are settled.

Messages that were sent in a row are one entry, until all of them are over.
Laws of this room: nobody but the writer's thread waits for the disk; what is dropped before it was written is never
written; what `kept` has told is found again by the next life, once and in order, until it is dropped.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

import msgspec

from pilotage.protocol.errors import FileHeld, JournalError, JournalInUse, MachineError
from pilotage.protocol.sends import Part
from pilotage.transport.disks import FileLock, find_network_mount, make_folder
from pilotage.transport.journal_entries import Entry, Place, Row, Span, encode_row, weigh_entry
from pilotage.transport.journal_file import JournalFile
from pilotage.transport.journal_overs import add_span
from pilotage.transport.journal_rules import JournalRules, JournalStatistics, Trouble

__all__ = ["Entry", "Journal", "JournalRules", "JournalStatistics", "Place", "Trouble"]

DROPS_WAIT_S: Final = 0.2
"""How long drops wait for a keep whose transaction they could share."""
BOOKED_AT_ONCE: Final = 128
"""Written entries that are booked before another thread may have the lock."""

Written = tuple[int, int, int]
"""(number, bytes, messages) of an entry on the disk."""

_NOT_WRITABLE = (TypeError, ValueError, OverflowError, msgspec.MsgspecError)

Told = TypeVar("Told")

log = logging.getLogger(__name__)


class Journal:
    """Keep durable sends on the disk until they are settled.

    Args:
        file: where; its folders are made. Beside it lie a lock and, while it is open, SQLite's log.
        rules: its bounds.
        kept: is told the places of the entries that are now synced, in order, once after each commit. On the
            writer's thread.
        trouble: is told what goes wrong with the disk and when it is right again. On the writer's thread.

    Attributes:
        left: what earlier lives left, in the order in which it was kept. It stays on the disk until it is dropped;
            it needn't be kept again. Clear the list when you have taken it over.
        over: what is over of entries that stay, by their place.
        note: empty, or what was done with a file that couldn't be used, for people.

    Raises:
        JournalInUse: another process has it open, or this one has.
        JournalError: the disk doesn't let us read or begin it, or is a network's.
    """

    def __init__(
        self,
        file: Path,
        rules: JournalRules,
        kept: Callable[[list[Place]], None],
        trouble: Callable[[Trouble], None],
    ) -> None:
        self._name = str(file)
        self._rules = rules
        self._tell_kept, self._tell_trouble = kept, trouble
        self._file_lock = _prepare(file)
        try:
            self._file = JournalFile(file)
        except BaseException:
            self._file_lock.release()
            raise
        self.note = self._file.note
        self._take_over()
        self._lock = threading.Lock()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._asleep = self._asleep_for_drops = False
        self._closing = threading.Event()
        self._waiting: dict[Place, Entry] = {}
        self._writing: dict[Place, Entry] = {}
        self._dropped_while_written: set[Place] = set()
        self._drops: list[Written] = []
        self._drops_since = 0.0
        self._unsaid: set[Place] = set()
        self._waiting_bytes = self._waiting_count = 0
        self._kept = self._dropped = self._skipped = self._refused = self._commits = self._troubles = 0
        self._beyond: str = ""
        self._beyond_told = False
        self._refused_before = 0
        self._failing = self._is_untidy = self._is_last_try = False
        self._thread = threading.Thread(target=self._run, name=f"journal {file.name}", daemon=True)
        self._thread.start()

    def _take_over(self) -> None:
        self.left = [entry for _, entry, _ in self._file.left]
        self.over: dict[Place, list[Span]] = {
            entry.place: self._file.over[number]
            for number, entry, _ in self._file.left
            if number in self._file.over
        }
        self._on_disk: dict[Place, Written] = {
            entry.place: (number, size, len(entry.bodies)) for number, entry, size in self._file.left
        }
        self._on_disk_bytes = sum(size for _, _, size in self._file.left)
        self._next_number = self._file.left[-1][0] + 1 if self._file.left else 1
        self._on_disk_count = sum(count for _, _, count in self._on_disk.values())
        self._file.left, self._file.over = [], {}

    def keep(self, entries: Sequence[Entry]) -> Sequence[Place]:
        """Hand entries to the writer; returns at once. Any thread.

        A place that waits or is kept already is not kept twice. One that was dropped may not be used again.

        Returns:
            The places that are not journaled, for they would go beyond the bounds or the journal is closed.
        """
        refused: list[Place] = []
        with self._lock:
            for entry in entries:
                place, size = entry.place, weigh_entry(entry)
                if place in self._waiting or place in self._on_disk:
                    continue
                if self._has_no_room(size):
                    refused.append(place)
                    self._refused += len(entry.bodies)
                    continue
                self._waiting[place] = entry
                self._waiting_bytes += size
                self._waiting_count += len(entry.bodies)
            self._ring()
        return refused

    def drop(self, places: Sequence[Place], parts: Sequence[Part] = ()) -> None:
        """Take settled entries off the disk, or see that they never get there; returns at once. Any thread.

        Args:
            places: of entries of which all is over.
            parts: of entries that stay what is over, each once; of those of `places`, too.
        """
        with self._lock:
            for place, first, end in parts:
                if place in self._waiting or place in self._on_disk:
                    add_span(self.over.setdefault(place, []), first, end)
                    if place in self._on_disk:
                        self._say_over(place)
            for place in places:
                self.over.pop(place, None)
                if place in self._writing:
                    self._dropped_while_written.add(place)
                elif place in self._on_disk:
                    self._add_drop(place)
                elif place in self._waiting:
                    self._skipped += self._forget_waiting(place)

    def statistics(self) -> JournalStatistics:
        """Tell what it did and what it holds. Any thread."""
        with self._lock:
            return JournalStatistics(
                kept=self._kept,
                dropped=self._dropped,
                skipped=self._skipped,
                refused=self._refused,
                commits=self._commits,
                waiting=self._waiting_count,
                waiting_bytes=self._waiting_bytes,
                on_disk=self._on_disk_count,
                on_disk_bytes=self._on_disk_bytes,
                troubles=self._troubles,
            )

    def close(self, timeout_s: float) -> None:
        """Write what waits, then let go of the file; may be called again. Any thread but the writer's.

        What couldn't be written, since the disk doesn't take it, is logged.

        Args:
            timeout_s: how long to wait for that; a disk that stalls is left to the writer's thread.
        """
        with self._lock:
            self._closing.set()
            self._ring()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("%s: the disk didn't take what waits within %.1f s", self._name, timeout_s)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close(10)

    # ------------------------------------------------------------ under the lock

    def _has_no_room(self, size: int) -> bool:
        waiting = self._waiting_bytes + size
        if self._closing.is_set():
            return True
        if waiting > self._rules.max_waiting_bytes:
            beyond = f"{self._rules.max_waiting_bytes:,} bytes wait for the disk"
        elif waiting + self._on_disk_bytes > self._rules.max_bytes:
            beyond = f"{self._rules.max_bytes:,} bytes are in it"
        else:
            return False
        if not self._beyond:
            self._beyond, self._refused_before = beyond, self._refused
        return True

    def _add_drop(self, place: Place) -> None:
        self._fall_due()
        on_disk = self._on_disk.pop(place)
        self._on_disk_count -= on_disk[2]
        self._drops.append(on_disk)

    def _say_over(self, place: Place) -> None:
        """Write soon what of an entry on the disk is over."""
        self._fall_due()
        self._unsaid.add(place)

    def _fall_due(self) -> None:
        if not (self._drops or self._unsaid):
            self._drops_since = time.monotonic()
            if not self._asleep_for_drops:
                self._ring()

    def _ring(self) -> None:
        if self._asleep:
            self._asleep = False
            self._bell.put(None)

    # ------------------------------------------------------------ the writer's thread

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._tell_beyond()
                try:
                    self._work()
                except Exception as cause:
                    # Whatever it is, it is told, and tried again: else nobody would learn that nothing is kept.
                    log.exception("%s: a turn of the writer failed", self._name)
                    self._fail(cause)
        finally:
            self._let_go()

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to write; False when all is done and over."""
        while True:
            with self._lock:
                if self._closing.is_set():
                    return bool(self._waiting or self._drops or self._unsaid)
                news = self._beyond and not self._beyond_told
                if self._waiting or news or self._is_untidy or self._failing:
                    return True
                due = self._drops or self._unsaid
                wait_s = self._drops_since + DROPS_WAIT_S - time.monotonic() if due else None
                if wait_s is not None and wait_s <= 0:
                    return True
                self._asleep, self._asleep_for_drops = True, wait_s is not None
            with contextlib.suppress(Empty):
                self._bell.get(timeout=wait_s)
            with self._lock:
                self._asleep = self._asleep_for_drops = False

    def _work(self) -> None:
        with self._lock:
            batch = self._writing = self._next_batch()
            drops = self._drops[:]
            unsaid, self._unsaid = self._unsaid, set()
            unsaid &= self.over.keys()
            over = {self._on_disk[place][0]: self.over[place][:] for place in unsaid}
            began = time.monotonic()
        rows, unwritable = self._encode(batch)
        try:
            has_committed = self._write(rows, [number for number, _, _ in drops], over)
        except (sqlite3.Error, OSError) as cause:
            self._fail(cause)
            return
        told = self._book(rows, unwritable, drops, began)
        self._commits += has_committed
        self._end_trouble()
        if told:
            self._call(self._tell_kept, told)
        if not self._waiting:
            self._is_untidy = self._file.tidy()

    def _encode(self, batch: dict[Place, Entry]) -> tuple[dict[Place, Row], list[Place]]:
        rows: dict[Place, Row] = {}
        unwritable: list[Place] = []
        number = self._next_number
        for place, entry in batch.items():
            try:
                rows[place] = encode_row(number, entry)
                number += 1
            except _NOT_WRITABLE as cause:
                unwritable.append(place)
                log.warning(
                    "%s: message %r can't be journaled%s: %s",
                    self._name,
                    entry.names[0],
                    f", nor the {len(entry.names) - 1} after it" * (len(entry.names) > 1),
                    cause,
                )
        return rows, unwritable

    def _write(self, rows: dict[Place, Row], drops: list[int], over: dict[int, list[Span]]) -> bool:
        """Have the file written; tell whether there was anything to be written."""
        has_news = bool(rows or drops or over)
        doubtful = None
        if self._failing:
            self._file.mend()
            doubtful = self._next_number
            if drops:  # by themselves, for they may make the room that the others need
                self._file.write([], drops, doubtful)
                drops = []
        if rows or drops or over or self._failing:
            self._file.write(list(rows.values()), drops, doubtful, over)
        return has_news

    def _book(
        self, rows: dict[Place, Row], unwritable: list[Place], drops: list[Written], began: float
    ) -> list[Place]:
        """Book what was written; give the places to be told."""
        written = iter(rows.items())
        while part := list(islice(written, BOOKED_AT_ONCE)):
            with self._lock:
                for place, (number, _, content) in part:
                    count = self._forget_waiting(place)
                    self._on_disk[place] = (number, len(content), count)
                    self._on_disk_count += count
                    if place in self.over:
                        self._say_over(place)
                    self._on_disk_bytes += len(content)
                    self._kept += count
                    self._next_number = number + 1
        with self._lock:
            for place in unwritable:
                self._refused += self._forget_waiting(place)
            self._on_disk_bytes -= sum(size for _, size, _ in drops)
            del self._drops[: len(drops)]
            self._drops_since = began
            settled = self._dropped_while_written
            told = [place for place in rows if place not in settled] if settled else list(rows)
            for place in settled:
                if place in self._on_disk:
                    self._add_drop(place)
            self._writing, self._dropped_while_written = {}, set()
            self._dropped += sum(count for _, _, count in drops)
        return told

    def _next_batch(self) -> dict[Place, Entry]:
        """Give what is to be written next: what waits, within the bound of a transaction."""
        batch: dict[Place, Entry] = {}
        count = 0
        for place, entry in self._waiting.items():
            batch[place] = entry
            count += len(entry.bodies)
            if count >= self._rules.max_batch:
                break
        return batch

    def _forget_waiting(self, place: Place) -> int:
        """Have an entry wait no more; give how many messages it has."""
        entry = self._waiting.pop(place)
        self._waiting_bytes -= weigh_entry(entry)
        self._waiting_count -= len(entry.bodies)
        return len(entry.bodies)

    def _fail(self, cause: Exception) -> None:
        with self._lock:
            self._unsaid = {place for place in self.over if place in self._on_disk}
            for place in self._dropped_while_written:
                if place in self._waiting:
                    self._skipped += self._forget_waiting(place)
                elif place in self._on_disk:
                    self._add_drop(place)
            self._writing, self._dropped_while_written = {}, set()
            count, size = self._waiting_count, self._waiting_bytes
        if not self._failing:
            self._failing = True
            self._tell(
                f"the journal {self._name!r} can't be written ({cause}): make room there or mend the disk. {count} "
                f"messages ({size:,} bytes) wait for it in memory; it is tried again every "
                f"{self._rules.retry_s:g} s. They are sent all the same, but a crash now loses what isn't settled",
                is_over=False,
            )
        if self._closing.wait(self._rules.retry_s):
            if self._is_last_try:
                self._give_up(count)
            self._is_last_try = True

    def _give_up(self, count: int) -> None:
        with self._lock:
            self._waiting.clear()
            self._drops.clear()
            self._unsaid.clear()
            self._waiting_bytes = self._waiting_count = 0
        if count:
            log.error("%s was closed, but can't be written: %d messages are not in it", self._name, count)

    def _end_trouble(self) -> None:
        if self._failing:
            self._failing = False
            self._tell(f"the journal {self._name!r} can be written again", is_over=True)
        with self._lock:
            rules, waiting = self._rules, self._waiting_bytes
            is_low = waiting <= rules.max_waiting_bytes * 7 // 8
            is_low = is_low and waiting + self._on_disk_bytes <= rules.max_bytes * 7 // 8
            if not (self._beyond_told and is_low):
                return
            self._beyond, self._beyond_told = "", False
            count = self._refused - self._refused_before
        self._tell(
            f"the journal {self._name!r} has room again. {count} messages were not kept in it meanwhile",
            is_over=True,
        )

    def _tell_beyond(self) -> None:
        with self._lock:
            if not self._beyond or self._beyond_told:
                return
            self._beyond_told, beyond = True, self._beyond
        self._tell(
            f"the journal {self._name!r} is full: {beyond}. Further messages are sent, but not kept on the disk: a "
            "crash loses those that aren't settled. Reach their recipients, or raise its bounds",
            is_over=False,
        )

    def _tell(self, text: str, is_over: bool) -> None:
        self._troubles += not is_over
        self._call(self._tell_trouble, Trouble(self._name, text, is_over))

    def _call(self, told: Callable[[Told], None], what: Told) -> None:
        try:
            told(what)
        except Exception:
            log.exception("%s: what was told of it raised", self._name)

    def _let_go(self) -> None:
        self._file.close()
        self._file_lock.release()


def _prepare(file: Path) -> FileLock:
    """Make the folder and take the lock."""
    name = repr(str(file))
    try:
        make_folder(file.parent)
        if found := find_network_mount(file.parent):
            raise JournalError(
                f"the journal {name} lies on a network file system ({found}), where a crash can damage it: put it on "
                "a disk of this machine"
            )
        lock = FileLock(file.with_name(file.name + ".lock"), file.with_name(file.name + ".holder"))
    except FileHeld as cause:
        raise JournalInUse(
            f"the journal {name} is in use by {cause}: end that first, or give this one another name"
        ) from cause
    except (OSError, MachineError) as cause:
        if isinstance(cause, JournalError):
            raise
        raise JournalError(f"the journal {name} can't be locked ({cause}): check rights and space") from cause
    try:
        lock.sign()
    except OSError as cause:  # a full disk: what is in the journal can be sent all the same
        log.warning("%s: who holds it can't be written down: %s", name, cause)
    return lock
