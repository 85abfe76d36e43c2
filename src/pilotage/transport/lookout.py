"""Watches many connections for one loop, where the system has epoll.

uvloop says nothing of a connection that ends in the same moment as something comes by it: libuv takes an error for the
end of its watch. The system's own list of what has happened tells all of it, and the loop watches only that list.

Law of this room: it is asked like a loop (`add_reader`, `remove_writer` …), and is left out where there is no epoll.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Any

READ, WRITE = 1, 4
"""EPOLLIN and EPOLLOUT."""


class Lookout:
    """A list of file descriptors that calls as a loop would; all wires of a loop share one.

    Args:
        loop: on whose thread everything happens.

    Attributes:
        users: how many have it; the last one that closes it does close it.
        untold: of what has happened by now, how much is still to be told.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.users = self.untold = 0
        self._loop = loop
        self._list = select.epoll()
        self._calls: dict[int, dict[int, tuple[Callable[..., None], tuple[Any, ...]]]] = {}
        loop.add_reader(self._list.fileno(), self._look)

    def add_reader(self, fd: int, call: Callable[..., None], *given: Any) -> None:
        """Call whenever there is something to read, or an end."""
        self._set(fd, READ, (call, given))

    def add_writer(self, fd: int, call: Callable[..., None], *given: Any) -> None:
        """Call whenever there is room to write."""
        self._set(fd, WRITE, (call, given))

    def remove_reader(self, fd: int) -> None:
        """Call no more for what comes."""
        self._set(fd, READ, None)

    def remove_writer(self, fd: int) -> None:
        """Call no more for room."""
        self._set(fd, WRITE, None)

    def close(self) -> None:
        """Watch nothing more; who has it has let go of all that it watched for him."""
        self.users -= 1
        if self.users:
            return
        del _lookouts[self._loop]
        if not self._loop.is_closed():
            self._loop.remove_reader(self._list.fileno())
        self._list.close()
        self._calls.clear()

    def _set(self, fd: int, kind: int, call: tuple[Callable[..., None], tuple[Any, ...]] | None) -> None:
        calls = self._calls.get(fd, {})
        before = sum(calls)
        if call is None:
            calls.pop(kind, None)
        else:
            calls[kind] = call
        after = sum(calls)
        if after == before:
            return
        if not before:
            self._calls[fd] = calls
            self._list.register(fd, after)
        elif after:
            self._list.modify(fd, after)
        else:
            del self._calls[fd]
            self._list.unregister(fd)

    def _look(self) -> None:
        happened = self._list.poll(0)
        self.untold = len(happened)
        for fd, events in happened:
            self.untold -= 1
            for kind in (READ, WRITE):
                # One call may have ended what the next would be for.
                if events & ~(READ + WRITE - kind) and (call := self._calls.get(fd, {}).get(kind)):
                    call[0](*call[1])


_lookouts: dict[asyncio.AbstractEventLoop, Lookout] = {}


def lookout(loop: asyncio.AbstractEventLoop) -> Lookout | asyncio.AbstractEventLoop:
    """Give what watches connections for a loop: a list of our own, or the loop itself."""
    if not hasattr(select, "epoll"):
        return loop
    if loop not in _lookouts:
        _lookouts[loop] = Lookout(loop)
    _lookouts[loop].users += 1
    return _lookouts[loop]
