"""Count and digest what was recorded, so that two sides can prove that they hold the same.

Law: a tally depends on the values alone, and where order belongs to the thing, on their order: a stream's digest
rolls from item to item, a table's is a sum over its numbered rows, so that a row which comes late spoils nothing.
Neither depends on how it was cut into messages. Each side keeps its own `Ledger`; `compare` names what parts
them. A tally resumes from its stored state, so it can be kept in the transaction of the data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from pilotage.protocol.canonical import Content, canonical, canonical_items, canonical_timestamps
from pilotage.protocol.errors import InvalidMessage
from pilotage.protocol.late import Array

BLOCK = 4096
"""Bytes gathered before they are folded into a digest; the most that a tally's state carries."""

_DIGEST_SIZE = 16
_SUM_END = 1 << (8 * _DIGEST_SIZE)


class Kind(StrEnum):
    """What a tally counts: a table's rows, a stream's items, or the timestamps of these."""

    TABLE = "table"
    STREAM = "stream"
    TIMESTAMP = "timestamp"


class LedgerKey(NamedTuple):
    """Which table or stream of whom is counted.

    Args:
        pilot: Under whose name it is stored.
        kind: What is counted.
        name: The table's or stream's name ("trials" for trial data).
        source: Who numbered the entries: for a table the agent that sent it, for a stream one life of that
            agent, "agent/life". Empty for a sender that numbers nothing, such as an original peer.
    """

    pilot: str
    kind: Kind
    name: str
    source: str = ""

    @property
    def agent(self) -> str:
        """The agent that sent it; empty for one that numbers nothing."""
        return self.source if self.kind is Kind.TABLE else self.source.rpartition("/")[0]

    @property
    def life(self) -> str:
        """The agent's life in which the items of a stream were numbered; empty for tables."""
        return "" if self.kind is Kind.TABLE else self.source.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Mark:
    """What is compared: how many entries, and the digest of all of them in hexadecimal."""

    count: int
    digest: str


@dataclass(frozen=True, slots=True)
class Tally:
    """The state of one count and digest, small enough to be stored with each commit.

    Args:
        count: Entries so far (items for a stream).
        digest: 16 bytes over all whole blocks.
        pending: Fewer than `BLOCK` bytes, not yet folded in.
        form: What the latest items look like (dtype and shape), so that a change of it shows in the digest.
    """

    count: int = 0
    digest: bytes = bytes(_DIGEST_SIZE)
    pending: bytes = b""
    form: bytes = b""

    def mark(self) -> Mark:
        """Give what the other side compares."""
        return Mark(self.count, _fold(self.digest, self.pending).hex())

    def extend(self, count: int, data: bytes | memoryview, form: bytes = b"") -> Tally:
        """Give the tally after `count` more entries whose canonical bytes are `data`."""
        head = self.pending if form == self.form else self.pending + canonical(form)
        digest, pending = _feed(self.digest, head, memoryview(data))
        return Tally(self.count + count, digest, pending, form)


@dataclass(frozen=True, slots=True)
class RowTally:
    """The state of a table's count and digest: a sum, for which the order of the rows is nothing.

    Args:
        count: Rows so far.
        total: The sum of their digests, modulo 2**128.
    """

    count: int = 0
    total: int = 0

    def mark(self) -> Mark:
        """Give what the other side compares."""
        return Mark(self.count, self.digest.hex())

    @property
    def digest(self) -> bytes:
        """The sum as 16 bytes."""
        return self.total.to_bytes(_DIGEST_SIZE, "big")

    def add(self, *digests: bytes) -> RowTally:
        """Give the tally after more rows, whose digests `row_digest` made."""
        total = self.total + sum([int.from_bytes(digest, "big") for digest in digests])
        return RowTally(self.count + len(digests), total % _SUM_END)

    def join(self, other: RowTally) -> RowTally:
        """Give the tally of both one's and the other's rows."""
        return RowTally(self.count + other.count, (self.total + other.total) % _SUM_END)


def row_digest(number: int | None, data: bytes) -> bytes:
    """Digest one row of a table.

    Args:
        number: Its running number; None if its sender numbers nothing.
        data: Its canonical bytes.
    """
    head = b"-;" if number is None else b"%d;" % number
    return hashlib.blake2b(head + data, digest_size=_DIGEST_SIZE).digest()


@dataclass(frozen=True, slots=True)
class Difference:
    """One table or stream in which two ledgers differ.

    Args:
        key: Whose table or stream it is.
        ours: Entries that we hold.
        theirs: Entries that the other side holds.
    """

    key: LedgerKey
    ours: int
    theirs: int

    @property
    def missing(self) -> int:
        """Entries that the other side has and we lack (0 when we hold as many or more)."""
        return max(0, self.theirs - self.ours)

    @property
    def surplus(self) -> int:
        """Entries that we hold beyond those of the other side."""
        return max(0, self.ours - self.theirs)

    def __str__(self) -> str:
        where = f"{self.key.kind} {self.key.name!r} of pilot {self.key.pilot!r}"
        where += f" from {self.key.source}" * (self.key.source not in ("", self.key.pilot))
        counts = f"we hold {self.ours}, the other side {self.theirs}"
        if self.missing:
            return f"{where}: {self.missing} missing ({counts})"
        if self.surplus:
            return f"{where}: {self.surplus} too many ({counts})"
        return f"{where}: the same count of {self.ours}, but other content or another order"


