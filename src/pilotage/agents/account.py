"""What a pilot has sent in each session, so that both sides can be compared at its end (COHERE, promise D7)."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from pilotage.agents.continuous import Series
from pilotage.net.receipt import Receipt
from pilotage.protocol.errors import InvalidMessage
from pilotage.protocol.ledger import Kind, Ledger, LedgerKey, Mark
from pilotage.protocol.settlement import Outcome

MAX_LATENCIES = 100_000
MAX_SESSIONS = 64


class Account:
    """One session's sends of one pilot. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ledger = Ledger()
        self._latencies: deque[float] = deque(maxlen=MAX_LATENCIES)
        self._open = 0
        self._failed = 0

    def add_trial(self, pilot: str, subject: str, trial_num: int, values: Mapping[str, Any]) -> None:
        """Count a message of trial data."""
        with self._lock:
            self._ledger.add(pilot, "trials", [subject, trial_num, dict(values)])

    def add_series(self, pilot: str, series: Sequence[Series]) -> None:
        """Count items of streams."""
        with self._lock:
            for one in series:
                self._ledger.add_items(pilot, one.stream, one.timestamps, one.data)

    def follow(self, receipt: Receipt) -> None:
        """Measure how long a send takes to be settled, which for data means stored."""
        began = time.monotonic()
        with self._lock:
            self._open += 1
        receipt.add_callback(lambda ended: self._ended(ended, began))

    def _ended(self, receipt: Receipt, began: float) -> None:
        settlement = receipt.settlement
        with self._lock:
            self._open -= 1
            if settlement is not None and settlement.outcome is Outcome.DELIVERED:
                self._latencies.append(time.monotonic() - began)
            else:
                self._failed += 1

    def report(self) -> dict[str, Any]:
        """Give our side for the wire: marks, what is open, and the latencies' percentiles in seconds."""
        with self._lock:
            latencies = sorted(self._latencies)
            marks = marks_to_wire(self._ledger.marks())
            return {
                "marks": marks,
                "unsettled": self._open,
                "failed": self._failed,
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
