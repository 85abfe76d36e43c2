"""Short ways to the things that these tests are about."""

from __future__ import annotations

import json
from typing import Any

from pilotage.protocol.exchange import Exchange, ExchangeConfig
from pilotage.protocol.instructions import (
    Card,
    Dialect,
    HandOver,
    Instruction,
    Link,
    Service,
    Settle,
    Transmit,
)
from pilotage.protocol.liveness import LivenessRules
from pilotage.protocol.records import Marks, Packet, Parcel, decode_packet, encode_packet
from pilotage.protocol.sends import DeliveryRules, Pending
from pilotage.protocol.settlement import Settlement

LISTENER: Link = ("listener", b"\x00abcd")
RULES = DeliveryRules(repeat_interval_s=1.0, longest_wait_s=8.0, patience_s=10.0, window=8)
CALM = LivenessRules()


def parcel(seq: int, floor: int = 1, marks: int = Marks.ORDERED, **changes: Any) -> Parcel:
    body = changes.pop("body", b"body")
    bodies = [] if marks & Marks.PROBE else [body]
    fields = {
        "path": ["S"], "trail": ["a"], "boot": 7, "flow": 1, "seq": seq, "floor": floor, "verb": "DATA",
        "marks": int(marks), "bodies": bodies, **changes,
    }  # fmt: skip
    return Parcel(**fields)


def request(handle: object = "handle", path: tuple[str, ...] = ("b",), **changes: Any) -> Pending:
    fields = {
        "verb": "DATA",
        "bodies": [changes.pop("body", b"body")],
        "frames": 0,
        "names": [str(handle)],
        **changes,
    }
    return Pending(path, handle=handle, **fields)


def exchange(
    me: str = "S",
    boot: int = 1,
    upstream: str = "",
    passes: str = "",
    liveness: LivenessRules = CALM,
) -> Exchange:
    config = ExchangeConfig(me, boot, upstream, RULES, liveness, ack_within_s=0.0)
    return Exchange(config, lambda verb: Service.PASS_ON if verb == passes else Service.HANDLE)


def own(name: str, boot: int, *, dials: bool = True) -> Card:
    return Card(Dialect.OWN, name, boot, dials)


def original(name: str) -> tuple[Link, Card]:
    return ("listener", name.encode()), Card(Dialect.JSON, name)


def envelope(**changes: Any) -> bytes:
    """Write an envelope as 0.3 does, or with the fields of 0.5 where they are given."""
    fields = {
        "flags": {}, "timestamp": "2026-11-22T04:56:42.093565", "ttl": 5, "sender": "n1", "to": "S", "key": "K",
        "value": 1, "id": "n1_0", **changes,
    }  # fmt: skip
    return json.dumps(fields).encode()


def packet(*parcels: Parcel, **others: Any) -> list[Any]:
    return encode_packet(Packet(list(parcels), **others))


def sent_frames(instructions: list[Instruction]) -> list[tuple[Link, list[bytes]]]:
    batches = [one.batch for one in instructions if isinstance(one, Transmit)]
    return [(link, [bytes(frame) for frame in frames]) for batch in batches for link, frames in batch]


def sent_packets(instructions: list[Instruction], link: Link) -> Packet:
    """Join all that goes to a neighbour of our own wire."""
    joined = Packet([], [], [])
    for to, frames in sent_frames(instructions):
        if to == link:
            part = decode_packet(frames)
            joined.parcels += part.parcels
            joined.acks += part.acks
            joined.greetings += part.greetings
    return joined


def handed_over(instructions: list[Instruction]) -> list[Parcel]:
    return [
        parcel for one in instructions if isinstance(one, HandOver) for parcel in one.parcels + one.passing
    ]


def settled(instructions: list[Instruction]) -> list[tuple[Any, Settlement]]:
    return [pair for one in instructions if isinstance(one, Settle) for pair in one.ended]
