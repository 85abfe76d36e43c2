"""Links behind a lock: ZeroMQ's sockets, which know CURVE. What is in clear goes by `clear`.

Law of this room: everything here runs on the loop's thread (ZeroMQ sockets belong to one thread).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import zmq
import zmq.backend
from msgspec.structs import replace

from pilotage.protocol.conversation import MAX_FRAMES
from pilotage.protocol.errors import MalformedFrame
from pilotage.protocol.instructions import Arrival, Card, Dialect, Link
from pilotage.protocol.records import Frame
from pilotage.protocol.zmtp import X_BOOT, X_DIALECT, X_NAME, original_name, own_card
from pilotage.transport.curve import KeyPair, lock_dialler, lock_listener
from pilotage.transport.ports import OnAlone, SendsLast
from pilotage.transport.rules import PEER_ADDRESS, USER_ID, Gate, SocketRules, port_in_use

NOBLOCK, SNDMORE, POLLIN = int(zmq.NOBLOCK), int(zmq.SNDMORE), int(zmq.POLLIN)
MORE_TO_COME = NOBLOCK | SNDMORE

NO_COPY_FROM_BYTES = 512 * 1024
"""What is sent from its sender's own memory, uncopied. ZeroMQ tells when it is done with that, to a thread of its own
that needs the interpreter for it: below, a copy is over sooner."""

VIEW_FROM_BYTES = 4096
"""What is read where ZeroMQ has put it: below, a copy costs less than a view."""

ENDS_A_TURN = 32
"""How many ends of connections a turn looks at: whoever comes and goes must not make the others wait."""

EVENT = struct.Struct("=Hi")
"""What a monitor says first: an event and its value (zmq_socket_monitor(3)); the address follows."""

# The plain methods below pyzmq's conveniences, which cost as much again as the call itself.
_recv: Any = zmq.backend.Socket.recv
_send: Any = zmq.backend.Socket.send
_get: Any = zmq.backend.Socket.get


def open_socket(
    context: zmq.Context[zmq.Socket[bytes]], kind: int, told: Sequence[bytes], rules: SocketRules
) -> zmq.Socket[bytes]:
    """Make a socket with our settings."""
    socket = context.socket(kind)
    socket.setsockopt(zmq.SNDHWM, rules.max_queued)
    socket.setsockopt(zmq.RCVHWM, rules.max_queued)
    socket.setsockopt(zmq.HANDSHAKE_IVL, rules.handshake_ms)
    socket.setsockopt(zmq.MAXMSGSIZE, rules.max_frame_bytes)
    socket.setsockopt(zmq.LINGER, rules.linger_ms)
    socket.setsockopt(zmq.BACKLOG, rules.max_arriving)
    for item in told:
        socket.setsockopt(zmq.METADATA, item)
    return socket


Transmission = tuple[bytes, zmq.Frame, list[Frame]]
"""The routing id before it, if there is one; its first frame, which knows whose it is; and what its frames hold."""


def _option(socket: zmq.Socket[bytes], option: int) -> int:
    return int(_get(socket, option))


class Endpoint(SendsLast):
    """One socket with its monitor. `name` is what links on it are called by.

    A look at a socket costs more than a small message, so it remembers whether there may be anything to see: the
    file descriptor tells that something has changed, and what we do with the socket may swallow that.
    """

    def __init__(self, name: str, socket: zmq.Socket[bytes], monitored: int) -> None:
        self.name = name
        self.socket = socket
        self.monitor = socket.get_monitor_socket(monitored)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stirred = True
        self._touched = False
        self._connections_changed = True

    def watch(
        self,
        loop: asyncio.AbstractEventLoop,
        on_ready: Callable[[], object],
        on_change: Callable[[], object],
        on_alone: OnAlone,
    ) -> None:
        """Have the loop call when there may be something to read, or something happened to a connection."""

        def stir() -> None:
            self._stirred = True
            on_ready()

        def change() -> None:
            self._connections_changed = True
            on_change()

        self._loop = loop
        loop.add_reader(_option(self.socket, zmq.FD), stir)
        loop.add_reader(_option(self.monitor, zmq.FD), change)

    def readable(self) -> bool:
        """Tell whether there is something to see; the file descriptors tell only changes."""
        return self._has_data() or self._connections_changed

    def more_comes(self) -> bool:
        """Tell whether more may have happened in this moment than was told yet."""
        return True

    def _has_data(self) -> bool:
        if self._touched:
            self._touched = False
            # Asked for by its enumerator, which saves pyzmq a look for what the number means.
            self._stirred = self._stirred or bool(_get(self.socket, zmq.EVENTS) & POLLIN)
        return self._stirred

    def events(self, most: int = -1) -> Iterator[tuple[int, int]]:
        """Give what the monitor has seen: events, each with its value; up to so many, all of them if it is negative."""
        self._connections_changed = False
        with contextlib.suppress(zmq.Again):
            while most:
                frame = _recv(self.monitor, NOBLOCK, True)
                _recv(self.monitor, NOBLOCK, True)
                yield EVENT.unpack(frame)
                most -= 1
            self._connections_changed = True

    def close(self) -> None:
        """Close socket and monitor."""
        if self._loop is not None:
            self._loop.remove_reader(_option(self.socket, zmq.FD))
            self._loop.remove_reader(_option(self.monitor, zmq.FD))
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close()

    def _read_all(self, most: int, *, is_routed: bool) -> list[Transmission]:
        """Read up to so many transmissions.

        Whether there are more, `readable` finds out: to be told so by an error costs more.
        """
        found: list[Transmission] = []
        socket = self.socket
        self._stirred, self._touched = False, True
        try:
            while len(found) < most:
                routing_id = _recv(socket, NOBLOCK, True) if is_routed else b""
                first = frame = _recv(socket, NOBLOCK, False)
                contents = [frame.bytes if len(frame) < VIEW_FROM_BYTES else frame.buffer]
                while frame.more:
                    frame = _recv(socket, NOBLOCK, False)
                    contents.append(frame.bytes if len(frame) < VIEW_FROM_BYTES else frame.buffer)
                    if len(contents) > MAX_FRAMES:
                        del contents[1:]  # the rest of it is read off, and what is left is malformed
                found.append((routing_id, first, contents))
        except zmq.Again:
            pass  # there is nothing more for now
        return found

    def _write(self, frames: Sequence[Frame]) -> None:
        socket = self.socket
        self._touched = True
        last = len(frames) - 1
        try:
            for at, frame in enumerate(frames):
                flags = MORE_TO_COME if at < last else NOBLOCK
                if isinstance(frame, memoryview) and isinstance(frame.obj, zmq.Frame):
                    _send(socket, frame.obj, flags, False)  # it came in like that: ZeroMQ shares it
                else:
                    _send(socket, frame, flags, len(frame) < NO_COPY_FROM_BYTES)
        except zmq.Again as error:
            raise BlockingIOError from error
        except zmq.ZMQError as error:
            raise ConnectionError(str(error.strerror)) from error


class LockedListener(Endpoint):
    """A ROUTER that others dial who have a key.

    Args:
        context: ZeroMQ's.
        address: to bind, such as "*" or "127.0.0.1".
        port: to bind; 0 for any free one.
        name: by which originals know us.
        told: the metadata that we tell.
        rules: socket settings.
        gate: by which gate its peers come in; it has our key.

    Attributes:
        port: on which it listens.
        door: host and port of its door: it has none.
        is_plain: False: ZeroMQ tells by itself only that something has changed, and of that only once.

    Raises:
        PortInUse: another program listens there.
    """

    is_plain = False

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        port: int,
        name: str,
        told: Sequence[bytes],
        rules: SocketRules,
        gate: Gate,
    ) -> None:
        socket = open_socket(context, zmq.ROUTER, told, rules)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.IDENTITY, name.encode())
        self._gate = gate
        if gate.own is not None:
            lock_listener(socket, gate.own)
        super().__init__(gate.name, socket, int(zmq.EVENT_DISCONNECTED))
        self.door = ("", 0)
        try:
            self.port = self._bind(address, port)
        except zmq.ZMQError as error:
            self.close()
            if error.errno in (errno.EADDRINUSE, errno.EACCES, zmq.EADDRINUSE):
                raise port_in_use(name, port, str(error.strerror)) from error
            raise
        self._marks: dict[bytes, str] = {}
        self._cards: dict[bytes, tuple[Link, Card]] = {}
        self._by_fd: dict[int, bytes] = {}
        self._ending: list[bytes] = []
        self._gone: list[Link] = []

    def _bind(self, address: str, port: int) -> int:
        fd = -1 if self._gate.fd is None else self._gate.fd
        self.socket.setsockopt(zmq.USE_FD, fd)
        self.socket.bind(f"tcp://{address}:{port or '*'}")
        self.socket.setsockopt(zmq.USE_FD, -1)
        return int(self.socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])

    def drain(self, most: int) -> list[Arrival]:
        """Read up to so many transmissions; fewer means that there are no more for now."""
        if not (self._stirred or self._connections_changed):
            return []
        arrivals: list[Arrival] = []
        if self._connections_changed:
            self._note_ends(ENDS_A_TURN)
        for routing_id, first, contents in self._read_all(most, is_routed=True):
            known = self._cards.get(routing_id)
            if known is None or (self._marks and self._is_another(routing_id, first)):
                known = self._meet(routing_id, first)
            arrivals.append((*known, contents))
        if self._ending and not self._has_data():
            self._end()
        return arrivals

    def send(self, link: Link, frames: Sequence[Frame]) -> None:
        """Queue a transmission.

        Raises:
            BlockingIOError: the peer's queue is full.
            ConnectionError: the peer has gone.
        """
        self._write([link[1], *frames])

    def leave(self, link: Link) -> bool:
        """Have a link end that can't be written to, once everything that came by it was read.

        Returns:
            False if it is none of ours, or has ended.
        """
        name, routing_id = link
        if name != self.name or routing_id not in self._cards:
            return False
        if routing_id not in self._ending:
            self._ending.append(routing_id)
        self._stirred = True
        return True

    def gone(self) -> list[Link]:
        """Give the links whose connections have ended and from which everything was read."""
        gone, self._gone = self._gone, []
        return gone

    def _note_ends(self, most: int = -1) -> None:
        """Note which connections have ended; what they sent before may still be there to be read."""
        for _, fd in self.events(most):
            routing_id = self._by_fd.pop(fd, None)
            if routing_id is not None:
                self._ending.append(routing_id)

    def _end(self) -> None:
        """Forget those who have ended: nothing of theirs is left to be read."""
        ending, self._ending = self._ending, []
        self._gone += [self._cards.pop(routing_id)[0] for routing_id in ending if routing_id in self._cards]
        for routing_id in ending if self._marks else ():
            self._marks.pop(routing_id, None)

    def _meet(self, routing_id: bytes, frame: zmq.Frame) -> tuple[Link, Card]:
        link = (self.name, routing_id)
        try:
            fd = int(frame.get(zmq.SRCFD))
        except zmq.ZMQError:
            # It speaks a protocol older than any peer of ours: nobody, and nothing would tell us of its end.
            return link, Card(Dialect.NONE, "")
        card = replace(_card_of(frame, routing_id), host=_address_of(frame))
        if self._gate.mark:
            card = self._marked(card, routing_id, str(frame.get(self._gate.mark)))
        # A newcomer may have the descriptor of a connection whose end we have not looked at yet.
        self._note_ends()
        self._cards[routing_id] = (link, card)
        self._by_fd[fd] = routing_id
        return link, card

    def _marked(self, card: Card, routing_id: bytes, mark: str) -> Card:
        """Put on a card what the gate has seen; remember it where the peer has chosen its routing id itself."""
        if not routing_id.startswith(b"\0"):
            self._marks[routing_id] = mark
        return replace(card, key=mark) if self._gate.mark == USER_ID else replace(card, address=mark)

    def _is_another(self, routing_id: bytes, frame: zmq.Frame) -> bool:
        """Tell whether a routing id that its peer has chosen is used by somebody else than before.

        Whoever is quick can take it between the end of one connection and our noticing.
        """
        mark = self._marks.get(routing_id)
        return mark is not None and str(frame.get(self._gate.mark)) != mark


def _address_of(frame: zmq.Frame) -> str:
    """Read where a frame's sender is, for people."""
    with contextlib.suppress(zmq.ZMQError, ValueError):
        return str(frame.get(PEER_ADDRESS))
    return ""


