"""What a pilot has sent in each session, so that both sides can be compared at its end (COHERE, promise D7).

Law: each row of a pilot's name in a session has a running number, from 0, that goes on over the lives of the agent;
each item of a stream has one within a life. Rows of earlier lives are accounted for from the record, streams from the
notes that each life leaves; this life's rows also from memory, should the record be lost.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilotage.agents.continuous import SENT_BY, Series
from pilotage.agents.lives import Lives, source_of
from pilotage.agents.record import Record, RecordedRow
from pilotage.net.receipt import Receipt
from pilotage.protocol.canonical import canonical
from pilotage.protocol.coverage import Claim, claims_to_wire
from pilotage.protocol.errors import InvalidMessage
from pilotage.protocol.ledger import Kind, Ledger, LedgerKey, Mark, RowTally, row_digest
from pilotage.protocol.ranges import Ranges, join, ranges_of, size, subtract
from pilotage.protocol.settlement import Outcome

MAX_LATENCIES = 100_000
MAX_SESSIONS = 64

TRIALS = "trials"
ROW_NUM = "row_num"
UNNUMBERED = ("", None)


@dataclass(slots=True)
class Channel:
    """What became of the messages of one stream, or of the trials."""

    messages: int = 0
    failed: int = 0
    resent: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_LATENCIES))

    def report(self, resent: int) -> dict[str, Any]:
        """Give it for the wire; `resent` counts those that aren't noted yet."""
        latencies = sorted(self.latencies)
        return {
            "messages": self.messages,
            "failed": self.failed,
            "resent": self.resent + resent,
            "latency_p50_s": _percentile(latencies, 0.50),
            "latency_p99_s": _percentile(latencies, 0.99),
        }


