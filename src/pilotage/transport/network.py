"""ZeroMQ's protocol over TCP: how a driver listens, looks and dials, and with which keys.

What is in clear we speak ourselves (`clear`); behind a lock ZeroMQ's library speaks for us (`links`).

    we listen on               what is bound
    an address                 that address, in clear
    "*", without a key         loopback
    "*", with a key            loopback in clear, and everything else, encrypted, under the same port number
    "*", told `insecure`       everything, in clear

    whom we dial               what is done
    speaks in clear            dialled in clear, if it is on this machine or we were told `insecure`
      … by a loopback address  dialled by the path beside its port, where it has one that is ours to dial
    wants a key                dialled with ours, if we know its

Law of this room: beyond this machine nothing is said in clear, unless we were told to by name (promise X1).
"""

from __future__ import annotations

import asyncio
import contextlib
import encodings.idna  # noqa: F401 - see below
import logging
import time
from collections.abc import Callable

import zmq

from pilotage.protocol.authority import Authority
from pilotage.protocol.errors import Closed, MalformedFrame
from pilotage.protocol.instructions import Card, Dialect
from pilotage.protocol.records import WIRE_VERSION
from pilotage.protocol.zmtp import GREETING, OPENING, is_locked, metadata, read_card, ready_length
from pilotage.transport.clear_dialer import ClearDialer
from pilotage.transport.clear_listener import ClearListener
from pilotage.transport.contexts import Context, shared_context
from pilotage.transport.curve import Keyring, ZapHandler, check_clear, is_loopback, station_key
from pilotage.transport.doors import LOOPBACK, door_name, machine_mark, near_door
from pilotage.transport.gates import LISTENER, ORIGINALS, OUTWARD, Gates, bind_both
from pilotage.transport.links import LockedDialer, LockedListener
from pilotage.transport.ports import DialledWire
from pilotage.transport.rules import PEER_ADDRESS, USER_ID, Gate, SocketRules

# Whoever looks a name up imports `encodings.idna`. If a loop's thread did so while another one forks a station, that
# station would wait for the end of the import for ever, the first time that it dials.

log = logging.getLogger(__name__)

PEEK_TIMEOUT_S = 3.0
HOLDS_S = 1.0
"""A path that has to be dialled again sooner is left alone: what can't go by it may go by the port."""
ANY = "*"


