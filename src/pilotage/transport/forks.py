"""Forks: a child has none of its parent's threads, only what they held in that moment.

Law of this room: a lock of the whole process is held by nobody while it forks; those of a station are made in the
process that uses them.
"""

from __future__ import annotations

import os
from typing import Protocol


class Lock(Protocol):
    """A `threading.Lock` or `threading.RLock`."""

    def acquire(self) -> object:
        """Take it."""

    def release(self) -> None:
        """Give it back."""


def keep_free(lock: Lock) -> None:
    """Have a lock of the whole process free in every child that is forked.

    Without it, a fork in the moment in which another thread holds the lock gives the child one that is never opened.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
