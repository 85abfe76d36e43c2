"""Wires in clear: ZMTP spoken by ourselves on plain sockets, for the peers that need no key.

ZeroMQ's library reads and writes on threads of its own, so that each hop wakes two threads more; here the loop's
thread does it (see the decision on plain sockets). What needs a key goes by `links`.

Law of this room: everything here runs on the loop's thread, and no call waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from pilotage.protocol.instructions import Arrival, Card, Dialect, Link
from pilotage.protocol.records import Frame
from pilotage.transport.connections import Connection
from pilotage.transport.lookout import Lookout, lookout
from pilotage.transport.ports import OnAlone
from pilotage.transport.rules import SocketRules

NOBODY = Card(Dialect.NONE, "")
"""Who has not said who it is."""


class ClearWire:
    """What both kinds of wire share: connections that are read, and who is to be called.

    Whoever has sent something is in a row, and goes to its end once something of it was taken: one who sends without
    a pause doesn't make the others wait, and is not read on until what he has sent was taken.

    Attributes:
        type: the kind of socket that we are to others, ZeroMQ's number of it.
        closed: we have let go of it.
    """

    type = 0

    def __init__(self, name: str, rules: SocketRules) -> None:
        self.name = name
        self.closed = False
        self._rules = rules
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lookout: Lookout | asyncio.AbstractEventLoop | None = None
        self._list: Lookout | None = None
        self._on_ready: Callable[[], object] = lambda: None
        self._on_alone: OnAlone = lambda alone: False
        self._row: dict[Connection, None] = {}

    @property
    def socket(self) -> ClearWire:
        """What stands here for ZeroMQ's socket: it has a `type`, may be `closed`, and sends frames as they are."""
        return self

    def more_comes(self) -> bool:
        """Tell whether more may have happened in this moment than was told yet."""
        return self._list is None or self._list.untold > 0

    def readable(self) -> bool:
        """Tell whether something is there to be taken."""
        return bool(self._row)

    def drain(self, most: int) -> list[Arrival]:
        """Take up to so many transmissions, from each who has sent something as many as from the others."""
        arrivals: list[Arrival] = []
        row = self._row
        while row and most > 0:
            one = next(iter(row))
            del row[one]
            link, card = one.link, one.card or NOBODY
            found = one.take(most // (len(row) + 1) or 1)
            if one.unsent:
                self._send_later(one)
            for frames in found:
                arrivals.append((link, card, frames))  # noqa: PERF401 - of one, which is usual, this is quicker
            most -= len(found) or 1
            if one.come or one.conversation.has_more:
                row[one] = None
            elif one.is_over:
                self._end(one)
            elif one.is_paused:
                one.is_paused = False
                self._watch(one)
        return arrivals

    def _stir(self, one: Connection) -> None:
        """Something has happened to a connection."""
        row = self._row
        if one in row:
            one.is_paused = True
            self._ignore(one)
            return
        alone = one.read()
        if alone is not None:
            if one.card is not None and not (row or one.come) and self._on_alone((one.link, one.card, alone)):
                return
            one.come.append(alone)
        if one.unsent:
            self._send_later(one)
        if one.come and one.card is not None:
            row[one] = None
            self._on_ready()
        else:
            self._take_in(one)

    def _look_out(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._lookout = loop, lookout(loop)
        self._list = self._lookout if isinstance(self._lookout, Lookout) else None

    def _look_no_more(self) -> None:
        if self._list is not None:
            self._list.close()
        self._lookout = self._list = None

    def _take_in(self, one: Connection) -> None:
        """Have whoever drains us take what has come; end the connection if nothing has, and nothing more will."""
        if one.card is None and one.conversation.told is not None and not self._meet(one):
            return
        if one.has_come():
            self._row[one] = None
            self._on_ready()
        elif one.is_over:
            self._end(one)
            if self.readable():
                self._on_ready()

    def _greet(self, one: Connection) -> None:
        """Begin the conversation on a connection."""
        self._watch(one)
        one.greet()
        if one.unsent:
            self._send_later(one)

    def send_last(self, link: Link, frames: Sequence[Frame]) -> None:
        """Take a transmission that is to leave before the close, whatever waits already."""
        one = self._connection(link)
        if one is not None:
            one.write_last(frames)

    @staticmethod
    def _as_bytes(frames: Sequence[Any]) -> list[Frame]:
        """See that all that is to be sent as it is are bytes, before anything of it leaves."""
        return [memoryview(frame).cast("B") for frame in frames]

    def _send_later(self, one: Connection) -> None:
        """Have the loop call when there is room for what is unsent."""
        if self._lookout is not None:
            self._lookout.add_writer(one.fd, self._flush, one)

    def _flush(self, one: Connection) -> None:
        """There is room again for what is unsent."""
        with contextlib.suppress(ConnectionError):  # its end is what we read next
            one.flush()
        if not one.unsent and self._lookout is not None:
            self._lookout.remove_writer(one.fd)
            self._on_ready()

    def _watch(self, one: Connection) -> None:
        if self._lookout is not None:
            self._lookout.add_reader(one.fd, self._stir, one)

    def _ignore(self, one: Connection) -> None:
        if self._lookout is not None:
            self._lookout.remove_reader(one.fd)

    def _let_go(self, one: Connection, linger_s: float = 0.0) -> None:
        if one.is_closed:
            return  # its number may be another one's by now
        if self._lookout is not None and self._loop is not None and not self._loop.is_closed():
            self._lookout.remove_reader(one.fd)
            self._lookout.remove_writer(one.fd)
        one.close(linger_s)

    def _connection(self, link: Link) -> Connection | None:
        """Find the connection of a link."""
        raise NotImplementedError

    def _meet(self, one: Connection) -> bool:
        """Whoever is there has introduced itself; False if it has to wait."""
        raise NotImplementedError

    def _end(self, one: Connection) -> None:
        """A connection has ended, and everything that came by it was taken."""
        raise NotImplementedError
