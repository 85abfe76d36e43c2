"""Shelves: what is put is what is taken, and a slot is free when nobody looks at it any more, not sooner."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from pilotage.protocol.errors import MalformedFrame
from pilotage.protocol.zmtp import MORE, SHARED
from pilotage.transport import shelves
from pilotage.transport.shelves import SHELF_BYTES, SLOT_BYTES, SLOTS, TABLE_BYTES, LentShelf, Shelf

if sys.platform != "linux":
    pytest.skip("only Linux has such memory", allow_module_level=True)

import fcntl

HEAD_BYTES = 2
PAGE = bytes(range(256)) * 16


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    yield made
    made.close()


def lend(shelf: Shelf) -> LentShelf:
    return LentShelf(os.dup(shelf.fd))


def put(shelf: Shelf, frame: bytes) -> bytes:
    """Put a frame, and give the note on it without its head."""
    written = shelf.put(frame, 0)
    assert written is not None
    return written[HEAD_BYTES:]


def note(slot: int, size: int) -> bytes:
    return slot.to_bytes(4, "big") + size.to_bytes(8, "big")


def test_what_is_put_is_taken_and_cant_be_changed(shelf: Shelf) -> None:
    lent = lend(shelf)
    written = shelf.put(PAGE, MORE)
    assert written is not None and written[0] == SHARED | MORE and written[1] == len(written) - HEAD_BYTES
    frame = lent.take(written[HEAD_BYTES:])
    assert frame == PAGE and frame.readonly and frame.format == "B"
    assert not np.frombuffer(frame, np.uint8).flags.writeable


def test_a_slot_is_free_once_the_last_view_of_it_has_gone(shelf: Shelf) -> None:
    lent = lend(shelf)
    frame = lent.take(put(shelf, PAGE))
    array = np.ndarray((16, 16), np.uint8, frame, 256)
    row = array[3]
    del frame, array
    assert put(shelf, b"second") == note(1, 6)
    assert bytes(row) == PAGE[256 + 48 : 256 + 64]
    del row
    assert put(shelf, b"third") == note(0, 5)


def test_a_full_shelf_takes_nothing_more(shelf: Shelf) -> None:
    for slot in range(SLOTS):
        assert put(shelf, b"x") == note(slot, 1)
    assert shelf.put(b"x", 0) is None
    assert lend(shelf).take(note(5, 1)) == b"x"  # and lets go of it
    assert put(shelf, b"x") == note(5, 1)


def test_what_is_larger_than_a_slot_is_not_taken(shelf: Shelf) -> None:
    assert shelf.put(bytes(SLOT_BYTES + 1), 0) is None
    assert put(shelf, bytes(SLOT_BYTES)) == note(0, SLOT_BYTES)


def test_a_shelf_holds_so_much_memory_and_gives_that_of_free_slots_back(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelves, "MAX_HELD_BYTES", 4 * len(PAGE))
    lent = lend(shelf)
    held = [lent.take(put(shelf, PAGE)) for _ in range(4)]
    assert shelf.put(PAGE, 0) is None
    del held[1:]
    big = lent.take(put(shelf, PAGE * 3))
    assert (held[0], big) == (PAGE, PAGE * 3)
    assert os.fstat(shelf.fd).st_blocks * 512 <= 4 * len(PAGE) + TABLE_BYTES
    assert shelf.put(PAGE, 0) is None


def test_where_the_system_has_no_memory_left_nothing_is_written(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "no memory left")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    before = os.fstat(shelf.fd).st_blocks
    assert shelf.put(PAGE, 0) is None
    assert os.fstat(shelf.fd).st_blocks == before


def test_a_fork_that_lets_go_of_its_copy_frees_nothing(shelf: Shelf) -> None:
    lent = lend(shelf)
    frame = lent.take(put(shelf, PAGE))
    child = os.fork()
    if not child:
        del frame
        os._exit(0)
    os.waitpid(child, 0)
    assert put(shelf, b"second") == note(1, 6)
    assert frame == PAGE


def test_what_a_child_was_given_stays_as_it_is_after_its_parent_has_let_go(shelf: Shelf) -> None:
    lent, (from_child, to_parent), (from_parent, to_child) = lend(shelf), os.pipe(), os.pipe()
    frame = lent.take(put(shelf, PAGE))
    child = os.fork()
    if not child:
        os.close(to_child)  # if its parent fails, it is not waited for
        os.read(from_parent, 1)
        os.write(to_parent, b"y" if frame == PAGE else b"n")
        os._exit(0)
    del frame
    assert put(shelf, b"second" * 1000) == note(1, 6000), "its slot is not given again"
    later = lent.take(note(1, 6000))
    lent.close()
    os.write(to_child, b"x")
    assert os.read(from_child, 1) == b"y"
    os.waitpid(child, 0)
    assert later == b"second" * 1000
    for fd in (from_child, to_parent, from_parent, to_child):
        os.close(fd)


def test_a_child_that_closes_its_copy_gives_nothing_back(shelf: Shelf) -> None:
    lent, unread = lend(shelf), put(shelf, PAGE)
    lent.take(put(shelf, PAGE))  # and lets go of it: a free slot that holds memory
    before = held_bytes(shelf.fd)
    child = os.fork()
    if not child:
        lent.close()
        shelf.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert held_bytes(shelf.fd) == before and lent.take(unread) == PAGE


def held_bytes(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512


def test_when_both_ends_have_closed_only_what_is_looked_at_takes_memory(shelf: Shelf) -> None:
    lent, fd = lend(shelf), os.dup(shelf.fd)
    frames = [lent.take(put(shelf, PAGE)) for _ in range(5)]
    unread = put(shelf, PAGE)
    assert held_bytes(fd) == TABLE_BYTES + 6 * len(PAGE)
    del frames[3:]
    shelf.close()
    assert held_bytes(fd) == TABLE_BYTES + 4 * len(PAGE)
    lent.close()
    assert held_bytes(fd) == TABLE_BYTES + 3 * len(PAGE) and unread
    del frames[1:]
    assert held_bytes(fd) == TABLE_BYTES + len(PAGE) and frames == [PAGE]
    os.close(fd)
    Shelf.__init__(shelf)  # for the fixture to close


def test_locked_memory_stays_where_it_is(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "MAX_HELD_BYTES", len(PAGE))
    monkeypatch.setattr(shelves.mmap, "MADV_REMOVE", 12345)
    lent = lend(shelf)
    del lent
    assert put(shelf, PAGE[:100]) == note(0, 100)
    assert shelf.put(PAGE, 0) is None
    lend(shelf).take(note(0, 100))
    assert shelf.put(PAGE * 2, 0) is None and put(shelf, PAGE) == note(0, len(PAGE))


@pytest.mark.parametrize(
    "lacking", [(os, "memfd_create"), (fcntl, "F_GET_SEALS"), (shelves.mmap, "MADV_REMOVE")]
)
def test_a_python_for_an_old_system_has_no_shelves(
    monkeypatch: pytest.MonkeyPatch, lacking: tuple[object, str]
) -> None:
    assert shelves.has_shelves()
    monkeypatch.delattr(*lacking)
    assert not shelves.has_shelves()


@pytest.mark.parametrize(
    "told",
    [b"", note(0, 1)[:-1], note(SLOTS, 1), note(0, 0), note(0, SLOT_BYTES + 1), note(2**32 - 1, 2**64 - 1)],
)
def test_a_note_that_cant_be_is_refused(shelf: Shelf, told: bytes) -> None:
    with pytest.raises(MalformedFrame, match="shared memory" if len(told) < 12 else "slot"):
        lend(shelf).take(told)


def test_a_slot_that_is_looked_at_is_not_told_of_again(shelf: Shelf) -> None:
    lent, told = lend(shelf), put(shelf, PAGE)
    frame = lent.take(told)
    with pytest.raises(MalformedFrame, match="slot 0"):
        lent.take(told)
    assert frame == PAGE


@pytest.mark.parametrize(("size", "seals"), [(SHELF_BYTES, 0), (TABLE_BYTES, fcntl.F_SEAL_SHRINK)])
def test_memory_that_is_no_shelf_is_refused_and_closed(size: int, seals: int) -> None:
    fd = os.memfd_create("other", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    with pytest.raises(MalformedFrame, match="no shelf"):
        LentShelf(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_file_that_is_no_memory_is_refused_and_closed() -> None:
    fd = os.open(os.devnull, os.O_RDWR)
    with pytest.raises((OSError, MalformedFrame)):
        LentShelf(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
