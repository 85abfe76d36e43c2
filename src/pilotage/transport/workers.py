"""Threads for the listens: in order within a lane, side by side between lanes.

A lane is a flow: one sender, one key. Laws of this room: a lane is run by one thread at a time; a listen that
blocks holds its own lane and one thread, and no more than that.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

IDLE_S = 10.0


class _Lane(Generic[Job]):
    __slots__ = ("jobs", "key", "running")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.jobs: deque[Job] = deque()
        self.running = False


class Workers(Generic[Job, Result]):
    """A pool that grows while lanes wait and shrinks when idle.

    Args:
        name: of its threads.
        run: does the next jobs of a lane; must not raise.
        done: is given each result, in order for each lane, on a worker's thread.
        max_threads: bound; further lanes wait for a thread.
        together: how many jobs of a lane that begins with this one may be done at once.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[list[Job]], Result],
        done: Callable[[Result], None],
        max_threads: int = 64,
        together: Callable[[Job], int] = lambda job: 1,
    ) -> None:
        self._name = name
        self._run = run
        self._done = done
        self._together = together
        self._max_threads = max_threads
        self._lock = threading.Lock()
        self._lanes: dict[Hashable, _Lane[Job]] = {}
        self._ready: SimpleQueue[_Lane[Job] | None] = SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._queued = 0
        self._closed = False

    def submit(self, key: Hashable, job: Job) -> None:
        """Queue a job in its lane. Any thread."""
        self.submit_all([(key, job)])

    def submit_all(self, jobs: Iterable[tuple[Hashable, Job]]) -> None:
        """Queue jobs, each in its lane. Any thread."""
        ready: list[_Lane[Job]] = []
        with self._lock:
            for key, job in jobs:
                lane = self._lanes.get(key)
                if lane is None:
                    lane = self._lanes[key] = _Lane(key)
                lane.jobs.append(job)
                if not lane.running and not self._closed:
                    lane.running = True
                    ready.append(lane)
            for _ in ready:
                self._grow()
                self._queued += 1
        for lane in ready:
            self._ready.put(lane)

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
            threads = list(self._threads)
        for _ in threads:
            self._ready.put(None)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout_s / max(1, len(threads)))

    def _grow(self) -> None:
        # A thread that took a lane counts as idle, and its lane as queued, until it says so under the lock.
        if self._idle > self._queued or len(self._threads) >= self._max_threads:
            return
        thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            try:
                lane = self._ready.get(timeout=IDLE_S)
            except Empty:
                lane = None
            with self._lock:
                self._idle -= 1
                if lane is not None:
                    self._queued -= 1
                elif self._closed or not self._queued:
                    self._threads.discard(threading.current_thread())
                    return
            if lane is not None:
                self._run_lane(lane)

    def _run_lane(self, lane: _Lane[Job]) -> None:
        while True:
            with self._lock:
                if not lane.jobs:
                    lane.running = False
                    self._lanes.pop(lane.key, None)
                    return
                count = min(len(lane.jobs), self._together(lane.jobs[0]))
                jobs = [lane.jobs.popleft() for _ in range(count)]
            self._done(self._run(jobs))
