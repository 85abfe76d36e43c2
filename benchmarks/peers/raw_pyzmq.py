"""Raw pyzmq, the yardstick: DEALER to `zmq.proxy` in C to DEALER, JSON bodies, one acknowledgement a message.

    python -m benchmarks.peers.raw_pyzmq --mode acked --seconds 3
    python -m benchmarks.peers.raw_pyzmq --mode rtt --seconds 3

No resend, no order, no dedup: a ceiling, not a protocol.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import zmq

from .bulk import Arrays, BulkArrivals
from .common import Peer, main, role_commands
from .roles import Addresses, Counting, Pipeline, Sending, allow_many_sockets, payload

PEER = Peer(
    "raw_pyzmq",
    lambda: role_commands("raw_pyzmq", "router", "receiver", "sender"),
    modes=(
        *(
            "acked",
            "rtt",
            "loaded",
            "fanin",
            "scale",
            "scale_10",
            "scale_fast",
            "chunks",
            "frames",
            "frames_direct",
        ),
        "idle_station",
    ),
    promise="received, in memory",
)
LOOPBACK = "tcp://127.0.0.1"
ANSWER_TIMEOUT_MS = 5_000
MAX_SOCKETS = 4_096
HIGH_WATER = 10_000
"""A ROUTER drops what goes to a full pipe, and of ZeroMQ's own 1,000 half may have been read and not been given back:
with 512 on their way, acknowledgements were lost now and then."""
CREDIT_EVERY = 8
NO_COPY_BYTES = 65_536
SMALL, FLUSH = ord("{"), b"F"
# Plain numbers: pyzmq's enums cost more in each call than the call itself.
Context: type[zmq.Context[zmq.Socket[bytes]]] = zmq.Context
SNDMORE, NOBLOCK = int(zmq.SNDMORE), int(zmq.NOBLOCK)


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    """Make a context with room for a thousand senders."""
    context = Context()
    context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
    for option in (zmq.SNDHWM, zmq.RCVHWM):
        context.setsockopt(option, HIGH_WATER)
    return context


def backend_send(socket: zmq.Socket[bytes]) -> Callable[[bytes, int], Any]:
    """Return the compiled `send` below the one in Python: a yardstick should be as quick as it can."""
    send: Callable[[bytes, int], Any] = super(zmq.Socket, socket).send
    return send


def drain(socket: zmq.Socket[bytes]) -> list[bytes]:
    """Take all that is there."""
    got, recv = [], socket.recv
    try:
        while True:
            got.append(recv(NOBLOCK))
    except zmq.Again:
        return got


class Router:
    """ROUTER before, DEALER behind, joined by libzmq's own proxy."""

    def __init__(self, _addresses: Addresses) -> None:
        allow_many_sockets()
        context = new_context()
        front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
        self.addresses: Addresses = {
            "front": front.bind_to_random_port(LOOPBACK),
            "back": back.bind_to_random_port(LOOPBACK),
        }
        threading.Thread(target=zmq.proxy, args=(front, back), daemon=True).start()

    def request(self, what: str) -> None:
        """Answer nothing: a router isn't asked."""
        raise ValueError(f"the router can't {what}")

    def close(self) -> None:
        """Leave it to the end of the process: the proxy holds its sockets."""


class Receiver(Counting):
    """Decode each message and send its number back; of arrays, tell every so often how many came."""

    def __init__(self, addresses: Addresses) -> None:
        context = new_context()
        routed, direct = context.socket(zmq.DEALER), context.socket(zmq.ROUTER)
        routed.connect(f"{LOOPBACK}:{addresses['back']}")
        self.addresses: Addresses = {"direct": direct.bind_to_random_port(LOOPBACK)}
        self._arrivals = BulkArrivals()
        for socket in (routed, direct):
            threading.Thread(target=self._run, args=(socket,), daemon=True).start()

    def _run(self, socket: zmq.Socket[bytes]) -> None:
        recv, send = socket.recv, backend_send(socket)
        loads, note = json.loads, self._arrivals.note
        uncredited = 0
        while True:
            sender, body = recv(), recv()
            if body[0] == SMALL:
                n = loads(body)["n"]
                note(n)
                send(sender, SNDMORE)
                send(b"%d" % n, 0)
                continue
            if body != FLUSH:
                self._arrivals.note_array(int(body), recv(copy=False).buffer)
                uncredited += 1
            if body == FLUSH or uncredited >= CREDIT_EVERY:
                send(sender, SNDMORE)
                send(b"%d" % uncredited, 0)
                uncredited = 0

    def close(self) -> None:
        """Leave it to the end of the process: the thread holds the socket."""


class Sender(Sending):
    """Send and count acknowledgements in one thread."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        allow_many_sockets()
        self._context = new_context()
        self._places = addresses
        self._socket = self._dial("front")
        self._backend_send = backend_send(self._socket)
        self._streams: dict[str, zmq.Socket[bytes]] = {}
        self._lanes: list[zmq.Socket[bytes]] = []
        self._poller = zmq.Poller()

    def _dial(self, where: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        socket.connect(f"{LOOPBACK}:{self._places[where]}")
        return socket

    def _send(self, n: int) -> None:
        self._backend_send(json.dumps(payload(n)).encode(), 0)

    def _collect(self, timeout_s: float) -> int:
        if not self._socket.poll(int(timeout_s * 1000)):
            return 0
        return len(drain(self._socket))

    def _once(self, n: int) -> None:
        self._send(n)
        if not self._socket.poll(ANSWER_TIMEOUT_MS):
            raise TimeoutError(f"no answer to message {n}")
        self._socket.recv()

    def _bulk(self, size: int, window: int, direct: bool, hz: float) -> Pipeline:
        where = "direct" if direct else "front"
        if where not in self._streams:
            self._streams[where] = self._dial(where)
        socket, arrays = self._streams[where], Arrays(size)
        send = backend_send(socket)

        def send_array(n: int) -> None:
            send(b"%d" % n, SNDMORE)
            # pyzmq copies small ones, which is quicker than not to.
            socket.send(arrays[n], 0, copy=size < NO_COPY_BYTES)

        def collect(timeout_s: float) -> int:
            return sum(map(int, drain(socket))) if socket.poll(int(timeout_s * 1000)) else 0

        return Pipeline(send_array, collect, window, lambda: send(FLUSH, 0), hz)

    def _open_lanes(self, senders: int) -> None:
        while len(self._lanes) < senders:
            socket = self._dial("front")
            self._lanes.append(socket)
            self._poller.register(socket, zmq.POLLIN)

    def _send_from(self, lane: int, n: int) -> None:
        self._lanes[lane].send(json.dumps(payload(n)).encode())

    def _turn(self, timeout_s: float) -> None:
        time.sleep(timeout_s)
        for socket, _ in self._poller.poll(0):
            for ack in drain(socket):
                self._schedule.confirm(int(ack))

    def measure_idle(self, seconds: float, first: int, peers: int) -> dict[str, Any]:
        """Have so many connections and do nothing."""
        self._open_lanes(peers)
        time.sleep(seconds)
        return {"sent": 0, "confirmed": 0}

    def close(self) -> None:
        """Drop what is unsent."""
        self._context.destroy(0)


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
