"""NATS JetStream with its file store: publisher to nats-server to a durable consumer, publish acks counted.

    python -m benchmarks.peers.nats_jetstream --mode durable --seconds 3

Needs `nats-server` (Debian: `apt-get install nats-server`, 2.9) and `nats-py` (`pip install -e '.[bench]'`);
`make bench` sees to both. As quick as nats-py's own calls are:

- one stream, file storage, one replica, no limits, in a temporary folder on the disk on which the other peers
  store. Debian's 2.9 has no `sync_interval`: it acknowledges once a message is written to its file, and the
  kernel writes it to the disk when it likes. So a power cut loses what was confirmed;
- the publisher uses `publish_async`, keeps `window` messages unacknowledged, and counts in the futures' callbacks,
  as ours counts in those of its receipts. `nats_jetstream_bare` goes around that call;
- the consumer is a durable push consumer that reads each message and acknowledges each 256th, or the last that
  waits, for all before it (`AckPolicy.ALL`). nats-py's pull consumer makes a task and a timer for each message:
  it handled 19,000 /s at most, fell behind the publisher, and took more than twice the CPU.

An ack says that the server has the message, not that the consumer has: the column "handled /s" is the rate at
which the consumer had all.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec

from .common import Peer, main, role_commands
from .roles import GRACE_S, Addresses, Arrivals, payload

STREAM = SUBJECT = "DATA"
DURABLE, DELIVERIES = "receiver", "deliveries"
ACK_EVERY = 256
MAX_UNACKED = 65536
START_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 20.0
SBIN = ("/usr/sbin", "/usr/local/sbin")


def server_program() -> str | None:
    """Return the path of nats-server, which Debian puts where a user's PATH doesn't lead."""
    return shutil.which("nats-server", path=os.pathsep.join((os.environ.get("PATH", ""), *SBIN)))


def what_is_missing() -> str:
    """Say what this peer needs and how to get it; nothing if it is there."""
    if server_program() is None:
        return "nats-server is not installed (Debian: apt-get install nats-server)"
    if importlib.util.find_spec("nats") is None:
        return "nats-py is not installed (pip install -e '.[bench]')"
    return ""


PEER = Peer(
    "nats_jetstream",
    lambda: role_commands("nats_jetstream", "router", "receiver", "sender"),
    modes=("durable",),
    promise="written, not synced",
    missing=what_is_missing,
)


class Loop:
    """An asyncio loop in a thread of its own, which keeps a connection alive between slices."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, work: Coroutine[Any, Any, Any], timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        """Run it there and return what it gives."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)


class Server:
    """nats-server as a child process, on any free port of loopback."""

    settings = 'jetstream {{ store_dir: "{home}", max_memory_store: 64MB, max_file_store: 16GB }}\n'

    def __init__(self, _addresses: Addresses) -> None:
        home = Path.home() / "nats"
        home.mkdir()
        config = home / "server.conf"
        config.write_text(
            f'host: 127.0.0.1\nport: -1\nports_file_dir: "{home}"\n' + self.settings.format(home=home)
        )
        program = server_program()
        if program is None:
            raise FileNotFoundError(what_is_missing())
        self._server = subprocess.Popen([program, "--config", str(config)], stdout=subprocess.DEVNULL)
        self.addresses: Addresses = {"url": self._await_url(home)}

    def _await_url(self, home: Path) -> str:
        ports = home / f"nats-server_{self._server.pid}.ports"
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._server.poll() is None:
            try:
                return str(json.loads(ports.read_text())["nats"][0])
            except (FileNotFoundError, json.JSONDecodeError):
                time.sleep(0.02)
        raise TimeoutError(f"nats-server did not listen within {START_TIMEOUT_S} s")

    def request(self, what: str) -> None:
        """Answer nothing: a server isn't asked."""
        raise ValueError(f"the server can't {what}")

    def close(self) -> None:
        """End the server."""
        self._server.terminate()
        self._server.wait(5)


