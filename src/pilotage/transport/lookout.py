"""Watches many connections for one loop, where the system has epoll: a list of our own, which a loop watches.

uvloop says nothing of a connection that ends in the same moment as something comes by it: libuv takes an error for the
end of its watch. The system's own list of what has happened tells all of it. The loops that we start ourselves need no
second list (see `loop`); this one is for those that were there before us.

Law of this room: it is asked like a loop (`add_reader`, `remove_writer` …), and is left out where there is no epoll.
"""

from __future__ import annotations

import asyncio
import select
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from pilotage.protocol.errors import MisuseError

READ, WRITE = 1, 4
"""EPOLLIN and EPOLLOUT."""

standing_in: set[int] = set()
"""The threads that do something in a loop's place."""


def is_standing_in() -> bool:
    """Tell whether the calling thread does something in a loop's place."""
    return threading.get_ident() in standing_in


def refuse_standing_in() -> None:
    """See that nobody waits for a loop in whose place he is: code that Python calls in the middle of a send.

    Raises:
        MisuseError: he would wait for ever.
    """
    if standing_in and is_standing_in():
        raise MisuseError(
            "this was called while a send of the same thread was under way, as Python calls finalizers: it can't wait "
            "for the network there; do so from a thread of its own"
        )


class Lookout:
    """File descriptors on a list, each with what is called for it as a loop would; all wires of a loop share one.

    Args:
        watched: the list.

    Attributes:
        users: how many have it.
        untold: of what has happened by now, how much is still to be told.
        readers: what is called for each descriptor when there is something to read.
        writers: what is called for each when there is room to write.
    """

    def __init__(self, watched: select.epoll) -> None:
        self.users = self.untold = 0
        self.readers: dict[int, Callable[[], object]] = {}
        self.writers: dict[int, Callable[[], object]] = {}
        self._list = watched

    def add_reader(self, fd: int, call: Callable[..., None], *given: Any) -> None:
        """Call whenever there is something to read, or an end."""
        self._set(self.readers, fd, partial(call, *given))

    def add_writer(self, fd: int, call: Callable[..., None], *given: Any) -> None:
        """Call whenever there is room to write."""
        self._set(self.writers, fd, partial(call, *given))

    def add_bell(self, fd: int, call: Callable[[], None]) -> None:
        """Call once for whatever was written to an eventfd by then, which need not be read."""
        self.readers[fd] = call
        self._list.register(fd, READ | select.EPOLLET)

    def remove_reader(self, fd: int) -> None:
        """Call no more for what comes."""
        self._set(self.readers, fd, None)

    def remove_writer(self, fd: int) -> None:
        """Call no more for room."""
        self._set(self.writers, fd, None)

    def close(self) -> None:
        """Watch nothing more; who has it has let go of all that it watched for him."""
        self.users -= 1

    def watches(self, fd: int) -> int:
        """Tell for what a descriptor is watched; 0 if it isn't."""
        return (fd in self.readers) * READ + (fd in self.writers) * WRITE

    def _set(
        self, calls: dict[int, Callable[[], object]], fd: int, call: Callable[[], object] | None
    ) -> None:
        before = self.watches(fd)
        if call is None:
            calls.pop(fd, None)
        else:
            calls[fd] = call
        after = self.watches(fd)
        if after == before or self._list.closed:
            return
        if not before:
            self._list.register(fd, after)
        elif after:
            self._list.modify(fd, after)
        else:
            self._list.unregister(fd)

    def tell(self, fd: int, events: int) -> None:
        """Call for what has happened to one of the descriptors."""
        # One call may have ended what the next would be for.
        for calls, others in ((self.readers, WRITE), (self.writers, READ)):
            if events & ~others and (call := calls.get(fd)):
                call()


class ListInLoop(Lookout):
    """A list of its own, which a loop watches that knows nothing of it; the last user closes it.

    Args:
        loop: on whose thread everything happens.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(select.epoll())
        self._loop = loop
        loop.add_reader(self._list.fileno(), self._look)

    def close(self) -> None:
        """Watch nothing more; who has it has let go of all that it watched for him."""
        super().close()
        if self.users:
            return
        del _lists[self._loop]
        if not self._loop.is_closed():
            self._loop.remove_reader(self._list.fileno())
        self._list.close()
        self.readers.clear()
        self.writers.clear()

    def _look(self) -> None:
        happened = self._list.poll(0)
        self.untold = len(happened)
        for fd, events in happened:
            self.untold -= 1
            self.tell(fd, events)


_lists: dict[asyncio.AbstractEventLoop, ListInLoop] = {}


def lookout(loop: asyncio.AbstractEventLoop) -> Lookout | asyncio.AbstractEventLoop:
    """Give what watches connections for a loop: the loop's own list, one for it, or the loop itself."""
    found = getattr(loop, "lookout", None) or _lists.get(loop)
    if not isinstance(found, Lookout):
        if not hasattr(select, "epoll"):
            return loop
        found = _lists[loop] = ListInLoop(loop)
    found.users += 1
    return found


def waker(loop: asyncio.AbstractEventLoop) -> Callable[[Callable[[], object]], object]:
    """Give what has a loop call something soon, from any thread; raises RuntimeError once it is closed."""
    return getattr(loop, "wake_for", loop.call_soon_threadsafe)


def stand_in(loop: asyncio.AbstractEventLoop) -> Callable[[Callable[[], None]], bool]:
    """Give what does something in a loop's place while it waits (see `loop`); a loop that isn't ours lets nobody."""
    return getattr(loop, "stand_in", lambda work: False)
