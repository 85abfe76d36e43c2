"""One transaction for a batch of entries: rows, chunks, message ids and tallies together, or none of them.

Law: only one thread calls `commit`. An entry that can't be stored fails alone; a disk that fails takes a
batch back whole, tries each pilot's part by itself, and leaves the store able to go on. What the disk refused is told
by `DiskTrouble`, so that it can be tried again.
"""

from __future__ import annotations

import itertools
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from pilotage.protocol.errors import StoreError
from pilotage.protocol.ledger import Kind, Ledger, LedgerKey
from pilotage.services.store.entries import (
    Event,
    Parameter,
    Provenance,
    Settled,
    State,
    StreamItems,
    TrialData,
)
from pilotage.services.store.holdings import TRIALS, read_tallies, write_tallies
from pilotage.services.store.numbers import Place, RowNumbers, StreamNumbers, unnumbered
from pilotage.services.store.packing import Group, Job, describe
from pilotage.services.store.runs import Run
from pilotage.services.store.seen import SeenTable
from pilotage.services.store.streams import StreamWriter
from pilotage.services.store.tables import TableWriter
from pilotage.services.store.trouble import DiskTrouble, is_disk_trouble

_logger = logging.getLogger(__name__)

Outcome = StoreError | None


@dataclass(slots=True)
class Counts:
    """What was committed since the session was opened."""

    rows: int = 0
    items: int = 0
    bytes: int = 0
    commits: int = 0
    duplicates: int = 0
    errors: int = 0
    callback_errors: int = 0


