"""A bare chain: the processes, threads and connections of ours, plain sockets, no protocol. No peer, but a limit.

    python -m benchmarks.peers.bare_chain --mode acked --seconds 3
    python -m benchmarks.peers.bare_chain --mode fanin --seconds 3

What was left while the loop was away goes out together, and a worker handles it and says so, as in ours. But there
is no id, time, order, resend, refusal, receipt, flow control or silence, and whoever loses a connection loses what was
in it. What it takes is what a chain in Python with these threads takes before it promises anything.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

from .common import Peer, main, role_commands
from .roles import Addresses, Arrivals, Counting, Sending, allow_many_sockets, payload

PEER = Peer(
    "bare_chain",
    lambda: role_commands("bare_chain", "router", "receiver", "sender"),
    modes=("acked", "rtt", "fanin"),
    promise="handled, if nothing fails",
    missing=lambda: "" if sys.platform == "linux" else "it waits by epoll, which Linux has",
)
HEAD = struct.Struct("<IH")
"""Bytes of the body, and whose it is."""
READ_BYTES = 1 << 18
GIVE_WAY_EVERY, GIVE_WAY_S = 256, 1e-5
ANSWER_TIMEOUT_S = 5.0
encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


def frame(body: bytes, whose: int = 0) -> bytes:
    """Make a frame."""
    return HEAD.pack(len(body), whose) + body


class Connection:
    """A connected socket whose frames are read as they come."""

    def __init__(self, plain: socket.socket, whose: int = 0) -> None:
        self.socket = plain
        self.whose = whose
        self._rest = b""

    def read(self) -> list[tuple[int, bytes]]:
        """Give the whole frames that are there, with whose they are."""
        data = self._rest + self.socket.recv(READ_BYTES)
        found, at = [], 0
        while len(data) - at >= HEAD.size:
            size, whose = HEAD.unpack_from(data, at)
            end = at + HEAD.size + size
            if end > len(data):
                break
            found.append((whose, data[at + HEAD.size : end]))
            at = end
        self._rest = data[at:]
        return found


class Loop:
    """Waits for connections and for other threads."""

    def __init__(self) -> None:
        self._list = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._bell = os.eventfd(0, os.EFD_NONBLOCK)
        self._wanted: deque[Callable[[], None]] = deque()
        self.watch(self._bell, self._rung)

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        """Call something when a descriptor can be read."""
        self._calls[fd] = call
        self._list.register(fd, select.EPOLLIN)

    def call(self, work: Callable[[], None]) -> None:
        """Have something done on the loop's thread. Any thread."""
        self._wanted.append(work)
        os.eventfd_write(self._bell, 1)

    def _rung(self) -> None:
        os.eventfd_read(self._bell)
        for _ in range(len(self._wanted)):
            self._wanted.popleft()()

    def run(self) -> None:
        """Go on until the process ends."""
        while True:
            for fd, _ in self._list.poll():
                self._calls[fd]()


def start(run: Callable[[], None]) -> None:
    """Run something in a thread of its own."""
    threading.Thread(target=run, daemon=True).start()


class Router:
    """Passes on frames: of senders to the receiver, and what it says to whom they are from."""

    def __init__(self, _addresses: Addresses) -> None:
        allow_many_sockets()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"\0bare_chain_{os.getpid()}")
        self._listener.listen(1024)
        self.addresses: Addresses = {"path": f"\0bare_chain_{os.getpid()}"}
        self._loop = Loop()
        self._receiver: Connection | None = None
        self._senders: list[Connection] = []
        self._loop.watch(self._listener.fileno(), self._accept)
        start(self._loop.run)

    def _accept(self) -> None:
        connection = Connection(self._listener.accept()[0], len(self._senders))
        if self._receiver is None:
            self._receiver = connection
            self._loop.watch(connection.socket.fileno(), self._back)
        else:
            self._senders.append(connection)
            self._loop.watch(connection.socket.fileno(), lambda: self._forth(connection))

    def _forth(self, sender: Connection) -> None:
        assert self._receiver is not None
        self._receiver.socket.sendall(b"".join([frame(body, sender.whose) for _, body in sender.read()]))

    def _back(self) -> None:
        assert self._receiver is not None
        for whose, body in self._receiver.read():
            self._senders[whose].socket.sendall(frame(body))

    def request(self, what: str) -> None:
        """Answer nothing: a router isn't asked."""
        raise ValueError(f"the router can't {what}")

    def close(self) -> None:
        """Leave it to the end of the process."""