class Router(Server):
    """nats-server with its file store and one stream."""

    def __init__(self, addresses: Addresses) -> None:
        super().__init__(addresses)
        Loop().run(_make_stream(self.addresses["url"]))


async def connect(url: str) -> Any:
    """Connect to a server."""
    import nats

    return await nats.connect(url)


async def _make_stream(url: str) -> None:
    import nats
    from nats.js.api import AckPolicy, ConsumerConfig, StorageType, StreamConfig

    connection = await nats.connect(url)
    stream = connection.jetstream()
    await stream.add_stream(StreamConfig(STREAM, subjects=[SUBJECT], storage=StorageType.FILE))
    config = ConsumerConfig(
        durable_name=DURABLE,
        deliver_subject=DELIVERIES,
        ack_policy=AckPolicy.ALL,
        max_ack_pending=MAX_UNACKED,
    )
    await stream.add_consumer(STREAM, config)
    await connection.close()


class Receiver:
    """Read what the server pushes, and acknowledge for ever."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._arrivals = Arrivals()
        self._unacked = 0
        self._loop = Loop()
        self._loop.run(self._connect(addresses["url"]))

    async def _connect(self, url: str) -> None:
        import nats

        self._connection = await nats.connect(url)
        self._stream = self._connection.jetstream()
        self._pushes = await self._connection.subscribe(
            DELIVERIES, cb=self._take, pending_bytes_limit=1 << 30
        )

    async def _take(self, message: Any) -> None:
        self._arrivals.note(msgspec.json.decode(message.data)["n"])
        self._unacked += 1
        if self._unacked >= ACK_EVERY or not self._pushes.pending_msgs:
            self._unacked = 0
            await message.ack()

    def request(self, what: str) -> dict[str, int]:
        """Return what arrived, once everything has; the only thing a receiver is asked (`count`)."""
        if what != "count":
            raise ValueError(f"the receiver can't {what}")
        return dict(self._loop.run(self._count()))

    async def _count(self) -> dict[str, int]:
        while True:
            state = await self._stream.consumer_info(STREAM, DURABLE)
            if not state.num_pending and not state.num_ack_pending:
                return self._arrivals.report()
            await asyncio.sleep(0.005)

    def close(self) -> None:
        """Leave it to the end of the process."""


class Sender:
    """Publish with `publish_async`, and count what the server acknowledged as stored, on one loop."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._loop = Loop()
        self._confirmed = 0
        self._loop.run(self.connect(addresses["url"]))

    async def connect(self, url: str) -> None:
        """Connect, and make what is needed for publishing."""
        import nats

        self._arrived = asyncio.Event()
        self.connection = await nats.connect(url)
        self._stream = self.connection.jetstream(publish_async_max_pending=MAX_UNACKED)

    async def publish(self, n: int) -> None:
        """Publish message number n without waiting for its ack."""
        future = await self._stream.publish_async(SUBJECT, msgspec.json.encode(payload(n)))
        future.add_done_callback(self._acknowledged)

    def _acknowledged(self, future: asyncio.Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            self.confirm()

    def confirm(self) -> None:
        """Count one ack."""
        self._confirmed += 1
        self._arrived.set()

    def request(self, what: str, seconds: float, first: int, window: int) -> dict[str, Any]:
        """Measure one slice in mode `what`."""
        if what != "acked":
            raise ValueError(f"JetStream is measured by its acks, not {what}")
        return dict(self._loop.run(self._run(seconds, first, window), seconds + ANSWER_TIMEOUT_S))

    async def _run(self, seconds: float, first: int, window: int) -> dict[str, Any]:
        """Do as `Pipeline` does, on the loop."""
        self._confirmed = sent = 0
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            while sent - self._confirmed < window:
                await self.publish(first + sent)
                sent += 1
            if not await self._collect():
                break
        in_time, elapsed_s = self._confirmed, time.perf_counter() - began
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

    def close(self) -> None:
        """Leave it to the end of the process."""


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
