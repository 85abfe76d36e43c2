"""Who may come in under which name (promise L1), and when to beat.

    the name is            the newcomer is
    not its own            refused (see `authority`)
    our own                refused
    free                   admitted
    held by the same life  admitted: its old link is given up
    held by the same key   admitted, as a later life: the holder is given up and can't come back while this one lives
    held by another life   made to wait while the holder is asked; admitted if the holder stays silent for
                           `probe_s`, else refused by name

Law of this room: a name changes hands by a decision of ours, never by what a socket does.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from pilotage.protocol.authority import Authority
from pilotage.protocol.instructions import Link
from pilotage.protocol.liveness import LONGEST_LOOK_S, LivenessRules, Peer
from pilotage.protocol.routing import Routing
from pilotage.protocol.sends import FOREVER

MAX_OUSTED = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a newcomer.

    Attributes:
        admitted: it is in.
        refusal: why it is turned away; "" if it isn't.
        hang_up: the holder's link, which is given up.
        probe: the holder's link, to be asked whether it lives.
    """

    admitted: bool = False
    refusal: str = ""
    hang_up: Link | None = None
    probe: Link | None = None


class Admission:
    """The door of one station or node.

    Args:
        routing: the tables it guards.
        rules: how long a holder may take to answer, how often to beat.
        authority: who owns which name.

    Attributes:
        refusal: why we were turned away by our station; "" if we weren't.
        candidates: peers that aren't in yet, and until when they may wait.
        next_beat: when to beat and to judge, where there are neighbours.
    """

    def __init__(self, routing: Routing, rules: LivenessRules, authority: Authority) -> None:
        self.refusal = ""
        self._routing = routing
        self._rules = rules
        self._authority = authority
        self._ousted: OrderedDict[int, None] = OrderedDict()
        self.candidates: dict[Link, tuple[Peer, float]] = {}
        self.next_beat = 0.0
        self._beats_later = False

    def __len__(self) -> int:
        return len(self.candidates)

    def candidate(self, link: Link) -> Peer | None:
        """Give the peer of a link that isn't admitted yet."""
        entry = self.candidates.get(link)
        return entry[0] if entry else None

    def introduce(self, peer: Peer) -> None:
        """Note a peer that we dialled and that hasn't welcomed us yet."""
        self.candidates[peer.link] = (peer, peer.heard + self._rules.gone_after_s)

    def claim(self, peer: Peer) -> Verdict:
        """Judge a newcomer."""
        refusal = self._authority.refusal(peer.card)
        if refusal:
            return Verdict(refusal=refusal)
        if not peer.name or peer.name == self._routing.me:
            return Verdict(
                refusal=f"a peer of {self._routing.me} claims the name {peer.name!r}, which it can't have"
            )
        holder = self._routing.names.get(peer.name)
        if holder is None:
            return Verdict(admitted=True)
        if holder.boot == peer.boot and holder.is_ours and peer.is_ours:
            return Verdict(admitted=True, hang_up=holder.link)
        if peer.card.key and holder.card.key == peer.card.key and peer.boot not in self._ousted:
            self._oust(holder)
            return Verdict(admitted=True, hang_up=holder.link)
        if not (holder.is_ours and peer.is_ours):
            return Verdict(
                refusal=f"the name {peer.name!r} is held by a connected peer of {self._routing.me}"
            )
        self.candidates[peer.link] = (peer, peer.heard + self._rules.probe_s)
        return Verdict(probe=holder.link)

    def _oust(self, holder: Peer) -> None:
        """Remember a life that its successor has replaced: two that live at once must not take turns."""
        self._ousted[holder.boot] = None
        if len(self._ousted) > MAX_OUSTED:
            self._ousted.popitem(last=False)

    def admitted(self, peer: Peer) -> None:
        """A candidate is in."""
        self.candidates.pop(peer.link, None)
        if not peer.card.dials:
            self.refusal = ""

    def forget(self, link: Link) -> None:
        """A candidate's link has ended."""
        self.candidates.pop(link, None)

    def holder_answered(self, holder: Peer) -> Peer | None:
        """A holder lives: give the candidate who claimed its name, to be turned away."""
        for peer, _ in self.candidates.values():
            if peer.card.dials and peer.name == holder.name and peer.link != holder.link:
                del self.candidates[peer.link]
                return peer
        return None

    def expired(self, now: float) -> list[Peer]:
        """Give the candidates whose time is over, who are no longer candidates."""
        over = [peer for peer, due in self.candidates.values() if due <= now]
        for peer in over:
            del self.candidates[peer.link]
        return over

    def beat_due(self, now: float) -> bool:
        """Tell whether it is time to beat and to judge; if so, the next time is set."""
        if now < self.next_beat:
            return False
        self.next_beat = now + self._rules.heartbeat_s / 2
        self._beats_later = False
        return True

    def beat_later(self, now: float, stretch: float) -> None:
        """Set the next time to beat and to judge further off: all our neighbours allow us that."""
        step_s = self._rules.heartbeat_s / 2
        self.next_beat = now + max(step_s, min(step_s * stretch, LONGEST_LOOK_S))
        self._beats_later = True

    def beat_again(self) -> None:
        """A neighbour may want to be looked at sooner than those that there were."""
        if self._beats_later:
            self.next_beat = 0.0

    def next_due(self) -> float:
        """Tell when a candidate's time is over, or the next beat."""
        beat = self.next_beat if self._routing.peers else FOREVER
        if not self.candidates:
            return beat
        return min(beat, *(due for _, due in self.candidates.values()))
