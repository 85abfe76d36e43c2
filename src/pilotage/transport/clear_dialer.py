"""A node's end of a wire in clear: one connection, which is up or has ended.

Law of this room: a connection is tried once; when and whether to try again is for whoever dials.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

import zmq

from pilotage.protocol.conversation import Conversation
from pilotage.protocol.instructions import Card, Dialect, Link
from pilotage.protocol.records import Frame
from pilotage.protocol.zmtp import ready_command
from pilotage.transport.clear import ClearWire
from pilotage.transport.connections import Connection
from pilotage.transport.paths import make_connection, shelf_told
from pilotage.transport.ports import OnAlone
from pilotage.transport.rules import SocketRules

PARTNERS = (b"ROUTER",)


class ClearDialer(ClearWire):
    """A DEALER that dials a station, in the dialect that the station speaks.

    Args:
        name: what its link is called by.
        host: to connect to; a path where the port is 0.
        port: to connect to.
        card: who listens there.
        told: the metadata that we tell a station of ours.
        me: our name, which is our identity towards an original.
        rules: socket settings.

    Attributes:
        link: what its connection is called by.
        is_refused: False; only a station that wants keys refuses one.
        is_plain: True, as for all plain sockets.
    """

    type = int(zmq.DEALER)
    is_plain = True

    def __init__(
        self, name: str, host: str, port: int, card: Card, told: Sequence[bytes], me: str, rules: SocketRules
    ) -> None:
        super().__init__(name, rules)
        # An original knows its peers by their identities; ours are known by their metadata, so that a name can change
        # hands (see the decision on identity).
        is_ours = card.dialect is Dialect.OWN
        ready = ready_command("DEALER", [*told, *shelf_told()] if is_ours else (), "" if is_ours else me)
        self.link: Link = (name, b"")
        self.card = card
        self.is_refused = False
        self._where = (host, port) if port else host
        self._happened: list[bool] = []
        self._on_change: Callable[[], object] = lambda: None
        self._opening: asyncio.Task[None] | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._is_up = False
        talk = Conversation(ready, PARTNERS, rules.max_frame_bytes)
        one = socket.socket(socket.AF_INET if port else socket.AF_UNIX)
        self._one = make_connection(one, talk, rules.send_buffer_bytes)

    def watch(
        self,
        loop: asyncio.AbstractEventLoop,
        on_ready: Callable[[], object],
        on_change: Callable[[], object],
        on_alone: OnAlone,
    ) -> None:
        """Connect, and have the loop call when there is something to take, or the connection has changed."""
        self._look_out(loop)
        self._on_ready, self._on_change, self._on_alone = on_ready, on_change, on_alone
        self._clock = loop.call_later(self._rules.handshake_ms / 1000, self._end, self._one)
        self._opening = loop.create_task(loop.sock_connect(self._one.socket, self._where))
        self._opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening = None
        if opening.cancelled():
            self._one.close()
        elif opening.exception() is not None:
            self._end(self._one)
        elif not self._one.is_closed:  # by whoever came between the connection and this call
            self._greet(self._one)

    def send(self, link: Link, frames: Sequence[Frame]) -> None:
        """Send a transmission.

        Raises:
            BlockingIOError: there is no room for it, or no connection yet.
            ConnectionError: nobody is there any more.
        """
        if not self._is_up:
            raise BlockingIOError
        one = self._one
        one.write(frames)
        if one.unsent:
            self._send_later(one)

    def send_multipart(self, frames: Sequence[bytes]) -> None:
        """Send frames as they are; only on the loop's thread.

        Raises:
            BlockingIOError: there is no room for it, or no connection yet.
            ConnectionError: nobody is there any more.
        """
        self.send(self.link, self._as_bytes(frames))

    def changes(self) -> list[bool]:
        """Give what has happened to the connection: True for up, False for down and everything taken."""
        happened, self._happened = self._happened, []
        return happened

    def close(self) -> None:
        """Close it; what is unsent has a moment to leave."""
        self.closed = True
        self._shut(self._rules.linger_ms / 1000)
        self._look_no_more()

    def _shut(self, linger_s: float = 0.0) -> None:
        self._stop_clock()
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()  # it closes the socket once the loop has let go of it
        else:
            self._let_go(self._one, linger_s)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()

    def _connection(self, link: Link) -> Connection | None:
        return self._one if self._is_up else None

    def _meet(self, one: Connection) -> bool:
        self._stop_clock()
        one.card, one.link = self.card, self.link
        self._is_up = True
        self._happened.append(True)
        self._on_change()
        return True

    def _end(self, one: Connection) -> None:
        if one.is_closed:
            return
        self._shut()
        self._is_up, one.is_over = False, True
        self._happened.append(False)
        if self._loop is not None:
            self._loop.call_soon(self._on_change)  # after this turn, which may have taken the last that came
