"""Zenoh: session to a router to a session, with an acknowledgement built on top; direct ones without the router.

    python -m benchmarks.peers.zenoh --mode acked --seconds 3
    python -m benchmarks.peers.zenoh --mode frames_direct --seconds 3

Needs `eclipse-zenoh` (`pip install -e '.[bench]'`). Reliable, and blocking where the network is slower than the
sender (its default drops); else as it comes: TCP, and shared memory for what is larger than 3 kB, also by way of the
router. `zenoh_tcp` does without. The receiver puts to the sender's key how many came, each 32nd time, and of arrays
each 8th; where latency is measured, it answers each message with its number. Arrays are handed over as bytes made
beforehand, with the number as attachment, so that nothing is copied in Python on the sender's side.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import threading
import time
from typing import Any

from .bulk import POOL, Arrays, BulkArrivals
from .common import Peer, main, role_commands
from .roles import Addresses, Counting, Pipeline, Sending, payload

ME = "sender"
MEETING_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 5.0
ACK_EVERY, CREDIT_EVERY = 32, 8
HELLO = -1


def what_is_missing() -> str:
    """Say what this peer needs and how to get it; nothing if it is there."""
    if importlib.util.find_spec("zenoh") is None:
        return "eclipse-zenoh is not installed (pip install -e '.[bench]')"
    return ""


PEER = Peer(
    "zenoh",
    lambda: role_commands("zenoh", "router", "receiver", "sender"),
    modes=("acked", "rtt", "loaded", "fanin", "chunks", "frames", "frames_direct"),
    promise="received, in memory",
    missing=what_is_missing,
)


def free_port() -> int:
    """Return a port that was free a moment ago: Zenoh doesn't tell which one it took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def open_session(mode: str, shared_memory: bool, *, listen: int = 0, connect: int = 0) -> Any:
    """Open a session that speaks on loopback only, and looks for nobody by itself."""
    import zenoh

    config = zenoh.Config()
    config.insert_json5("transport/shared_memory/enabled", json.dumps(shared_memory))
    config.insert_json5("mode", json.dumps(mode))
    config.insert_json5("scouting/multicast/enabled", "false")
    config.insert_json5("listen/endpoints", json.dumps([f"tcp/127.0.0.1:{listen}"] if listen else []))
    config.insert_json5("connect/endpoints", json.dumps([f"tcp/127.0.0.1:{connect}"] if connect else []))
    return zenoh.open(config)


def declare(session: Any, key: str) -> Any:
    """Declare a publisher that blocks where it would drop."""
    import zenoh

    return session.declare_publisher(
        key, congestion_control=zenoh.CongestionControl.BLOCK, reliability=zenoh.Reliability.RELIABLE
    )


class Router:
    """A session that routes."""

    shared_memory = True

    def __init__(self, _addresses: Addresses) -> None:
        self.addresses: Addresses = {"port": free_port(), "shared_memory": self.shared_memory}
        self._session = open_session("router", self.shared_memory, listen=self.addresses["port"])

    def request(self, what: str) -> None:
        """Answer nothing: a router isn't asked."""
        raise ValueError(f"the router can't {what}")

    def close(self) -> None:
        """Leave it to the end of the process."""


class Receiver(Counting):
    """Take each message in Zenoh's own thread, and put its number to its sender's key."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {"direct": free_port()}
        self._lock = threading.Lock()
        self._arrivals = BulkArrivals()
        self._uncredited = 0
        self._answers: dict[tuple[int, str], Any] = {}
        self._sessions = [
            open_session("client", addresses["shared_memory"], connect=addresses["port"]),
            open_session("peer", addresses["shared_memory"], listen=self.addresses["direct"]),
        ]
        for at, session in enumerate(self._sessions):
            session.declare_subscriber("small/*", lambda sample, at=at: self._take(at, sample))
            session.declare_subscriber("many/*", lambda sample, at=at: self._take_many(at, sample))
            session.declare_subscriber("bulk/*", lambda sample, at=at: self._take_array(at, sample))

    def _answer(self, at: int, kind: str, sample: Any, number: int) -> None:
        key = kind + str(sample.key_expr).partition("/")[2]
        publisher = self._answers.get((at, key))
        if publisher is None:
            publisher = self._answers[at, key] = declare(self._sessions[at], key)
        publisher.put(b"%d" % number)

    def _take(self, at: int, sample: Any) -> None:
        n = json.loads(sample.payload.to_bytes())["n"]
        if n != HELLO:
            with self._lock:
                self._arrivals.note(n)
        self._answer(at, "ack/", sample, n)

    def _take_many(self, at: int, sample: Any) -> None:
        body = sample.payload.to_bytes()
        with self._lock:
            if body:
                self._arrivals.note(json.loads(body)["n"])
            count = self._gather(1 if body else 0, ACK_EVERY)
        if count:
            self._answer(at, "ack/", sample, count)

    def _take_array(self, at: int, sample: Any) -> None:
        body = sample.payload.to_bytes()
        with self._lock:
            if body:
                self._arrivals.note_array(int(sample.attachment.to_bytes()), body)
            count = self._gather(1 if body else 0, CREDIT_EVERY)
        if count:
            self._answer(at, "credit/", sample, count)

    def _gather(self, fresh: int, enough: int) -> int:
        """Return how many are to be confirmed now; nothing fresh is what a sender puts at its end."""
        self._uncredited += fresh
        if fresh and self._uncredited < enough:
            return 0
        count, self._uncredited = self._uncredited, 0
        return count

    def close(self) -> None:
        """Leave it to the end of the process."""


class Counted:
    """Confirmations that Zenoh's threads count and another waits for."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def add(self, count: int) -> None:
        """Count so many more."""
        with self._changed:
            self._count += count
            self._changed.notify()

    def take(self, timeout_s: float) -> int:
        """Wait so long for any, and return how many came."""
        with self._changed:
            self._changed.wait_for(lambda: self._count, timeout_s)
            count, self._count = self._count, 0
        return count