def dial(path: str) -> Connection:
    """Connect to the router."""
    plain = socket.socket(socket.AF_UNIX)
    plain.connect(path)
    return Connection(plain)


class Receiver(Counting):
    """A loop that reads, and a worker that handles and says how many."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._connection = dial(addresses["path"])
        self._arrivals = Arrivals()
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[tuple[int, bytes]] = SimpleQueue()
        loop = Loop()
        loop.watch(self._connection.socket.fileno(), self._come)
        start(loop.run)
        start(self._work)

    def _come(self) -> None:
        for job in self._connection.read():
            self._jobs.put(job)

    def _work(self) -> None:
        while True:
            whose, body = self._jobs.get()
            numbers = [self._listen(self._value_of(one)) for one in decode(body)]
            self._connection.socket.sendall(frame(encode(numbers), whose))

    def _value_of(self, message: bytes) -> dict[str, Any]:
        value: dict[str, Any] = decode(message)
        return value

    def _listen(self, value: dict[str, Any]) -> int:
        with self._lock:
            self._arrivals.note(value["n"])
        return int(value["n"])

    def close(self) -> None:
        """Leave it to the end of the process."""


class Lane:
    """A connection, and what other threads have left for it."""

    def __init__(self, path: str, loop: Loop, confirmed: Callable[[list[int]], object]) -> None:
        self._connection = dial(path)
        self._loop = loop
        self._confirmed = confirmed
        self._lock = threading.Lock()
        self._mail: list[bytes] = []
        loop.watch(self._connection.socket.fileno(), self._come)

    def leave(self, body: bytes) -> None:
        """Leave a message for the loop to send. Any thread."""
        with self._lock:
            self._mail.append(body)
            count = len(self._mail)
        if count == 1:
            self._loop.call(self._send)
        elif count % GIVE_WAY_EVERY == 0:
            time.sleep(GIVE_WAY_S)

    def _send(self) -> None:
        with self._lock:
            mail, self._mail = self._mail, []
        self._connection.socket.sendall(frame(encode(mail)))

    def _come(self) -> None:
        for _, body in self._connection.read():
            self._confirmed(decode(body))


class Sender(Sending):
    """Sends from the main thread, by a loop that other threads wake."""

    def __init__(self, addresses: Addresses) -> None:
        allow_many_sockets()
        self.addresses: Addresses = {}
        self._path = addresses["path"]
        self._loop = Loop()
        self._ended: SimpleQueue[int] = SimpleQueue()
        self._lane = Lane(self._path, self._loop, self._settle)
        self._lanes: list[Lane] = []
        start(self._loop.run)

    def _settle(self, numbers: list[int]) -> None:
        self._ended.put(len(numbers))

    def _send(self, n: int) -> None:
        self._lane.leave(encode(payload(n)))

    def _collect(self, timeout_s: float) -> int:
        try:
            counts = [self._ended.get(timeout=timeout_s)]
        except Empty:
            return 0
        return sum(counts + [self._ended.get_nowait() for _ in range(self._ended.qsize())])

    def _once(self, n: int) -> None:
        self._send(n)
        self._ended.get(timeout=ANSWER_TIMEOUT_S)

    def _open_lanes(self, senders: int) -> None:
        while len(self._lanes) < senders:
            self._lanes.append(Lane(self._path, self._loop, self._confirm))

    def _confirm(self, numbers: list[int]) -> None:
        for n in numbers:
            self._schedule.confirm(n)

    def _send_from(self, lane: int, n: int) -> None:
        self._lanes[lane].leave(encode(payload(n)))

    def close(self) -> None:
        """Leave it to the end of the process."""


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
