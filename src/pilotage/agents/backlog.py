"""Backlog: what came for a record that can't be opened just now, or that is full. It is kept as soon as it can be.

Laws: whoever brings something doesn't wait for the disk, one thread for each session does; what is brought for one
session is kept in its order; nothing is refused because a record was closed: it is put into it once more, and when the
Terminal ends it never ends, so that its message stays unsettled and its sender goes on keeping it. How much waits is
bounded by how much each sender may have unsettled.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pilotage.agents.ports import Archive, NoRoom
from pilotage.protocol.errors import Closed, StoreError

Put = Callable[[Archive], Any]
"""Puts something into a record: gives a Future that ends when it is safe, or None."""

RETRY_S = 1.0
"""How often a record that can't be opened is tried again."""

ROOM_S = 0.05
"""How often a record that is full is tried again."""

TOLD_AFTER_S = 1.0
"""How long a record may be full before anybody is told."""


@dataclass(slots=True, eq=False)
class _Brought:
    session: str
    put: Put
    future: Future[Any] = field(default_factory=Future)


class Backlog:
    """Puts what is brought into its record, at once or later. Any thread.

    Args:
        find: gives the record of a session; raises StoreError while it can't be opened.
        told: is told once when a session's record makes others wait, and once when nothing waits for it any more: its
            name, why, and whether it is over. On the thread that waits for it.
    """

    def __init__(self, find: Callable[[str], Archive], told: Callable[[str, str, bool], object]) -> None:
        self._find, self._told = find, told
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._queues: dict[str, deque[_Brought]] = {}

    def keep(self, session: str, put: Put) -> Future[Any]:
        """Put something into a session's record, behind what waits for it already.

        Returns:
            What ends as what `put` returns does; never if the Terminal ends before.
        """
        brought = _Brought(session, put)
        with self._lock:
            queue = self._queues.get(session)
            if queue is not None:
                queue.append(brought)
                return brought.future
        try:
            self._hand_over(brought)
        except (StoreError, OSError, Closed):
            self._queue(brought)
        return brought.future

    def waits(self, session: str) -> bool:
        """Tell whether anything waits for a session's record."""
        with self._lock:
            return session in self._queues

    def close(self) -> None:
        """Put nothing anywhere any more."""
        self._closing.set()

    def _hand_over(self, brought: _Brought) -> None:
        """Put it into its record.

        Raises:
            StoreError, OSError: the record can't be opened or is full (`NoRoom`).
            Closed: it is ended at this moment, or the Terminal ends.
        """
        archive = self._find(brought.session)
        try:
            result = brought.put(archive)
        except (NoRoom, Closed):
            raise
        except Exception as error:  # noqa: BLE001 - it is at fault itself: whoever brought it is told
            brought.future.set_exception(error)
            return
        if isinstance(result, Future):
            result.add_done_callback(partial(self._ended, brought))
        else:
            brought.future.set_result(result)

    def _ended(self, brought: _Brought, future: Future[Any]) -> None:
        error = future.exception()
        result = future.result() if error is None else None
        if any(isinstance(end, Closed) for end in (error, *(result if isinstance(result, list) else ()))):
            self._queue(brought)  # what was stored of it already isn't stored again
        elif error is not None:
            brought.future.set_exception(error)
        else:
            brought.future.set_result(result)

    def _queue(self, brought: _Brought) -> None:
        session = brought.session
        with self._lock:
            if (queue := self._queues.get(session)) is not None:
                queue.append(brought)
                return
            if self._closing.is_set():
                return
            self._queues[session] = deque([brought])
        threading.Thread(target=self._work, args=(session,), name=f"backlog {session}", daemon=True).start()

    def _work(self, session: str) -> None:
        """Hand over what waits for a session's record until nothing does."""
        began, is_told = time.monotonic(), False
        while (brought := self._first(session)) is not None:
            try:
                self._hand_over(brought)
            except (StoreError, OSError, Closed) as error:
                is_news = not is_told and not isinstance(error, Closed)
                is_full = isinstance(error, NoRoom)
                if is_news and (not is_full or time.monotonic() > began + TOLD_AFTER_S):
                    is_told = True
                    self._told(session, str(error), False)
                if self._closing.wait(ROOM_S if is_full else RETRY_S):
                    return
            else:
                with self._lock:
                    self._queues[session].popleft()
        if is_told:
            self._told(session, "all that waited for its record was handed to it", True)

    def _first(self, session: str) -> _Brought | None:
        with self._lock:
            queue = self._queues[session]
            if not queue:
                del self._queues[session]
                return None
            return queue[0]


def all_of(futures: Sequence[Future[Any]]) -> Future[None]:
    """Give one future for many: it ends when all have, badly if one did, as Closed if one was."""
    joined: Future[None] = Future()
    left, lock = [len(futures)], threading.Lock()

    def one_ended(_: Future[Any]) -> None:
        with lock:
            left[0] -= 1
            is_last = not left[0]
        if is_last:
            errors = [error for future in futures if (error := future.exception()) is not None]
            errors.sort(key=lambda error: not isinstance(error, Closed))
            joined.set_exception(errors[0]) if errors else joined.set_result(None)

    for future in futures:
        future.add_done_callback(one_ended)
    if not futures:
        joined.set_result(None)
    return joined
