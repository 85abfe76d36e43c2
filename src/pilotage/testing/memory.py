"""Memory wires: a network inside the process that can be cut, for what is to be tried without sockets.

They keep the same contract as ZeroMQ's (`tests/transport` runs one suite over both). Law of this room: a wire is
read and written on its loop's thread only; the network between the wires is shared by all threads, behind one lock.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pilotage.protocol.errors import PortInUse
from pilotage.protocol.instructions import Arrival, Card, Dialect, Link
from pilotage.protocol.records import Frame
from pilotage.transport.ports import OnAlone, SendsLast

FIRST_FREE_PORT = 40_000


class _Bell:
    """Calls a driver on its loop's thread, from any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._call: Callable[[], object] = lambda: None

    def hang(self, loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
        self._loop, self._call = loop, call

    def ring(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._call)


@dataclass(eq=False)
class Connection:
    """What lies between a dialled wire and a listening one.

    Attributes:
        dialled: the end that dialled.
        listening: the other end.
        routing_id: by which the listening end knows it.
        is_up: it carries; a connection that is frozen or cut doesn't.
        frozen: it looks alive at both ends and carries nothing, as when a machine loses power.
    """

    dialled: MemoryDialled
    listening: MemoryListening
    routing_id: bytes
    is_up: bool = True
    frozen: bool = False


class MemoryNetwork:
    """Ports, the connections between them, and what befalls those.

    Args:
        max_queued: transmissions that wait at one end of a connection before its writer is told *again*.
    """

    def __init__(self, max_queued: int = 10_000) -> None:
        self.lock = threading.RLock()
        self.max_queued = max_queued
        self.ports: dict[int, MemoryListening] = {}
        self.connections: list[Connection] = []
        self._free_ports = itertools.count(FIRST_FREE_PORT)
        self._routing_ids = itertools.count(1)

    def cut(self, name: str) -> None:
        """End the connections that a peer dialled; both ends notice."""
        for connection in self._of(name):
            self.end(connection)

    def freeze(self, name: str) -> None:
        """Let the connections that a peer dialled carry nothing any more; no end notices."""
        for connection in self._of(name):
            connection.frozen = True

    def bind(self, wire: MemoryListening, port: int) -> int:
        """Give a listening wire its port.

        Raises:
            PortInUse: somebody listens there.
        """
        with self.lock:
            port = port or next(self._free_ports)
            if port in self.ports:
                raise PortInUse(
                    f"{wire.card.name} can't listen on port {port}: {self.ports[port].card.name} does"
                )
            self.ports[port] = wire
        return port

    def connect(self, wire: MemoryDialled, port: int) -> Connection | None:
        """Connect a dialled wire; None if nobody listens there any more."""
        with self.lock:
            listening = self.ports.get(port)
            if listening is None:
                return None
            connection = Connection(wire, listening, b"\0" + next(self._routing_ids).to_bytes(4, "big"))
            listening.connections[connection.routing_id] = connection
            self.connections.append(connection)
        return connection

    def end(self, connection: Connection) -> None:
        """End a connection; what was sent by it before can still be read."""
        with self.lock:
            if not connection.is_up:
                return
            connection.is_up = False
            self.connections.remove(connection)
            connection.listening.ending.append(connection.routing_id)
            connection.dialled.happened.append(False)
        connection.listening.changed.ring()
        connection.dialled.changed.ring()

    def _of(self, name: str) -> list[Connection]:
        with self.lock:
            return [one for one in self.connections if one.dialled.card.name == name]


@dataclass(eq=False)
class _MemoryWire(SendsLast):
    """What both kinds of wire share: an inbox, and who is to be called."""

    network: MemoryNetwork
    card: Card
    inbox: deque[tuple[Connection, list[Frame]]] = field(default_factory=deque)
    ready: _Bell = field(default_factory=_Bell)
    changed: _Bell = field(default_factory=_Bell)

    def watch(
        self,
        loop: asyncio.AbstractEventLoop,
        on_ready: Callable[[], object],
        on_change: Callable[[], object],
        on_alone: OnAlone,
    ) -> None:
        """Have the loop call when there may be something to read, or something happened to a connection."""
        self.ready.hang(loop, on_ready)
        self.changed.hang(loop, on_change)
        self.ready.ring()
        self.changed.ring()

    def more_comes(self) -> bool:
        """Tell whether more may have happened in this moment than was told yet."""
        return True

    def readable(self) -> bool:
        """Tell whether something is there to be read."""
        return bool(self.inbox)

    def _put(self, connection: Connection, frames: Sequence[Frame]) -> None:
        """Queue a transmission at the other end.

        Raises:
            BlockingIOError: that end's queue is full.
        """
        other = connection.listening if self is connection.dialled else connection.dialled
        if connection.frozen:
            return
        with self.network.lock:
            most, inbox = self.network.max_queued, other.inbox
            if len(inbox) >= most and sum(one[0] is connection for one in inbox) >= most:
                raise BlockingIOError
            other.inbox.append((connection, [bytes(frame) for frame in frames]))
        other.ready.ring()


@dataclass(eq=False)
class MemoryListening(_MemoryWire):
    """A port that others dial."""

    port: int = 0
    door: tuple[str, int] = ("", 0)
    is_plain: bool = False
    connections: dict[bytes, Connection] = field(default_factory=dict)
    ending: list[bytes] = field(default_factory=list)
    _gone: list[Link] = field(default_factory=list)

    def drain(self, most: int) -> list[Arrival]:
        """Read up to so many transmissions; fewer means that there are no more for now."""
        arrivals: list[Arrival] = []
        with self.network.lock:
            ending, self.ending = self.ending, []
            while self.inbox and len(arrivals) < most:
                connection, frames = self.inbox.popleft()
                arrivals.append((("listener", connection.routing_id), connection.dialled.card, frames))
            if self.inbox:
                self.ending += ending
            else:
                self._gone += [("listener", one) for one in ending if self.connections.pop(one, None)]
        return arrivals

    def send(self, link: Link, frames: Sequence[Frame]) -> None:
        """Queue a transmission.

        Raises:
            BlockingIOError: the peer's queue is full.
            ConnectionError: the peer has gone.
        """
        connection = self.connections.get(link[1])
        if connection is None or not connection.is_up:
            raise ConnectionError("its connection has ended")
        self._put(connection, frames)

    def leave(self, link: Link) -> bool:
        """Tell whether a link's connection has ended and is yet to be told by `gone`."""
        return link[1] in self.connections

    def gone(self) -> list[Link]:
        """Give the links whose connections have ended and from which everything was read."""
        gone, self._gone = self._gone, []
        return gone

    def close(self) -> None:
        """Give the port back and end its connections."""
        self.network.ports.pop(self.port, None)
        for connection in list(self.connections.values()):
            self.network.end(connection)


@dataclass(eq=False)
class MemoryDialled(_MemoryWire):
    """A wire that dialled a port."""

    link: Link = ("", b"")
    answered: Card | None = None
    happened: list[bool] = field(default_factory=list)
    connection: Connection | None = None
    is_refused: bool = False
    is_plain: bool = False

    def drain(self, most: int) -> list[Arrival]:
        """Read up to so many transmissions; fewer means that there are no more for now."""
        arrivals: list[Arrival] = []
        while self.inbox and len(arrivals) < most and self.answered is not None:
            arrivals.append((self.link, self.answered, self.inbox.popleft()[1]))
        return arrivals

    def send(self, link: Link, frames: Sequence[Frame]) -> None:
        """Queue a transmission.

        Raises:
            BlockingIOError: the queue is full, or there is no connection.
        """
        if self.connection is None or not self.connection.is_up:
            raise BlockingIOError
        self._put(self.connection, frames)

    def changes(self) -> list[bool]:
        """Give what has happened to the connection: True for up, False for down."""
        happened, self.happened = self.happened, []
        return happened

    def close(self) -> None:
        """End the connection."""
        if self.connection is not None:
            self.network.end(self.connection)


class MemoryWires:
    """How one driver listens, looks and dials on a memory network.

    Args:
        network: shared by all who are to meet.
    """

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.machine = "memory"

    def listen(
        self, address: str | None, port: int, name: str, boot: int, *, has_door: bool = False
    ) -> MemoryListening:
        """Take a port.

        Raises:
            PortInUse: somebody listens there.
        """
        wire = MemoryListening(self.network, Card(Dialect.OWN, name, boot, dials=False))
        wire.port = self.network.bind(wire, port)
        wire.door = ("memory", wire.port)
        return wire

    async def peek(self, host: str, port: int, upstream: str) -> Card:
        """Look who listens on a port.

        Raises:
            ConnectionRefusedError: nobody does.
        """
        listening = self.network.ports.get(port)
        if listening is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens on port {port}")
        return listening.card

    def dial(self, name: str, host: str, port: int, card: Card, me: str, boot: int) -> MemoryDialled:
        """Connect; that it is up, or couldn't be, is the wire's first change."""
        wire = MemoryDialled(self.network, Card(Dialect.OWN, me, boot), link=(name, b""), answered=card)
        wire.connection = self.network.connect(wire, port)
        wire.happened.append(wire.connection is not None)
        return wire

    def close(self) -> None:
        """Let go of the network: there is nothing to do."""