class ZmqWires:
    """ZeroMQ's protocol over TCP.

    Args:
        rules: socket settings.
        keyring: our keys, and those that we know; none if not given. May be replaced while it runs.
        authority: who is let in; whoever has a key of the keyring if not given.
        shares_threads: use the context, and so the threads, of all others of this process that share theirs. Not for
            those who listen: whom ZeroMQ lets in is a matter of the context.

    Attributes:
        on_locked: called when a station wants a key of us.
    """

    def __init__(
        self,
        rules: SocketRules | None = None,
        keyring: Keyring | None = None,
        authority: Authority | None = None,
        *,
        shares_threads: bool = False,
    ) -> None:
        self.rules = rules or SocketRules()
        self.keyring = keyring or Keyring()
        self.authority = authority or Authority(
            self.keyring.grants, self.keyring.originals, self.keyring.roles
        )
        self.machine = machine_mark()
        self._shares_threads = shares_threads
        self._closed = False
        self._context: Context | None = None
        self.on_locked: Callable[[], None] = lambda: None
        self._attempts = 0
        self._dialled = ("", 0.0)
        self._shunned = ""

    @property
    def context(self) -> Context:
        """ZeroMQ's context, which has threads: made for whoever asks first.

        Raises:
            Closed: we have let go of it.
        """
        if self._context is None:
            if self._closed:
                raise Closed("the network was closed: it has no context any more")
            self._context = shared_context.take() if self._shares_threads else zmq.Context()
        return self._context

    def listen(
        self, address: str | None, port: int, name: str, boot: int, *, has_door: bool = False
    ) -> ClearListener | Gates:
        """Bind, as the table above says.

        Raises:
            PortInUse: another program listens there.
        """
        keyring, told = self.keyring, metadata(name, boot, WIRE_VERSION)
        door = f"{boot:x}"
        if address != ANY or keyring.insecure:
            return ClearListener(address, port, name, told, self.rules, door, needs_door=has_door)
        zap = ZapHandler(self.context, self.authority.knows) if keyring.own is not None else None
        gates: list[ClearListener | LockedListener] = []
        try:
            for at, number, gate in self._plan(port, name):
                if gate.own is None:
                    here = "" if gates else door
                    gates.append(
                        ClearListener(
                            at, number, name, told, self.rules, here, gate, needs_door=has_door and bool(here)
                        )
                    )
                else:
                    gates.append(LockedListener(self.context, at, number, name, told, self.rules, gate))
        except BaseException:
            for one in (*gates, zap):
                if one is not None:
                    one.close()
            raise
        first = gates[0]
        return first if len(gates) == 1 and isinstance(first, ClearListener) else Gates(gates, zap)

    def _plan(self, port: int, name: str) -> list[tuple[str, int, Gate]]:
        """Say what is to be bound to let others in: addresses, ports and gates, this machine's first."""
        keyring = self.keyring
        plan = [(LOOPBACK, port, Gate())]
        if keyring.own is not None:
            number, near, far = bind_both(port, name)
            plan = [
                (LOOPBACK, number, Gate(LISTENER, near)),
                (ANY, number, Gate(OUTWARD, far, keyring.own, USER_ID)),
            ]
        if keyring.originals:
            plan.append((ANY, keyring.originals_port, Gate(ORIGINALS, mark=PEER_ADDRESS)))
        return plan

    async def peek(self, host: str, port: int, upstream: str) -> Card:
        """Look who listens on a port, or at a path where that is 0, without leaving a trace there.

        Raises:
            OSError: nobody listens, or the host isn't reached.
            MalformedFrame: it is no station.
            Locked: we and it have no lock in common.
            TimeoutError: it doesn't speak.
        """
        where = f"{upstream or 'a station'} at {host}:{port}"
        opening = await look(host, port)
        if is_locked(opening):
            self.on_locked()
            self._attempts += 1
            key = station_key(self.keyring, upstream, where, self._attempts)
            return Card(Dialect.OWN, upstream, dials=False, key=key)
        if port:
            check_clear(self.keyring, host, where)
        return read_card(opening, upstream)

    def dial(self, name: str, host: str, port: int, card: Card, me: str, boot: int) -> DialledWire:
        """Dial whoever a look has found: in clear, or with our key where it has one.

        Raises:
            OSError: this machine has no socket left.
        """
        told, own = metadata(me, boot, WIRE_VERSION), self.keyring.own
        if not card.key or own is None:
            near = self._near(host, port, card)
            host, port = (near, 0) if near else (host, port)
            return ClearDialer(name, host, port, card, told, me, self.rules)
        try:
            return LockedDialer(self.context, name, f"tcp://{host}:{port}", card, told, self.rules, own)
        except zmq.ZMQError as error:
            raise OSError(error.errno, str(error.strerror)) from error

    def _near(self, host: str, port: int, card: Card) -> str:
        """Give the path beside the port of one who was met on this machine; "" where there is none for us."""
        if not self.rules.uses_paths or not port or card.dialect is not Dialect.OWN or not is_loopback(host):
            return ""
        near, now = near_door(door_name(f"{card.boot:x}", port)), time.monotonic()
        if not near or near == self._shunned:
            return ""
        (last, dialled_at), self._dialled = self._dialled, (near, now)
        if near == last and now - dialled_at < HOLDS_S:
            self._shunned = near
            log.info("%s is dialled by its port %s from now on: %s did not hold", card.name, port, near)
            return ""
        return near

    def close(self) -> None:
        """Let go of ZeroMQ, once all sockets are closed; waits for what they still send, unless others share it."""
        if self._closed:
            return
        self._closed = True
        if self._context is None:
            return
        if self._shares_threads:
            shared_context.give_back(self._context)
        else:
            self._context.term()


async def look(host: str, port: int) -> bytes:
    """Read how a listener opens its conversation: its greeting and, if it speaks in clear, its READY.

    Args:
        host: where it listens; a path, where the port is 0.
        port: where it listens.

    Raises:
        OSError: nobody listens, or the host isn't reached.
        MalformedFrame: it is no station.
        TimeoutError: it doesn't speak.
    """
    async with asyncio.timeout(PEEK_TIMEOUT_S):
        reader, writer = (
            await asyncio.open_connection(host, port) if port else await asyncio.open_unix_connection(host)
        )
        try:
            # It says what it speaks once it knows our version, and hangs up at once if we then say something else.
            writer.write(GREETING[:OPENING])
            opening, said = b"", OPENING
            while (length := ready_length(opening)) is None or len(opening) < length:
                if said < len(GREETING) <= len(opening):
                    writer.write(GREETING[said:])
                    said = len(GREETING)
                data = await reader.read(4096)
                if not data:
                    raise MalformedFrame("it closed the connection before it said who it is")
                opening += data
            return opening[:length]
        finally:
            writer.close()
            # Until then its socket is open, and a loop that ends meanwhile would leave it so.
            with contextlib.suppress(OSError):
                await writer.wait_closed()
