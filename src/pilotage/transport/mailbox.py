"""The mailbox: what other threads leave for the loop to send.

What is sent in a row to one recipient with one key lies in it as one send, for what costs is not the message but the
step. Law of this room: what the loop has taken is not added to any more.
"""

from __future__ import annotations

import threading
from typing import Any

import msgspec

from pilotage.protocol.records import MAX_RUN, MAX_RUN_BYTES
from pilotage.protocol.sends import Pending


class Row(msgspec.Struct, eq=False, gc=False):
    """A send that more messages may join.

    Attributes:
        terms: what a message must have in common with the first one.
        send: what lies in the mailbox.
        first: the first message, as it is appended to the send's handle.
        size: bytes of all bodies.
        count_with_first: how many messages lay in the mailbox once the first one was there.
    """

    terms: object
    send: Pending
    first: Any
    size: int
    count_with_first: int = 1


class Mailbox:
    """Sends in their order, until the loop takes them. Any thread.

    Attributes:
        row: what was left last, while more may join it.
        sends: all that lies here.
    """

    def __init__(self) -> None:
        self.row: Row | None = None
        self.sends: list[Pending] = []
        self._lock = threading.Lock()
        self._before = 0
        self._closed = False

    def leave(self, send: Pending, row: Row | None = None) -> int:
        """Leave a send; as a row, if others may join it.

        Returns:
            How many messages lie here now.
        """
        with self._lock:
            if self.sends:
                self._before += len(self.sends[-1].bodies)
            self.sends.append(send)
            count = self._before + len(send.bodies)
            if row is not None:
                row.count_with_first = count
            self.row = None if self._closed else row
            return count

    def join(self, row: Row, body: bytes, name: str, message: Any) -> int:
        """Add a message to what was left last, if that is this row still, and has room for it.

        Args:
            row: what it has its terms in common with.
            body: its encoded body; it has no frames.
            name: its id.
            message: what is appended to the send's handle.

        Returns:
            Which of the row's messages it is; 0 where it must be left by itself, for the first one isn't added.
        """
        with self._lock:
            send, size = row.send, row.size + len(body)
            at = len(send.bodies)
            if self.row is not row or at >= MAX_RUN or size > MAX_RUN_BYTES:
                return 0
            row.size = size
            send.bodies.append(body)
            send.names.append(name)
            send.handle.append(message)
            return at

    def take(self) -> list[Pending]:
        """Take all that was left."""
        with self._lock:
            sends, self.sends, self.row, self._before = self.sends, [], None, 0
            return sends

    def take_only(self, send: Pending) -> list[Pending]:
        """Take a send if it is all that was left; else nothing."""
        with self._lock:
            if len(self.sends) != 1 or self.sends[0] is not send:
                return []
            sends, self.sends, self.row, self._before = self.sends, [], None, 0
            return sends

    def close(self) -> None:
        """Have nothing added any more to what lies here, for nobody will take it."""
        with self._lock:
            self.row, self._closed = None, True
