"""What a pilot has sent in each session, so that both sides can be compared at its end (COHERE, promise D7)."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilotage.agents.continuous import Series
from pilotage.net.receipt import Receipt
from pilotage.protocol.errors import InvalidMessage
from pilotage.protocol.ledger import Kind, Ledger, LedgerKey, Mark
from pilotage.protocol.settlement import Outcome

MAX_LATENCIES = 100_000
MAX_SESSIONS = 64


TRIALS = "trials"


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
    """One session's sends of one pilot. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        self._ledger = Ledger()
        self._channels: dict[str, Channel] = {}
        self._open = 0

    def add_trial(self, pilot: str, subject: str, trial_num: int, values: Mapping[str, Any]) -> None:
        """Count a message of trial data."""
        with self._lock:
            self._ledger.add(pilot, TRIALS, [subject, trial_num, dict(values)])

    def add_series(self, pilot: str, series: Sequence[Series]) -> None:
        """Count items of streams."""
        with self._lock:
            for one in series:
                self._ledger.add_items(pilot, one.stream, one.timestamps, one.data)

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

    def marks(self) -> list[list[Any]]:
        """Give counts and digests of everything that was sent, for the wire."""
        with self._lock:
            return marks_to_wire(self._ledger.marks())

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
        with self._lock:
            latencies = sorted(one for channel in self._channels.values() for one in channel.latencies)
            channels = {name: one.report(resent.get(name, 0)) for name, one in self._channels.items()}
            return {
                "marks": marks_to_wire(self._ledger.marks()),
                "channels": channels,
                "unsettled": self._open,
                "failed": sum(one["failed"] for one in channels.values()),
                "resent": sum(one["resent"] for one in channels.values()),
                "latency_p50_s": _percentile(latencies, 0.50),
                "latency_p99_s": _percentile(latencies, 0.99),
            }


class Accounts:
    """The accounts of a pilot's latest sessions, by session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accounts: dict[str, Account] = {}

    def of(self, session: str) -> Account:
        """Give a session's account, begun now if there is none; beyond 64 the oldest is forgotten."""
        with self._lock:
            account = self._accounts.get(session)
            if account is None:
                while len(self._accounts) >= MAX_SESSIONS:
                    del self._accounts[next(iter(self._accounts))]
                account = self._accounts[session] = Account()
            return account


def marks_to_wire(marks: Mapping[LedgerKey, Mark]) -> list[list[Any]]:
    """Write marks as lists of [pilot, kind, name, count, digest in hexadecimal]."""
    return [[key.pilot, str(key.kind), key.name, mark.count, mark.digest] for key, mark in marks.items()]


def marks_from_wire(rows: object) -> dict[LedgerKey, Mark]:
    """Read marks.

    Raises:
        InvalidMessage: they are no such lists.
    """
    try:
        return {
            LedgerKey(str(pilot), Kind(kind), str(name)): Mark(int(count), str(digest))
            for pilot, kind, name, count, digest in rows  # type: ignore[attr-defined]
        }
    except (TypeError, ValueError) as error:
        raise InvalidMessage(f"an account's marks can't be read: {error}") from error


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None
