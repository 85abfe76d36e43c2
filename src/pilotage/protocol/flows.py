"""Flows: the sends of one originator to one recipient with one key, and how the flows of its lives follow each other.

Laws of this room: a place and a flow's number are given once; an ordered flow waits until those of earlier lives with
its path and key are over (promise D4).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from operator import attrgetter

from pilotage.protocol.records import MAX_RUN, MAX_RUN_BYTES
from pilotage.protocol.sends import FOREVER, Pending, Place

_seq_of = attrgetter("seq")

FlowKey = tuple[tuple[str, ...], str, bool]
"""What the messages of a flow have in common: their path, their key, and whether they are ordered."""


@dataclass(slots=True)
class OutFlow:
    """Sends of one life of ours to one recipient with one key.

    Attributes:
        boot: the life that has sent them: ours, or an earlier one whose journal we go on with.
        number: the flow's, in that life.
        ordered: its messages are handled in their order.
        floor: the lowest place that is open; what is below is over.
        told: the highest floor that went out.
        sent: the highest place that the window has let through.
        deadlines: a heap of the deadlines that some of its sends have, each with its first place and the one behind.
        after: the flow of an earlier life that must be over before anything of this one goes.
        open: its sends, in the order of their places.
        count: messages in them.
    """

    boot: int
    number: int
    path: tuple[str, ...]
    verb: str
    ordered: bool = True
    next_seq: int = 1
    floor: int = 1
    told: int = 1
    sent: int = 0
    life: int = 0
    heard: int = 0
    due: float = FOREVER
    asked_at: float = FOREVER
    deadlines: list[tuple[float, int, int]] = field(default_factory=list)
    after: OutFlow | None = None
    then: list[OutFlow] = field(default_factory=list)
    open: list[Pending] = field(default_factory=list)
    count: int = 0

    def under_way(self) -> Iterator[Pending]:
        """Iterate over the open sends that the window has let through, oldest first."""
        return takewhile(lambda pending: pending.seq <= self.sent, self.open)

    def count_waiting(self) -> int:
        """Count the open messages that wait for the window."""
        return self.count - sum([len(pending.bodies) for pending in self.under_way()])

    def add(self, pending: Pending) -> None:
        """Have a send open, whose place lies behind those of all others."""
        self.open.append(pending)
        self.count += len(pending.bodies)

    def journaled_at(self, place: Place) -> Iterator[Pending]:
        """Iterate over what is open of the messages that the journal keeps as one, by the place of the first."""
        at = bisect_left(self.open, place[2], key=_seq_of)
        while at < len(self.open):
            pending = self.open[at]
            if pending.journaled is None or pending.journaled.place != place:
                break
            yield pending
            at += 1

    def find(self, place: int) -> Pending | None:
        """Give the open send that has a message at a place."""
        at = bisect_right(self.open, place, key=_seq_of) - 1
        if at < 0:
            return None
        pending = self.open[at]
        return pending if place < pending.seq + len(pending.bodies) else None

    def holds(self, first: int, end: int) -> bool:
        """Tell whether something is open from one place to before another."""
        at = bisect_left(self.open, end, key=_seq_of) - 1
        return at >= 0 and self.open[at].end > first

    def part(self, first: int, end: int) -> list[Pending]:
        """Give the open sends from one place to before another; what reaches over these is cut there."""
        if first >= end or not self.open:
            return []
        if self._lies_within(first, end):
            return self.open[:]
        return self.open[self._cut_at(first) : self._cut_at(end)]

    def take(self, first: int, end: int) -> list[Pending]:
        """Give the open sends from one place to before another, which are open no more."""
        if first >= end or not self.open:
            return []
        if self._lies_within(first, end):
            taken, self.open, self.count = self.open, [], 0
            return taken
        begin, behind = self._cut_at(first), self._cut_at(end)
        taken = self.open[begin:behind]
        del self.open[begin:behind]
        self.count -= sum([len(pending.bodies) for pending in taken])
        return taken

    def _lies_within(self, first: int, end: int) -> bool:
        """Tell whether all that is open does, which is usual."""
        last = self.open[-1]
        return first <= self.open[0].seq and last.seq + len(last.bodies) <= end

    def _cut_at(self, place: int) -> int:
        """Have no send reach over a place; tell how many lie before it."""
        at = bisect_left(self.open, place, key=_seq_of)
        if at and self.open[at - 1].end > place:
            before = self.open[at - 1]
            self.open.insert(at, before.cut(place - before.seq))
        return at

    @property
    def waits(self) -> bool:
        """Tell whether an earlier life's sends must be over first."""
        return self.after is not None and bool(self.after.open or self.after.waits)

    @property
    def key(self) -> FlowKey:
        """What its messages have in common."""
        return self.path, self.verb, self.ordered


