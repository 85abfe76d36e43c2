"""A connection by a path: a Unix socket, whose two ends may share memory (see `shelves`).

Law of this room: what this adds is a quicker way for large frames; what is sent and in which order stays the same.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

from pilotage.protocol.conversation import Conversation
from pilotage.protocol.errors import MalformedFrame
from pilotage.protocol.records import Frame
from pilotage.protocol.zmtp import X_SHELF
from pilotage.transport.connections import Connection
from pilotage.transport.doors import LOOPBACK
from pilotage.transport.shelves import SHARED_FROM_BYTES, SLOT_BYTES, LentShelf, Shelf, has_shelves

PATH_BUFFER_BYTES = 4 * 1024 * 1024
"""What the system is asked to hold of what goes to a path; it gives what it allows (`net.core.wmem_max`), and doesn't
let it grow as TCP's."""

HAS_SHELF = b"1"
FD_BYTES = array.array("i").itemsize
FD_SPACE_BYTES = socket.CMSG_SPACE(FD_BYTES) if hasattr(socket, "CMSG_SPACE") else 0
INHERITED_BY_NOBODY = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
"""Linux closes a descriptor that came by a socket where another program is started, if it is told to."""


def shelf_told() -> list[bytes]:
    """Give the property that says that we can look at shared memory, as `metadata` gives its own."""
    return [X_SHELF.encode() + b":" + HAS_SHELF] if has_shelves() else []


def make_connection(one: socket.socket, conversation: Conversation, send_buffer_bytes: int = 0) -> Connection:
    """Make the connection that goes with a socket's kind."""
    kind = Connection if one.family == socket.AF_INET else PathConnection
    return kind(one, conversation, send_buffer_bytes)


class PathConnection(Connection):
    """A Unix socket and the conversation on it.

    Args:
        one: the socket, connected or about to be.
        conversation: reads what comes.
        send_buffer_bytes: what the system holds for the other end; 0 for what is best.
    """

    __slots__ = ("_lent", "_may_share", "_shelf")

    def __init__(self, one: socket.socket, conversation: Conversation, send_buffer_bytes: int = 0) -> None:
        super().__init__(one, conversation, send_buffer_bytes)
        self.host = LOOPBACK
        self._may_share = True
        self._shelf: Shelf | None = None
        self._lent: LentShelf | None = None

    def _adjust(self, send_buffer_bytes: int) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes or PATH_BUFFER_BYTES)

    def _receive(self, most: int) -> bytes:
        data, given, _, _ = self.socket.recvmsg(most, FD_SPACE_BYTES, INHERITED_BY_NOBODY)
        if given:
            self._look_at(given)
        return data

    def _receive_into(self, room: memoryview) -> int:
        count, given, _, _ = self.socket.recvmsg_into(
            [room, self._behind], FD_SPACE_BYTES, INHERITED_BY_NOBODY
        )
        if given:
            self._look_at(given)
        return count

    def _look_at(self, given: list[tuple[int, int, bytes]]) -> None:
        """Take the shelf that the other end has brought."""
        fds = array.array("i")
        for level, kind, content in given:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % FD_BYTES])
        for fd in fds:
            if self._lent is not None or not has_shelves():
                os.close(fd)
                continue
            # If it can't be looked at, the first note on it is a fault, and we meet by the port next.
            with contextlib.suppress(OSError, MalformedFrame):
                self._lent = LentShelf(fd)
                self.conversation.fetch = self._lent.take

    def _lay(self, frame: Frame, flags: int) -> bytes | None:
        if not SHARED_FROM_BYTES <= len(frame) <= SLOT_BYTES or not self._may_share:
            return None
        if self._shelf is None:
            try:
                self._may_share = (self.conversation.told or {}).get(X_SHELF) == HAS_SHELF
                self._shelf = Shelf() if self._may_share else None
            except OSError:
                self._may_share = False
        return None if self._shelf is None else self._shelf.put(frame, flags)

    def _send_some(self, pieces: Sequence[Frame] | deque[Frame]) -> int:
        shelf = self._shelf
        if shelf is None or shelf.is_lent:
            return super()._send_some(pieces)
        # It leaves with the next byte, so that it is there before any note that tells of it.
        given: list[tuple[int, int, Any]] = [
            (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [shelf.fd]))
        ]
        count = self.socket.sendmsg(pieces, given)
        shelf.is_lent = True
        return count

    def close(self, linger_s: float = 0.0) -> None:
        """End it; wait for so long until what is unsent has left."""
        super().close(linger_s)
        shelf, self._shelf, self._may_share = self._shelf, None, False
        if shelf is not None:
            shelf.close()
        if self._lent is not None:
            self._lent.close()
