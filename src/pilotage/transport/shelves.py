"""Shelves: memory that both ends of a path see, in which large frames lie instead of going through the socket.

Who sends brings the shelf (a sealed `memfd`, see memfd_create(2)), puts a frame into a free slot of it and says by the
socket which; who receives looks at it where it lies, and gives the slot free when nobody looks any more. The shelf
begins with one byte for each slot, 1 while it is taken. It needs no clearing up: the system takes it back when both
ends have let go of it, however they end.

Law of this room: a frame that finds no room here goes through the socket. Nobody waits for a slot.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import struct
import sys
import weakref
from functools import partial
from typing import Any

from pilotage.protocol.errors import MalformedFrame
from pilotage.protocol.records import Frame
from pilotage.protocol.zmtp import SHARED, frame_head

if sys.platform == "linux":
    import fcntl

SHARED_FROM_BYTES = 64 * 1024
"""A smaller frame goes through the socket: there it costs no more."""

SLOTS = 128
SLOT_BYTES = 8 * 2**20
TABLE_BYTES = 64 * 1024
"""What lies before the slots: a byte for each, and the rest of a page, however large the system's are."""

SHELF_BYTES = TABLE_BYTES + SLOTS * SLOT_BYTES
"""Addresses, not memory: that is there where something was put, and nowhere else."""

MAX_HELD_BYTES = 32 * 2**20
"""What a shelf's slots may hold of memory, free ones included."""

NEEDED = ((os, "memfd_create"), (os, "posix_fallocate"), (mmap, "MADV_REMOVE"))
"""What a Python that was built for an old system lacks."""

_NOTE = struct.Struct(">IQ")
_FREE, _TAKEN = b"\0", 1
_Slot = ctypes.c_ubyte * SLOT_BYTES


# Python 3.13 doesn't keep a descriptor for each piece of memory any more, if it is told so.
_UNTRACKED: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}

_forked = 0
"""Counts this process's forks: what was looked at before one is looked at by a child as well."""


def _note_fork() -> None:
    global _forked  # noqa: PLW0603 - there is one process
    _forked += 1


if hasattr(os, "register_at_fork"):
    # Twice, for what is taken between the two is the child's as well.
    os.register_at_fork(before=_note_fork, after_in_parent=_note_fork)


def has_shelves() -> bool:
    """Tell whether this system has such memory, Python knows of it, and there are addresses enough for it."""
    if sys.platform != "linux" or sys.maxsize <= 2**32:
        return False
    return hasattr(fcntl, "F_GET_SEALS") and all(hasattr(room, name) for room, name in NEEDED)


class Shelf:
    """The end that puts.

    Attributes:
        fd: what the other end needs to see it.
        is_lent: the other end has got it.

    Raises:
        OSError: the system gives no such memory.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("pilotage", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, SHELF_BYTES)
            # Who looks at what has been cut off is ended by the system: the other end wants to be sure.
            fcntl.fcntl(
                self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            )
            os.posix_fallocate(self.fd, 0, TABLE_BYTES)
            self._map = mmap.mmap(self.fd, SHELF_BYTES, **_UNTRACKED)
        except OSError:
            os.close(self.fd)
            raise
        self.is_lent = False
        self._pid = os.getpid()
        self._held = [0] * SLOTS

    def put(self, frame: Frame, flags: int) -> bytes | None:
        """Put a frame into a free slot.

        Args:
            frame: at least one byte.
            flags: of the frame that says which; SHARED comes to them.

        Returns:
            What is to be sent instead of the frame; None if there is no room for it.
        """
        table, size = self._map, len(frame)
        slot = table.find(_FREE, 0, SLOTS)
        if slot < 0 or size > SLOT_BYTES or not self._may_hold(slot, size):
            return None
        begin = TABLE_BYTES + slot * SLOT_BYTES
        table[begin : begin + size] = frame
        table[slot] = _TAKEN
        return frame_head(_NOTE.size, flags | SHARED) + _NOTE.pack(slot, size)

    def _may_hold(self, slot: int, size: int) -> bool:
        """Have a slot's memory there before it is written to: where there is none, the system ends who writes."""
        held = self._held
        if size <= held[slot]:
            return True
        if sum(held) + size - held[slot] > MAX_HELD_BYTES:
            self._give_back()
            if sum(held) + size > MAX_HELD_BYTES:
                return False
        try:
            os.posix_fallocate(self.fd, TABLE_BYTES + slot * SLOT_BYTES, size)
        except OSError:
            return False
        held[slot] = size
        return True

    def _give_back(self) -> None:
        """Give the memory of free slots back to the system."""
        for slot, held in enumerate(self._held):
            if held and not self._map[slot] and _punch(self._map, slot):
                self._held[slot] = 0

    def close(self) -> None:
        """Let go of it; what the other end looks at stays."""
        if os.getpid() == self._pid:  # it isn't a child's to give back
            self._give_back()
        self._map.close()
        os.close(self.fd)


def _punch(shelf: mmap.mmap, slot: int) -> bool:
    """Give a slot's memory back to the system; False if it stays, as where memory is locked."""
    with contextlib.suppress(OSError):
        shelf.madvise(mmap.MADV_REMOVE, TABLE_BYTES + slot * SLOT_BYTES, SLOT_BYTES)
        return True
    return False


class LentShelf:
    """The end that looks.

    A frame's slot is free once the last view of it has gone: an array, a slice of it, or a view of either. Only a bare
    `memoryview` that hangs in a circle of objects with a `__del__` may be seen by that after its end.

    Args:
        fd: of the shelf; it is closed.

    Raises:
        OSError: it can't be seen.
        MalformedFrame: it is none, or one that could become smaller.
    """

    def __init__(self, fd: int) -> None:
        try:
            if (
                os.fstat(fd).st_size != SHELF_BYTES
                or not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
            ):
                raise MalformedFrame("the memory that it shares is no shelf")
            self._map = mmap.mmap(fd, SHELF_BYTES, **_UNTRACKED)
        finally:
            os.close(fd)
        self._is_over = False
        self._pid = os.getpid()
        self._inherited: set[int] = set()
        self._looked_at: dict[int, weakref.ref[object]] = {}

    def take(self, note: Frame) -> memoryview:
        """Give the frame that a note tells of; its slot is free again once all views of it are gone.

        Raises:
            MalformedFrame: there can't be one.
        """
        try:
            slot, size = _NOTE.unpack(note)
        except struct.error as error:
            raise MalformedFrame(f"a note of {len(note)} bytes on shared memory") from error
        if slot >= SLOTS or not 0 < size <= SLOT_BYTES or slot in self._looked_at:
            raise MalformedFrame(
                f"no frame of {size} bytes can lie in slot {slot} of the memory that it shares"
            )
        # What views of it refer to: its end is the end of the last one.
        holder = _Slot.from_buffer(self._map, TABLE_BYTES + slot * SLOT_BYTES)
        self._looked_at[slot] = weakref.ref(holder, partial(self._free, slot, _forked))
        return memoryview(holder).cast("B")[:size].toreadonly()

    def close(self) -> None:
        """Let go of what nobody looks at: no further frame comes."""
        self._is_over = True
        for slot in range(SLOTS) if os.getpid() == self._pid else ():
            if slot not in self._looked_at and slot not in self._inherited:
                _punch(self._map, slot)

    def _free(self, slot: int, forked: int, _gone: object) -> None:
        del self._looked_at[slot]
        if forked != _forked:
            # A child may look at it still, or here, in the child, its parent: it stays as it is.
            self._inherited.add(slot)
        elif self._is_over:
            _punch(self._map, slot)
        else:
            self._map[slot] = 0
