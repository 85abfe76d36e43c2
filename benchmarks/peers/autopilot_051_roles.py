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

from .bulk import Arrays, BulkArrivals
from .roles import Addresses, Counting, Pipeline, Role, Sending, payload, serve

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


class Receiver(Counting):
    """Count DATA, which the node confirms by itself, check arrays, and answer each PING with a PONG."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._lock = threading.Lock()
        self._arrivals = BulkArrivals()
        listens = {"DATA": self._data, "FRAME": self._array, "PING": self._ping}
        self._node = node(RECEIVER, addresses["port"], listens)

    def _data(self, value: dict[str, Any]) -> None:
        with self._lock:
            self._arrivals.note(value["n"])

    def _array(self, value: dict[str, Any]) -> None:
        with self._lock:
            self._arrivals.note_array(value["n"], value["array"])

    def _ping(self, value: dict[str, Any]) -> None:
        if value["n"] != HELLO:
            self._data(value)
        self._node.send(SENDER, "PONG", value["n"])

    def close(self) -> None:
        """Release the node."""
        self._node.release()


class Lane:
    """One of many nodes; tells which of its messages were confirmed."""

    def __init__(self, number: int, port: int, confirm: Callable[[int], None]) -> None:
        self._node = node(f"lane_{number}", port, {})
        self._numbers: dict[str, int] = {}
        self._confirm = confirm
        self._node.listens["CONFIRM"] = self._confirmed

    def send(self, n: int) -> None:
        """Send message number n in the loop's thread."""
        self._node.loop.add_callback(self._send, n)

    def _send(self, n: int) -> None:
        message = self._node.prepare_message(RECEIVER, "DATA", payload(n), repeat=True)
        self._numbers[message.id] = n
        self._node.send(RECEIVER, msg=message, repeat=True)

    def _confirmed(self, value: str) -> None:
        self._node.l_confirm(value)
        if value in self._numbers:
            self._confirm(self._numbers.pop(value))

    def close(self) -> None:
        """Release the node."""
        self._node.release()


class Sender(Sending):
    """Send in the loop's thread, to which its sockets belong; sending from the main thread is as fast."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._port = addresses["port"]
        self._confirmed = threading.Semaphore(0)
        self._ponged = threading.Event()
        self._lanes: list[Lane] = []
        self._node = node(SENDER, self._port, {"PONG": self._pong})
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

    def _bulk(self, size: int, window: int, direct: bool, hz: float) -> Pipeline:
        if direct:
            raise ValueError("everything goes through the station")
        arrays = Arrays(size)

        def send(n: int) -> None:
            # Compressed, for an uncompressed one crashes a receiver that has a recent blosc2.
            value = {"n": n, "array": arrays[n]}
            self._node.loop.add_callback(self._node.send, RECEIVER, "FRAME", value, repeat=True)

        return Pipeline(send, self._collect, window, hz=hz)

    def _open_lanes(self, senders: int) -> None:
        fresh = [
            Lane(number, self._port, self._lane_confirmed) for number in range(len(self._lanes), senders)
        ]
        self._lanes += fresh
        if fresh:
            time.sleep(1.0)  # they give no sign of being connected

    def _lane_confirmed(self, n: int) -> None:
        self._schedule.confirm(n)

    def _send_from(self, lane: int, n: int) -> None:
        self._lanes[lane].send(n)

    def close(self) -> None:
        """Release the nodes."""
        for lane in self._lanes:
            lane.close()
        self._node.release()


if __name__ == "__main__":
    roles: dict[str, Callable[[Addresses], Role]] = {
        "router": Router, "receiver": Receiver, "sender": Sender
    }  # fmt: skip
    serve(roles[sys.argv[1]])
