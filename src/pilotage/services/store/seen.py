"""Which messages are stored. Law: room grows with the gaps in a flow's numbers, never with its messages."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

_SIGN = 1 << 63


class Seen(NamedTuple):
    """What is stored of one flow.

    Args:
        high: The highest number up to which none is missing since the first stored one; -1 when nothing is.
        ranges: All stored numbers, as sorted (first, last) pairs that neither touch nor overlap.
    """

    high: int
    ranges: tuple[tuple[int, int], ...]

    def __contains__(self, seq: object) -> bool:
        return any(first <= seq <= last for first, last in self.ranges) if isinstance(seq, int) else False


class SeenFlow:
    """Sorted ranges of numbers, with the rows that changed since they were last written."""

    __slots__ = ("changed", "firsts", "lasts")

    def __init__(self) -> None:
        self.firsts: list[int] = []
        self.lasts: list[int] = []
        self.changed: dict[int, int | None] = {}

    def holds(self, seq: int) -> bool:
        """Say whether a number is stored."""
        if self.is_below(seq):  # as nearly always
            return False
        at = bisect_right(self.firsts, seq) - 1
        return at >= 0 and seq <= self.lasts[at]

    def is_below(self, seq: int) -> bool:
        """Say whether all that is stored is below a number."""
        return not self.lasts or seq > self.lasts[-1]

    def add(self, first: int, last: int) -> None:
        """Note the numbers first … last as stored."""
        if self.lasts and first == self.lasts[-1] + 1:  # in order, as nearly always
            self.lasts[-1] = self.changed[self.firsts[-1]] = last
            return
        start = bisect_right(self.firsts, first)
        if start and self.lasts[start - 1] >= first - 1:
            start -= 1
        end = bisect_right(self.firsts, last + 1)
        for gone in self.firsts[start:end]:
            self.changed[gone] = None
        if start < end:
            first, last = min(first, self.firsts[start]), max(last, self.lasts[end - 1])
        self.firsts[start:end], self.lasts[start:end] = [first], [last]
        self.changed[first] = last

    def summary(self) -> Seen:
        """Give what is stored."""
        return Seen(self.lasts[0] if self.lasts else -1, tuple(zip(self.firsts, self.lasts, strict=True)))


class SeenTable:
    """The stored message ids in memory, for the writer's thread alone."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Read what the database holds."""
        self._connection = connection
        self._flows: dict[tuple[int, int], SeenFlow] = {}
        self._dirty: set[tuple[int, int]] = set()
        self.reload()

    def reload(self) -> None:
        """Forget what isn't committed."""
        self._flows, self._dirty = {}, set()
        rows = self._connection.execute(
            "SELECT boot, flow, first, last FROM message_ids ORDER BY boot, flow, first"
        )
        for boot, flow, first, last in rows:
            ranges = self._flows.setdefault((boot + _SIGN, flow), SeenFlow())
            ranges.firsts.append(first)
            ranges.lasts.append(last)

    def flow(self, boot: int, flow: int) -> SeenFlow:
        """Give what is stored of a flow, perhaps in the running transaction, to be asked and added to."""
        key = (boot, flow)
        known = self._flows.get(key)
        if known is None:
            known = self._flows[key] = SeenFlow()
        self._dirty.add(key)
        return known

    def write(self) -> None:
        """Put what changed into the running transaction."""
        gone: list[tuple[int, int, int]] = []
        kept: list[tuple[int, int, int, int]] = []
        for boot, flow in self._dirty:
            changed = self._flows[boot, flow].changed
            gone += [(boot - _SIGN, flow, first) for first, last in changed.items() if last is None]
            kept += [(boot - _SIGN, flow, first, last) for first, last in changed.items() if last is not None]
            changed.clear()
        self._dirty.clear()
        self._connection.executemany(
            "DELETE FROM message_ids WHERE boot = ? AND flow = ? AND first = ?", gone
        )
        self._connection.executemany(
            "INSERT INTO message_ids VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET last = excluded.last", kept
        )

    def summaries(self) -> Iterator[tuple[tuple[int, int], Seen]]:
        """Give every flow with what is stored of it."""
        for key, flow in self._flows.items():
            yield key, flow.summary()