class BatchWriter:
    """Turn batches of jobs into commits.

    Args:
        connection: The writer's connection, autocommit off by hand.
        folder: The session's folder, for the texts of errors.
        streams: The writer of streams on the same connection.
    """

    def __init__(self, connection: sqlite3.Connection, folder: Path, streams: StreamWriter) -> None:
        """Read what the database holds."""
        self._connection = connection
        self._folder = folder
        self._streams = streams
        self._tables = TableWriter(connection)
        self._seen = SeenTable(connection)
        self._rows = RowNumbers(connection)
        self._items = StreamNumbers(connection)
        self._ledger = Ledger()
        self._digests: defaultdict[tuple[str, str, str], list[bytes]] = defaultdict(list)
        self._stale = True
        self.counts = Counts()

    def commit(self, batch: Sequence[Job]) -> list[Outcome]:
        """Store a batch and return once it is on the disk.

        Returns:
            For each job None, or why it isn't stored: `DiskTrouble` if it may be later.
        """
        try:
            outcomes = self._transact(batch)
        except Exception as cause:  # noqa: BLE001 - the writer outlives whatever one entry does
            outcomes = self._after_failure(batch, cause)
        if any(outcomes):
            self.counts.errors += sum(not isinstance(outcome, DiskTrouble | None) for outcome in outcomes)
        return outcomes

    def _after_failure(self, batch: Sequence[Job], cause: Exception) -> list[Outcome]:
        _logger.debug("%s: a commit of %d entries failed: %s", self._folder, len(batch), cause)
        self._roll_back()
        pilots = list(dict.fromkeys(job.pilot for job in batch))
        if len(pilots) > 1:
            parts = [[job for job in batch if job.pilot == pilot] for pilot in pilots]
        elif len(batch) > 1 and not is_disk_trouble(cause):
            # One of these entries is to blame: halve them until it stands alone.
            parts = [list(batch[: len(batch) // 2]), list(batch[len(batch) // 2 :])]
        else:
            return [self._failure(job, cause) for job in batch]
        outcomes: dict[int, Outcome] = {}
        for part in parts:
            outcomes |= zip(map(id, part), self._part(part), strict=True)
        return [outcomes[id(job)] for job in batch]

    def _part(self, part: list[Job]) -> list[Outcome]:
        try:
            return self._transact(part)
        except Exception as cause:  # noqa: BLE001 - as above
            return self._after_failure(part, cause)

    def _transact(self, batch: Sequence[Job]) -> list[Outcome]:
        self._reload()
        before = Counts(rows=0)
        self._stale = True
        self._digests.clear()
        self._connection.execute("BEGIN IMMEDIATE")
        outcomes: list[Outcome] = []
        for group, jobs in itertools.groupby(batch, attrgetter("group")):
            outcomes += self._add_group(group, list(jobs), before)
        self._tables.write()
        self._rows.written()
        self._streams.write()
        self._items.write()
        self._seen.write()
        for (pilot, table, source), digests in self._digests.items():
            self._ledger.add_rows(LedgerKey(pilot, Kind.TABLE, table, source), digests)
        write_tallies(self._connection, self._ledger.take_changed())
        self._connection.execute("COMMIT")
        self._streams.committed()
        self._stale = False
        self._count(before)
        return outcomes

    def _add_group(self, group: Group, jobs: list[Job], counts: Counts) -> list[Outcome]:
        """Take in what a batch holds of the jobs of a group, which may be all."""
        run = group.run
        if run is not None and len(run.fields) == len(jobs) and self._add_run(run):
            counts.rows += len(jobs)
            counts.bytes += sum([job.size for job in jobs])
            return [None] * len(jobs)
        return [self._add(job, counts) for job in jobs]

    def _add_run(self, run: Run) -> bool:
        """Take in a run, if all that is stored is before it."""
        flow = self._seen.flow(run.first.boot, run.first.flow)
        if not (flow.is_below(run.first.seq) and self._rows.are_next(run)):
            return False
        self._rows.note_run(run)
        self._tables.add_run(run)
        pilot, source = run.sender
        self._digests[pilot, TRIALS, source] += run.digests
        flow.add(run.first.seq, run.last_seq)
        return True

    def _add(self, job: Job, counts: Counts) -> Outcome:
        if job.failure is not None:
            return job.failure
        message = job.message
        flow = self._seen.flow(message.boot, message.flow) if message is not None else None
        if message is not None and flow is not None and flow.holds(message.seq):
            counts.duplicates += 1
            return None
        try:
            self._store(job, counts)
        except StoreError as cause:
            return StoreError(f"{describe(job.entry)} can't be stored: {cause}")
        if message is not None and flow is not None:
            flow.add(message.seq, message.seq)
        counts.bytes += job.size
        return None

    def _store(self, job: Job, counts: Counts) -> None:
        match job.entry:
            case TrialData():
                if not self._store_trial(job, job.entry):
                    counts.duplicates += 1
                    return
            case StreamItems():
                self._store_items(job, job.entry, counts)
                return
            case Event():
                self._store_row(job, job.entry.pilot, "events")
            case State():
                self._store_row(job, job.entry.pilot, "states")
            case Parameter():
                self._store_row(job, job.entry.pilot, "parameters")
            case Provenance():
                self._tables.add("provenance", job.fields)
            case Settled(boot=boot, flow=flow, below=below):
                if below > 0:
                    self._seen.flow(boot, flow).add(0, below - 1)
        counts.rows += 1

    def _store_trial(self, job: Job, entry: TrialData) -> bool:
        """Store a row; tell whether it was not there yet."""
        fields, digest = job.fields, job.digest
        place = self._rows.place(entry, digest)
        if place is Place.STORED:
            return False
        if place is Place.TAKEN:
            _logger.warning(
                "%s: row %s of %r from %r came with other content than the one that is stored; kept without a number",
                self._folder, entry.row_num, entry.pilot, entry.source,
            )  # fmt: skip
            fields, digest = unnumbered(fields)
        else:
            self._rows.note(entry, digest)
        self._tables.add_message(fields, late=place is Place.LATE)
        self._digests[entry.pilot, TRIALS, entry.source].append(digest)
        return True

    def _store_row(self, job: Job, pilot: str, table: str) -> None:
        self._tables.add(table, job.fields)
        self._digests[pilot, table, ""].append(job.digest)

    def _store_items(self, job: Job, entry: StreamItems, counts: Counts) -> None:
        if job.block is not None:
            self._streams.add(entry.pilot, entry.stream, job.block)
            self._items.add(entry, len(job.block.data))
            count = len(job.block.data)
            self._ledger.add_items_canonical(
                entry.pilot, entry.stream, count, job.digest, job.content, entry.source
            )
            counts.items += count

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._reload()
        except (sqlite3.Error, OSError, StoreError) as cause:
            _logger.warning(
                "%s: reading anew after a failed commit: %s; tried again next time", self._folder, cause
            )

    def _reload(self) -> None:
        if not self._stale:
            return
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._tables.reload()
        self._streams.reload()
        self._seen.reload()
        self._rows.reload()
        self._items.reload()
        self._ledger = Ledger(read_tallies(self._connection))
        self._stale = False

    def _count(self, fresh: Counts) -> None:
        counts = self.counts
        counts.rows += fresh.rows
        counts.items += fresh.items
        counts.bytes += fresh.bytes
        counts.duplicates += fresh.duplicates
        counts.commits += 1

    def _failure(self, job: Job, cause: Exception) -> StoreError:
        if job.failure is not None:
            return job.failure
        text = (
            f"{describe(job.entry)} is not stored in {str(self._folder)!r}: {cause} ({type(cause).__name__})"
        )
        if is_disk_trouble(cause):
            error: StoreError = DiskTrouble(
                f"{text}. Make room or mend the disk: nothing that was confirmed is lost"
            )
        else:
            error = StoreError(text)
        error.__cause__ = cause
        return error
