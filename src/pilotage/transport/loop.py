"""The loop that we run ourselves, where the system has epoll: asyncio's, which waits by a list of ours.

For each thing that happens, asyncio's loop makes the round of all that it knows, and wraps every call. What happens to
our connections, and who wakes us, is told by the list itself, which then waits on; the loop makes its round when there
is something for it.

While it waits it leaves its seat to others: who has the seat does what the loop's thread would do.

Laws of this room: whatever was asked of the loop is done in its next round, and that begins at once; the loop runs in
its seat.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import select
import selectors
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import Context
from time import monotonic
from typing import Any, TypeVarTuple

from pilotage.transport.lookout import READ, WRITE, Lookout, standing_in

_Given = TypeVarTuple("_Given")
Ready = list[tuple[selectors.SelectorKey, int]]


class Loop(asyncio.SelectorEventLoop):
    """An event loop of asyncio's, with a lookout of its own.

    Attributes:
        lookout: watches our connections.
    """

    _bell = -1

    def __init__(self) -> None:
        self._waiting = Waiting(self._failed)
        super().__init__(self._waiting)
        self.lookout = self._waiting.lookout
        self._wanted: deque[Callable[[], object]] = deque()
        self._pid = os.getpid()
        try:
            # Unlike Python's own this doesn't let go of the interpreter: who wakes the loop has more to send, and all
            # of it goes out together.
            self._write = ctypes.PyDLL(None).eventfd_write
            self._write.argtypes = [ctypes.c_int, ctypes.c_uint64]
            self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.lookout.add_bell(self._bell, self._rung)
        except BaseException:
            self.close()
            raise

    def wake_for(self, call: Callable[[], object]) -> None:
        """Call something soon. Any thread.

        Raises:
            RuntimeError: the loop is closed.
        """
        if self._bell < 0:
            raise RuntimeError("the loop is closed")
        self._wanted.append(call)
        self._write(self._bell, 1)

    def stand_in(self, work: Callable[[], None]) -> bool:
        """Do something in the loop's place, while it has nothing to do. Any thread.

        Args:
            work: may do what a call of the loop may, but for what takes long or is somebody else's code.

        Returns:
            False where the loop doesn't wait, or would go on, or didn't know that anybody asks: nothing was done then.
        """
        waiting = self._waiting
        waiting.is_wanted = True
        # A fork's child has the seat, but not the loop; in its debug mode asyncio lets no other thread come near.
        may = not waiting.is_held_up and os.getpid() == self._pid and not self.get_debug()
        if not may or not waiting.seat.acquire(blocking=False):
            return False
        thread = threading.get_ident()
        standing_in.add(thread)
        try:
            work()
            if waiting.is_over:  # something was asked of the loop, which doesn't know yet
                self._write(self._bell, 1)
        finally:
            standing_in.discard(thread)
            waiting.seat.release()
        return True

    def _rung(self) -> None:
        wanted = self._wanted
        try:
            for _ in range(len(wanted)):
                wanted.popleft()()
        finally:
            if wanted:  # one has failed: the others must not wait for somebody else to ring
                self._write(self._bell, 1)

    def run_forever(self) -> None:
        """See asyncio."""
        if self._wanted:  # they had rung when an interrupt ended the last run, and nobody heard it
            self._write(self._bell, 1)
        super().run_forever()

    def call_soon(
        self, callback: Callable[[*_Given], object], *args: *_Given, context: Context | None = None
    ) -> asyncio.Handle:
        """See asyncio."""
        self._waiting.is_over = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Given], object],
        *args: *_Given,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        self._waiting.is_over = True
        return super().call_at(when, callback, *args, context=context)

    def stop(self) -> None:
        """See asyncio."""
        self._waiting.is_over = True
        super().stop()

    def close(self) -> None:
        """See asyncio."""
        if self._bell >= 0 and not self.is_running():  # asyncio refuses to close it then
            bell, self._bell = self._bell, -1
            self.lookout.remove_reader(bell)
            os.close(bell)
        super().close()

    def _failed(self, error: BaseException) -> None:
        self.call_exception_handler({"message": "a call for a connection failed", "exception": error})


class Waiting(selectors.BaseSelector):
    """The list by which a loop waits.

    Args:
        failed: is told what a call for a connection has raised.

    Attributes:
        lookout: watches connections on the same list.
        is_over: the loop has something to do that this list knows nothing of.
        seat: who has it does the loop's work; free only while this list waits.
        is_wanted: somebody has asked for the seat, so that it is left at all.
        is_held_up: the loop would go on, and somebody has its seat.
    """

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._list = select.epoll()
        self._keys = _Keys()
        self._failed = failed
        self.lookout = Lookout(self._list)
        self.is_over = self.is_wanted = self.is_held_up = False
        self.seat = threading.Lock()
        self.seat.acquire()

    def select(self, timeout: float | None = None) -> Ready:
        """Wait until something has happened that the loop watches; tell what has happened to our connections."""
        found: list[tuple[int, int]] = []
        self.is_over = False
        until = None if timeout is None else monotonic() + timeout
        while True:
            happened = self._rest(timeout) if self.is_wanted and timeout != 0 else self._list.poll(timeout)
            self._tell(happened, found)
            if found or self.is_over or not happened:
                return self._ready(found) if found else []
            if until is not None:
                timeout = until - monotonic()
                if timeout <= 0:
                    return []

    def _rest(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait, out of the seat."""
        seat = self.seat
        try:
            seat.release()
            return self._list.poll(timeout)
        finally:
            if not seat.acquire(blocking=False):
                self.is_held_up = True
                seat.acquire()
                self.is_held_up = False

    def _tell(self, happened: list[tuple[int, int]], found: list[tuple[int, int]]) -> None:
        watch = self.lookout
        watch.untold = len(happened)
        for fd, events in happened:
            watch.untold -= 1
            reader = watch.readers.get(fd) if events == READ else None
            try:
                if reader is not None:  # as it usually is
                    reader()
                elif watch.watches(fd):
                    watch.tell(fd, events)
                else:
                    found.append((fd, events))
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as asyncio does: the loop tells of it, and goes on
                self._failed(error)

    def _ready(self, found: list[tuple[int, int]]) -> Ready:
        """Give what has happened to what the loop itself watches, as it watches it after all our calls."""
        ready: Ready = []
        for fd, events in found:
            key = self._keys.by_fd.get(fd)
            if key is not None:
                is_readable, is_writable = bool(events & ~WRITE), bool(events & ~READ)
                mask = is_readable * selectors.EVENT_READ | is_writable * selectors.EVENT_WRITE
                ready.append((key, key.events & mask))
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """See `selectors`."""
        fd = _number(fileobj)
        if fd in self._keys.by_fd:
            raise KeyError(f"{fileobj!r} is watched already")
        self._list.register(fd, _mask(events))
        key = self._keys.by_fd[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """See `selectors`."""
        key = self._keys.by_fd.pop(self._keys[fileobj].fd)
        if not self.lookout.watches(key.fd):  # it was closed before, and its number is one of ours by now
            with contextlib.suppress(OSError):
                self._list.unregister(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """See `selectors`."""
        key = self._keys[fileobj]
        if events != key.events:
            self._list.modify(key.fd, _mask(events))
        key = self._keys.by_fd[key.fd] = key._replace(events=events, data=data)
        return key

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """See `selectors`."""
        return self._keys

    def close(self) -> None:
        """See `selectors`."""
        self._list.close()
        self._keys.by_fd.clear()


class _Keys(Mapping[Any, selectors.SelectorKey]):
    """What is watched, by file or its number."""

    def __init__(self) -> None:
        self.by_fd: dict[int, selectors.SelectorKey] = {}

    def __getitem__(self, fileobj: Any) -> selectors.SelectorKey:
        return self.by_fd[_number(fileobj)]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.by_fd)

    def __len__(self) -> int:
        return len(self.by_fd)


def _number(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else int(fileobj.fileno())


def _mask(events: int) -> int:
    """Say in epoll's words what `selectors` calls readable and writable."""
    return bool(events & selectors.EVENT_READ) * READ | bool(events & selectors.EVENT_WRITE) * WRITE