class Sender(Sending):
    """Put from the main thread; confirmations come in Zenoh's threads."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._places = addresses
        self._acks, self._answer = Counted(), Counted()
        self._is_asking = False
        self._session = self._dial("port")
        self._session.declare_subscriber(f"ack/{ME}", self._acknowledged)
        self._publisher = declare(self._session, f"small/{ME}")
        self._many = declare(self._session, f"many/{ME}")
        self._streams: dict[bool, tuple[Any, Counted]] = {}
        self._lanes: list[tuple[Any, Any]] = []
        self._meet()

    def _dial(self, where: str) -> Any:
        return open_session("client", self._places["shared_memory"], connect=self._places[where])

    def _meet(self) -> None:
        self._is_asking = True
        deadline = time.monotonic() + MEETING_TIMEOUT_S
        while time.monotonic() < deadline:
            self._send(HELLO)
            if self._answer.take(0.2):
                time.sleep(0.3)  # answers to further hellos
                self._answer.take(0)
                self._is_asking = False
                return
        raise TimeoutError(f"the receiver did not answer within {MEETING_TIMEOUT_S} s")

    def _acknowledged(self, sample: Any) -> None:
        if self._is_asking:
            self._answer.add(1)
        else:
            self._acks.add(int(sample.payload.to_bytes()))

    def _send(self, n: int) -> None:
        self._publisher.put(json.dumps(payload(n)).encode())

    def measure_acked(self, seconds: float, first: int, window: int) -> dict[str, Any]:
        """Send small messages, at most `window` unconfirmed."""
        put, flush = self._many.put, lambda: self._many.put(b"")
        pipeline = Pipeline(lambda n: put(json.dumps(payload(n)).encode()), self._acks.take, window, flush)
        return pipeline.run(seconds, first)

    def measure_rtt(self, seconds: float, first: int) -> dict[str, Any]:
        """Send a message and wait for its answer, again and again."""
        self._is_asking = True
        measured = super().measure_rtt(seconds, first)
        self._is_asking = False
        return measured

    def measure_loaded(self, *asked: Any, **how: Any) -> dict[str, Any]:
        """Time round trips, idle and while arrays are sent."""
        self._is_asking = True
        measured = super().measure_loaded(*asked, **how)
        self._is_asking = False
        return measured

    def _once(self, n: int) -> None:
        self._send(n)
        if not self._answer.take(ANSWER_TIMEOUT_S):
            raise TimeoutError(f"no answer to message {n}")

    def _bulk(self, size: int, window: int, direct: bool, hz: float) -> Pipeline:
        if direct not in self._streams:
            self._streams[direct] = self._open_stream(direct)
        publisher, credits_ = self._streams[direct]
        arrays = Arrays(size)
        bodies = [arrays[n].tobytes() for n in range(POOL)]
        return Pipeline(
            lambda n: publisher.put(bodies[n % POOL], attachment=b"%d" % n),
            credits_.take,
            window,
            lambda: publisher.put(b""),
            hz,
        )

    def _open_stream(self, direct: bool) -> tuple[Any, Counted]:
        session = self._session
        if direct:
            session = self._direct = self._dial("direct")
        counted = Counted()
        session.declare_subscriber(f"credit/{ME}", lambda sample: counted.add(int(sample.payload.to_bytes())))
        stream = declare(session, f"bulk/{ME}")
        deadline = time.monotonic() + MEETING_TIMEOUT_S
        while not stream.matching_status.matching and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)  # the receiver learns of the subscription for credits
        return stream, counted

    def _open_lanes(self, senders: int) -> None:
        while len(self._lanes) < senders:
            lane = len(self._lanes)
            session = self._dial("port")
            session.declare_subscriber(
                f"ack/{lane}", lambda sample: self._schedule.confirm(int(sample.payload.to_bytes()))
            )
            self._lanes.append((session, declare(session, f"small/{lane}")))
            if len(self._lanes) == senders:
                time.sleep(0.5)  # the router learns of the last ones

    def _send_from(self, lane: int, n: int) -> None:
        self._lanes[lane][1].put(json.dumps(payload(n)).encode())

    def close(self) -> None:
        """Leave it to the end of the process."""


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
