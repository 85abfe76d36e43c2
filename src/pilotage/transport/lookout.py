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
    """A list of file descriptors that calls as a loop would.

    Args:
        loop: on whose thread everything happens.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
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
        """Watch nothing more."""
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
        for fd, events in self._list.poll(0):
            for kind in (READ, WRITE):
                # One call may have ended what the next would be for.
                call = self._calls.get(fd, {}).get(kind)
                if call is not None and events & ~(READ + WRITE - kind):
                    call[0](*call[1])


def lookout(loop: asyncio.AbstractEventLoop) -> Lookout | asyncio.AbstractEventLoop:
    """Give what watches connections for a loop: a list of our own, or the loop itself."""
    return Lookout(loop) if hasattr(select, "epoll") else loop
