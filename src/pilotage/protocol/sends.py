"""What a send is, while it is open: as it is under way, as it is kept, and the flow that it belongs to.

Law of this room: nothing here decides; the outbox does. What there is one of for each message is no concern of the
garbage collector's, which would look at all of them again and again; none of it refers to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
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
        max_waiting: sends of one flow that may wait for the window.
        max_flows: (recipient, key) pairs remembered; beyond it the longest unused empty one is forgotten.
    """

    repeat_interval_s: float = 5.0
    longest_wait_s: float = 60.0
    patience_s: float = 30.0
    window: int = WINDOW
    max_waiting: int = 100_000
    max_flows: int = 10_000


class Pending(msgspec.Struct, gc=False):
    """A send that has not ended: what was asked for, and behind it how far it has come.

    Attributes:
        path: names to reach, the recipient last.
        verb: the message's key.
        body: its encoded body.
        frames: raw frames of its arrays, 0 for none.
        handle: whatever the settlement is to be given to.
        name: the message's id, for texts about it.
        ordered: resend it until received, in the order of its flow (`repeat=True`).
        durable: resend it until settled.
        tries: transmissions at most.
        is_json: the body is an original JSON envelope.
        kept: put it into the journal, so that it outlives this process.
        deadline_s: seconds after which a durable message is given up; None for never.
        seq: its place in its flow.
        marks: see `Marks`.
        wait: seconds until the next transmission.
        deadline: when it is given up.
        due: when it is looked at.
        since: when the window let it through.
        asked: how often it was transmitted.
        received: its recipient has it.
        safe: the journal has it.
    """

    path: tuple[str, ...]
    verb: str
    body: bytes
    frames: Attached | int
    handle: Any
    name: str = ""
    ordered: bool = True
    durable: bool = False
    tries: float = 2
    is_json: bool = False
    kept: bool = False
    deadline_s: float | None = None
    seq: int = 0
    marks: int = 0
    wait: float = 0.0
    deadline: float = FOREVER
    due: float = FOREVER
    since: float = 0.0
    asked: int = 0
    received: bool = False
    safe: bool = False


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A durable send as the journal keeps it.

    Attributes:
        place: which message it is, in every life.
        path: names to reach, the recipient last.
        verb: the message's key.
        name: the message's id.
        marks: see `Marks`.
        body: its encoded body.
        frames: raw frames of its arrays.
        deadline: when it is given up, in the core's time; `FOREVER` for never.
    """

    place: Place
    path: tuple[str, ...]
    verb: str
    name: str
    marks: int
    body: bytes
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
        deadlines: a heap of the deadlines that some of its sends have, each with a place.
        after: the flow of an earlier life that must be over before anything of this one goes.
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
    deadlines: list[tuple[float, int]] = field(default_factory=list)
    after: OutFlow | None = None
    then: list[OutFlow] = field(default_factory=list)
    open: dict[int, Pending] = field(default_factory=dict)

    def under_way(self) -> Iterator[Pending]:
        """Iterate over the open sends that the window has let through, oldest first."""
        return takewhile(lambda pending: pending.seq <= self.sent, self.open.values())

    def count_waiting(self) -> int:
        """Count the open sends that wait for the window."""
        return len(self.open) - sum(1 for _ in self.under_way())

    @property
    def waits(self) -> bool:
        """Tell whether an earlier life's sends must be over first."""
        return self.after is not None and bool(self.after.open or self.after.waits)

    @property
    def key(self) -> FlowKey:
        """What its messages have in common."""
        return self.path, self.verb, self.ordered


def kept_from(pending: Pending, flow: OutFlow) -> Kept:
    """Give a send as the journal keeps it."""
    place = (flow.boot, flow.number, pending.seq)
    frames = tuple(pending.frames.frames) if isinstance(pending.frames, Attached) else ()
    return Kept(
        place, flow.path, flow.verb, pending.name, pending.marks, pending.body, frames, pending.deadline
    )
