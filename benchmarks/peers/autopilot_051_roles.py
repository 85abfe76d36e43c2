"""The original's three processes; runs under the original's interpreter, started by `autopilot_051.py`."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

os.environ["AUTOPILOT_NO_PREFS_MANAGER"] = "1"

from autopilot.networking import Net_Node, Station

from .roles import Addresses, Arrivals, Pipeline, Role, payload, round_trips, serve

STATION, SENDER, RECEIVER = "station", "sender", "receiver"
MEETING_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 5.0
HELLO = -1


def free_port() -> int:
    """Return a port that was free a moment ago: the original can't be told to bind port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def node(name: str, port: int, listens: dict[str, Any]) -> Any:
    """Make a Net_Node with a loop of its own, below the station."""
    return Net_Node(name, STATION, port, listens, instance=False, upstream_ip="127.0.0.1")


class Router:
    """A Station, which is one more process."""

    def __init__(self, _addresses: Addresses) -> None:
        self.addresses: Addresses = {"port": free_port()}
        self._station = Station(id=STATION, listen_port=self.addresses["port"])
        self._station.start()

    def request(self, what: str) -> None:
        """Answer nothing: a station isn't asked."""
        raise ValueError(f"the station can't {what}")

    def close(self) -> None:
        """End the station's process."""
        self._station.release()
        self._station.join(5)


class Receiver:
    """Count DATA, which the node confirms by itself, and answer each PING with a PONG."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._lock = threading.Lock()
        self._arrivals = Arrivals()
        self._node = node(RECEIVER, addresses["port"], {"DATA": self._data, "PING": self._ping})

    def _data(self, value: dict[str, Any]) -> None:
        with self._lock:
            self._arrivals.note(value["n"])

    def _ping(self, value: dict[str, Any]) -> None:
        if value["n"] != HELLO:
            self._data(value)
        self._node.send(SENDER, "PONG", value["n"])

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
    """Send in the loop's thread, to which its sockets belong; sending from the main thread is as fast."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._confirmed = threading.Semaphore(0)
        self._ponged = threading.Event()
        self._node = node(SENDER, addresses["port"], {"PONG": self._pong})
        self._node.listens["CONFIRM"] = self._confirm
        self._meet()

    def _meet(self) -> None:
        deadline = time.monotonic() + MEETING_TIMEOUT_S
        while not self._ponged.wait(0.1):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the receiver did not answer within {MEETING_TIMEOUT_S} s")
            self._node.loop.add_callback(self._node.send, RECEIVER, "PING", {"n": HELLO})

    def _confirm(self, value: str) -> None:
        self._node.l_confirm(value)
        self._confirmed.release()

    def _pong(self, _value: int) -> None:
        self._ponged.set()

    def request(self, what: str, seconds: float, first: int, window: int) -> dict[str, Any]:
        """Measure one slice in mode `what`."""
        if what == "rtt":
            return round_trips(self._once, seconds, first)
        return Pipeline(self._send, self._collect, window).run(seconds, first)

    def _send(self, n: int) -> None:
        self._node.loop.add_callback(self._node.send, RECEIVER, "DATA", payload(n), repeat=True)

    def _collect(self, timeout_s: float) -> int:
        if not self._confirmed.acquire(timeout=timeout_s):
            return 0
        count = 1
        while self._confirmed.acquire(blocking=False):
            count += 1
        return count

    def _once(self, n: int) -> None:
        self._ponged.clear()
        self._node.loop.add_callback(self._node.send, RECEIVER, "PING", payload(n))
        if not self._ponged.wait(ANSWER_TIMEOUT_S):
            raise TimeoutError(f"no answer to message {n}")

    def close(self) -> None:
        """Release the node."""
        self._node.release()


if __name__ == "__main__":
    roles: dict[str, Callable[[Addresses], Role]] = {
        "router": Router, "receiver": Receiver, "sender": Sender
    }  # fmt: skip
    serve(roles[sys.argv[1]])
