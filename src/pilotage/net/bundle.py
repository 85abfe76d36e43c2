"""Bundles: messages that were sent in a row, how far they have come and how they have ended.

Law of this room: a message ends once, whoever says so first (promise D1); what ends together is told together, and
what nobody watches costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import msgspec

from pilotage.net.drafting import Draft, as_message
from pilotage.protocol.message import Message
from pilotage.protocol.settlement import Settlement, Stage
from pilotage.transport.forks import keep_free

ACCEPTED, RECEIVED = 1, 2
lock = threading.Lock()
"""For all bundles: whoever begins to watch must not miss an end that comes in this very moment."""
keep_free(lock)


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
        first: the first of them.
        settled_by: the thread that will end them.

    Attributes:
        entries: what each of them is, while it is open, and then its end.
        append: takes in one more; one thread at a time.
        ended: how many have ended.
    """

    __slots__ = ("_reached", "_watchers", "append", "ended", "entries", "key", "settled_by")

    def __init__(self, key: str, first: Message | Draft, settled_by: int = 0) -> None:
        self.key = key
        self.settled_by = settled_by
        self.entries: list[Message | Draft | Settlement] = [first]
        self.append: Callable[[Message | Draft], None] = self.entries.append
        self.ended = 0
        self._reached: bytearray | None = None
        self._watchers: dict[int, Watcher] = {}

    def __getitem__(self, part: slice) -> Part:
        """Give some of its messages."""
        first, end, _ = part.indices(len(self.entries))
        return Part(self, first, end)

    @property
    def open_count(self) -> int:
        """Count those that have not ended."""
        return len(self.entries) - self.ended

    def end_of(self, at: int) -> Settlement | None:
        """Give the end of one, if it has ended."""
        entry = self.entries[at]
        return entry if type(entry) is Settlement else None

    def message(self, at: int, sent: Message | Draft) -> Message:
        """Give what was sent as a message: while it is open the same one to everybody."""
        with lock:
            entry = self.entries[at]
            if isinstance(entry, Settlement):
                return as_message(self.key, sent)
            message = self.entries[at] = as_message(self.key, entry)
            return message

    def open_messages(self, first: int = 0, end: int | None = None) -> Iterator[tuple[Part, Message]]:
        """Give those that have not ended of some of them, one by one. Any thread."""
        for at, entry in enumerate(self.entries[first:end], first):
            if not isinstance(entry, Settlement):
                yield self[at : at + 1], self.message(at, entry)

    def stage(self, at: int) -> Stage:
        """Tell how far one has come."""
        if self.end_of(at) is not None:
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
                self._reached = bytearray(len(self.entries))
            for at in range(first, end):
                self._reached[at] |= step
            watchers = self._watching(first, end) if step == ACCEPTED else {}
        for watcher in watchers.values():
            watcher.tell_accepted()

    def settle(self, first: int, end: int, settlement: Settlement) -> tuple[int, Iterable[Watcher]]:
        """End some of them in the same way, but for those that have ended; give how many, and who is to be told."""
        with lock:
            entries, count = self.entries, end - first
            if not self.ended:
                entries[first:end] = [settlement] * count
            else:
                places = [at for at in range(first, end) if type(entries[at]) is not Settlement]
                count = len(places)
                for at in places:
                    entries[at] = settlement
            self.ended += count
            if count == len(entries):
                watchers, self._watchers = self._watchers, {}
            else:
                watchers = self._watching(first, end)
                for at in watchers:
                    del self._watchers[at]
        return count, watchers.values()

    def _watching(self, first: int, end: int) -> dict[int, Watcher]:
        watchers = self._watchers
        if end - first < len(watchers):
            return {at: watchers[at] for at in range(first, end) if at in watchers}
        return {at: one for at, one in watchers.items() if first <= at < end}


class Part(msgspec.Struct, frozen=True, gc=False):
    """Some messages of a bundle that follow each other."""

    bundle: Bundle
    first: int
    end: int

    def __getitem__(self, part: slice) -> Part:
        """Give some of them."""
        first, end, _ = part.indices(self.end - self.first)
        return Part(self.bundle, self.first + first, self.first + end)

    def settle(self, settlement: Settlement) -> tuple[int, Iterable[Watcher]]:
        """End them; see `Bundle.settle`."""
        return self.bundle.settle(self.first, self.end, settlement)

    def reach(self, step: int) -> None:
        """Note how far they have come; see `Bundle.reach`."""
        self.bundle.reach(self.first, self.end, step)


def as_part(messages: Bundle | Part) -> Part:
    """Give messages as a part of their bundle, which may be all of it."""
    return messages if isinstance(messages, Part) else Part(messages, 0, len(messages.entries))
