"""Strangers: whoever isn't in yet, and whoever sends what can't be used.

Law of this room: what comes by a link costs little until it is known who is there, and nothing of it is lost uncounted;
whoever sends too much that can't be used is not read for a while.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pilotage.protocol.edge import Edge
from pilotage.protocol.instructions import Arrival, Card, Dialect, Level, Link
from pilotage.protocol.liveness import Peer
from pilotage.protocol.neighbours import Neighbours
from pilotage.protocol.outgoing import Outgoing
from pilotage.protocol.patience import Patience, PatienceRules
from pilotage.protocol.records import Frame
from pilotage.protocol.routing import Routing

NO_PEERS_A_NOTE = 1000
"""Of what comes from no peer at all only the first transmission is worth a line, and each thousandth after it."""


class Strangers:
    """Judges what comes from who isn't a neighbour, or isn't worth reading.

    Args:
        rules: how much that can't be used is borne.
        routing: knows who is a neighbour.
        neighbours: who lets newcomers in, and hangs up.
        edge: learns of originals.
        out: where notes go.
        counts: where everything is counted.

    Attributes:
        patience: with each link.
        unread: transmissions of which nothing was read, since they are from no peer, or from one that is muted.
    """

    def __init__(
        self,
        rules: PatienceRules,
        routing: Routing,
        neighbours: Neighbours,
        edge: Edge,
        out: Outgoing,
        counts: Counter[str],
    ) -> None:
        self.patience: Patience[Link] = Patience(rules)
        self.unread = 0
        self._mute_s = rules.mute_s
        self._routing = routing
        self._neighbours = neighbours
        self._edge = edge
        self._out = out
        self._counts = counts
        self._stale: set[Link] = set()

    def within_rate(self, arrivals: Sequence[Arrival], now: float) -> Sequence[Arrival]:
        """Give what is within the rate that each link may have."""
        taken = self.patience.within(arrivals, now)
        if len(taken) < len(arrivals):
            self._counts["over the rate"] += len(arrivals) - len(taken)
        return taken

    def meet(self, link: Link, card: Card, frames: Sequence[Frame], now: float) -> Peer | None:
        """Meet whoever isn't in yet; None if nothing of that link is read now."""
        if card.dialect is Dialect.NONE:
            self._not_a_peer()
            return None
        peer = self._neighbours.admission.candidate(link)
        if peer is not None:
            return peer
        if link in self._stale:
            self._counts["too old to be read"] += 1
            return None
        if self.patience.is_muted(link, now):
            self._counts["muted"] += 1
            self.unread += 1
            return None
        if link in self._neighbours.barred:
            self._counts["from strangers"] += 1
            return None
        if not card.dials:
            # Whom we dialled we meet when the link comes up: this was on its way while we hung up.
            self._counts["from a link that has ended"] += 1
            return None
        if card.dialect is Dialect.JSON:
            self._edge.met(link, frames)
        return self._neighbours.meet(link, card, now)

    def offend(self, peer: Peer, size: int, now: float) -> None:
        """What came can't be used, or may not come from there: too much of it, and nothing of the link is read."""
        if not self.patience.is_exhausted(peer.link, size, now):
            return
        text = f"it sends too much that can't be used; nothing of it is read for {self._mute_s:g} s"
        self._counts["links muted"] += 1
        self._out.note(Level.WARNING, f"{peer.name or 'a stranger'}: {text}", peer.name, "SEND")
        self._neighbours.admission.forget(peer.link)
        if peer.link in self._routing.peers:
            self._neighbours.hang_up(peer, text)

    def outdate(self, link: Link) -> None:
        """Read nothing more of a link: what is on its way there is too old."""
        self._stale.add(link)

    def renew(self, link: Link) -> None:
        """A link of that name is there, or gone: what was old is over."""
        self._stale.discard(link)

    def forget(self, link: Link) -> None:
        """A link has ended."""
        self.renew(link)
        self.patience.forget(link)
        self._neighbours.barred.discard(link)

    def _not_a_peer(self) -> None:
        count = self._counts["from no peer"]
        self._counts["from no peer"] = count + 1
        self.unread += 1
        if count % NO_PEERS_A_NOTE == 0:
            text = (
                "something that is no ZeroMQ peer (of version 3 or newer) sends to us: nothing of it is read"
            )
            self._out.note(Level.WARNING, text)
