"""Raw pyzmq, the yardstick: DEALER to `zmq.proxy` in C to DEALER, JSON bodies, one acknowledgement a message.

    python -m benchmarks.peers.raw_pyzmq --mode acked --seconds 3
    python -m benchmarks.peers.raw_pyzmq --mode rtt --seconds 3

No resend, no order, no dedup: a ceiling, not a protocol.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import zmq

from .common import Peer, main, role_commands
from .roles import Addresses, Arrivals, Pipeline, payload, round_trips

PEER = Peer("raw_pyzmq", lambda: role_commands("raw_pyzmq", "router", "receiver", "sender"))
ANSWER_TIMEOUT_MS = 5_000
# Plain numbers: pyzmq's enums cost more in each call than the call itself.
Context: type[zmq.Context[zmq.Socket[bytes]]] = zmq.Context
SNDMORE, NOBLOCK = int(zmq.SNDMORE), int(zmq.NOBLOCK)


def backend_send(socket: zmq.Socket[bytes]) -> Callable[[bytes, int], Any]:
    """Return the compiled `send` below the one in Python: a yardstick should be as quick as it can."""
    send: Callable[[bytes, int], Any] = super(zmq.Socket, socket).send
    return send


class Router:
    """ROUTER before, DEALER behind, joined by libzmq's own proxy."""

    def __init__(self, _addresses: Addresses) -> None:
        context = Context.instance()
        front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
        self.addresses: Addresses = {
            "front": front.bind_to_random_port("tcp://127.0.0.1"),
            "back": back.bind_to_random_port("tcp://127.0.0.1"),
        }
        threading.Thread(target=zmq.proxy, args=(front, back), daemon=True).start()

    def request(self, what: str) -> None:
        """Answer nothing: a router isn't asked."""
        raise ValueError(f"the router can't {what}")

    def close(self) -> None:
        """Leave it to the end of the process: the proxy holds its sockets."""


class Receiver:
    """Decode each message and send its number back."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._arrivals = Arrivals()
        self._socket = Context.instance().socket(zmq.DEALER)
        self._socket.connect(f"tcp://127.0.0.1:{addresses['back']}")
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        recv, send = self._socket.recv, backend_send(self._socket)
        loads, note = json.loads, self._arrivals.note
        while True:
            sender, body = recv(), recv()
            n = loads(body)["n"]
            note(n)
            send(sender, SNDMORE)
            send(b"%d" % n, 0)

    def request(self, what: str) -> dict[str, int]:
        """Return what arrived; the only thing a receiver is asked (`count`)."""
        if what != "count":
            raise ValueError(f"the receiver can't {what}")
        return self._arrivals.report()

    def close(self) -> None:
        """Leave it to the end of the process: the thread holds the socket."""


class Sender:
    """Send and count acknowledgements in one thread."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._socket = Context.instance().socket(zmq.DEALER)
        self._socket.connect(f"tcp://127.0.0.1:{addresses['front']}")
        self._backend_send = backend_send(self._socket)

    def request(self, what: str, seconds: float, first: int, window: int) -> dict[str, Any]:
        """Measure one slice in mode `what`."""
        if what == "rtt":
            return round_trips(self._ping, seconds, first)
        return Pipeline(self._send, self._collect, window).run(seconds, first)

    def _send(self, n: int) -> None:
        self._backend_send(json.dumps(payload(n)).encode(), 0)

    def _collect(self, timeout_s: float) -> int:
        if not self._socket.poll(int(timeout_s * 1000)):
            return 0
        count, recv = 0, self._socket.recv
        try:
            while True:
                recv(NOBLOCK)
                count += 1
        except zmq.Again:
            return count

    def _ping(self, n: int) -> None:
        self._send(n)
        if not self._socket.poll(ANSWER_TIMEOUT_MS):
            raise TimeoutError(f"no answer to message {n}")
        self._socket.recv()

    def close(self) -> None:
        """Close the socket and drop what is unsent."""
        self._socket.close(0)


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
