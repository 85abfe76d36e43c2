"""The line between a station's process and the one that made it: requests down, replies up, and who has died.

Both ends are ours and local: what travels here is pickled. Nothing from the network ever takes this way.
Law of this room: when the parent has gone, the child knows within half a second (promise L3).
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection, wait
from typing import Any

import msgspec

from pilotage.protocol.errors import Closed, StationDied

WATCH_EVERY_S = 0.25

Answer = Callable[[str, dict[str, Any], Callable[[Any], None]], None]
"""Handles a request: its name, its arguments, and where to put the result (or an exception), once."""


class _Request(msgspec.Struct, frozen=True):
    number: int
    name: str
    arguments: dict[str, Any]


class _Reply(msgspec.Struct, frozen=True):
    number: int
    result: Any


class ChildEnd:
    """The end in the station's process."""

    def __init__(self, line: Connection, parent_pid: int, start_method: str) -> None:
        self._line = line
        self._parent_pid = parent_pid
        self._start_method = start_method
        self._writing = threading.Lock()

    def serve(self, answer: Answer, orphaned: Callable[[], None]) -> None:
        """Answer requests on a thread of its own, until the parent closes the line or dies; then call `orphaned`."""
        thread = threading.Thread(target=self._serve, args=(answer, orphaned), name="control", daemon=True)
        thread.start()

    def reply(self, number: int, result: Any) -> None:
        """Send a result up; a parent that has gone needs none."""
        try:
            with self._writing:
                self._line.send(_Reply(number, result))
        except (OSError, ValueError):
            return

    def _serve(self, answer: Answer, orphaned: Callable[[], None]) -> None:
        parent = multiprocessing.parent_process()
        watched: list[Any] = [self._line, *([parent.sentinel] if parent is not None else [])]
        while True:
            ready = wait(watched, WATCH_EVERY_S)
            if self._line in ready:
                try:
                    request = self._line.recv()
                except (EOFError, OSError):
                    break
                self._answer(answer, request)
            elif ready or self._parent_has_gone():
                break
        orphaned()

    def _answer(self, answer: Answer, request: _Request) -> None:
        try:
            answer(request.name, request.arguments, lambda result: self.reply(request.number, result))
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent gets it
            self.reply(request.number, error)

    def _parent_has_gone(self) -> bool:
        # Siblings forked later hold copies of both pipes open, so that no end of file comes; the pid tells.
        return self._start_method == "fork" and os.getppid() != self._parent_pid


class ParentEnd:
    """The end in the process that made the station."""

    def __init__(self, line: Connection, name: str) -> None:
        self._line = line
        self._name = name
        self._writing = threading.Lock()
        self._numbers = 0
        self._open: dict[int, Future[Any]] = {}
        self._has_ended = False
        self.ready: Future[Any] = Future()
        self._died: Callable[[], None] = lambda: None

    def listen(self, died: Callable[[], None]) -> None:
        """Take in replies on a thread of its own; call `died` when the line ends."""
        self._died = died
        threading.Thread(target=self._listen, name=f"control-{self._name}", daemon=True).start()

    def ask(self, name: str, **arguments: Any) -> Future[Any]:
        """Send a request down.

        Raises:
            Closed: the station's process isn't there (any more).
        """
        future: Future[Any] = Future()
        with self._writing:
            self._numbers += 1
            number = self._numbers
            self._open[number] = future
            try:
                if self._has_ended:  # looked at once it is open: before, `_listen` ends what is open
                    raise BrokenPipeError
                self._line.send(_Request(number, name, arguments))
            except (OSError, ValueError) as error:
                self._open.pop(number, None)
                raise Closed(
                    f"the station {self._name} isn't running; start() it, or make a new one"
                ) from error
        return future

    def close(self) -> None:
        """Let go of the line."""
        self._line.close()

    def _listen(self) -> None:
        while True:
            try:
                reply = self._line.recv()
            except (EOFError, OSError, TypeError):
                break
            future = self.ready if reply.number == 0 else self._open.pop(reply.number, None)
            if future is not None and not future.done():
                _resolve(future, reply.result)
        self._has_ended = True
        error = StationDied(f"the process of the station {self._name} has ended")
        for future in [self.ready, *self._open.values()]:
            if not future.done():
                future.set_exception(error)
        self._open.clear()
        self._died()


def _resolve(future: Future[Any], result: Any) -> None:
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)


def make_line() -> tuple[Connection, Connection]:
    """Make the two ends of a line: the parent's and the child's."""
    ours, theirs = multiprocessing.Pipe()
    return ours, theirs