class Flows:
    """The flows of one originator: those of its own life, and those of earlier ones that are not over.

    Args:
        boot: its own life.
        most: paths and keys that are remembered.
    """

    def __init__(self, boot: int, most: int) -> None:
        self._boot = boot
        self._most = most
        self._numbers = 0
        self._newest: dict[FlowKey, OutFlow] = {}
        self._by_number: dict[tuple[int, int], OutFlow] = {}

    def __iter__(self) -> Iterator[OutFlow]:
        return iter(self._by_number.values())

    def find(self, boot: int, number: int) -> OutFlow | None:
        """Give the flow of a life that has a number."""
        return self._by_number.get((boot, number))

    def own(self, key: FlowKey) -> OutFlow | None:
        """Give the flow of our own life with a path and key, if there is one."""
        flow = self._newest.get(key)
        return flow if flow is not None and flow.boot == self._boot else None

    def begin(self, key: FlowKey) -> OutFlow:
        """Begin a flow of our own life; where there are too many, the oldest in which nothing is open is forgotten."""
        if len(self._newest) >= self._most:
            self._forget_unused()
        self._numbers += 1
        flow = OutFlow(self._boot, self._numbers, *key)
        self._by_number[self._boot, flow.number] = flow
        self._queue_behind(flow)
        return flow

    def put_before_own(self, earlier: Iterable[OutFlow]) -> None:
        """Take in flows of earlier lives, in their order; what this life has begun already comes after all of them."""
        own = {key: flow for key, flow in self._newest.items() if flow.boot == self._boot}
        for flow in earlier:
            self._by_number[flow.boot, flow.number] = flow
            if self._newest.get(flow.key) is own.get(flow.key):
                self._newest.pop(flow.key, None)
            self._queue_behind(flow)
        for key, flow in own.items():
            if self._newest[key] is not flow:
                self._queue_behind(flow)

    def remove(self, flow: OutFlow) -> list[OutFlow]:
        """Forget an earlier life's flow, which is over; give those that have waited for it."""
        del self._by_number[flow.boot, flow.number]
        if self._newest.get(flow.key) is flow:
            del self._newest[flow.key]
        for one in flow.then:
            one.after = None
        return flow.then

    def _queue_behind(self, flow: OutFlow) -> None:
        """Make a flow the newest of its path and key; an ordered one waits for those of earlier lives."""
        earlier = self._newest.get(flow.key)
        if earlier is not None and flow.ordered:
            flow.after = earlier
            earlier.then.append(flow)
        self._newest[flow.key] = flow

    def _forget_unused(self) -> None:
        """Forget the oldest flow in which nothing is open; its number is never given again."""
        for key, flow in self._newest.items():
            if not flow.open:
                del self._newest[key], self._by_number[flow.boot, flow.number]
                return


def runs_of(sends: list[Pending], now: float) -> Iterable[list[Pending]]:
    """Put what may be transmitted into runs: messages that follow each other and may share a parcel."""
    if len(sends) == 1 and sends[0].asked < sends[0].tries and sends[0].deadline > now:
        return (sends,)  # as is usual
    return _parted(sends, now)


def _parted(sends: Iterable[Pending], now: float) -> Iterator[list[Pending]]:
    run: list[Pending] = []
    size = count = place = marks = asked = 0
    for pending in sends:
        if pending.asked >= pending.tries or pending.deadline <= now:
            continue
        size += pending.size
        count += len(pending.bodies)
        if (
            pending.seq == place
            and pending.marks == marks
            and pending.asked == asked
            and size <= MAX_RUN_BYTES
            and count <= MAX_RUN
            and not pending.frames
        ):
            run.append(pending)
            place = pending.end
            continue
        if run:
            yield run
        run, size, count, asked = [pending], pending.size, len(pending.bodies), pending.asked
        place, marks = (pending.end, pending.marks) if not pending.frames else (0, 0)
    if run:
        yield run
