"""What comes from one end of a ZMTP 3.1 connection in clear (RFC 37, mechanism NULL): bytes in, transmissions out.

Law of this room: whatever comes is cut into frames, waited for, or a fault that ends the conversation; it is never
guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from pilotage.protocol.errors import MalformedFrame
from pilotage.protocol.late import blank_memory
from pilotage.protocol.records import Frame
from pilotage.protocol.zmtp import (
    COMMAND,
    GREETING,
    GREETING_BYTES,
    LONG,
    MAX_READY_BYTES,
    MORE,
    SHARED,
    frame_head,
    is_locked,
    read_ready,
    ready_length,
)

ROOM_FROM_BYTES = 32 * 1024
"""A longer frame of which only a part has come gets memory of its own, into which the rest of it is read."""

MAX_FRAMES = 65_536
FRAMES_AT_ONCE = 4096
"""Frames that are cut in one go, whatever they are: whoever sends the smallest ones must not make the others wait."""

PING, PONG, ERROR = b"\x04PING", b"\x04PONG", b"\x05ERROR"
TTL_BYTES = 2
LONG_HEAD_BYTES = 9


class Conversation:
    """What has come, cut into transmissions.

    Args:
        ready: the READY command that answers a greeting.
        partners: kinds of sockets that we talk to.
        max_frame_bytes: largest frame accepted.

    Attributes:
        told: the properties of the other end; None until it has introduced itself.
        replies: what is to be sent to it, at once.
        has_more: there may be more transmissions than `cut` was allowed to give.
        fault: why nothing more of it can be read; "" while it can.
        room: the memory that what comes next is to be read into; None where it is to be fed.
        fetch: gives the frame that a note on shared memory tells of; None where no memory is shared.
    """

    __slots__ = (
        "_at",
        "_data",
        "_flags",
        "_frames",
        "_is_amid",
        "_is_greeted",
        "_max",
        "_partners",
        "_ready",
        "_whole",
        "fault",
        "fetch",
        "has_more",
        "replies",
        "room",
        "told",
    )

    def __init__(self, ready: bytes, partners: Collection[bytes], max_frame_bytes: int) -> None:
        self.told: dict[str, bytes] | None = None
        self.replies = GREETING
        self.has_more = False
        self.fault = ""
        self.fetch: Callable[[Frame], Frame] | None = None
        self._ready, self._partners, self._max = ready, partners, max_frame_bytes
        self._is_greeted = False
        self._is_amid = True
        self._data, self._at = b"", 0
        self._frames: list[Frame] = []
        self.room: memoryview | None = None
        self._whole: memoryview | None = None
        self._flags = 0

    def fill(self, count: int) -> None:
        """Say that so many bytes were read into the room."""
        if self.room is not None:
            self.room = self.room[count:]

    def feed(self, data: bytes) -> None:
        """Take in what has come."""
        self._is_amid = True
        self._data, self._at = (self._data[self._at :] + data if self._data else data), 0

    def alone(self, data: bytes) -> Frame | None:
        """Give the frame of what has come if it is one transmission of one frame, as most are; None: `feed` it."""
        size = len(data)
        if self._is_amid or size < 2:
            return None
        if data[0] == 0:
            return data[2:] if size - 2 == data[1] <= self._max else None
        if data[0] == LONG and size >= LONG_HEAD_BYTES:
            body = size - LONG_HEAD_BYTES
            is_whole = body == int.from_bytes(data[1:LONG_HEAD_BYTES], "big") <= self._max
            return data[LONG_HEAD_BYTES:] if is_whole else None
        return None

    def cut(self, most: int) -> list[list[Frame]]:
        """Give transmissions that are whole, up to so many."""
        found: list[list[Frame]] = []
        self.has_more = False
        if self.fault:
            return found
        try:
            if self._whole is not None:
                if self.room:
                    return found
                whole, self._whole, self.room = self._whole, None, None
                self._take(whole.toreadonly(), self._flags, found)
            elif self.told is None and not self._is_introduced():
                return found
            self._cut(found, most)
        except MalformedFrame as error:
            self.fault, self._data, self._at, self._frames = str(error), b"", 0, []
        self._note_where()
        return found

    def take_replies(self) -> bytes:
        """Give what is to be sent to the other end, which is owed no more."""
        replies, self.replies = self.replies, b""
        self._note_where()
        return replies

    def _note_where(self) -> None:
        """Note whether what comes next belongs to what has come, or must wait for our answer."""
        self._is_amid = bool(self._data or self._frames or self.replies or self.fault or self.told is None)

    def _cut(self, found: list[list[Frame]], most: int) -> None:
        data, at, end = self._data, self._at, len(self._data)
        frames_left = FRAMES_AT_ONCE
        while end - at >= 2:
            if len(found) >= most or not frames_left:
                self.has_more = True
                break
            frames_left -= 1
            flags = data[at]
            if flags & LONG:
                start = at + LONG_HEAD_BYTES
                if start > end:
                    self._check(flags, 0)
                    break
                size = int.from_bytes(data[at + 1 : start], "big")
            else:
                start, size = at + 2, data[at + 1]
            if flags > MORE | LONG or size > self._max:
                self._check(flags, size)
            stop = start + size
            if stop > end:
                if size >= ROOM_FROM_BYTES:
                    self._make_room(data[start:], size, flags)
                    at = end
                break
            if flags & ~LONG or self._frames:
                self._take(data[start:stop], flags, found)
            else:  # a transmission of one frame, as most are
                found.append([data[start:stop]])
            at = stop
        if at == end:
            self._data, self._at = b"", 0
        else:
            self._at = at

    def _check(self, flags: int, size: int) -> None:
        if flags > COMMAND | LONG and (self.fetch is None or flags & ~MORE != SHARED):
            raise MalformedFrame(f"a frame with the flags {flags}")
        most_bytes = MAX_READY_BYTES if flags & COMMAND else self._max
        if size > most_bytes:
            raise MalformedFrame(f"a frame of {size} bytes, of which {most_bytes} are allowed")

    def _make_room(self, come: bytes, size: int, flags: int) -> None:
        try:
            room = blank_memory(size)
        except (MemoryError, OSError) as error:
            raise MalformedFrame(f"a frame of {size} bytes, for which there is no memory") from error
        room[: len(come)] = come
        self._whole, self.room, self._flags = room, room[len(come) :], flags

    def _take(self, frame: Frame, flags: int, found: list[list[Frame]]) -> None:
        if flags & COMMAND:
            self._obey(bytes(frame))
            return
        frames = self._frames
        if flags & SHARED and self.fetch is not None:
            if not frames:
                raise MalformedFrame(
                    "the head of a transmission in shared memory, where it could change while we read it"
                )
            frame = self.fetch(frame)
            if len(frame) > self._max:
                raise MalformedFrame(f"a frame of {len(frame)} bytes, of which {self._max} are allowed")
        frames.append(frame)
        if not flags & MORE:
            found.append(frames)
            self._frames = []
        elif len(frames) > MAX_FRAMES:
            del frames[1:]  # the rest of it is read off, and what is left is malformed

    def _obey(self, command: bytes) -> None:
        if command.startswith(PING):
            answer = PONG + command[len(PING) + TTL_BYTES :]
            self.replies += frame_head(len(answer), COMMAND) + answer
        elif command.startswith(ERROR):
            raise MalformedFrame("it has refused us")

    def _is_introduced(self) -> bool:
        """Read greeting and READY, once they are there."""
        opening = self._data
        length = ready_length(opening)
        if not self._is_greeted and len(opening) >= GREETING_BYTES:
            if is_locked(opening):
                raise MalformedFrame("it wants a key, where we speak in clear")
            self._is_greeted = True
            self.replies += self._ready
        if length is None or len(opening) < length:
            return False
        told = read_ready(opening[:length])
        if told.get("Socket-Type") not in self._partners:
            raise MalformedFrame("a socket of a kind that we don't talk to")
        self.told, self._at = told, length
        return True
