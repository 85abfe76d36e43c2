"""Whether a neighbour lives, judged by when it was last heard.

    state     heard    silent > suspect_after_s    silent > gone_after_s    link down / bye
    joining   alive    –                           gone                     gone
    alive     alive    suspect                     gone                     gone
    suspect   alive    suspect                     gone                     gone
    gone      (a new link starts in *joining*)

All times but `probe_s` are stretched alike where a station has many diallers, whose heartbeats would else be all that
it does: it tells each of them by how much, and judges each by what it was told.

Law of this room: heartbeats are asked for by time, never by traffic, so that neither silence nor a flood starves them.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilotage.protocol.errors import MalformedFrame
from pilotage.protocol.instructions import Card, Dialect, Link, PeerState
from pilotage.protocol.rights import Rights

LONGEST_STRETCH = 10.0
LONGEST_LOOK_S = 10.0
"""However rarely we may beat, we look at least this often whether we must."""


@dataclass(frozen=True, slots=True)
class LivenessRules:
    """How silence is judged.

    Attributes:
        heartbeat_s: a dialler speaks at least this often.
        suspect_after_s: silence that makes a peer suspect.
        gone_after_s: silence after which its link is given up.
        probe_s: time that a holder of a name has to answer when somebody else claims it.
        beats_per_s: heartbeats that a station wants to hear altogether; with more neighbours it stretches the times.
    """

    heartbeat_s: float = 2.0
    suspect_after_s: float = 5.0
    gone_after_s: float = 10.0
    probe_s: float = 0.5
    beats_per_s: float = 100.0

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_s < self.suspect_after_s < self.gone_after_s:
            raise ValueError(f"liveness needs 0 < heartbeat_s < suspect_after_s < gone_after_s, not {self}")
        if not self.beats_per_s > 0:
            raise ValueError(f"liveness needs beats_per_s > 0, not {self}")

    def stretch(self, neighbours: int) -> float:
        """Tell how much longer than said here the times are with so many neighbours: 1 to `LONGEST_STRETCH`."""
        wanted = neighbours / (self.heartbeat_s * self.beats_per_s)
        return round(min(max(wanted, 1.0), LONGEST_STRETCH), 1)


def tell_stretch(stretch: float) -> str:
    """Say a stretch in a greeting; no text stands for none."""
    return f"{stretch:g}" if stretch > 1 else ""


def read_stretch(text: str) -> float:
    """Read what a station says of its stretch.

    Raises:
        MalformedFrame: it is no number, or not one that a station may ask for.
    """
    try:
        stretch = float(text or 1)
    except ValueError:
        stretch = 0.0
    if not 1 <= stretch <= LONGEST_STRETCH:
        raise MalformedFrame(f"heartbeats can't be stretched by {text!r:.40}")
    return stretch


class Peer:
    """A neighbour: one that a link leads to.

    `is_ours`: it speaks our own wire. `awaits_pong`: it is to be answered with the next look at all neighbours.
    `stretch`: how much longer the times are between us two. `rights`: what it may send; None if it may everything.
    """

    __slots__ = (
        *("awaits_pong", "boot", "card", "heard", "is_ours"),
        *("link", "name", "rights", "spoken", "state", "stretch", "value"),
    )

    def __init__(self, link: Link, card: Card, now: float) -> None:
        self.link = link
        self.card = card
        self.name = card.name
        self.boot = card.boot
        self.is_ours = card.dialect is Dialect.OWN
        self.heard = now
        self.spoken = now
        self.state = PeerState.JOINING
        self.stretch = 1.0
        self.awaits_pong = False
        self.value = ""
        self.rights: Rights | None = None

    def judge(self, now: float, rules: LivenessRules) -> PeerState:
        """Tell the state that its silence puts it in."""
        silent = (now - self.heard) / self.stretch
        if not self.is_ours:
            return self.state
        if silent > rules.gone_after_s:
            return PeerState.GONE
        if silent > rules.suspect_after_s and self.state is not PeerState.JOINING:
            return PeerState.SUSPECT
        return self.state
