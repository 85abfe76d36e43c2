"""One connection in clear: a plain socket, and the ZMTP conversation on it.

Law of this room: no call waits for the network, but for `close`, which has a moment to get rid of what is unsent.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice

from pilotage.protocol.conversation import Conversation
from pilotage.protocol.instructions import Card, Link
from pilotage.protocol.records import Frame
from pilotage.protocol.zmtp import MORE, frame_head

READ_BYTES = 64 * 1024
HEAD_BYTES = 1024
"""What is read together with the rest of a long frame: the next one's head, and little of what would be copied."""
READ_AT_ONCE = 1024 * 1024
READS_AT_END = 64
TRANSMISSIONS_AT_ONCE = 256
JOINED_BYTES = 16 * 1024
"""Up to here a frame and its head are joined: two pieces cost more than a copy."""
HEADS = [frame_head(size) for size in range(1024)]
"""Of small messages, with which most transmissions are done."""
MAX_PIECES = 512
"""What is given to the system in one go; it takes 1,024 at least."""
GATHERS = hasattr(socket.socket, "sendmsg")
"""Whether the system takes and gives several pieces at once; Windows doesn't."""


class Connection:
    """A socket and the conversation on it.

    Args:
        one: the socket, connected or about to be.
        conversation: reads what comes.
        send_buffer_bytes: what the system holds for the other end; 0 for what is best.

    Attributes:
        fd: the socket's file descriptor.
        host: where the other end is.
        link: what it is called by, once it is known who is there.
        card: who is there.
        come: transmissions that were read and not taken yet.
        is_over: nothing more comes.
        is_paused: it is not watched, for what it has sent already is to be taken first.
        unsent: what the system has no room for yet.
    """

    __slots__ = (
        "_behind",
        "card",
        "come",
        "conversation",
        "fd",
        "host",
        "is_over",
        "is_paused",
        "link",
        "socket",
        "unsent",
    )

    def __init__(self, one: socket.socket, conversation: Conversation, send_buffer_bytes: int = 0) -> None:
        one.setblocking(False)
        self.socket, self.conversation = one, conversation
        # Some systems refuse this of a connection that has ended, or more than they allow: then it stays as it is.
        with contextlib.suppress(OSError):
            self._adjust(send_buffer_bytes)
        self.fd = one.fileno()
        self.link: Link = ("", b"")
        self.host = ""
        self.card: Card | None = None
        self.come: list[list[Frame]] = []
        self.is_over = self.is_paused = False
        self.unsent: deque[Frame] = deque()
        self._behind = memoryview(bytearray())

    def _adjust(self, send_buffer_bytes: int) -> None:
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if send_buffer_bytes:  # else the system lets it grow as is needed
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)

    @property
    def is_closed(self) -> bool:
        """Tell whether we have let go of the socket."""
        return self.socket.fileno() < 0

    def read(self) -> list[Frame] | None:
        """Read what has come, within bounds; what is whole of it is in `come`.

        Returns:
            A transmission that has come by itself, as most do, instead of leaving it in `come`.
        """
        talk, left = self.conversation, READ_AT_ONCE
        try:
            while left > 0 and not talk.has_more:
                if talk.room is None:
                    data = self._receive(READ_BYTES)
                    frame = talk.alone(data)
                    if frame is not None:
                        return [frame]
                    wanted, count = READ_BYTES, len(data)
                    talk.feed(data)
                else:
                    wanted, count = self._fill(talk.room)
                self.cut()
                if not count:
                    self.is_over = True
                if count < wanted or self.is_over:
                    break
                left -= count
        except BlockingIOError:
            pass  # there is nothing more for now
        except OSError:
            self.is_over = True
        if talk.replies:
            self._answer()
        return None

    def _fill(self, room: memoryview) -> tuple[int, int]:
        """Read into a frame's memory, and what comes behind it; give how many bytes there was room for, and came."""
        talk = self.conversation
        if GATHERS and not self._behind:
            self._behind = memoryview(bytearray(HEAD_BYTES))
        count = self._receive_into(room)
        talk.fill(min(count, len(room)))
        if count > len(room):
            talk.feed(bytes(self._behind[: count - len(room)]))
        return len(room) + len(self._behind), count

    def cut(self) -> None:
        """Cut more of what was read; a fault leaves a transmission without frames, and is the end."""
        talk = self.conversation
        had_fault = talk.fault
        self.come += talk.cut(TRANSMISSIONS_AT_ONCE)
        if talk.fault and not had_fault:
            self.come.append([])
            self.is_over = True

    def has_come(self) -> bool:
        """Tell whether something that was read is to be taken."""
        return bool(self.come) or self.conversation.has_more

    def take(self, most: int) -> list[list[Frame]]:
        """Take up to so many transmissions of what was read."""
        come = self.come
        if len(come) > most:
            self.come = come[most:]
            return come[:most]
        self.come = []
        talk = self.conversation
        if talk.has_more:
            self.cut()
            if talk.replies:
                self._answer()
        return come

    def write(self, frames: Sequence[Frame]) -> None:
        """Send a transmission; what the system has no room for stays in `unsent`.

        Raises:
            BlockingIOError: there is something unsent already.
            ConnectionError: nobody is there any more.
        """
        if self.unsent:
            raise BlockingIOError
        if len(frames) != 1 or (size := len(frames[0])) > JOINED_BYTES:
            self.write_last(frames)
            self.flush()
            return
        # Most are one short frame, which leaves at once.
        piece = (HEADS[size] if size < len(HEADS) else frame_head(size)) + frames[0]
        try:
            sent = self.socket.send(piece)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise self._broken(error) from error
        if sent < len(piece):
            self.unsent.append(memoryview(piece)[sent:])

    def write_last(self, frames: Sequence[Frame]) -> None:
        """Leave a transmission in `unsent`, behind what is there; before the close."""
        if len(frames) == 1 and len(frames[0]) <= JOINED_BYTES:
            self.unsent.append(frame_head(len(frames[0])) + frames[0])
        else:
            last = len(frames) - 1
            for at, frame in enumerate(frames):
                flags = MORE if at < last else 0
                note = self._lay(frame, flags) if at else None
                if note is not None:
                    self.unsent.append(note)
                    continue
                self.unsent.append(frame_head(len(frame), flags))
                if len(frame):
                    self.unsent.append(frame)

    def flush(self) -> None:
        """Send what is unsent, as far as there is room.

        Raises:
            ConnectionError: nobody is there any more.
        """
        unsent = self.unsent
        try:
            while unsent:
                self._have_sent(
                    self._send_some(unsent if len(unsent) == 1 else list(islice(unsent, MAX_PIECES)))
                )
        except BlockingIOError:
            pass  # the system calls when there is room
        except OSError as error:
            raise self._broken(error) from error

    def _broken(self, error: OSError) -> ConnectionError:
        """A frame may have been cut: nothing more can be sent, and what we read next is the end."""
        self.unsent.clear()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        return ConnectionError(str(error.strerror))

    def _lay(self, frame: Frame, flags: int) -> bytes | None:
        """Put a frame where the other end sees it, and give the note that says where; None if it can't."""
        return None

    def _receive(self, most: int) -> bytes:
        return self.socket.recv(most)

    def _receive_into(self, room: memoryview) -> int:
        """Read into a frame's own memory, and what comes behind it."""
        return self.socket.recvmsg_into([room, self._behind])[0] if GATHERS else self.socket.recv_into(room)

    def _send_some(self, pieces: Sequence[Frame] | deque[Frame]) -> int:
        return self.socket.sendmsg(pieces) if GATHERS and len(pieces) > 1 else self.socket.send(pieces[0])

    def _have_sent(self, count: int) -> None:
        unsent = self.unsent
        while unsent and count >= len(unsent[0]):
            count -= len(unsent.popleft())
        if count:
            unsent[0] = memoryview(unsent[0])[count:]

    def greet(self) -> None:
        """Begin the conversation."""
        self._answer()

    def _answer(self) -> None:
        replies = self.conversation.take_replies()
        if self.unsent and self.card is not None:
            return  # who does not read what we say does not wait for our answers either
        self.unsent.append(replies)
        with contextlib.suppress(ConnectionError):
            self.flush()

    def close(self, linger_s: float = 0.0) -> None:
        """End it; wait for so long until what is unsent has left.

        What lies unread at the end, or comes after it, would have the system throw away what it has not delivered yet.
        So whoever was behind is waited for until he has hung up; of others only what has come is read.
        """
        one, until = self.socket, time.monotonic() + linger_s
        with contextlib.suppress(OSError):
            is_behind = bool(self.unsent) and linger_s > 0
            while self.unsent and (left_s := until - time.monotonic()) > 0:
                one.settimeout(left_s)
                self._have_sent(self._send_some([self.unsent[0]]))
            one.shutdown(socket.SHUT_WR)
            for _ in range(READS_AT_END):
                one.settimeout(max(0.0, until - time.monotonic()) if is_behind else 0.0)
                if not self.socket.recv(READ_BYTES):
                    break
        one.close()
