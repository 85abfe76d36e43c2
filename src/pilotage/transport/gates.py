"""Gates: the listening sockets of one station, as one wire.

    gate          bound to                who comes in
    listener      loopback                whoever is on this machine, without a key
    outward       everywhere else, same   whoever proves a key that we know
                  port number
    originals     everywhere, a port of   originals without a key, by name and address
                  its own

Told `insecure`, a station has one gate, `listener`, and that is open to all.

Law of this room: what comes in by a gate is marked with what that gate has seen: a key, an address, or nothing.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import Callable, Sequence

from pilotage.protocol.instructions import Arrival, Link
from pilotage.protocol.records import Frame
from pilotage.transport.clear_listener import ClearListener
from pilotage.transport.curve import ZapHandler
from pilotage.transport.doors import LOOPBACK
from pilotage.transport.links import LockedListener
from pilotage.transport.ports import OnAlone
from pilotage.transport.rules import port_in_use

LISTENER, OUTWARD, ORIGINALS = "listener", "outward", "originals"
BACKLOG = 1024
TRIES = 20


class Gates:
    """Several listening sockets that a driver sees as one.

    Args:
        gates: the sockets, the one for this machine first.
        zap: who answers for the keys, where there are any.

    Attributes:
        is_plain: no gate wants a key.
    """

    def __init__(self, gates: Sequence[ClearListener | LockedListener], zap: ZapHandler | None) -> None:
        self.port, self.door = gates[0].port, gates[0].door
        self.is_plain = all(gate.is_plain for gate in gates)
        self.socket = gates[0].socket
        self._gates = {gate.name: gate for gate in gates}
        self._zap = zap

    def watch(
        self,
        loop: asyncio.AbstractEventLoop,
        on_ready: Callable[[], object],
        on_change: Callable[[], object],
        on_alone: OnAlone,
    ) -> None:
        """Have the loop call when there may be something to read, or a connection has changed."""
        if self._zap is not None:
            self._zap.watch(loop)
        for gate in self._gates.values():
            gate.watch(loop, on_ready, on_change, on_alone)

    def readable(self) -> bool:
        """Tell whether something is there to be read, by any gate; each is asked, for each remembers what it saw."""
        return True in [gate.readable() for gate in self._gates.values()]

    def more_comes(self) -> bool:
        """Tell whether more may have happened in this moment than was told yet."""
        return True

    def drain(self, most: int) -> list[Arrival]:
        """Read up to so many transmissions from each gate."""
        return [arrival for gate in self._gates.values() for arrival in gate.drain(most)]

    def send(self, link: Link, frames: Sequence[Frame]) -> None:
        """Queue a transmission.

        Raises:
            BlockingIOError: there is no room for it.
            ConnectionError: the peer has gone.
        """
        gate = self._gates.get(link[0])
        if gate is None:
            raise ConnectionError("there is no such gate")
        gate.send(link, frames)

    def send_last(self, link: Link, frames: Sequence[Frame]) -> None:
        """Take a transmission that is to leave before the close."""
        gate = self._gates.get(link[0])
        if gate is not None:
            gate.send_last(link, frames)

    def leave(self, link: Link) -> bool:
        """Have a link end that can't be written to; False if it is none of ours, or has ended."""
        gate = self._gates.get(link[0])
        return gate is not None and gate.leave(link)

    def gone(self) -> list[Link]:
        """Give the links whose connections have ended."""
        return [link for gate in self._gates.values() for link in gate.gone()]

    def close(self) -> None:
        """Close all."""
        for gate in self._gates.values():
            gate.close()
        if self._zap is not None:
            self._zap.close()


def bind_both(port: int, name: str) -> tuple[int, int, int]:
    """Take one port number twice: on loopback, and on every other interface.

    The kernel gives a connection to the socket whose address fits best. Nobody else gets the number: the first socket
    is bound as any other program's would be.

    Args:
        port: 0 for any free one.
        name: who wants it, for the error.

    Returns:
        The port, and the file descriptors of the two listening sockets, which are the caller's now.

    Raises:
        PortInUse: another program listens there, on either side.
    """
    for tries_left in reversed(range(1 if port else TRIES)):
        near, far = socket.socket(), socket.socket()
        try:
            _bind(near, LOOPBACK, port, shares=False)
            number = int(near.getsockname()[1])
            _bind(far, "", number, shares=True, beside=near)
        except OSError as error:
            near.close()
            far.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            if not tries_left:
                raise port_in_use(name, port, str(error.strerror)) from error
        else:
            return number, near.detach(), far.detach()
    raise AssertionError("the last try ends in an error or in two sockets")


def _bind(
    one: socket.socket, address: str, port: int, *, shares: bool, beside: socket.socket | None = None
) -> None:
    if sys.platform != "win32":
        # There the same option would let others in; and there a second address needs none.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sharer in (one, beside) if shares and beside is not None else ():
            sharer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind((address, port))
    one.listen(BACKLOG)
    one.setblocking(False)
