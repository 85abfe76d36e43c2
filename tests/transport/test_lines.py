"""What has no room waits behind what waits already; what was to go by a link that has ended goes by no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import pytest

from pilotage.protocol.instructions import Link
from pilotage.protocol.records import Frame
from pilotage.transport import lines as room
from pilotage.transport.lines import Lines

UP: Link = ("dialer", b"")
ONE: Link = ("listener", b"1")
OTHER: Link = ("listener", b"2")


class Socket:
    """A wire that has room or not, by link."""

    def __init__(self, link: Link | None = None) -> None:
        self.link = link
        self.full: set[Link] = set()
        self.broken: set[Link] = set()
        self.known: set[Link] = set()
        self.sent: list[tuple[Link, Sequence[Frame]]] = []
        self.last: list[tuple[Link, Sequence[Frame]]] = []
        self.is_closed = False
        self.is_plain = True

    def send(self, link: Link, frames: Sequence[Frame]) -> None:
        if link in self.full:
            raise BlockingIOError
        if link in self.broken:
            raise ConnectionError("gone")
        self.sent.append((link, frames))

    def send_last(self, link: Link, frames: Sequence[Frame]) -> None:
        self.last.append((link, frames))

    def leave(self, link: Link) -> bool:
        return link in self.known

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def lost() -> list[tuple[Link, str]]:
    return []


@pytest.fixture
def lines(lost: list[tuple[Link, str]]) -> Lines:
    lines = Lines(Counter(), lambda link, text: lost.append((link, text)))
    lines.have(cast("Any", Socket()), cast("Any", Socket(UP)))
    return lines


def ends_of(lines: Lines) -> tuple[Socket, Socket]:
    return cast("Socket", lines.listener), cast("Socket", lines.dialer)


def test_lines_are_plain_while_all_of_them_are(lines: Lines) -> None:
    listener, dialer = ends_of(lines)
    assert lines.is_plain
    for one in (listener, dialer):
        one.is_plain = False
        lines.have(cast("Any", listener), cast("Any", dialer))
        assert not lines.is_plain
        one.is_plain = True
    lines.have(cast("Any", listener), None)
    assert lines.is_plain and (lines.listener, lines.dialer) == (listener, None)


def test_each_transmission_goes_by_the_socket_of_its_link(lines: Lines) -> None:
    listener, dialer = ends_of(lines)
    lines.transmit([(ONE, [b"1"]), (UP, [b"2"]), (OTHER, [b"3"])])
    assert listener.sent == [(ONE, [b"1"]), (OTHER, [b"3"])] and dialer.sent == [(UP, [b"2"])]


def test_what_has_no_room_waits_in_its_order_and_holds_up_nobody_else(lines: Lines) -> None:
    listener, dialer = ends_of(lines)
    listener.full, dialer.full = {ONE}, {UP}
    lines.transmit([(ONE, [b"1"]), (UP, [b"a"]), (OTHER, [b"x"])])
    listener.full = dialer.full = set()
    lines.transmit([(ONE, [b"2"])])
    assert listener.sent == [(OTHER, [b"x"])], "the second one has to wait behind the first"
    lines.send_waiting()
    assert listener.sent[1:] == [(ONE, [b"1"]), (ONE, [b"2"])] and dialer.sent == [(UP, [b"a"])]
    assert not lines.waiting


def test_of_what_waits_only_so_much_is_kept(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_WAITING", 2)
    listener, _ = ends_of(lines)
    listener.full = {ONE}
    lines.transmit([(ONE, [b"%d" % n]) for n in range(4)])
    assert lines._counts == {"transmissions dropped": 2}
    listener.full = set()
    lines.send_waiting()
    assert [frames for _, frames in listener.sent] == [[b"0"], [b"1"]]


def test_a_link_that_can_not_be_written_to_is_told_of_unless_it_tells_of_itself(
    lines: Lines, lost: list[tuple[Link, str]]
) -> None:
    listener, dialer = ends_of(lines)
    listener.broken, dialer.broken, listener.known = {ONE, OTHER}, {UP}, {OTHER}
    lines.transmit([(ONE, [b""]), (OTHER, [b""]), (UP, [b""])])
    assert lost == [(ONE, "gone")]


def test_a_link_that_breaks_while_something_waits_takes_it_along(
    lines: Lines, lost: list[tuple[Link, str]]
) -> None:
    listener, _ = ends_of(lines)
    listener.full = {ONE, OTHER}
    lines.transmit([(ONE, [b"1"]), (OTHER, [b"2"])])
    listener.full, listener.broken = set(), {ONE}
    lines.send_waiting()
    assert lost == [(ONE, "gone")] and not lines.waiting and listener.sent == [(OTHER, [b"2"])]


def test_what_waits_is_sent_last_when_they_close(lines: Lines) -> None:
    listener, dialer = ends_of(lines)
    listener.full, dialer.full = {ONE, OTHER}, {UP}
    lines.transmit([(ONE, [b"1"]), (OTHER, [b"2"]), (UP, [b"3"])])
    lines.forget(OTHER)
    lines.close()
    assert listener.last == [(ONE, [b"1"])] and dialer.last == [(UP, [b"3"])]
    assert listener.is_closed and dialer.is_closed
    assert lines.listener is None and lines.dialer is None