class Ledger:
    """Keep a tally for each table and stream of each pilot; for one thread at a time.

    >>> ours, theirs = Ledger(), Ledger()
    >>> for ledger in (ours, theirs):
    ...     ledger.add("rig_a", "trials", {"trial_num": 0, "choice": "L"})
    >>> theirs.add("rig_a", "trials", {"trial_num": 1, "choice": "R"})
    >>> print(compare(ours.marks(), theirs.marks())[0])
    table 'trials' of pilot 'rig_a': 1 missing (we hold 1, the other side 2)
    """

    def __init__(self, tallies: Mapping[LedgerKey, Tally | RowTally] | None = None) -> None:
        """Start empty, or resume from stored tallies."""
        self._streams: dict[LedgerKey, Tally] = {}
        self._tables: dict[LedgerKey, RowTally] = {}
        for key, tally in (tallies or {}).items():
            if isinstance(tally, RowTally):
                self._tables[key] = tally
            else:
                self._streams[key] = tally
        self._changed: set[LedgerKey] = set()

    def add(self, pilot: str, name: str, value: object, number: int | None = None, source: str = "") -> None:
        """Count one row of a table and add its content.

        Args:
            pilot: Whose row it is.
            name: The table: "trials", "events", "states", "parameters".
            value: Anything that `canonical` takes.
            number: The row's running number, if it has one.
            source: Who numbered it.

        Raises:
            InvalidMessage: The value has no canonical bytes.
        """
        self.add_row(LedgerKey(pilot, Kind.TABLE, name, source), row_digest(number, canonical(value)))

    def add_row(self, key: LedgerKey, digest: bytes) -> None:
        """Count one row of a table whose digest was made already."""
        self.add_rows(key, (digest,))

    def add_rows(self, key: LedgerKey, digests: Sequence[bytes]) -> None:
        """Count rows of a table whose digests were made already."""
        self._tables[key] = self._tables.get(key, RowTally()).add(*digests)
        self._changed.add(key)

    def add_items(
        self, pilot: str, stream: str, timestamps: Sequence[Any] | Array, data: Array, source: str = ""
    ) -> None:
        """Count a stream's items and their timestamps, however they were cut into messages.

        Args:
            pilot: Whose stream it is.
            stream: The stream's name.
            timestamps: One for each item: seconds (float), integers or text.
            data: Items of one dtype, shape (k, *item_shape).
            source: Who numbered them.

        Raises:
            InvalidMessage: Counts differ, or the dtype holds objects.
        """
        if data.ndim == 0 or len(timestamps) != len(data):
            raise InvalidMessage(
                f"stream {stream!r}: {len(timestamps)} timestamps for an array of shape {data.shape}"
            )
        stamps = canonical_timestamps(timestamps)
        self.add_items_canonical(pilot, stream, len(data), stamps, canonical_items(data), source)

    def add_items_canonical(
        self, pilot: str, stream: str, count: int, stamps: bytes, content: Content, source: str = ""
    ) -> None:
        """Count a stream's items whose canonical bytes, and their timestamps', were made already."""
        self._extend(LedgerKey(pilot, Kind.STREAM, stream, source), count, content[1], content[0])
        self._extend(LedgerKey(pilot, Kind.TIMESTAMP, stream, source), count, stamps, b"")

    def count(self, key: LedgerKey) -> int:
        """Give how many entries of a table or stream were counted."""
        tally = self._tables.get(key) or self._streams.get(key)
        return tally.count if tally else 0

    def marks(self) -> dict[LedgerKey, Mark]:
        """Give the count and digest of everything, ready to be sent and compared."""
        marks = {key: tally.mark() for key, tally in self._tables.items()}
        return marks | {key: tally.mark() for key, tally in self._streams.items()}

    def take_changed(self) -> dict[LedgerKey, Tally | RowTally]:
        """Give the tallies that changed since the last call, so that a store writes only these."""
        changed: dict[LedgerKey, Tally | RowTally] = {
            key: self._tables.get(key) or self._streams[key] for key in self._changed
        }
        self._changed.clear()
        return changed

    def _extend(self, key: LedgerKey, count: int, data: bytes | memoryview, form: bytes) -> None:
        self._streams[key] = self._streams.get(key, Tally()).extend(count, data, form)
        self._changed.add(key)


def compare(ours: Mapping[LedgerKey, Mark], theirs: Mapping[LedgerKey, Mark]) -> list[Difference]:
    """Name every table and stream in which two sides differ; an empty list means *complete*.

    Args:
        ours: What the store holds.
        theirs: What the sender says it sent.

    Returns:
        Differences ordered by pilot, kind and name.
    """
    found = []
    for key in sorted(ours.keys() | theirs.keys()):
        nothing = (RowTally() if key[1] == Kind.TABLE else Tally()).mark()
        mine, other = ours.get(key, nothing), theirs.get(key, nothing)
        if mine != other:
            found.append(Difference(LedgerKey(*key), mine.count, other.count))
    return found


def _feed(digest: bytes, head: bytes, data: memoryview) -> tuple[bytes, bytes]:
    if len(head) + len(data) < BLOCK:
        return digest, head + bytes(data)
    while len(head) >= BLOCK:
        digest, head = _fold(digest, head[:BLOCK]), head[BLOCK:]
    start = (BLOCK - len(head)) if head else 0
    if len(data) < start:
        return digest, head + bytes(data)
    if head:
        digest = _fold(digest, head + bytes(data[:start]))
    end = start + (len(data) - start) // BLOCK * BLOCK
    for offset in range(start, end, BLOCK):
        digest = _fold(digest, data[offset : offset + BLOCK])
    return digest, bytes(data[end:])


def _fold(digest: bytes, block: bytes | memoryview) -> bytes:
    state = hashlib.blake2b(digest, digest_size=_DIGEST_SIZE)
    state.update(block)
    return state.digest()
