"""The mailbox: what other threads leave for the loop to send.

What is sent in a row to one recipient with one key lies in it as one send, for what costs is not the message but the
step. Law of this room: what the loop has taken is not added to any more.
"""

from __future__ import annotations

import threading
from typing import Any

from pilotage.protocol.records import MAX_RUN, MAX_RUN_BYTES
from pilotage.protocol.sends import Pending


class Mailbox:
    """Sends in their order, until the loop takes them. Any thread.

    Attributes:
        count: messages that lie here.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sends: list[Pending] = []
        self._last: Pending | None = None
        self._terms: object = None
        self._size: int | None = None
        self.count = 0
        self._closed = False

    def leave(self, send: Pending, terms: object = None) -> None:
        """Leave a send.

        Args:
            send: what to leave.
            terms: what messages must have in common with it to go together with it; None for those of none.
        """
        with self._lock:
            self._sends.append(send)
            self._last = None if self._closed else send
            self._terms, self._size = terms, None
            self.count += len(send.bodies)

    def join(self, terms: object, body: bytes, name: str, message: Any) -> tuple[Any, int] | None:
        """Add a message to what was left last, if it may go together with it.

        Args:
            terms: see `leave`.
            body: its encoded body; it has no frames.
            name: its id.
            message: what is appended to the send's handle.

        Returns:
            The send's handle, and which of its messages this is; None where it must be left by itself.
        """
        with self._lock:
            last = self._last
            if last is None or self._terms != terms:
                return None
            bodies, handle = last.bodies, last.handle
            at = len(bodies)
            size = self._size = (last.size if self._size is None else self._size) + len(body)
            if at >= MAX_RUN or size > MAX_RUN_BYTES:
                return None
            bodies.append(body)
            last.names.append(name)
            handle.append(message)
            self.count += 1
            return handle, at

    def take(self) -> list[Pending]:
        """Take all that was left."""
        with self._lock:
            sends, self._sends, self._last, self.count = self._sends, [], None, 0
            return sends

    def take_only(self, send: Pending) -> list[Pending]:
        """Take a send if it is all that was left; else nothing."""
        with self._lock:
            if len(self._sends) != 1 or self._sends[0] is not send:
                return []
            sends, self._sends, self._last, self.count = self._sends, [], None, 0
            return sends

    def close(self) -> None:
        """Have nothing added any more to what lies here, for nobody will take it."""
        with self._lock:
            self._last, self._closed = None, True
