"""What a send is, while it is open: as it is under way, and as it is kept.

Messages of one flow that were sent in a row are one thing here, as they are on the wire, until something parts them.
Law of this room: nothing here decides; the outbox does. What there are many of is no concern of the garbage
collector's, which would look at all of them again and again; none of it refers to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace

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


Part = tuple[Place, int, int]
"""Some of what the journal keeps as one: the place of that, of the first of these in its flow, and behind the last."""


class Kept(msgspec.Struct, frozen=True, gc=False):
    """Durable messages that were sent in a row, as the journal keeps them: as one, until all of them are over.

    Attributes:
        place: which message the first one is that was kept here, in every life.
        path: names to reach, the recipient last.
        verb: the messages' key.
        names: the messages' ids.
        marks: see `Marks`.
        bodies: their encoded bodies.
        frames: raw frames of its arrays; a message that has some is kept by itself.
        deadline: when they are given up, in the core's time; `FOREVER` for never.
        offset: how many places behind the first that was kept these begin, where some are over.
    """

    place: Place
    path: tuple[str, ...]
    verb: str
    names: Sequence[str]
    marks: int
    bodies: Sequence[bytes]
    frames: tuple[bytes | memoryview, ...]
    deadline: float = FOREVER
    offset: int = 0

    @property
    def seq(self) -> int:
        """The place of the first of these in their flow."""
        return self.place[2] + self.offset


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


def left_of(kept: Kept, over: Iterable[tuple[int, int]]) -> list[Kept]:
    """Give what is left of messages of which some are over, in as many pieces as these leave.

    Args:
        kept: all that was kept as one.
        over: what of it is over: the place of the first in their flow, and the one behind the last.
    """
    pieces: list[Kept] = []
    at, end = kept.seq, kept.seq + len(kept.bodies)
    for first, behind in (*sorted(over), (end, end)):
        if at < min(first, end):
            pieces.append(_piece(kept, at, min(first, end)))
        at = max(at, min(first, end), behind)
    return pieces


def _piece(kept: Kept, first: int, end: int) -> Kept:
    begin, behind = first - kept.seq, end - kept.seq
    return replace(
        kept,
        names=kept.names[begin:behind],
        bodies=kept.bodies[begin:behind],
        offset=kept.offset + begin,
    )
