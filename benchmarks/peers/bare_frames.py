"""A bare chain for frames: three processes that pass the bytes on over TCP, and nothing else. No peer, but a limit.

    python -m benchmarks.peers.bare_frames --mode frames --seconds 3

Plain blocking sockets, each with a thread that does nothing else; the receiver adds all bytes up, as everybody's does,
and says how many have come. The system copies each frame four times, whoever sends it: that is what remains here.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

from .bulk import Arrays, BulkArrivals
from .common import Peer, main, role_commands
from .roles import Addresses, Counting, Pipeline, Sending

PEER = Peer(
    "bare_frames",
    lambda: role_commands("bare_frames", "router", "receiver", "sender"),
    modes=("frames",),
    promise="received, if nothing fails",
)
HEAD = struct.Struct("<QQ")
"""The message's number, and the bytes of its frame: 0 to be told at once how many have come."""
COUNT = struct.Struct("<Q")
TOLD_EVERY = 8
LOOPBACK = "127.0.0.1"


def fill(plain: socket.socket, room: memoryview) -> None:
    """Read until there is no more room.

    Raises:
        ConnectionError: the other side has ended.
    """
    while room:
        got = plain.recv_into(room)
        if not got:
            raise ConnectionError
        room = room[got:]


def start(run: Callable[[], None]) -> None:
    """Run something in a thread of its own until a connection ends."""

    def work() -> None:
        with contextlib.suppress(ConnectionError):
            run()

    threading.Thread(target=work, daemon=True).start()


def at_once(plain: socket.socket) -> socket.socket:
    """Have a connection send what is short without waiting for more."""
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plain


def dial(port: int) -> socket.socket:
    """Connect to the router."""
    return at_once(socket.create_connection((LOOPBACK, port)))


class Frames:
    """Reads one frame after the other, each to the place of the one before it."""

    def __init__(self, plain: socket.socket) -> None:
        self._socket = plain
        self._head = bytearray(HEAD.size)
        self._room = bytearray()

    def read(self) -> tuple[int, bytearray, memoryview]:
        """Give a frame's number, its head and its bytes."""
        fill(self._socket, memoryview(self._head))
        number, size = HEAD.unpack(self._head)
        if size > len(self._room):
            self._room = bytearray(size)
        frame = memoryview(self._room)[:size]
        fill(self._socket, frame)
        return number, self._head, frame


class Router:
    """Passes whole frames on from who dialled second to who dialled first, and back how many have come."""

    def __init__(self, _addresses: Addresses) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.addresses: Addresses = {"port": self._listener.getsockname()[1]}
        start(self._run)

    def _run(self) -> None:
        receiver, sender = (at_once(self._listener.accept()[0]) for _ in range(2))
        start(lambda: self._back(receiver, sender))
        frames = Frames(sender)
        while True:
            _, head, frame = frames.read()
            receiver.sendall(head)
            receiver.sendall(frame)

    def _back(self, receiver: socket.socket, sender: socket.socket) -> None:
        while told := receiver.recv(4096):
            sender.sendall(told)

    def request(self, what: str) -> None:
        """Answer nothing: a router isn't asked."""
        raise ValueError(f"the router can't {what}")

    def close(self) -> None:
        """Leave it to the end of the process."""


class Receiver(Counting):
    """Adds up what comes, and says every so often how many have come."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._socket = dial(addresses["port"])
        self._arrivals = BulkArrivals()
        self._lock = threading.Lock()
        start(self._run)

    def _run(self) -> None:
        frames, untold = Frames(self._socket), 0
        while True:
            number, _, frame = frames.read()
            if frame:
                with self._lock:
                    self._arrivals.note_array(number, frame)
                untold += 1
            if untold and (not frame or untold >= TOLD_EVERY):
                self._socket.sendall(COUNT.pack(untold))
                untold = 0

    def close(self) -> None:
        """Leave it to the end of the process."""


class Sender(Sending):
    """Sends frames, and hears how many have come."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._socket = dial(addresses["port"])

    def _bulk(self, size: int, window: int, direct: bool, hz: float) -> Pipeline:
        plain, arrays, told = self._socket, Arrays(size), bytearray(COUNT.size)

        def send(n: int) -> None:
            plain.sendall(HEAD.pack(n, size))
            plain.sendall(arrays[n].data)

        def collect(timeout_s: float) -> int:
            plain.settimeout(timeout_s)
            try:
                fill(plain, memoryview(told))
            except TimeoutError:
                return 0
            finally:
                plain.settimeout(None)
            return int(COUNT.unpack(told)[0])

        def flush() -> None:
            plain.sendall(HEAD.pack(0, 0))

        return Pipeline(send, collect, window, flush, hz)

    def close(self) -> None:
        """Leave it to the end of the process."""


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
