"""Pilotage: Net_Node to Station to Net_Node; a message counts when its receipt has settled as delivered.

    python -m benchmarks.peers.ours --mode acked --seconds 3
    python -m benchmarks.peers.ours --mode rtt --seconds 3

That is more than the others' acknowledgement says: here the listen has run. A round trip is a message and what its
listen returns, which comes with the settlement. The listens run on worker threads, as they do unless declared
otherwise; `ours_on_loop` declares them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from pilotage import Net_Node, Outcome, Receipt, Station

from .common import Peer, main, role_commands
from .roles import Addresses, Arrivals, Pipeline, payload, round_trips

PEER = Peer("ours", lambda: role_commands("ours", "router", "receiver", "sender"))
STATION, SENDER, RECEIVER = "station", "sender", "receiver"
MEETING_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 5.0
HELLO = -1

Listen = Callable[[Any], Any]
Declare = Callable[[Listen], Listen]


def on_worker(listen: Listen) -> Listen:
    """Leave a listen as it is: it runs on a worker thread."""
    return listen


class Router:
    """A Station, which is one more process."""

    def __init__(self, _addresses: Addresses) -> None:
        self._station = Station(id=STATION, listen_port=0)
        self._station.start()
        self.addresses: Addresses = {"port": self._station.listen_port}

    def request(self, what: str) -> None:
        """Answer nothing: a station isn't asked."""
        raise ValueError(f"the station can't {what}")

    def close(self) -> None:
        """End the station's process."""
        self._station.release()


class Receiver:
    """Count what comes, and answer each ECHO with its number."""

    def __init__(self, addresses: Addresses, declare: Declare = on_worker) -> None:
        self.addresses: Addresses = {}
        self._lock = threading.Lock()
        self._arrivals = Arrivals()
        listens = {"TRIAL": declare(self._data), "ECHO": declare(self._ping)}
        self._node = Net_Node(RECEIVER, STATION, addresses["port"], listens)
        self._node.wait_connected(MEETING_TIMEOUT_S)

    def _data(self, value: dict[str, Any]) -> None:
        with self._lock:
            self._arrivals.note(value["n"])

    def _ping(self, value: dict[str, Any]) -> int:
        if value["n"] != HELLO:
            self._data(value)
        return int(value["n"])

    def request(self, what: str) -> dict[str, int]:
        """Return what arrived; the only thing a receiver is asked (`count`)."""
        if what != "count":
            raise ValueError(f"the receiver can't {what}")
        with self._lock:
            return self._arrivals.report()

    def close(self) -> None:
        """Release the node."""
        self._node.release()


class Sender:
    """Send from the main thread, as an experiment's task does, and count what settled as delivered."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._delivered = 0
        self._settled = threading.Condition()
        self._node = Net_Node(SENDER, STATION, addresses["port"])
        self._node.wait_connected(MEETING_TIMEOUT_S)
        self._once(HELLO)

    def _ended(self, receipt: Receipt) -> None:
        if receipt.settlement is not None and receipt.settlement.outcome is Outcome.DELIVERED:
            with self._settled:
                self._delivered += 1
                self._settled.notify()

    def request(self, what: str, seconds: float, first: int, window: int) -> dict[str, Any]:
        """Measure one slice in mode `what`."""
        if what == "rtt":
            return round_trips(self._once, seconds, first)
        return Pipeline(self._send, self._collect, window).run(seconds, first)

    def _send(self, n: int) -> None:
        self._node.send(RECEIVER, "TRIAL", payload(n)).add_callback(self._ended)

    def _collect(self, timeout_s: float) -> int:
        deadline = time.monotonic() + timeout_s
        with self._settled:
            while not self._delivered and time.monotonic() < deadline:
                self._settled.wait(deadline - time.monotonic())
            count, self._delivered = self._delivered, 0
        return count

    def _once(self, n: int) -> None:
        if self._node.send(RECEIVER, "ECHO", payload(n)).result(ANSWER_TIMEOUT_S) != n:
            raise ValueError(f"another answer than that to message {n}")

    def close(self) -> None:
        """Release the node."""
        self._node.release()


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
