"""The bare chain with what the documented interface asks of each message. No peer, but a limit.

    python -m benchmarks.peers.bare_interface --mode acked --seconds 3
    python -m benchmarks.peers.bare_interface --mode fanin --seconds 3

Each message has an id, a time and the fields of a `Message` on the wire, and a receipt by which its sender sees how it
ended. What our chain takes more than that is taken by what it promises: order, once, resends, flow control, silence.
"""

from __future__ import annotations

import itertools
from collections import deque
from datetime import datetime
from queue import Empty
from typing import Any

import msgspec

from . import bare_chain
from .bare_chain import Router, encode
from .common import Peer, main, role_commands
from .roles import Addresses, payload

PEER = Peer(
    "bare_interface",
    lambda: role_commands("bare_interface", "router", "receiver", "sender"),
    modes=("acked", "rtt", "fanin"),
    promise="handled, if nothing fails",
    missing=bare_chain.PEER.missing,
)
TTL = 5
OPEN, DELIVERED = "open", "delivered"
NONE: dict[str, Any] = {}


class Fields(msgspec.Struct, array_like=True):
    """What of a message is on the wire."""

    name: str
    sender: str
    to: str
    value: dict[str, Any]
    timestamp: str
    ttl: int
    flags: dict[str, Any]
    extra: dict[str, Any]


class Receipt(msgspec.Struct):
    """A message that was sent, and where its end is noted."""

    message: tuple[Any, ...]
    ends: list[str]
    at: int


class Receiver(bare_chain.Receiver):
    """Reads the fields of each message before it handles its value."""

    def __init__(self, addresses: Addresses) -> None:
        self._read = msgspec.msgpack.Decoder(Fields).decode
        super().__init__(addresses)

    def _value_of(self, message: bytes) -> dict[str, Any]:
        return self._read(message).value


class Sender(bare_chain.Sender):
    """Makes a message of each value, and looks by its receipt how it has ended."""

    def __init__(self, addresses: Addresses) -> None:
        self._numbers = itertools.count()
        self._open: deque[Receipt] = deque()
        self._ends: list[str] = []
        self._settled = 0
        self._by_number: dict[int, Receipt] = {}
        super().__init__(addresses)

    def _draft(self, n: int) -> tuple[Any, ...]:
        name = f"sender_{next(self._numbers)}"
        return name, "sender", "receiver", payload(n), datetime.now(), TTL, NONE, NONE

    def _send(self, n: int) -> None:
        message = self._draft(n)
        body, ends = encode(message), self._ends
        self._open.append(Receipt(message, ends, len(ends)))
        ends.append(OPEN)
        self._lane.leave(body)

    def _send_from(self, lane: int, n: int) -> None:
        message = self._draft(n)
        self._by_number[n] = Receipt(message, [OPEN], 0)
        self._lanes[lane].leave(encode(message))

    def _confirm(self, numbers: list[int]) -> None:
        for n in numbers:
            self._by_number.pop(n).ends[0] = DELIVERED
        super()._confirm(numbers)

    def _settle(self, numbers: list[int]) -> None:
        count = len(numbers)
        self._ends[self._settled : self._settled + count] = [DELIVERED] * count
        self._settled += count
        super()._settle(numbers)

    def _collect(self, timeout_s: float) -> int:
        count, receipts = 0, self._open
        while receipts and receipts[0].ends[receipts[0].at] == OPEN:
            try:
                self._ended.get(timeout=timeout_s)
            except Empty:
                return 0
        while receipts and receipts[0].ends[receipts[0].at] == DELIVERED:
            receipts.popleft()
            count += 1
        return count


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
