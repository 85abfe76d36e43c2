"""A session's folder, open for writing.

Law: `done(None)` is called only when a power cut can't take the entry away.
"""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import TracebackType

from pilotage.protocol.coverage import Holding
from pilotage.protocol.errors import StoreError
from pilotage.protocol.ledger import LedgerKey, Mark
from pilotage.services.store import schema
from pilotage.services.store.chunks import COMPRESSORS, Sync
from pilotage.services.store.entries import Entry
from pilotage.services.store.folder import (
    checked_name,
    closed_on_error,
    made,
    named,
    reading,
    released_on_error,
)
from pilotage.services.store.holdings import holdings, read_tallies, row_digests
from pilotage.services.store.intake import Intake
from pilotage.services.store.lock import WriterLock, refuse_network_folder
from pilotage.services.store.packing import Done, Group, Job, describe, pack, pack_all
from pilotage.services.store.seen import Seen, SeenTable
from pilotage.services.store.streams import StreamWriter
from pilotage.services.store.trouble import Abandoned, DiskTrouble, Trouble, cut
from pilotage.services.store.upgrade import upgrade
from pilotage.services.store.values import plain, to_text
from pilotage.services.store.writer import BatchWriter

_logger = logging.getLogger(__name__)

RETRY_S = 1.0
"""How often what the disk refused is tried again."""

