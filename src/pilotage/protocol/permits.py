"""Permits: what a neighbour with a role may bring, and which ends it may tell of (promise X2).

Law of this room: whoever has no role is trusted, and costs nothing here; what is refused is counted and told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from pilotage.protocol.confirmers import Confirmers
from pilotage.protocol.instructions import Level
from pilotage.protocol.liveness import Peer
from pilotage.protocol.original import claimed_senders
from pilotage.protocol.outgoing import Outgoing
from pilotage.protocol.records import Ack, Marks, Parcel
from pilotage.protocol.rights import Rights
from pilotage.protocol.routing import Routing
from pilotage.protocol.sends import Pending


class Permits:
    """Judges what comes from neighbours with a role.

    Args:
        routing: knows who leads to which name.
        out: where notes go.
        counts: where everything is counted.
        refuse: refuses a parcel, for a reason in words.

    Attributes:
        confirmers: to whom each flow went on.
    """

    def __init__(
        self, routing: Routing, out: Outgoing, counts: Counter[str], refuse: Callable[[Parcel, str], None]
    ) -> None:
        self.confirmers = Confirmers()
        self._routing = routing
        self._out = out
        self._counts = counts
        self._refuse = refuse

    def confirmable(self, peer: Peer, acks: Iterable[Ack]) -> Iterator[Ack]:
        """Give those of a peer's acknowledgements that speak of what went to it; the others' senders send again."""
        for ack in acks:
            if self.confirmers.may_confirm(ack.boot, ack.flow, peer.name):
                yield ack
                continue
            self._counts["acks refused"] += 1
            self._tell(peer.name, "ACK", "", "it confirms what went to somebody else")

    def permitted(self, peer: Peer, rights: Rights, parcels: Iterable[Parcel]) -> Iterator[Parcel]:
        """Give those of a peer's parcels that its role lets it send; refuse the others."""
        for parcel in parcels:
            # A probe asks only how earlier messages stand.
            text = "" if parcel.marks & Marks.PROBE else rights.refusal(parcel.verb, parcel.path)
            if parcel.marks & Marks.JSON and not text:
                text = self._forgery(peer, parcel)
            if not text:
                yield parcel
                continue
            parcel.trail.append(peer.name)
            origin = parcel.trail[0]
            told = text if origin == peer.name else f"{text} (it came from {origin:.80})"
            self._tell(peer.name, parcel.verb, parcel.path[-1], told)
            self._refuse(parcel, text)

    def refusal(self, peer: Peer, request: Pending) -> str:
        """Tell why an original may not send something; "" if it may."""
        text = peer.rights.refusal(request.verb, request.path) if peer.rights is not None else ""
        if text:
            self._tell(peer.name, request.verb, request.path[-1], text)
        return text

    def _forgery(self, peer: Peer, parcel: Parcel) -> str:
        """Tell what is wrong with who an original's message, carried by a station that stands in for it, says it is."""
        for sender in claimed_senders(parcel):
            if not sender or (sender != peer.name and self._routing.learn([sender, peer.name])):
                return f"{peer.name} can't speak for {sender!r:.80}"
        return ""

    def _tell(self, who: str, verb: str, target: str, text: str) -> None:
        self._counts["not allowed"] += 1
        self._out.note(Level.WARNING, text, who, verb, target)
