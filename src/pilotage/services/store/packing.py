"""Check an entry and bring it into the form in which it is stored, in the thread of whoever submits it.

Law: the caller's values are read before `submit` returns (arrays excepted), so a later change to them
changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import msgspec

from pilotage.protocol.canonical import Content, canonical, canonical_items, canonical_timestamps
from pilotage.protocol.errors import PilotageError, StoreError
from pilotage.protocol.ledger import row_digest
from pilotage.services.store import entries
from pilotage.services.store.entries import Entry, MessageId, TrialData
from pilotage.services.store.forms import Block, block_of
from pilotage.services.store.limits import are_numbers, is_id, is_text
from pilotage.services.store.runs import TEXT, Fields, Run, run_of
from pilotage.services.store.tables import stamp_fields
from pilotage.services.store.values import are_names, columns_to_text, named, plain, to_text

Done = Callable[[StoreError | None], object]
"""Told once an entry is on the disk (None), or why it isn't."""

_OVERHEAD = 512
_CANT = (PilotageError, ValueError, TypeError, OverflowError, RecursionError)
"""What it raises where an entry can't be stored."""


class Group:
    """Entries that were submitted together, and how they have ended. For the store's thread, once they are submitted.

    Args:
        count: How many.
        done: Called once all have ended: for each, None or its error.

    Attributes:
        run: All of them, if they are one.
    """

    __slots__ = ("_done", "_ends", "_left", "run")

    def __init__(self, count: int, done: Callable[[list[StoreError | None]], object]) -> None:
        self._ends: list[StoreError | None] = [None] * count
        self._left = count
        self._done = done
        self.run: Run | None = None

    def stored(self, count: int) -> None:
        """So many more of them are on the disk."""
        self._left -= count
        if not self._left:
            self._done(self._ends)

    def ended(self, at: int, error: StoreError | None) -> None:
        """One of them has ended."""
        self._ends[at] = error
        self.stored(1)


class Job(msgspec.Struct, gc=False):
    """One entry, packed.

    Args:
        entry: What was submitted.
        group: With which others, which are told together.
        at: Its place among them.
        fields: The columns of its row, if it has one.
        digest: For the ledger: a row's digest, or the canonical bytes of timestamps.
        block: A stream's items.
        content: What stands for them in the ledger, made here, for it takes time that the writer hasn't.
        size: Bytes that it takes, about.
        message: The id of its message, if it has one.
        failure: Why it can't be stored, when that shows already.
    """

    entry: Entry
    group: Group
    at: int
    fields: Fields = ()
    digest: bytes = b""
    block: Block | None = None
    content: Content = (b"", b"")
    size: int = _OVERHEAD
    message: MessageId | None = None
    failure: StoreError | None = None

    @property
    def pilot(self) -> str:
        """Whose entry it is; empty for what belongs to the whole session."""
        return getattr(self.entry, "pilot", "")


def pack(entry: Entry, group: Group, at: int = 0) -> Job:
    """Check an entry and bring it into the form in which it is stored; never raises for its content."""
    job = Job(entry, group, at)
    try:
        job.message = getattr(entry, "message", None)
        if type(entry) is TrialData:
            _pack_trial(job, entry)
        else:
            _check(entry)
            _pack(job)
            job.size += len(job.digest) + sum(len(field) for field in job.fields if isinstance(field, str))
    except _CANT as cause:
        job.failure = StoreError(f"{describe(entry)} can't be stored: {cause}")
        job.failure.__cause__ = cause
    return job


def pack_all(entries: Sequence[Entry], group: Group) -> list[Job]:
    """Pack entries that are submitted together, as a run if they are one; see `pack`."""
    with suppress(*_CANT):  # whose row it is shows when each is packed by itself
        run = run_of(entries)
        if run is not None:
            return _pack_run(run, cast("Sequence[TrialData]", entries), group)
    return [pack(entry, group, at) for at, entry in enumerate(entries)]


def describe(entry: Entry) -> str:
    """Name an entry for an error's text."""
    match entry:
        case TrialData():
            return f"trial {entry.trial_num} of pilot {entry.pilot!r} (subject {entry.subject!r})"
        case entries.Event():
            return f"event {entry.name!r} of pilot {entry.pilot!r}"
        case entries.State():
            return f"state {entry.state!r} of pilot {entry.pilot!r}"
        case entries.Parameter():
            return f"parameter {entry.name!r} of pilot {entry.pilot!r}"
        case entries.StreamItems():
            return f"{len(entry.timestamps)} items of stream {entry.stream!r} of pilot {entry.pilot!r}"
        case entries.Provenance():
            return f"provenance {entry.key!r}"
        case entries.Settled():
            return f"the settled numbers of flow {entry.flow}"


