"""Bundles: messages that were sent in a row, how far they have come and how they have ended.

Law of this room: a message ends once, whoever says so first (promise D1); what ends together is told together, and
what nobody watches costs nothing.
"""

from __future__ import annotations

import threading
from typing import Protocol

import msgspec

from pilotage.net.drafting import Draft, as_message
from pilotage.protocol.message import Message
from pilotage.protocol.settlement import Settlement, Stage

ACCEPTED, RECEIVED = 1, 2
lock = threading.Lock()
"""For all bundles: whoever begins to watch must not miss an end that comes in this very moment."""


class Watcher(Protocol):
    """Somebody who waits for one message's end."""

    def tell_end(self) -> None:
        """It is there."""

    def tell_accepted(self) -> None:
        """The journal has it."""


class Bundle:
    """Messages that were sent in a row, from the first one on.

    Args:
        key: theirs.
        settled_by: the thread that will end them.

    Attributes:
        messages: what they are, while one of them is open.
        ends: how each has ended; None while it is open.
    """

    __slots__ = ("_reached", "_watchers", "ends", "key", "messages", "settled_by")

    def __init__(self, key: str, settled_by: int = 0) -> None:
        self.key = key
        self.settled_by = settled_by
        self.messages: list[Message | Draft] = []
        self.ends: list[Settlement | None] = []
        self._reached: bytearray | None = None
        self._watchers: dict[int, Watcher] = {}

    def __getitem__(self, part: slice) -> Part:
        """Give some of its messages."""
        first, end, _ = part.indices(len(self.ends))
        return Part(self, first, end)

    @property
    def is_over(self) -> bool:
        """Tell whether all of them have ended."""
        return None not in self.ends

    @property
    def open_count(self) -> int:
        """Count those that have not ended."""
        return self.ends.count(None)

    def add(self, message: Message | Draft) -> int:
        """Take in one more, and tell which it is. One thread at a time."""
        at = len(self.ends)
        self.messages.append(message)
        self.ends.append(None)
        return at

    def message(self, at: int, sent: Message | Draft) -> Message:
        """Give what was sent as a message: while the bundle is open the same one to everybody."""
        with lock:
            messages = self.messages
            message = as_message(self.key, messages[at] if messages else sent)
            if messages:
                messages[at] = message
        return message

    def stage(self, at: int) -> Stage:
        """Tell how far one has come."""
        if self.ends[at] is not None:
            return Stage.SETTLED
        reached = self._reached[at] if self._reached is not None else 0
        return Stage.RECEIVED if reached & RECEIVED else Stage.ACCEPTED if reached else Stage.SENT

    def is_accepted(self, at: int) -> bool:
        """Tell whether the journal has one."""
        return self._reached is not None and bool(self._reached[at] & ACCEPTED)

    def watch(self, at: int, watcher: Watcher) -> None:
        """Have somebody told of one, which is open. Under the lock."""
        self._watchers[at] = watcher

    def reach(self, first: int, end: int, step: int) -> None:
        """Note how far some of them have come: `ACCEPTED` or `RECEIVED`."""
        with lock:
            if self._reached is None:
                self._reached = bytearray(len(self.ends))
            for at in range(first, end):
                self._reached[at] |= step
            watchers = [one for at, one in self._watchers.items() if first <= at < end]
        if step == ACCEPTED:
            for watcher in watchers:
                watcher.tell_accepted()

    def settle(self, first: int, end: int, settlement: Settlement) -> int:
        """End some of them in the same way, but for those that have ended; tell how many it was."""
        with lock:
            ends, count = self.ends, end - first
            if ends[first:end].count(None) == count:
                ends[first:end] = [settlement] * count
            else:
                places = [at for at in range(first, end) if ends[at] is None]
                count = len(places)
                for at in places:
                    ends[at] = settlement
            if None not in ends:
                self.messages = []
            watchers = self._leave(first, end) if self._watchers else ()
        for watcher in watchers:
            watcher.tell_end()
        return count

    def _leave(self, first: int, end: int) -> list[Watcher]:
        return [self._watchers.pop(at) for at in list(self._watchers) if first <= at < end]


class Part(msgspec.Struct, frozen=True, gc=False):
    """Some messages of a bundle that follow each other."""

    bundle: Bundle
    first: int
    end: int

    def __getitem__(self, part: slice) -> Part:
        """Give some of them."""
        first, end, _ = part.indices(self.end - self.first)
        return Part(self.bundle, self.first + first, self.first + end)

    def settle(self, settlement: Settlement) -> int:
        """End them, and tell how many it was; see `Bundle.settle`."""
        return self.bundle.settle(self.first, self.end, settlement)

    def reach(self, step: int) -> None:
        """Note how far they have come; see `Bundle.reach`."""
        self.bundle.reach(self.first, self.end, step)