class Account:
    """One session's sends of one pilot. Any thread.

    Args:
        session: its name.
        record: what this agent writes down of what it sends.
        agent: its name.
        life: what tells this life of it from others.
    """

    def __init__(self, session: str, record: Record, agent: str, life: str) -> None:
        self._session, self._record, self._agent, self._life = session, record, agent, life
        self.lives = Lives(record.place(session).with_suffix(".streams.json"), agent, life)
        self._noting = threading.Lock()
        self._has_ended = False
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        self._ledger = Ledger()
        self._numbers: dict[str, Ranges] = {}
        self._next: dict[str, int] | None = None
        self._channels: dict[str, Channel] = {}
        self._open = 0

    def begin_rows(self, pilot: str, at_least: int) -> None:
        """Have the next row of a pilot get this number or a higher one, and no row that which one had before.

        Args:
            pilot: under whose name the rows are sent.
            at_least: the number after the last one that the Terminal holds.
        """
        with self._lock:
            following = self._following()
            following[pilot] = max(at_least, following.get(pilot, 0))

    def number_row(self, pilot: str) -> int:
        """Give the next row of a pilot its number."""
        with self._lock:
            following = self._following()
            number = following.get(pilot, 0)
            following[pilot] = number + 1
            return number

    def add_row(self, row: RecordedRow) -> None:
        """Count a message of trial data."""
        with self._lock:
            key = LedgerKey(row.pilot, Kind.TABLE, TRIALS, self._agent)
            self._ledger.add_row(key, digest_of(row))
            self._numbers[row.pilot] = join([*self._numbers.get(row.pilot, ()), (row.number, row.number)])

    def number_items(self, pilot: str, series: Sequence[Series]) -> int | dict[str, int]:
        """Give the numbers of one item's parts, each in its stream: one for all if they agree."""
        source = source_of(self._agent, self._life)
        with self._lock:
            numbers = {
                one.stream: self._ledger.count(LedgerKey(pilot, Kind.STREAM, one.stream, source))
                for one in series
            }
        agreed = set(numbers.values())
        return agreed.pop() if len(agreed) == 1 else numbers

    def add_series(self, pilot: str, series: Sequence[Series]) -> None:
        """Count items of streams."""
        source = source_of(self._agent, self._life)
        with self._lock:
            for one in series:
                self._ledger.add_items(pilot, one.stream, one.timestamps, one.data, source)

    def _following(self) -> dict[str, int]:
        """Give each pilot's next number; read from the record once, under the lock."""
        if self._next is None:
            self._next = {}
            for row in self._record.rows(self._session):
                self._next[row.pilot] = max(row.number + 1, self._next.get(row.pilot, 0))
        return self._next

    def follow(self, receipt: Receipt, channel: str = TRIALS) -> None:
        """Measure how long a send takes to be settled, which for data means stored.

        Args:
            receipt: the send's.
            channel: the stream to which it belongs.
        """
        began = time.monotonic()
        with self._lock:
            self._open += 1
            self._channel(channel).messages += 1
        receipt.add_callback(lambda ended: self._ended(ended, channel, began))

    def note_resent(self, channel: str, count: int) -> None:
        """Note how often messages of a stream were sent again, once it is closed."""
        with self._lock:
            self._channel(channel).resent += count

    def wait_settled(self, timeout_s: float) -> bool:
        """Wait until nothing is open; tell whether it is so."""
        with self._settled:
            return self._settled.wait_for(lambda: not self._open, timeout_s)

    def marks(self) -> dict[LedgerKey, Mark]:
        """Give counts and digests of everything that this life sent."""
        with self._lock:
            return self._ledger.marks()

    def begin_life(self) -> None:
        """Write down that streams begin, in this life of the pilot, perhaps anew."""
        with self._noting:
            self._has_ended = False
            self._note(is_open=True)

    def note_life(self, *, is_open: bool) -> None:
        """Write down how far this life is, for a later one that has to account for it.

        Args:
            is_open: whether streams may go on. Once they have ended they don't, until `begin_life`.
        """
        with self._noting:
            if not (is_open and self._has_ended):
                self._has_ended = not is_open
                self._note(is_open=is_open)

    def _note(self, *, is_open: bool) -> None:
        with self._lock:
            marks, rows = self._ledger.marks(), dict(self._numbers)
        self.lives.note(marks, rows, is_open=is_open)

    def claims(self) -> list[Claim]:
        """Account for everything that was sent, by all lives; reads the whole record."""
        with self._lock:
            marks, numbers = self._ledger.marks(), dict(self._numbers)
        streams = [
            Claim(key, mark, ((0, mark.count - 1),))
            for key, mark in marks.items()
            if key.kind is not Kind.TABLE
        ]
        earlier = [claim for life in self.lives.earlier().values() for claim in life.claims()]
        return [*self._table_claims(marks, numbers), *streams, *earlier]

    def _table_claims(self, marks: Mapping[LedgerKey, Mark], mine: Mapping[str, Ranges]) -> list[Claim]:
        """Add the rows of earlier lives, as the record has them, to those of this life."""
        before: dict[str, dict[int, bytes]] = {}
        for row in self._record.rows(self._session):
            if subtract(((row.number, row.number),), mine.get(row.pilot, ())):
                before.setdefault(row.pilot, {})[row.number] = digest_of(row)
        noted = [life.rows for life in self.lives.earlier().values()]
        claims = []
        for pilot in sorted({*before, *mine, *(pilot for rows in noted for pilot in rows)}):
            key = LedgerKey(pilot, Kind.TABLE, TRIALS, self._agent)
            tally = _tally(marks.get(key))
            for digest in before.get(pilot, {}).values():
                tally = tally.add(digest)
            numbers = join([*ranges_of(sorted(before.get(pilot, {}))), *mine.get(pilot, ())])
            known = join([*numbers, *(pair for rows in noted for pair in rows.get(pilot, ()))])
            if known == numbers:
                claims.append(Claim(key, tally.mark(), numbers))
            else:
                # The record lacks rows of earlier lives: that they were sent is known, but not what was in them.
                claims.append(Claim(key, Mark(size(known), ""), known, is_exact=False))
        return claims

    def _channel(self, name: str) -> Channel:
        return self._channels.setdefault(name, Channel())

    def _ended(self, receipt: Receipt, channel: str, began: float) -> None:
        settlement = receipt.settlement
        with self._lock:
            self._open -= 1
            if settlement is not None and settlement.outcome is Outcome.DELIVERED:
                self._channel(channel).latencies.append(time.monotonic() - began)
            else:
                self._channel(channel).failed += 1
            self._settled.notify_all()

    def report(self, resent: Mapping[str, int]) -> dict[str, Any]:
        """Give our side for the wire: marks, what is open, and for each stream how its messages fared.

        Args:
            resent: how often messages of a stream that isn't closed yet were sent again.
        """
        claims = claims_to_wire(self.claims())
        lives = {life: "open" if known.is_open else "ended" for life, known in self.lives.earlier().items()}
        with self._lock:
            latencies = sorted(one for channel in self._channels.values() for one in channel.latencies)
            channels = {name: one.report(resent.get(name, 0)) for name, one in self._channels.items()}
            return {
                "claims": claims,
                "lives": {**lives, self._life: "present"},
                "channels": channels,
                "unsettled": self._open,
                "failed": sum(one["failed"] for one in channels.values()),
                "resent": sum(one["resent"] for one in channels.values()),
                "latency_p50_s": _percentile(latencies, 0.50),
                "latency_p99_s": _percentile(latencies, 0.99),
            }


