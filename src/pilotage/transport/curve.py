"""CURVE: which keys a socket has, and who is asked when somebody comes with one (ZAP, RFC 27).

libzmq asks on a socket inside the process for each handshake. pyzmq's authenticators answer on a thread of their own,
or from asyncio with sockets of its kind; ours is answered on the loop that owns all other sockets, by the same
authority that judges names, so that a change of keys holds for both at once.

Law of this room: a key that nobody has granted anything gets no further than its handshake.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import zmq
from zmq.utils import z85

from pilotage.protocol.authority import Grant, Original
from pilotage.protocol.errors import Locked
from pilotage.protocol.roles import Roles

ZAP_PLACE = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"
DOMAIN = b"pilotage"
CURVE = b"CURVE"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key of ours.

    Attributes:
        name: whom it speaks for.
        public: what others know it by, Z85.
        secret: what nobody else has, Z85.
    """

    name: str
    public: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Keyring:
    """What one station or node knows of keys, at one moment.

    Attributes:
        own: our key; None where there is none.
        grants: for each public key that we know what it is good for.
        stations: for each name the public keys by which a station of that name may answer us, the likeliest first.
        successors: keys that are to follow others, and do so once they are used.
        roles: what each role may send; None where the file that says it can't be used.
        insecure: we have been told by name to speak in clear with other machines.
        originals: who may come without a key.
        originals_port: the port of their gate.
    """

    own: KeyPair | None = None
    grants: Mapping[str, Grant] = field(default_factory=dict)
    stations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    successors: frozenset[str] = frozenset()
    roles: Roles | None = None
    insecure: bool = False
    originals: frozenset[Original] = frozenset()
    originals_port: int = 0


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine's loopback interface, by how it is written: no look-up can change it."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def lock_listener(socket: zmq.Socket[bytes], own: KeyPair) -> None:
    """Let only those in who prove a key, and whom ZAP lets in."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, own.secret.encode())
    socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def lock_dialler(socket: zmq.Socket[bytes], own: KeyPair, station_key: str) -> None:
    """Prove our key, and talk to nobody but the holder of another."""
    socket.setsockopt(zmq.CURVE_SERVERKEY, station_key.encode())
    socket.setsockopt(zmq.CURVE_PUBLICKEY, own.public.encode())
    socket.setsockopt(zmq.CURVE_SECRETKEY, own.secret.encode())


def station_key(keyring: Keyring, upstream: str, where: str, attempt: int) -> str:
    """Choose the key by which a station has to answer: where there are two, in turns.

    Raises:
        Locked: we have no key of our own, or know none of that station.
    """
    known = keyring.stations.get(upstream, ())
    if keyring.own is None or not known:
        lacking = "we have no key" if keyring.own is None else f"we don't know the key of {upstream!r}"
        raise Locked(f"{where} wants a key and {lacking}: pair with it by `pilotage join`")
    return known[attempt % len(known)]


def check_clear(keyring: Keyring, host: str, where: str) -> None:
    """See that we may speak in clear with a host.

    Raises:
        Locked: it is another machine, and nobody has told us to.
    """
    if not keyring.insecure and not is_loopback(host):
        raise Locked(
            f"{where} speaks in clear, which we do on this machine only: give it keys (`pilotage keys init` there, "
            "then `pilotage join` here), or set INSECURE"
        )


class ZapHandler:
    """Answers libzmq's question whether a key may come in.

    Args:
        context: of the sockets that ask.
        knows: tells whether a public key is known.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], knows: Callable[[str], bool]) -> None:
        self._knows = knows
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(ZAP_PLACE)
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop answer."""
        self._loop = loop
        loop.add_reader(int(self._socket.getsockopt(zmq.FD)), self.answer)
        loop.call_soon(self.answer)

    def answer(self) -> None:
        """Answer all questions there are; the socket's file descriptor tells only that there are new ones."""
        while not self._socket.closed:
            try:
                question = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._socket.send_multipart(self._reply(question))

    def close(self) -> None:
        """Let go of the socket."""
        if self._loop is not None:
            self._loop.remove_reader(int(self._socket.getsockopt(zmq.FD)))
        self._socket.close()

    def _reply(self, question: list[bytes]) -> list[bytes]:
        version, request, _domain, _address, _identity, mechanism, *credentials = question
        key = z85.encode(credentials[0]).decode() if mechanism == CURVE and len(credentials) == 1 else ""
        if version == ZAP_VERSION and key and self._knows(key):
            return [ZAP_VERSION, request, b"200", b"OK", key.encode(), b""]
        return [ZAP_VERSION, request, b"400", b"this key is not known here", b"", b""]
