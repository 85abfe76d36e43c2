"""What one stimulus brings about, gathered until all of it goes out together.

Law of this room: what goes to one neighbour in one turn leaves as one transmission, in the order in which it came
about, unless that would be too long for one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pilotage.protocol.instructions import (
    HandOver,
    Instruction,
    Level,
    Link,
    Note,
    Settle,
    Transmit,
)
from pilotage.protocol.liveness import Peer
from pilotage.protocol.records import (
    MAX_PACKET_BYTES,
    MAX_PACKET_PARCELS,
    Frame,
    Greeting,
    Packet,
    Parcel,
    encode_packet,
)
from pilotage.protocol.settlement import Settlement


class Outgoing:
    """Packets by link, and instructions.

    Attributes:
        raw: transmissions to originals.
        parcels: messages for listens.
        passing: messages that listens may look at before they go on.
        ended: sends that have ended.
        others: instructions of other kinds, in their order.
        packets: what goes to neighbours, by link.
    """

    def __init__(self) -> None:
        self.raw: list[tuple[Link, Sequence[Frame]]] = []
        self.parcels: list[Parcel] = []
        self.passing: list[Parcel] = []
        self.ended: list[tuple[Any, Settlement]] = []
        self.others: list[Instruction] = []
        self.packets: defaultdict[Link, Packet] = defaultdict(Packet)

    def note(self, level: Level, text: str, who: str = "", verb: str = "", target: str = "") -> None:
        """Say something to whoever reads the log; with a verb, that somebody was refused it."""
        self.others.append(Note(level, text, who, verb, target))

    def greet(self, link: Link, word: str, text: str = "") -> None:
        """Say something to a neighbour about its link."""
        self.packets[link].greetings.append(Greeting(word, text))

    def forget(self, link: Link) -> None:
        """Leave out what was meant for a link that has ended."""
        self.packets.pop(link, None)

    def take(self, peers: Mapping[Link, Peer], now: float) -> list[Instruction]:
        """Give all of it, and begin anew.

        Args:
            peers: our neighbours, of whom we note that we have spoken to them.
            now: the time.
        """
        instructions, self.others = self.others, []
        packets = self.packets
        if packets or self.raw:
            batch, self.raw = self.raw, []
            for link, packet in packets.items():
                peer = peers.get(link)
                if peer is not None:
                    peer.spoken = now
                if len(packet.parcels) < 2:
                    batch.append((link, encode_packet(packet)))
                else:
                    batch += [(link, encode_packet(part)) for part in _split(packet)]
            packets.clear()
            instructions.append(Transmit(batch))
        if self.parcels or self.passing:
            instructions.append(HandOver(self.parcels, self.passing))
            self.parcels, self.passing = [], []
        if self.ended:
            instructions.append(Settle(self.ended))
            self.ended = []
        return instructions


def _split(packet: Packet) -> Iterable[Packet]:
    """Cut a packet where it is too long for one transmission."""
    parcels = packet.parcels
    if len(parcels) <= MAX_PACKET_PARCELS and sum(parcel.size for parcel in parcels) <= MAX_PACKET_BYTES:
        return (packet,)
    parts = [Packet([], packet.acks, packet.greetings)]
    size = 0
    for parcel in parcels:
        if parts[-1].parcels and (size > MAX_PACKET_BYTES or len(parts[-1].parcels) >= MAX_PACKET_PARCELS):
            parts.append(Packet([], [], []))
            size = 0
        parts[-1].parcels.append(parcel)
        size += parcel.size
    return parts