class Accounts:
    """The accounts of a pilot's latest sessions, by session; see `Account` for the arguments."""

    def __init__(self, record: Record, agent: str, life: str) -> None:
        self._record, self._agent, self._life = record, agent, life
        self._lock = threading.Lock()
        self._accounts: dict[str, Account] = {}

    def of(self, session: str) -> Account:
        """Give a session's account, begun now if there is none; beyond 64 the oldest is forgotten."""
        with self._lock:
            account = self._accounts.get(session)
            if account is None:
                while len(self._accounts) >= MAX_SESSIONS:
                    del self._accounts[next(iter(self._accounts))]
                account = Account(session, self._record, self._agent, self._life)
                self._accounts[session] = account
            return account


def digest_of(row: RecordedRow) -> bytes:
    """Give a row's digest, as the store makes it of what it holds."""
    return row_digest(row.number, canonical([row.subject, row.trial_num, row.values]))


def data_of(row: RecordedRow, session: str, agent: str) -> dict[str, Any]:
    """Give the value of the DATA message that carries a row.

    Args:
        row: the row.
        session: its session.
        agent: who numbered it.
    """
    who = {"pilot": row.pilot, "subject": row.subject, "trial_num": row.trial_num, "session": session}
    return {**row.values, **who, ROW_NUM: row.number, SENT_BY: agent}


def values_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Give a row's columns without the names that say whose it is, and which."""
    own = {"pilot", "subject", "trial_num", "session"}
    if number_of(row) != UNNUMBERED:
        own |= {ROW_NUM, SENT_BY}
    return {name: item for name, item in row.items() if name not in own}


def number_of(row: Mapping[str, Any]) -> tuple[str, int | None]:
    """Give who numbered a row, and its number; an original peer's row has neither, but may have such columns."""
    sender, number = row.get(SENT_BY), row.get(ROW_NUM)
    is_number = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 1 << 63
    return (sender, number) if isinstance(sender, str) and sender and is_number else UNNUMBERED


def marks_to_wire(marks: Mapping[LedgerKey, Mark]) -> list[list[Any]]:
    """Write marks as lists of [pilot, kind, name, source, count, digest in hexadecimal]."""
    return [
        [key.pilot, str(key.kind), key.name, key.source, mark.count, mark.digest]
        for key, mark in marks.items()
    ]


def marks_from_wire(rows: object) -> dict[LedgerKey, Mark]:
    """Read marks.

    Raises:
        InvalidMessage: they are no such lists.
    """
    try:
        return {
            LedgerKey(str(pilot), Kind(kind), str(name), str(source)): Mark(int(count), str(digest))
            for pilot, kind, name, source, count, digest in rows  # type: ignore[attr-defined]
        }
    except (TypeError, ValueError) as error:
        raise InvalidMessage(f"an account's marks can't be read: {error}") from error


def _tally(mark: Mark | None) -> RowTally:
    return RowTally() if mark is None else RowTally(mark.count, int(mark.digest, 16))


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None
