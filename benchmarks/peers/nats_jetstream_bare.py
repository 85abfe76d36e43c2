"""JetStream's ceiling in Python: the same, but published around `publish_async`, with one inbox for all acks.

    python -m benchmarks.peers.nats_jetstream_bare --mode durable --seconds 3

No future, no random id, no bound and no timeout for each message: nothing tells which message an ack is for, and
a lost one would go unnoticed. Like `raw_pyzmq`, it is a yardstick, not something to build on.
"""

from __future__ import annotations

from typing import Any

import msgspec

from . import nats_jetstream
from .common import Peer, main, role_commands
from .nats_jetstream import SUBJECT, Receiver, Router, what_is_missing
from .roles import payload

PEER = Peer(
    "nats_jetstream_bare",
    lambda: role_commands("nats_jetstream_bare", "router", "receiver", "sender"),
    modes=("durable",),
    promise=nats_jetstream.PEER.promise,
    missing=what_is_missing,
)


class Sender(nats_jetstream.Sender):
    """Publish plainly, with a reply address, and count what comes there."""

    async def connect(self, url: str) -> None:
        """Connect and listen for acks."""
        await super().connect(url)
        self._inbox = self.connection.new_inbox()
        await self.connection.subscribe(self._inbox, cb=self._came)

    async def publish(self, n: int) -> None:
        """Publish message number n without waiting for its ack."""
        await self.connection.publish(SUBJECT, msgspec.json.encode(payload(n)), self._inbox)

    async def _came(self, ack: Any) -> None:
        if b'"error"' not in ack.data:
            self.confirm()


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
