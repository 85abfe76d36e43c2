"""Whether a neighbour lives, judged by when it was last heard.

    state     heard    silent > suspect_after_s    silent > gone_after_s    link down / bye
    joining   alive    –                           gone                     gone
    alive     alive    suspect                     gone                     gone
    suspect   alive    suspect                     gone                     gone
    gone      (a new link starts in *joining*)

Law of this room: heartbeats are asked for by time, never by traffic, so that neither silence nor a flood starves them.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilotage.protocol.instructions import Card, Dialect, Link, PeerState


@dataclass(frozen=True, slots=True)
class LivenessRules:
    """How silence is judged.

    Attributes:
        heartbeat_s: a dialler speaks at least this often.
        suspect_after_s: silence that makes a peer suspect.
        gone_after_s: silence after which its link is given up.
        probe_s: time that a holder of a name has to answer when somebody else claims it.
    """

    heartbeat_s: float = 2.0
    suspect_after_s: float = 5.0
    gone_after_s: float = 10.0
    probe_s: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_s < self.suspect_after_s < self.gone_after_s:
            raise ValueError(f"liveness needs 0 < heartbeat_s < suspect_after_s < gone_after_s, not {self}")


class Peer:
    """A neighbour: one that a link leads to. `is_ours`: it speaks our own wire."""

    __slots__ = ("boot", "card", "heard", "is_ours", "link", "name", "spoken", "state", "value")

    def __init__(self, link: Link, card: Card, now: float) -> None:
        self.link = link
        self.card = card
        self.name = card.name
        self.boot = card.boot
        self.is_ours = card.dialect is Dialect.OWN
        self.heard = now
        self.spoken = now
        self.state = PeerState.JOINING
        self.value = ""

    def judge(self, now: float, rules: LivenessRules) -> PeerState:
        """Tell the state that its silence puts it in."""
        silent = now - self.heard
        if not self.is_ours:
            return self.state
        if silent > rules.gone_after_s:
            return PeerState.GONE
        if silent > rules.suspect_after_s and self.state is not PeerState.JOINING:
            return PeerState.SUSPECT
        return self.state