LEAVE_S = 0.3
"""How long a writer that only waits for the disk may take to end, once it was given up."""


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Bounds of a store and how it writes.

    Args:
        max_queue_items: Entries that may wait for the disk.
        max_queue_bytes: Bytes that may wait for the disk.
        submit_timeout_s: Seconds for which `submit` waits for room.
        batch_items: Entries in one transaction at most.
        batch_bytes: Bytes in one transaction, about, at most.
        chunk_bytes: Bytes in one chunk of a stream, about.
        compressor: For new streams: "none", "zstd" or "blosc".
        sync: Puts a file descriptor's content on the disk.
        on_trouble: Told when the disk begins to refuse, and when everything that had to wait is stored. Called from
            the store's thread, so that it must not wait for the store.
    """

    max_queue_items: int = 100_000
    max_queue_bytes: int = 256 << 20
    submit_timeout_s: float = 10.0
    batch_items: int = 4096
    batch_bytes: int = 64 << 20
    chunk_bytes: int = 4 << 20
    compressor: str = "none"
    sync: Sync = os.fsync
    on_trouble: Callable[[Trouble], object] = lambda trouble: None

    def __post_init__(self) -> None:
        """Refuse what can't work.

        Raises:
            StoreError: A bound below 1, or an unknown compressor.
        """
        bounds = (
            self.max_queue_items,
            self.max_queue_bytes,
            self.batch_items,
            self.batch_bytes,
            self.chunk_bytes,
        )
        if min(bounds) < 1:
            raise StoreError(f"the store's bounds {bounds} must be 1 or more each")
        if self.compressor not in COMPRESSORS:
            raise StoreError(f"no compressor {self.compressor!r}: use one of {', '.join(COMPRESSORS)}")


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """What a store did since it was opened.

    Args:
        rows: Entries stored in tables.
        items: Items stored in streams.
        bytes: Bytes of all stored entries, about.
        commits: Transactions.
        queue_depth: Entries that wait now.
        queue_bytes: Bytes that wait or are being written now.
        duplicates: Entries that were stored already.
        errors: Entries that failed.
        callback_errors: Calls of `done` that raised.
        held: Entries that the disk refused, and that are tried again.
        trouble: Why; empty if there are none.
    """

    rows: int
    items: int
    bytes: int
    commits: int
    queue_depth: int
    queue_bytes: int
    duplicates: int
    errors: int
    callback_errors: int
    held: int = 0
    trouble: str = ""


class SessionStore:
    """Write one session; make one with `create` or `open`.

    `submit` may be called from any thread. `done` is called from the store's own thread, for each pilot in the order of
    `submit`. What a full or failing disk refuses is kept and tried again every second, and that pilot's later entries
    wait behind it: `done` comes when it is stored.
    """

    def __init__(
        self, folder: Path, lock: WriterLock, connection: sqlite3.Connection, config: StoreConfig
    ) -> None:
        """Start the writer's thread on a folder that `create` or `open` prepared."""
        self._folder, self._lock, self._connection, self._config = folder, lock, connection, config
        streams = StreamWriter(
            connection, folder / schema.ZARR, config.chunk_bytes, config.compressor, config.sync
        )
        (folder / schema.ZARR).mkdir(exist_ok=True)
        streams.recover()
        self._streams = streams
        self._writer = BatchWriter(connection, folder, streams)
        self._intake = Intake(config.max_queue_items, config.max_queue_bytes)
        self._held: list[Job] = []
        self._trouble = ""
        self._retry_at = 0.0
        self._gave_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"store {folder.name}", daemon=True)
        self._thread.start()

    @classmethod
    def create(
        cls,
        root: Path | str,
        session: str,
        provenance: Mapping[str, object],
        config: StoreConfig | None = None,
    ) -> SessionStore:
        """Make the folder `root/session` and open it for writing.

        Args:
            root: Where sessions lie; made if it isn't there.
            session: The session's name, which becomes the folder's.
            provenance: What must be known about the session later: versions, prefs, the hash of the task's
                code.
            config: Bounds, when the defaults don't fit.

        Returns:
            The open store.

        Raises:
            StoreError: The name can't be a folder's, the session exists, the disk is a network's or can't
                be written.
        """
        facts = {key: to_text(plain(value)) for key, value in provenance.items()}
        folder = Path(root) / checked_name(session)
        config = config or StoreConfig()
        refuse_network_folder(folder.absolute().parent)
        with named(folder, "created"):
            folder.mkdir(parents=True, exist_ok=True)
            lock = WriterLock(folder)
            with released_on_error(lock):
                connection = made(folder, session, facts, config.sync)
                with closed_on_error(connection):
                    return cls(folder, lock, connection, config)

    @classmethod
    def open(cls, folder: Path | str, config: StoreConfig | None = None) -> SessionStore:
        """Go on writing a session; what an earlier writer did not commit is removed first.

        Raises:
            StoreError: There is no such session, another writer has it, or the disk is a network's or can't
                be written.
        """
        folder = Path(folder)
        database = folder / schema.DATABASE
        if not database.is_file():
            raise StoreError(f"{str(folder)!r} holds no session ({schema.DATABASE} is missing): create one")
        refuse_network_folder(folder.absolute())
        with named(folder, "opened"):
            lock = WriterLock(folder)
            with released_on_error(lock):
                connection = schema.connect_writer(database)
                with closed_on_error(connection):
                    upgrade(connection, schema.check_version(connection, folder))
                    return cls(folder, lock, connection, config or StoreConfig())

    @property
    def folder(self) -> Path:
        """The session's folder."""
        return self._folder

    def submit(self, entry: Entry, done: Done, timeout_s: float | None = None) -> None:
        """Queue an entry to be stored.

        Args:
            entry: What to store.
            done: Called once, from the store's thread, with None when the entry is on the disk or was there
                already, else with the error: the entry itself can't be stored, or (`Abandoned`) the session was
                closed before the disk took it. It should return soon; what it raises is counted and logged.
            timeout_s: Seconds to wait for room; the configured ones when None.

        Raises:
            StoreError: The queue stayed full (`QueueFull`).
            Closed: The store was closed.
        """
        job = pack(entry, Group(1, lambda ends: done(ends[0])))
        self._intake.put([job], self._config.submit_timeout_s if timeout_s is None else timeout_s)

    def submit_all(self, entries: Sequence[Entry], done: Callable[[list[StoreError | None]], object]) -> None:
        """Queue entries to be stored in their order; quicker than one by one.

        Args:
            entries: What to store.
            done: Called once, from the store's thread, when all have ended: for each None or its error.

        Raises:
            StoreError: The queue stayed full (`QueueFull`); none is stored.
            Closed: The store was closed; likewise.
        """
        group = Group(len(entries), done)
        self._intake.put(pack_all(entries, group), self._config.submit_timeout_s)

    def seen(self) -> dict[tuple[int, int], Seen]:
        """Give which messages are committed, for each (boot, flow).

        Raises:
            StoreError: The database can't be read.
        """
        with reading(self._folder) as connection:
            return dict(SeenTable(connection).summaries())

    def ledger(self) -> dict[LedgerKey, Mark]:
        """Give counts and digests of what is committed, to be compared with the senders'.

        Raises:
            StoreError: The database can't be read.
        """
        with reading(self._folder) as connection:
            return {key: tally.mark() for key, tally in read_tallies(connection).items()}

    def holdings(self) -> list[Holding]:
        """Give what is committed of each sender: counts, digests and the running numbers that are there.

        The rows are counted anew from their table, so this takes a second for some 30,000 of them.

        Raises:
            StoreError: The database can't be read.
        """
        with reading(self._folder) as connection:
            return holdings(connection)

    def row_digests(self, pilot: str, source: str, first: int, last: int) -> dict[int, str]:
        """Give the digests of single rows of the trials' messages, by number.

        Raises:
            StoreError: The database can't be read.
        """
        with reading(self._folder) as connection:
            return row_digests(connection, pilot, source, first, last)

    def next_row(self, pilot: str, source: str) -> int:
        """Give the number after the highest that is stored of a pilot's rows from a source; 0 if none is.

        Raises:
            StoreError: The database can't be read.
        """
        with reading(self._folder) as connection:
            found = connection.execute(
                "SELECT max(row_num) FROM data_messages WHERE pilot = ? AND source = ?", (pilot, source)
            ).fetchone()[0]
            return 0 if found is None else int(found) + 1

    def statistics(self) -> StoreStatistics:
        """Give what was done and what waits."""
        counts = self._writer.counts
        depth, size = self._intake.depth()
        return StoreStatistics(
            rows=counts.rows,
            items=counts.items,
            bytes=counts.bytes,
            commits=counts.commits,
            queue_depth=depth,
            queue_bytes=size,
            duplicates=counts.duplicates,
            errors=counts.errors,
            callback_errors=counts.callback_errors,
            held=len(self._held),
            trouble=self._trouble,
        )

    def close(self, timeout_s: float = 30.0) -> None:
        """Store what waits and let go of the folder; may be called again.

        Raises:
            StoreError: The disk took too long, or refused to the end. What still waited is told so by its `done`;
                entries that are being written keep the folder locked until the disk answers.
        """
        self._intake.close()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            why, held = self._trouble, len(self._held)
            self._gave_up.set()
            self._thread.join(LEAVE_S)
            rest = self._intake.abandon()
            self._disappoint(rest)
            raise StoreError(
                f"session {str(self._folder)!r} did not close in {timeout_s} s: {held + len(rest)} entries not "
                f"stored{why and ': '}{why}"
            )

    def __enter__(self) -> SessionStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        config = self._config
        try:
            while not self._gave_up.is_set():
                wait_s = max(0.0, self._retry_at - time.monotonic()) if self._held else None
                batch = self._intake.take(config.batch_items, config.batch_bytes, wait_s)
                if batch:
                    self._commit(batch)
                elif not self._held or self._gave_up.wait(max(0.0, self._retry_at - time.monotonic())):
                    break
                if self._held and time.monotonic() >= self._retry_at:
                    self._retry()
        finally:
            self._disappoint(self._held)
            self._let_go()

    def _commit(self, batch: list[Job]) -> None:
        """Store a batch; what the disk refuses is held, and so is what a pilot sends behind that."""
        held = {job.pilot for job in self._held}
        ready = [job for job in batch if job.pilot not in held] if held else batch
        ends = self._writer.commit(ready) if ready else []
        if len(ready) == len(batch) and not any(ends):
            self._intake.release(batch)
            for group, jobs in itertools.groupby(batch, attrgetter("group")):
                self._tell(group.stored, len(list(jobs)))
            return
        outcomes = dict(zip(map(id, ready), ends, strict=True))
        stuck = [job for job in batch if isinstance(outcomes.get(id(job), DiskTrouble()), DiskTrouble)]
        ended = [job for job in ready if not isinstance(outcomes[id(job)], DiskTrouble)]
        refusal = next((text for text in outcomes.values() if isinstance(text, DiskTrouble)), None)
        self._hold(stuck, refusal)
        self._intake.release(ended)
        for job in ended:
            self._tell(job.group.ended, job.at, outcomes[id(job)])

    def _hold(self, jobs: list[Job], refusal: DiskTrouble | None) -> None:
        if jobs and not self._held:
            self._retry_at = time.monotonic() + RETRY_S
        self._held += jobs
        if refusal is not None and not self._trouble:
            self._trouble = str(refusal)
            self._report(Trouble(str(self._folder), self._trouble, is_over=False))

    def _retry(self) -> None:
        waiting, self._held = self._held, []
        for part in cut(waiting, self._config.batch_items, self._config.batch_bytes):
            self._commit(part)
        if not self._held:
            text, self._trouble = f"all {len(waiting)} entries that had to wait are stored", ""
            self._report(Trouble(str(self._folder), text, is_over=True))

    def _report(self, trouble: Trouble) -> None:
        _logger.info("%s: %s", self._folder, trouble.text)
        try:
            self._config.on_trouble(trouble)
        except Exception:
            self._writer.counts.callback_errors += 1
            _logger.exception("%s: telling of the disk's trouble failed", self._folder)

    def _disappoint(self, jobs: list[Job]) -> None:
        """Tell those who wait for jobs that these won't be stored any more."""
        text = "is not stored: the session was closed before"
        for job in jobs:
            self._tell(job.group.ended, job.at, Abandoned(f"{describe(job.entry)} {text}"))

    def _tell(self, told: Callable[..., None], *what: object) -> None:
        """Tell a group what has become of it: whatever those say who wait for it, the others are told too."""
        try:
            told(*what)
        except Exception:
            self._writer.counts.callback_errors += 1
            _logger.exception("%s: the callback for what was submitted failed", self._folder)

    def _let_go(self) -> None:
        try:
            self._streams.close()
        except (sqlite3.Error, OSError) as cause:
            _logger.warning(
                "%s: Zarr's metadata isn't synced: %s; it is made anew next time", self._folder, cause
            )
        try:
            schema.close_writer(self._connection)
        except sqlite3.Error as cause:
            _logger.warning(
                "%s: closing the database: %s; it is read from its log next time", self._folder, cause
            )
        self._lock.release()
