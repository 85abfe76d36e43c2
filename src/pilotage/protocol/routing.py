"""Who is where: neighbours by link and by name, and through whom the others are reached.

Law of this room: a name belongs to one link at a time, by our own table; what a socket believes about
identities plays no part.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from pilotage.protocol.instructions import Link
from pilotage.protocol.liveness import Peer
from pilotage.protocol.records import Parcel

MAX_ROUTES = 100_000


class Routing:
    """The tables of one station or node.

    Args:
        me: our name.
        upstream: the socket by which we dial up the tree, or "" where we don't.
    """

    def __init__(self, me: str, upstream: str = "") -> None:
        self.me = me
        self.inner = "_" + me
        self.upstream = upstream
        self.peers: dict[Link, Peer] = {}
        self.names: dict[str, Peer] = {}
        self._through: OrderedDict[str, str] = OrderedDict()

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

    def learn(self, trail: list[str]) -> None:
        """Remember that whoever a parcel came from is reached through the neighbour who brought it."""
        through = trail[-1]
        for name in trail[:-1]:
            if name not in self.names and name != self.me:
                self._through[name] = through
        while len(self._through) > MAX_ROUTES:
            self._through.popitem(last=False)

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
        if name.startswith("_") and name[1:] in self.names and name[1:] != came_from:
            return self.names[name[1:]]
        through = self._through.get(name)
        if through is not None and through != came_from and through in self.names:
            return self.names[through]
        parent = self.parent()
        return parent if parent is not None and parent.name != came_from else None
