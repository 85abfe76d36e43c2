"""Check an entry and bring it into the form in which it is stored, in the thread of whoever submits it.

Law: the caller's values are read before `submit` returns (arrays excepted), so a later change to them
changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from pilotage.protocol.canonical import Content, canonical, canonical_items, canonical_timestamps
from pilotage.protocol.errors import PilotageError, StoreError
from pilotage.protocol.ledger import row_digest
from pilotage.services.store import entries
from pilotage.services.store.entries import Entry, MessageId
from pilotage.services.store.forms import Block, block_of
from pilotage.services.store.tables import stamp_fields
from pilotage.services.store.values import TAG, plain, to_text

Done = Callable[[StoreError | None], object]
"""Told once an entry is on the disk (None), or why it isn't."""

_OVERHEAD = 512
_2_63, _2_64 = 2**63, 2**64
_PLAIN = frozenset({str, bool, int, float})


class Group:
    """Entries that were submitted together, and how they have ended. For the store's thread alone.

    Args:
        count: How many.
        done: Called once all have ended: for each, None or its error.
    """

    __slots__ = ("_done", "_ends", "_left")

    def __init__(self, count: int, done: Callable[[list[StoreError | None]], object]) -> None:
        self._ends: list[StoreError | None] = [None] * count
        self._left = count
        self._done = done

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
        values: A trial's values as JSON can say them.
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
    fields: tuple[Any, ...] = ()
    values: Mapping[str, Any] | None = None
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
        if type(entry) is entries.TrialData:
            _pack_trial(job, entry)
        else:
            _check(entry)
            _pack(job)
            job.size += len(job.digest) + sum(len(field) for field in job.fields if isinstance(field, str))
    except (PilotageError, ValueError, TypeError, OverflowError, RecursionError) as cause:
        job.failure = StoreError(f"{describe(entry)} can't be stored: {cause}")
        job.failure.__cause__ = cause
    return job


def describe(entry: Entry) -> str:
    """Name an entry for an error's text."""
    match entry:
        case entries.TrialData():
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
    if number is not None and not (type(number) is int and 0 <= number < _2_63):
        raise StoreError(f"{what} {number!r} is no integer from 0 to 2**63 - 1")


def _check_id(message: MessageId) -> None:
    boot, flow, seq = message.boot, message.flow, message.seq
    is_whole = type(boot) is type(flow) is type(seq) is int
    if not (is_whole and 0 <= boot < _2_64 and 0 <= flow < _2_63 and 0 <= seq < _2_63):
        raise StoreError(
            f"message id {(boot, flow, seq)} has a part out of range (boot 64 bit, flow and seq 63 bit)"
        )


def _pack_trial(job: Job, entry: entries.TrialData) -> None:
    """Check and pack a row, of which there are many."""
    subject, trial, number = entry.subject or "", entry.trial_num, entry.row_num
    if entry.message is not None:
        _check_id(entry.message)
    _check_number("trial_num", trial)
    if number is not None:
        _check_number("row_num", number)
    is_text = type(entry.pilot) is type(subject) is type(entry.source) is str
    if not (is_text and (entry.pilot + subject + entry.source).isascii()):
        for one in (entry.pilot, subject, entry.source):
            _check_text(one)
    job.values, text = _as_text(entry.values)
    job.fields = (entry.pilot, subject, trial, text, entry.source, number, *stamp_fields(entry.stamp))
    job.digest = row_digest(number, canonical((subject, trial, entry.values)))
    job.size += len(text)


def _pack(job: Job) -> None:
    entry = job.entry
    match entry:
        case entries.Event():
            job.fields = (entry.pilot, entry.name, to_text(_mapping(entry.values)))
            job.digest = row_digest(None, canonical([entry.name, entry.values]))
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
    if not isinstance(text, str):
        raise StoreError(f"{text!r} is no text")
    if not text.isascii():
        text.encode()


def _as_text(values: Mapping[str, object]) -> tuple[Mapping[str, Any], str]:
    """Give values as JSON can say them, and their text; nearly always they are so already."""
    if type(values) is dict and _PLAIN.issuperset(map(type, values.values())):
        text = to_text(values)
        # Where there is no null, no number was one that JSON can't say.
        if "null" not in text and TAG not in values:
            return values.copy(), text
    found = _mapping(values)
    return found, to_text(found)


def _mapping(values: Mapping[str, object]) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise StoreError(f"values are a {type(values).__name__}, not a mapping of names to values")
    found: dict[str, Any] = {}
    for name, value in cast("Mapping[object, object]", values).items():
        if not isinstance(name, str):
            raise StoreError("a column's name is no text")
        found[name] = plain(value)
    return found