def _card_of(frame: zmq.Frame, routing_id: bytes) -> Card:
    """Read who sent a frame: an original tells nothing, which pyzmq answers with an error."""
    try:
        frame.get(X_DIALECT)
    except zmq.ZMQError:
        return Card(Dialect.JSON, original_name(routing_id))
    except ValueError:
        return Card(Dialect.OWN, "")
    try:
        return own_card(str(frame.get(X_NAME)), str(frame.get(X_BOOT)), dials=True)
    except (zmq.ZMQError, MalformedFrame, ValueError):  # ValueError: what it tells is not UTF-8
        return Card(Dialect.OWN, "")


class LockedDialer(Endpoint):
    """A DEALER that dials a station that wants a key.

    Args:
        context: ZeroMQ's.
        name: what its link is called by.
        address: to connect to.
        card: who listens there, with the key by which it has to answer.
        told: the metadata that we tell it.
        rules: socket settings.
        own: our key.

    Attributes:
        is_refused: the station did not let our key in.
        is_plain: False: ZeroMQ's sockets belong to one thread.
    """

    is_plain = False

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        name: str,
        address: str,
        card: Card,
        told: Sequence[bytes],
        rules: SocketRules,
        own: KeyPair,
    ) -> None:
        socket = open_socket(context, zmq.DEALER, told, rules)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.RECONNECT_IVL, -1)
        lock_dialler(socket, own, card.key)
        super().__init__(
            name, socket, int(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | _FAILURES)
        )
        self.card = card
        self.link: Link = (name, b"")
        self.is_refused = False
        socket.connect(address)

    def drain(self, most: int) -> list[Arrival]:
        """Read up to so many transmissions; fewer means that there are no more for now."""
        if not self._stirred:
            return []
        link, card = self.link, self.card
        return [(link, card, contents) for _, _, contents in self._read_all(most, is_routed=False)]

    def send(self, link: Link, frames: Sequence[Frame]) -> None:
        """Queue a transmission.

        Raises:
            BlockingIOError: the queue is full, or there is no connection.
            ConnectionError: ZeroMQ doesn't take it.
        """
        self._write(frames)

    def changes(self) -> list[bool]:
        """Give what has happened to the connection: True for up, False for down."""
        happened = [event for event, _ in self.events()]
        self.is_refused = self.is_refused or int(zmq.EVENT_HANDSHAKE_FAILED_AUTH) in happened
        return [event == int(zmq.EVENT_HANDSHAKE_SUCCEEDED) for event in happened]


_FAILURES = (
    zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
