"""Who is where: neighbours by link and by name, and through whom the others are reached.

Law of this room: a name belongs to one link at a time, by our own table; what a socket believes about
identities plays no part.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from pilotage.protocol.authority import Authority
from pilotage.protocol.instructions import Link
from pilotage.protocol.liveness import Peer
from pilotage.protocol.records import Parcel

MAX_ROUTES = 100_000


class Routing:
    """The tables of one station or node.

    Args:
        me: our name.
        upstream: the socket by which we dial up the tree, or "" where we don't.
        authority: who owns which name; nobody any, if not given.
    """

    def __init__(self, me: str, upstream: str = "", authority: Authority | None = None) -> None:
        self.me = me
        self.inner = "_" + me
        self.upstream = upstream
        self.peers: dict[Link, Peer] = {}
        self.names: dict[str, Peer] = {}
        self._through: OrderedDict[str, str] = OrderedDict()
        self._authority = authority or Authority()

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self.peers.values()))

    def add(self, peer: Peer) -> None:
        """Let a neighbour in under its name."""
        self.peers[peer.link] = peer
        self.names[peer.name] = peer
        self._through.pop(peer.name, None)

    def remove(self, peer: Peer) -> None:
        """Forget a neighbour; those reached through it stay learned, for it may come back."""
        self.peers.pop(peer.link, None)
        if self.names.get(peer.name) is peer:
            del self.names[peer.name]

    def learn(self, trail: list[str]) -> str:
        """Remember that whoever a parcel came from is reached through the neighbour who brought it.

        Returns:
            The name that this neighbour must not bring messages of; "" if it may bring them all.
        """
        through = trail[-1]
        for name in trail[:-1]:
            if self._through.get(name) != through and not self._claim(name, through):
                return name
        return ""

    def _claim(self, name: str, through: str) -> bool:
        """A name comes through a neighbour for the first time, or has a link of its own."""
        bringer = self.names.get(through)
        if bringer is not None and not self._may_bring(bringer, name):
            return False
        if name not in self.names and name != self.me:
            self._through[name] = through
            while len(self._through) > MAX_ROUTES:
                self._through.popitem(last=False)
        return True

    def _may_bring(self, bringer: Peer, name: str) -> bool:
        """Tell whether a neighbour may bring messages of a name: not of ours, nor of one that another holds."""
        card = bringer.card
        if not card.dials or not (card.key or card.address):
            return True  # it is on this machine, or above us and has judged them itself
        holder = self.names.get(name) or self.names.get(self._through.get(name, ""))
        is_free = holder is None or holder is bringer
        return is_free and name not in (self.me, self.inner) and self._authority.may_bring(card, name)

    def through(self) -> dict[str, str]:
        """Give the learned routes: a name, and the neighbour that leads to it."""
        return dict(self._through)

    def parent(self) -> Peer | None:
        """Give the neighbour up the tree, if its link is there."""
        return self.peers.get((self.upstream, b"")) if self.upstream else None

    def next_hop(self, parcel: Parcel) -> Peer | None:
        """Choose the neighbour for a parcel's next name: itself, whoever leads there, else up the tree."""
        name = parcel.path[0]
        peer = self.names.get(name)
        if peer is not None:
            return peer
        came_from = parcel.trail[-1] if parcel.trail else ""
        if name[:1] == "_":
            station = self.names.get(name[1:])
            if station is not None and station.name != came_from:
                return station
        through = self._through.get(name)
        if through is not None and through != came_from and through in self.names:
            return self.names[through]
        parent = self.parent()
        return parent if parent is not None and parent.name != came_from else None
