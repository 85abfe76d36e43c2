"""What a send is, while it is open: as it is under way, as it is kept, and the flow that it belongs to.

Messages of one flow that were sent in a row are one thing here, as they are on the wire, until something parts them.
Law of this room: nothing here decides; the outbox does. What there are many of is no concern of the garbage
collector's, which would look at all of them again and again; none of it refers to itself.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import takewhile
from operator import attrgetter
from typing import Any

import msgspec

from pilotage.protocol.records import Attached, Parcel
from pilotage.protocol.settlement import Settlement

FOREVER = float("inf")
WINDOW = 4096
Emit = Callable[[Parcel], bool]
"""Puts a parcel on its way; False when there is no link for it now."""

Settled = list[tuple[Any, Settlement]]
"""Ended sends: the handle that came with each, and its end."""

Place = tuple[int, int, int]
"""Which message it is: the originator's life, its number for the flow, the place in it."""

_seq_of = attrgetter("seq")

FlowKey = tuple[tuple[str, ...], str, bool]
"""What the messages of a flow have in common: their path, their key, and whether they are ordered."""


@dataclass(frozen=True, slots=True)
class DeliveryRules:
    """How patiently sends are repeated.

    Attributes:
        repeat_interval_s: wait before the first repetition, and between those of a message that isn't durable.
        longest_wait_s: bound of a durable message's growing waits, and of questions after a received message.
        patience_s: how long a message that isn't durable waits for a link to exist at all, and for a word of a
            recipient that had received it.
        window: open places in a flow.
        max_waiting: messages of one flow that may wait for the window.
        max_flows: (recipient, key) pairs remembered; beyond it the longest unused empty one is forgotten.
    """

    repeat_interval_s: float = 5.0
    longest_wait_s: float = 60.0
    patience_s: float = 30.0
    window: int = WINDOW
    max_waiting: int = 100_000
    max_flows: int = 10_000


class Journaled(msgspec.Struct, gc=False):
    """What the journal keeps as one, whatever parts it here: which messages, and how many of them are open."""

    place: Place
    open: int


class Pending(msgspec.Struct, gc=False):
    """Messages that were sent in a row and have not ended: what was asked for, and behind it how far they have come.

    Attributes:
        path: names to reach, the recipient last.
        verb: the messages' key.
        bodies: their encoded bodies, at most `MAX_RUN` of them.
        frames: raw frames of its arrays, 0 for none; a message that has some is sent by itself.
        handle: whatever the settlement is to be given to; of several messages, slices of it stand for some of them.
        names: the messages' ids, for texts about them.
        ordered: resend them until received, in the order of their flow (`repeat=True`).
        durable: resend them until settled.
        tries: transmissions at most.
        is_json: the body is an original JSON envelope.
        kept: put them into the journal, so that they outlive this process.
        journaled: as what the journal keeps them; None if it doesn't.
        deadline_s: seconds after which durable messages are given up; None for never.
        unwatched: nobody can ask for its end any more.
        seq: the place of the first one in its flow.
        marks: see `Marks`.
        wait: seconds until the next transmission.
        deadline: when they are given up.
        due: when they are looked at.
        since: when the window let them through.
        asked: how often they were transmitted.
        received: their recipient has them.
        safe: the journal has them.
    """

    path: tuple[str, ...]
    verb: str
    bodies: list[bytes]
    frames: Attached | int
    handle: Any
    names: list[str]
    ordered: bool = True
    durable: bool = False
    tries: float = 2
    is_json: bool = False
    kept: bool = False
    deadline_s: float | None = None
    unwatched: bool = False
    seq: int = 0
    marks: int = 0
    wait: float = 0.0
    deadline: float = FOREVER
    due: float = FOREVER
    since: float = 0.0
    asked: int = 0
    received: bool = False
    safe: bool = False
    journaled: Journaled | None = None

    @property
    def end(self) -> int:
        """The place behind the last one."""
        return self.seq + len(self.bodies)

    @property
    def size(self) -> int:
        """Bytes of all bodies."""
        return sum(map(len, self.bodies))

    def cut(self, at: int) -> Pending:
        """Give what lies behind so many messages as a send of its own; the others stay."""
        rest = copy(self)
        rest.seq = self.seq + at
        rest.bodies, rest.names, rest.handle = self.bodies[at:], self.names[at:], self.handle[at:]
        self.bodies, self.names, self.handle = self.bodies[:at], self.names[:at], self.handle[:at]
        return rest

    def ends(self, end_of: Callable[[str], Settlement]) -> Settled:
        """Give each message an end that names it."""
        if len(self.names) == 1:
            return [(self.handle, end_of(self.names[0]))]
        return [(self.handle[at : at + 1], end_of(name)) for at, name in enumerate(self.names)]


class Kept(msgspec.Struct, frozen=True, gc=False):
    """Durable messages that were sent in a row, as the journal keeps them: together, until all of them are over.

    Attributes:
        place: which message the first one is, in every life.
        path: names to reach, the recipient last.
        verb: the messages' key.
        names: the messages' ids.
        marks: see `Marks`.
        bodies: their encoded bodies.
        frames: raw frames of its arrays; a message that has some is kept by itself.
        deadline: when they are given up, in the core's time; `FOREVER` for never.
    """

    place: Place
    path: tuple[str, ...]
    verb: str
    names: Sequence[str]
    marks: int
    bodies: Sequence[bytes]
    frames: tuple[bytes | memoryview, ...]
    deadline: float = FOREVER


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


def kept_from(pending: Pending, place: Place) -> Kept:
    """Give messages as the journal keeps them."""
    frames = tuple(pending.frames.frames) if isinstance(pending.frames, Attached) else ()
    return Kept(
        place,
        pending.path,
        pending.verb,
        pending.names,
        pending.marks,
        pending.bodies,
        frames,
        pending.deadline,
    )
