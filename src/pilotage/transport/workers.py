"""Threads for the listens: in order within a lane, side by side between lanes.

A lane is a flow: one sender, one key. What is submitted together is begun by one thread, for to wake one costs more
than most listens take; where that doesn't get on, `help_out` wakes more of them.

Laws of this room: a lane is run by one thread at a time; a listen that blocks holds its own lane and one thread, and,
as long as somebody calls `help_out`, no more than that.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Job = TypeVar("Job")

IDLE_S = 10.0
KEPT_LANES = 64
"""Beyond so many, a lane in which nothing waits is forgotten."""
HELP_AFTER_S = 0.001
"""How long a lane may wait for a thread that does others first."""


class _Lane(Generic[Job]):
    __slots__ = ("jobs", "key", "running", "since")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.jobs: deque[Job] = deque()
        self.running = False
        self.since = 0.0


_Bell = SimpleQueue["_Lane[Job] | None"]
"""Where a thread that rests is given its next lane; None to end."""


class Workers(Generic[Job]):
    """A pool that grows while lanes wait and shrinks when idle.

    Args:
        name: of its threads.
        run: does the next jobs of a lane; must not raise.
        max_threads: bound; further lanes wait for a thread.
        together: how many jobs of a lane that begins with this one may be done at once.

    Attributes:
        unserved: lanes that wait for a thread.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[list[Job]], None],
        max_threads: int = 64,
        together: Callable[[Job], int] = lambda job: 1,
    ) -> None:
        self._name = name
        self._run = run
        self._together = together
        self._max_threads = max_threads
        self._lock = threading.Lock()
        self._lanes: dict[Hashable, _Lane[Job]] = {}
        self.unserved: deque[_Lane[Job]] = deque()
        self._idle: list[_Bell[Job]] = []
        self._threads: set[threading.Thread] = set()
        self._closed = False

    def submit(self, key: Hashable, job: Job) -> None:
        """Queue a job in its lane. Any thread."""
        self.submit_all([(key, job)])

    def submit_all(self, jobs: Iterable[tuple[Hashable, Job]]) -> None:
        """Queue jobs, each in its lane; wake one thread if some of the lanes have none. Any thread."""
        now = time.monotonic()
        with self._lock:
            is_fresh = False
            for key, job in jobs:
                lane = self._lanes.get(key)
                if lane is None:
                    lane = self._lanes[key] = _Lane(key)
                lane.jobs.append(job)
                if not lane.running and not self._closed:
                    lane.running = is_fresh = True
                    lane.since = now
                    self.unserved.append(lane)
            woken = self._serve(1) if is_fresh else ()
        for bell, lane in woken:
            bell.put(lane)  # not under the lock, which it would want at once

    def help_out(self) -> bool:
        """Wake as many threads again as are at work, if a lane has waited for them for `HELP_AFTER_S`. Any thread.

        Returns:
            True if lanes wait and more threads could help, so that this should be called again.
        """
        late = time.monotonic() - HELP_AFTER_S
        with self._lock:
            count = len(self._threads) - len(self._idle)
            is_late = bool(self.unserved) and self.unserved[0].since <= late
            woken = self._serve(max(1, count)) if is_late else ()
            can_help = bool(self._idle) or len(self._threads) < self._max_threads
        for bell, lane in woken:
            bell.put(lane)
        return can_help and bool(self.unserved)

    def waiting(self) -> int:
        """Count the jobs that have not begun."""
        with self._lock:
            return sum(len(lane.jobs) for lane in self._lanes.values())

    def threads(self) -> int:
        """Count the threads."""
        return len(self._threads)

    def close(self, timeout_s: float) -> None:
        """Let running listens end for a while; those still running then are left to the process's end."""
        with self._lock:
            self._closed = True
            for lane in self._lanes.values():
                lane.jobs.clear()  # what has not begun does not begin any more
            self._lanes.clear()
            self.unserved.clear()
            threads, idle, self._idle = list(self._threads), self._idle, []
        for bell in idle:
            bell.put(None)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout_s / max(1, len(threads)))

    def _serve(self, most: int) -> list[tuple[_Bell[Job], _Lane[Job]]]:
        """Find threads for that many lanes: those that rest since shortest, so that the others come to their end."""
        woken: list[tuple[_Bell[Job], _Lane[Job]]] = []
        for _ in range(min(most, len(self.unserved))):
            if self._idle:
                woken.append((self._idle.pop(), self.unserved.popleft()))
            elif len(self._threads) < self._max_threads:
                self._hire(self.unserved.popleft())
        return woken

    def _hire(self, lane: _Lane[Job]) -> None:
        name = f"{self._name}-{len(self._threads)}"
        thread = threading.Thread(target=self._work, args=(lane,), name=name, daemon=True)
        self._threads.add(thread)
        thread.start()

    def _work(self, first: _Lane[Job]) -> None:
        bell: _Bell[Job] = SimpleQueue()
        lane: _Lane[Job] | None = first
        while lane is not None:
            self._run_lane(lane)
            lane = self._next_lane(bell)
        with self._lock:
            self._threads.discard(threading.current_thread())

    def _next_lane(self, bell: _Bell[Job]) -> _Lane[Job] | None:
        """Take a lane that waits, or rest until there is one; None when it is time to end."""
        with self._lock:
            if self.unserved:
                return self.unserved.popleft()
            if self._closed:
                return None
            self._idle.append(bell)
        try:
            return bell.get(timeout=IDLE_S)
        except Empty:
            with self._lock:
                if bell in self._idle:
                    self._idle.remove(bell)
                    return None
            return bell.get()  # it was chosen in this very moment

    def _run_lane(self, lane: _Lane[Job]) -> None:
        while True:
            with self._lock:
                if not lane.jobs:
                    lane.running = False
                    if len(self._lanes) > KEPT_LANES:
                        self._lanes.pop(lane.key, None)
                    return
                jobs = [lane.jobs.popleft()]
                if lane.jobs:
                    more = min(len(lane.jobs), self._together(jobs[0]) - 1)
                    jobs += [lane.jobs.popleft() for _ in range(more)]
            self._run(jobs)
