"""A station's end of wires in clear: ports and doors, who comes, and who has gone.

Law of this room: whoever comes has a moment to introduce himself, and is nobody until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import zmq
from msgspec.structs import replace

from pilotage.protocol.conversation import Conversation
from pilotage.protocol.instructions import Link
from pilotage.protocol.records import Frame
from pilotage.protocol.zmtp import X_DIALECT, peer_card, ready_command
from pilotage.transport.clear import ClearWire
from pilotage.transport.connections import Connection
from pilotage.transport.doors import LOOPBACK, bound_path, door_name, door_path
from pilotage.transport.paths import make_connection, shelf_told
from pilotage.transport.ports import OnAlone
from pilotage.transport.rules import PEER_ADDRESS, Gate, SocketRules, port_in_use

WELCOMED_A_TURN = 8
"""How many newcomers the loop lets in before it looks after the others again."""
MAX_WAITING = 8
"""How many originals may wait for one name; further ones are hung up on, and may come again."""
FULL_PAUSE_S = 0.1
"""How long nobody is let in once this process has no file descriptor left."""
PARTNERS = (b"DEALER", b"REQ", b"ROUTER")


class ClearListener(ClearWire):
    """A ROUTER that others dial.

    Args:
        address: to bind, such as "*" or "127.0.0.1"; None for no port.
        port: to bind; 0 for any free one.
        name: by which originals know us.
        told: the metadata that we tell.
        rules: socket settings.
        door: a name for a door, a path that only processes of this machine and user can dial; "" for none.
        gate: by which gate its peers come in.
        needs_door: where there can be no path, its door is a port of this machine.

    Attributes:
        port: on which it listens, 0 for none.
        door: host and port of its door: a path and 0, or an address of this machine.
        is_plain: True, as for all plain sockets.

    Raises:
        PortInUse: another program listens there.
    """

    type = int(zmq.ROUTER)
    is_plain = True

    def __init__(
        self,
        address: str | None,
        port: int,
        name: str,
        told: Sequence[bytes],
        rules: SocketRules,
        door: str = "",
        gate: Gate | None = None,
        *,
        needs_door: bool = False,
    ) -> None:
        self._gate = gate or Gate()
        super().__init__(self._gate.name, rules)
        self._ready = ready_command("ROUTER", [*told, *shelf_told()], name)
        self._numbers = itertools.count(1)
        self._ports: list[socket.socket] = []
        self._strangers: dict[Connection, float] = {}
        self._connections: dict[bytes, Connection] = {}
        self._waiting: dict[bytes, deque[Connection]] = {}
        self._gone: list[Link] = []
        self._clock: asyncio.TimerHandle | None = None
        self.port, self.door = 0, ("", 0)
        try:
            if address is not None:
                fd = self._gate.fd
                self.port = self._open(self._bound(address, port) if fd is None else socket.socket(fileno=fd))
            if door:
                self.door = self._open_door(door_name(door, self.port), needs_door)
        except OSError as error:
            self.close()
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise port_in_use(name, port, str(error.strerror)) from error
            raise

    def _bound(self, address: str, port: int) -> socket.socket:
        one = socket.socket()
        self._ports.append(one)
        if sys.platform != "win32":
            # There the same option would let others in on the same port.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("" if address == "*" else address, port))
        return one

    def _open(self, one: socket.socket) -> int:
        """Listen, and tell on which port."""
        if one not in self._ports:
            self._ports.append(one)
        one.setblocking(False)
        one.listen(self._rules.max_arriving)
        where = one.getsockname()
        return int(where[1]) if isinstance(where, tuple) else 0

    def _open_door(self, name: str, is_needed: bool) -> tuple[str, int]:
        path = door_path(name)
        if path:
            with contextlib.suppress(OSError):  # a system or a folder without such sockets: then a port
                self._open(bound_path(path))
                return path, 0
        return (LOOPBACK, self._open(self._bound(LOOPBACK, 0))) if is_needed else ("", 0)

    def watch(
        self,
        loop: asyncio.AbstractEventLoop,
        on_ready: Callable[[], object],
        on_change: Callable[[], object],
        on_alone: OnAlone,
    ) -> None:
        """Have the loop call when there is something to take, or a connection has ended."""
        self._look_out(loop)
        self._on_ready, self._on_alone = on_ready, on_alone
        for port in self._ports:
            self._resume(port)

    def send(self, link: Link, frames: Sequence[Frame]) -> None:
        """Send a transmission.

        Raises:
            BlockingIOError: there is no room for it.
            ConnectionError: the peer has gone.
        """
        one = self._connections.get(link[1])
        if one is None:
            raise ConnectionError("its connection has ended")
        one.write(frames)
        if one.unsent:
            self._send_later(one)

    def send_multipart(self, frames: Sequence[bytes]) -> None:
        """Send frames as they are, of which the first is a routing id; only on the loop's thread.

        Raises:
            BlockingIOError: there is no room for it.
            ConnectionError: the peer has gone.
        """
        self.send((self.name, frames[0]), self._as_bytes(frames[1:]))

    def leave(self, link: Link) -> bool:
        """Tell whether a link is one of ours, whose end is yet to be told by `gone`."""
        return link[0] == self.name and link[1] in self._connections

    def gone(self) -> list[Link]:
        """Give the links whose connections have ended and from which everything was taken."""
        gone, self._gone = self._gone, []
        for _, identity in gone:
            del self._connections[identity]
            if identity in self._waiting and self._loop is not None:
                self._loop.call_soon(self._admit, identity)
        return gone

    def close(self) -> None:
        """Close all; what is unsent has a moment to leave."""
        self.closed = True
        until = time.monotonic() + self._rules.linger_ms / 1000
        for one in self._all():
            self._let_go(one, until - time.monotonic())
        for port in self._ports:
            if self._lookout is not None and self._loop is not None and not self._loop.is_closed():
                self._lookout.remove_reader(port.fileno())
            port.close()
        self._look_no_more()
        if self._clock is not None:
            self._clock.cancel()
        if self.door[0] and not self.door[1]:
            Path(self.door[0]).unlink(missing_ok=True)

    def _all(self) -> Iterable[Connection]:
        waiting = itertools.chain.from_iterable(self._waiting.values())
        return [*self._strangers, *self._connections.values(), *waiting]

    def readable(self) -> bool:
        """Tell whether something is there to be taken, or a connection has ended."""
        return bool(self._row or self._gone)

    def _welcome(self, port: socket.socket) -> None:
        """Let newcomers in."""
        for _ in range(WELCOMED_A_TURN):
            try:
                one, where = port.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause(port)
                break
            rules = self._rules
            talk = Conversation(self._ready, PARTNERS, rules.max_frame_bytes)
            connection = make_connection(one, talk, rules.send_buffer_bytes)
            if isinstance(where, tuple):  # asked for later, it would not be told of one who has gone already
                connection.host = str(where[0])
            self._strangers[connection] = time.monotonic() + rules.handshake_ms / 1000
            self._greet(connection)
        self._wind_clock()

    def _pause(self, port: socket.socket) -> None:
        """Let nobody in for a moment: those who wait would have the loop call us without end."""
        if self._lookout is not None and self._loop is not None:
            self._lookout.remove_reader(port.fileno())
            self._loop.call_later(FULL_PAUSE_S, self._resume, port)

    def _resume(self, port: socket.socket) -> None:
        if self._lookout is not None:
            self._lookout.add_reader(port.fileno(), self._welcome, port)

    def _wind_clock(self) -> None:
        """Come back when the first stranger's time is over."""
        if self._clock is None and self._strangers and self._loop is not None:
            first = next(iter(self._strangers.values()))
            self._clock = self._loop.call_later(max(0.0, first - time.monotonic()), self._see_off)

    def _see_off(self) -> None:
        """End the connections of those who have not introduced themselves in time."""
        self._clock = None
        now = time.monotonic()
        for one in [one for one, until in self._strangers.items() if until <= now]:
            self._end(one)
        self._wind_clock()

    def _meet(self, one: Connection) -> bool:
        self._strangers.pop(one, None)
        told = one.conversation.told or {}
        identity = told.get("Identity", b"")
        if X_DIALECT in told or identity[:1] in (b"", b"\0"):
            identity = b"\0" + next(self._numbers).to_bytes(4, "big")
        elif identity in self._connections and len(self._waiting.get(identity, ())) >= MAX_WAITING:
            self._end(one)
            return False
        elif identity in self._connections:
            # As ZeroMQ's library does: a second original of a name isn't heard before the first has gone.
            self._ignore(one)
            self._waiting.setdefault(identity, deque()).append(one)
            return False
        card = replace(peer_card(told, identity), host=one.host)
        one.card = replace(card, address=one.host) if self._gate.mark == PEER_ADDRESS else card
        one.link = (self.name, identity)
        self._connections[identity] = one
        return True

    def _connection(self, link: Link) -> Connection | None:
        return self._connections.get(link[1])

    def _end(self, one: Connection) -> None:
        if one.is_closed:
            return
        self._let_go(one)
        self._strangers.pop(one, None)
        if one.card is not None:
            self._gone.append(one.link)

    def _admit(self, identity: bytes) -> None:
        """The first original of a name has gone: whoever waits for it is heard."""
        waiting = self._waiting.get(identity)
        if self.closed or not waiting or identity in self._connections:
            return
        one = waiting.popleft()
        if not waiting:
            del self._waiting[identity]
        self._watch(one)
        self._take_in(one)