def _check(entry: Entry) -> None:
    if isinstance(entry, entries.Settled):
        _check_id(MessageId(entry.boot, entry.flow, max(0, entry.below - 1)))
        return
    if entry.message is not None:
        _check_id(entry.message)
    if isinstance(entry, entries.StreamItems):
        _check_number("first", entry.first)


def _check_number(what: str, number: object) -> None:
    if number is not None and not are_numbers((number,)):
        raise StoreError(f"{what} {number!r} is no integer from 0 to 2**63 - 1")


def _check_id(message: MessageId) -> None:
    if not is_id(message):
        told = message.boot, message.flow, message.seq
        raise StoreError(f"message id {told} has a part out of range (boot 64 bit, flow and seq 63 bit)")


def _pack_trial(job: Job, entry: TrialData) -> None:
    """Check and pack a row, of which there are many."""
    if entry.message is not None:
        _check_id(entry.message)
    _check_number("trial_num", entry.trial_num)
    _check_number("row_num", entry.row_num)
    for text in (entry.pilot, entry.subject or "", entry.source):
        _check_text(text)
    job.fields, job.digest = _row(entry, named(entry.values))
    job.size += len(job.fields[TEXT])


def _pack_run(run: Run, rows: Sequence[TrialData], group: Group) -> list[Job]:
    """Pack the rows of a run, which nothing but their values can speak against any more."""
    jobs = []
    for at, row in enumerate(rows):
        if not run.names.issuperset(row.values):
            if not are_names(row.values):
                raise StoreError("a column's name is no text")
            run.names.update(row.values)
        fields, digest = _row(row, row.values)
        run.fields.append(fields)
        run.digests.append(digest)
        jobs.append(
            Job(row, group, at, fields, digest, size=_OVERHEAD + len(fields[TEXT]), message=row.message)
        )
    group.run = run
    return jobs


def _row(row: TrialData, values: Mapping[str, object]) -> tuple[Fields, bytes]:
    """Give a row's fields, and its digest for the ledger."""
    subject, trial, number = row.subject or "", row.trial_num, row.row_num
    text, has_no_nan = columns_to_text(values)
    digest = row_digest(number, canonical((subject, trial, values), has_no_nan=has_no_nan))
    return (row.pilot, subject, trial, text, row.source, number, *stamp_fields(row.stamp)), digest


def _pack(job: Job) -> None:
    entry = job.entry
    match entry:
        case entries.Event():
            values = named(entry.values)
            job.fields = (entry.pilot, entry.name, columns_to_text(values)[0])
            job.digest = row_digest(None, canonical([entry.name, values]))
        case entries.State():
            job.fields = (entry.pilot, entry.state)
            job.digest = row_digest(None, canonical([entry.state]))
        case entries.Parameter():
            job.fields = (entry.pilot, entry.name, to_text(plain(entry.value)), entry.source)
            job.digest = row_digest(None, canonical([entry.name, entry.value, entry.source]))
        case entries.StreamItems():
            job.block = block_of(entry.subject, entry.timestamps, entry.data)
            job.digest = canonical_timestamps(entry.timestamps)
            job.content = canonical_items(job.block.data)
            job.size += job.block.data.nbytes + job.block.timestamps.nbytes
        case entries.Provenance():
            job.fields = (entry.key, to_text(plain(entry.value)))
        case entries.Settled():
            pass
    _check_texts(entry, job)


def _check_texts(entry: Entry, job: Job) -> None:
    if isinstance(entry, entries.StreamItems):
        texts: tuple[Any, ...] = (entry.pilot, entry.stream, entry.subject or "", entry.source)
    else:
        texts = tuple(field for field in job.fields if not isinstance(field, int | None))
        if not isinstance(entry, entries.Provenance | entries.Settled):
            job.fields += stamp_fields(entry.stamp)
    for text in texts:
        _check_text(text)


def _check_text(text: object) -> None:
    if not is_text(text):
        raise StoreError(f"{text!r} is no text that can be stored")
