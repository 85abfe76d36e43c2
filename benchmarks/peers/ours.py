"""Pilotage: Net_Node to Terminal_Station to Net_Node; a message counts when its receipt has settled as delivered.

    python -m benchmarks.peers.ours --mode acked --seconds 3
    python -m benchmarks.peers.ours --mode rtt --seconds 3

That is more than the others' acknowledgement says: here the listen has run. A round trip is a message and what its
listen returns, which comes with the settlement. The listens run on worker threads, as they do unless declared
otherwise; `ours_on_loop` declares them. Sender and receiver ease their process, as a Terminal and a pilot do.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any

from benchmarks.modes import CHUNK_BYTES, FRAME_BYTES
from pilotage import Net_Node, Outcome, Receipt, Terminal_Station, prefs, takes_batches
from pilotage.net.easing import ease_process
from pilotage.net.streams import Stream

from .bulk import Arrays, BulkArrivals
from .common import Peer, main, role_commands
from .roles import Addresses, Counting, Pipeline, Sending, allow_many_sockets, payload

PEER = Peer(
    "ours",
    lambda: role_commands("ours", "router", "receiver", "sender"),
    modes=(
        *("acked", "rtt", "durable", "loaded", "fanin", "scale", "scale_10", "scale_fast"),
        *("chunks", "frames", "idle_station"),
    ),
    promise="handled, in memory",
)
STATION, SENDER, RECEIVER = "T", "sender", "_T"
MEETING_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 5.0
HELLO = -1
DELIVERED = Outcome.DELIVERED
"""Looked up once: Python looks for a member of an enumeration as long as for ten other names."""
WATCHED_EVERY = 53
"""Of so many messages sent at a rate one is waited for, by which latency is measured; the others' receipts are thrown
away, as an experiment does it, and what became of them is asked in the end. No divisor of the count of senders."""
GATHERED = {CHUNK_BYTES: 8, FRAME_BYTES: 5}
"""Items in a batch of a stream, by their size; for frames what `get_stream` does by default."""

Listen = Callable[[Any], Any]
Declare = Callable[[Listen], Listen]


def on_worker(listen: Listen) -> Listen:
    """Leave a listen as it is: it runs on a worker thread."""
    return listen


class Router:
    """A Terminal_Station, which is one more process."""

    def __init__(self, _addresses: Addresses) -> None:
        allow_many_sockets()
        self._station = Terminal_Station(settings=replace(prefs.snapshot(), terminalport=0))
        self._station.start()
        self.addresses: Addresses = {"port": self._station.listen_port}

    def request(self, what: str) -> None:
        """Answer nothing: a station isn't asked."""
        raise ValueError(f"the station can't {what}")

    def close(self) -> None:
        """End the station's process."""
        self._station.release()


class Receiver(Counting):
    """Count what comes, check arrays, and answer each ECHO with its number."""

    direct = False

    def __init__(self, addresses: Addresses, declare: Declare = on_worker) -> None:
        self.addresses: Addresses = {}
        self._lock = threading.Lock()
        self._arrivals = BulkArrivals()
        listens = {
            "TRIAL": declare(self._data),
            "ECHO": declare(self._ping),
            "CONTINUOUS": declare(takes_batches(self._arrays)),
        }
        self._node = Net_Node(RECEIVER, STATION, addresses["port"], listens, direct=self.direct)
        self._node.wait_connected(MEETING_TIMEOUT_S)
        ease_process()

    def _data(self, value: dict[str, Any]) -> None:
        with self._lock:
            self._arrivals.note(value["n"])

    def _ping(self, value: dict[str, Any]) -> int:
        if value["n"] != HELLO:
            self._data(value)
        return int(value["n"])

    def _arrays(self, items: Any) -> None:
        with self._lock:
            for item in items if isinstance(items, list) else [items]:
                self._arrivals.note_array(item["n"], item["array"])

    def close(self) -> None:
        """Release the node."""
        self._node.release()


