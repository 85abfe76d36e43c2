"""NATS core: publisher to nats-server to subscriber, with an acknowledgement built on top of it.

    python -m benchmarks.peers.nats_core --mode acked --seconds 3
    python -m benchmarks.peers.nats_core --mode frames --seconds 3

Needs `nats-server` and `nats-py`, as `nats_jetstream` does. Core keeps nothing: a subscriber that isn't there, or is
too slow, misses what is published. So the receiver publishes to the sender's inbox how many came: whenever no more
wait, and each 32nd time; of arrays each 8th. What comes from many senders is answered one by one, with its number.
All of a sender runs on nats-py's own loop. A round trip is its `request`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from .bulk import Arrays, BulkArrivals
from .common import Peer, main, role_commands
from .nats_jetstream import ANSWER_TIMEOUT_S, Loop, Server, connect, what_is_missing
from .roles import GRACE_S, TICK_S, Addresses, Counting, Schedule, payload

PEER = Peer(
    "nats_core",
    lambda: role_commands("nats_core", "router", "receiver", "sender"),
    modes=("acked", "rtt", "fanin", "chunks", "frames"),
    promise="received, in memory",
    missing=what_is_missing,
)
SMALL, MANY, BULK, FLUSH = "small", "many", "bulk", "flush"
ACK_EVERY, CREDIT_EVERY = 32, 8
HEAD_BYTES = 8
PENDING_BYTES = 1 << 30


class Router(Server):
    """nats-server, without JetStream."""

    settings = ""


class Receiver(Counting):
    """Decode each message and publish its number to where it came from."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._arrivals = BulkArrivals()
        self._uncredited = 0
        self._loop = Loop()
        self._loop.run(self._connect(addresses["url"]))

    async def _connect(self, url: str) -> None:
        self._connection = await connect(url)
        for subject, take in ((SMALL, self._take), (BULK, self._take_array), (FLUSH, self._flush)):
            await self._connection.subscribe(subject, cb=take, pending_bytes_limit=PENDING_BYTES)
        self._many = await self._connection.subscribe(
            MANY, cb=self._take_many, pending_bytes_limit=PENDING_BYTES
        )
        await self._connection.flush()

    async def _take(self, message: Any) -> None:
        n = msgspec.json.decode(message.data)["n"]
        self._arrivals.note(n)
        await self._connection.publish(message.reply, b"%d" % n)

    async def _take_many(self, message: Any) -> None:
        self._arrivals.note(msgspec.json.decode(message.data)["n"])
        self._uncredited += 1
        if self._uncredited >= ACK_EVERY or not self._many.pending_msgs:
            await self._flush(message)

    async def _take_array(self, message: Any) -> None:
        data = memoryview(message.data)
        self._arrivals.note_array(int.from_bytes(data[:HEAD_BYTES], "little"), data[HEAD_BYTES:])
        self._uncredited += 1
        if self._uncredited >= CREDIT_EVERY:
            await self._flush(message)

    async def _flush(self, message: Any) -> None:
        count, self._uncredited = self._uncredited, 0
        await self._connection.publish(message.reply, b"%d" % count)

    def close(self) -> None:
        """Leave it to the end of the process."""


class Sender:
    """Publish, and count what comes to the inboxes, on one loop."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._url = addresses["url"]
        self._loop = Loop()
        self._confirmed = 0
        self._lanes: list[tuple[Any, str]] = []
        self._schedule = Schedule(0, 0, 1, 1)
        self._loop.run(self._connect())

    async def _connect(self) -> None:
        self._arrived = asyncio.Event()
        self._connection = await connect(self._url)
        self._credits = self._connection.new_inbox()
        await self._connection.subscribe(self._credits, cb=self._credited)
        await self._connection.flush()

    async def _credited(self, credit: Any) -> None:
        self._confirmed += int(credit.data)
        self._arrived.set()

    def request(self, what: str, seconds: float, first: int, **how: Any) -> dict[str, Any]:
        """Measure one slice; `what` names one of the methods below."""
        measure = getattr(self, f"_measure_{what}")(seconds, first, **how)
        return dict(self._loop.run(measure, seconds + ANSWER_TIMEOUT_S))

    async def _measure_acked(self, seconds: float, first: int, window: int) -> dict[str, Any]:
        async def send(n: int) -> None:
            await self._connection.publish(MANY, msgspec.json.encode(payload(n)), self._credits)

        return await self._pipeline(send, seconds, first, window)

    async def _measure_bulk(
        self, seconds: float, first: int, window: int, size: int, direct: bool
    ) -> dict[str, Any]:
        if direct:
            raise ValueError("everything goes through the server")
        arrays = Arrays(size)

        async def send(n: int) -> None:
            # One payload is all there is: joining number and array is a copy that it asks for.
            body = b"".join((n.to_bytes(HEAD_BYTES, "little"), arrays[n]))  # type: ignore[arg-type]
            await self._connection.publish(BULK, body, self._credits)

        return await self._pipeline(send, seconds, first, window)

    async def _pipeline(self, send: Any, seconds: float, first: int, window: int) -> dict[str, Any]:
        """Do as `Pipeline` does, on the loop."""
        self._confirmed = sent = 0
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            while sent - self._confirmed < window:
                await send(first + sent)
                sent += 1
            if not await self._collect():
                break
        in_time, elapsed_s = self._confirmed, time.perf_counter() - began
        await self._connection.publish(FLUSH, b"", self._credits)
        while self._confirmed < sent and await self._collect():
            pass
        return {"sent": sent, "confirmed": self._confirmed, "in_time": in_time, "elapsed_s": elapsed_s}

    async def _collect(self) -> bool:
        self._arrived.clear()
        try:
            await asyncio.wait_for(self._arrived.wait(), GRACE_S)
        except TimeoutError:
            return False
        return True

    async def _measure_rtt(self, seconds: float, first: int) -> dict[str, Any]:
        times: list[float] = []
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            body = msgspec.json.encode(payload(first + len(times)))
            await self._connection.request(SMALL, body, timeout=GRACE_S)
            times.append(round((time.perf_counter() - began) * 1e6, 1))
        return {"sent": len(times), "confirmed": len(times), "rtt_us": times}

    async def _measure_paced(self, seconds: float, first: int, senders: int, hz: float) -> dict[str, Any]:
        await self._open_lanes(senders)
        schedule = self._schedule = Schedule(seconds, first, senders, hz)
        while schedule.is_on:
            for lane, n in schedule.due():
                connection, inbox = self._lanes[lane]
                await connection.publish(SMALL, msgspec.json.encode(payload(n)), inbox)
            await asyncio.sleep(TICK_S)
        while schedule.is_waiting:
            await asyncio.sleep(10 * TICK_S)
        return schedule.result()

    async def _open_lanes(self, senders: int) -> None:
        while len(self._lanes) < senders:
            connection = await connect(self._url)
            inbox = connection.new_inbox()
            await connection.subscribe(inbox, cb=self._lane_acknowledged)
            self._lanes.append((connection, inbox))

    async def _lane_acknowledged(self, ack: Any) -> None:
        self._schedule.confirm(int(ack.data))

    def close(self) -> None:
        """Leave it to the end of the process."""


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
