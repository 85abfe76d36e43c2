"""ZeroMQ's context, for who uses keys: one for all nodes of a process that only dial, or one of one's own.

Each context has two threads, so that a process with a thousand nodes would have two thousand, and each message would
wake another one. Who speaks in clear needs none.

Law of this room: whoever took a context gives it back once, and whoever is the last closes it.
"""

from __future__ import annotations

import os
import threading

import zmq

from pilotage.transport.forks import keep_free

Context = zmq.Context[zmq.Socket[bytes]]

MAX_SOCKETS = 65_535
"""As many as ZeroMQ allows; it would stop at 1,023, of which a node needs three."""


class SharedContext:
    """A context that is made for the first who takes it and closed by the last who gives it back.

    After a fork the child begins with one of its own: a context's threads stay with the parent.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._users = 0
        self._context: Context | None = None

    def take(self) -> Context:
        """Give the context of this process."""
        with self._lock:
            if self._context is None or self._pid != os.getpid():
                self._context, self._pid, self._users = zmq.Context(), os.getpid(), 0
                self._context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
            self._users += 1
            return self._context

    def give_back(self, context: Context) -> None:
        """Have no more use for it; whoever is the last waits for what all its sockets still send."""
        with self._lock:
            if context is not self._context or self._pid != os.getpid():
                return
            self._users -= 1
            if self._users:
                return
            self._context = None
        context.term()


shared_context = SharedContext()
keep_free(shared_context._lock)