class Lanes:
    """Many nodes below one station, each with a connection of its own, sharing this process's loop."""

    def __init__(self, upstream: str, port: int) -> None:
        self._where = upstream, port
        self.nodes: list[Net_Node] = []

    def open(self, count: int) -> None:
        """Have so many, connected."""
        fresh = [Net_Node(f"lane_{n}", *self._where, journal=None) for n in range(len(self.nodes), count)]
        self.nodes += fresh
        for node in fresh:
            node.wait_connected(MEETING_TIMEOUT_S)

    def delivered(self) -> int:
        """Ask how many messages were delivered so far: all nodes at once, on the loop that they share."""
        if not self.nodes:
            return 0
        told: Future[int] = Future()
        nodes, loop = self.nodes, self.nodes[0].loop
        loop.add_callback(
            lambda: told.set_result(sum(node.statistics().settled[Outcome.DELIVERED] for node in nodes))
        )
        return told.result(ANSWER_TIMEOUT_S)

    def close(self) -> None:
        """Release them."""
        for node in self.nodes:
            node.release(0.0)


class Sender(Sending):
    """Send from the main thread, as an experiment's task does, and count what settled as delivered."""

    def __init__(self, addresses: Addresses, host: str = "localhost") -> None:
        allow_many_sockets()
        self.addresses: Addresses = {}
        self._open: deque[Receipt] = deque()
        self._node = Net_Node(SENDER, STATION, addresses["port"], upstream_ip=host)
        self._node.wait_connected(MEETING_TIMEOUT_S)
        self._streams: dict[int, Stream] = {}
        self._lanes = Lanes(STATION, addresses["port"])
        self._once(HELLO)
        ease_process()

    def _send(self, n: int) -> None:
        self._open.append(self._node.send(RECEIVER, "TRIAL", payload(n)))

    def _collect(self, timeout_s: float) -> int:
        """Wait for the oldest one; what else has settled by then is counted with it."""
        with suppress(TimeoutError):
            self._open[0].wait_settled(timeout_s)
        count, receipts = 0, self._open
        while receipts and (settlement := receipts[0].settlement) is not None:
            receipts.popleft()
            count += settlement.outcome is DELIVERED
        return count

    def _once(self, n: int) -> None:
        if self._node.send(RECEIVER, "ECHO", payload(n)).result(ANSWER_TIMEOUT_S) != n:
            raise ValueError(f"another answer than that to message {n}")

    def _bulk(self, size: int, window: int, direct: bool, hz: float) -> Pipeline:
        # Whether it goes directly is a matter of its receiver.
        if size not in self._streams:
            gathered = GATHERED.get(size, 1)
            self._streams[size] = self._node.get_stream(f"of_{size}", "CONTINUOUS", gathered)
        stream, arrays = Counted(self._streams[size]), Arrays(size)
        return Pipeline(
            lambda n: stream.put({"n": n, "array": arrays[n]}), stream.collect, window, stream.flush, hz
        )

    def _open_lanes(self, senders: int) -> None:
        self._lanes.open(senders)
        self._delivered = self._lanes.delivered()

    def _send_from(self, lane: int, n: int) -> None:
        receipt = self._lanes.nodes[lane].send(RECEIVER, "TRIAL", payload(n))
        if self._schedule.sent % WATCHED_EVERY == 0:
            receipt.add_callback(lambda ended: self._schedule.confirm(n) if is_delivered(ended) else None)

    def _turn(self, timeout_s: float) -> None:
        time.sleep(timeout_s)
        if not self._schedule.is_on:
            self._schedule.count(self._lanes.delivered() - self._delivered)

    def measure_idle(self, seconds: float, first: int, peers: int) -> dict[str, Any]:
        """Have so many nodes and do nothing."""
        self._lanes.open(peers)
        time.sleep(seconds)
        return {"sent": 0, "confirmed": 0}

    def close(self) -> None:
        """Release all nodes."""
        self._lanes.close()
        self._node.release()


class Counted:
    """A stream whose settled items are counted."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._put = self._counted = 0
        self._failed = stream.failed

    def put(self, item: dict[str, Any]) -> None:
        """Put an item."""
        self._stream.put(item)
        self._put += 1

    def flush(self) -> None:
        """Have the last ones leave."""
        self._stream.flush()

    def collect(self, timeout_s: float) -> int:
        """Wait so long until any more were delivered, and return how many."""
        deadline = time.monotonic() + timeout_s
        with self._stream.not_full:
            while (fresh := self._delivered()) <= 0 and time.monotonic() < deadline:
                self._stream.not_full.wait(deadline - time.monotonic())
        self._counted += fresh
        return fresh

    def _delivered(self) -> int:
        over = self._put - self._stream.unfinished_tasks
        return over - (self._stream.failed - self._failed) - self._counted


def is_delivered(receipt: Receipt) -> bool:
    """Tell whether a send has ended well."""
    return receipt.settlement is not None and receipt.settlement.outcome is DELIVERED


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
