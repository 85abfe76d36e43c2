"""The queue between those who submit and the writer's thread.

Law: it is bounded, and says so when it is full.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from pilotage.protocol.errors import Closed, StoreError
from pilotage.services.store.packing import Job, describe
from pilotage.services.store.trouble import cut


class QueueFull(StoreError):
    """So much waits for the disk that nothing more is taken."""


class Intake:
    """A queue bounded in entries and in bytes, between any threads and one writer.

    Args:
        max_items: Entries that may wait.
        max_bytes: Bytes that may wait; what is larger is taken when nothing else waits.
    """

    def __init__(self, max_items: int, max_bytes: int) -> None:
        """Start empty and open."""
        self._max_items, self._max_bytes = max_items, max_bytes
        self._jobs: deque[Job] = deque()
        self._bytes = 0
        self._taken = 0
        self._open = True
        self._changed = threading.Condition()

    def put(self, jobs: Sequence[Job], timeout_s: float) -> None:
        """Queue jobs in their order, waiting for room for all of them.

        Raises:
            Closed: The store was closed.
            QueueFull: No room within `timeout_s`; none is queued.
        """
        size = sum(job.size for job in jobs)
        with self._changed:
            if jobs and not (self._open and self._has_room(len(jobs), size)):
                self._wait_for_room(jobs, size, timeout_s)
            self._jobs.extend(jobs)
            self._bytes += size
            self._changed.notify_all()

    def _wait_for_room(self, jobs: Sequence[Job], size: int, timeout_s: float) -> None:
        if not self._changed.wait_for(lambda: not self._open or self._has_room(len(jobs), size), timeout_s):
            raise QueueFull(
                f"{describe(jobs[0].entry)} can't be queued: {self._count()} entries ({self._bytes} "
                f"bytes) wait for "
                f"the disk and after {timeout_s} s it is still full: send slower, use a faster disk, "
                f"or a larger queue"
            )
        if not self._open:
            raise Closed(
                f"{describe(jobs[0].entry)} came after the session was closed: open the session again"
            )

    def take(self, max_items: int, max_bytes: int, timeout_s: float | None = None) -> list[Job]:
        """Wait for entries and take what is there, in order; their room is given back by `release`.

        Args:
            max_items: Entries at most.
            max_bytes: Bytes at most, but for a single larger entry.
            timeout_s: How long to wait; for ever if None.

        Returns:
            An empty list if nothing came in time, or it is closed and drained.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or not self._open, timeout_s)
            if len(self._jobs) <= max_items and self._bytes <= max_bytes:  # all, as nearly always
                batch = list(self._jobs)
                self._jobs.clear()
            else:
                batch = next(cut(self._jobs, max_items, max_bytes), [])
                for _ in batch:
                    self._jobs.popleft()
            self._taken += len(batch)
            return batch

    def release(self, batch: list[Job]) -> None:
        """Give the room of jobs back once they have ended."""
        with self._changed:
            self._taken -= len(batch)
            self._bytes -= sum(job.size for job in batch)
            self._changed.notify_all()

    def close(self) -> None:
        """Take no more; what waits is still given out."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def abandon(self) -> list[Job]:
        """Close and give back what waits, so that its senders can be told."""
        self.close()
        with self._changed:
            rest = list(self._jobs)
            self._jobs.clear()
            return rest

    def depth(self) -> tuple[int, int]:
        """Give how many entries wait, and the bytes that wait or are being written."""
        with self._changed:
            return len(self._jobs), self._bytes

    def _count(self) -> int:
        return len(self._jobs) + self._taken

    def _has_room(self, count: int, size: int) -> bool:
        return self._bytes == 0 or (
            self._count() + count <= self._max_items and self._bytes + size <= self._max_bytes
        )
