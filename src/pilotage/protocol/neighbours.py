"""Neighbours: how they come, what they say about their links, and how they go.

Law of this room: each change of a neighbour's state is told, and whoever depends on it is told first.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from pilotage.protocol.admission import Admission
from pilotage.protocol.authority import Authority
from pilotage.protocol.doors import Doors
from pilotage.protocol.instructions import Card, Follow, Hangup, Level, Link, PeerChanged, PeerState
from pilotage.protocol.liveness import LONGEST_STRETCH, LivenessRules, Peer, read_stretch, tell_stretch
from pilotage.protocol.outgoing import Outgoing
from pilotage.protocol.records import Greeting
from pilotage.protocol.routing import Routing


class Dependents(Protocol):
    """Who has something to do when neighbours come and go."""

    def joined(self, peer: Peer) -> None:
        """A neighbour is in, under its name."""

    def restored(self, peer: Peer) -> None:
        """A way through a neighbour is back."""

    def left(self, link: Link) -> None:
        """A neighbour's link has ended."""

    def rejected(self, text: str) -> None:
        """The neighbour that we dialled won't have us."""

    def passes_streams_on(self) -> bool:
        """Tell whether our inner node is the one who takes in the streams that come here."""


class Neighbours:
    """All links of one station or node, and who is at their other ends.

    Args:
        routing: the tables of names.
        rules: how silence is judged.
        out: where what is to be said and told is gathered.
        counts: what is counted.
        dependents: who else is told.
        authority: who owns which name.

    Attributes:
        barred: links of peers of ours that were turned away: nothing that still comes by them is read.
    """

    def __init__(
        self,
        routing: Routing,
        rules: LivenessRules,
        out: Outgoing,
        counts: Counter[str],
        dependents: Dependents,
        authority: Authority,
    ) -> None:
        self.admission = Admission(routing, rules, authority)
        self.barred: set[Link] = set()
        self.doors = Doors()
        self._authority = authority
        self._routing = routing
        self._rules = rules
        self._out = out
        self._counts = counts
        self._dependents = dependents

    # Coming

    def dialled(self, peer: Peer) -> None:
        """A link that we dialled is there."""
        if peer.is_ours:
            self.admission.introduce(peer)
            self._out.greet(peer.link, "hello", self.doors.own)
        else:
            self._welcome(peer)

    def meet(self, link: Link, card: Card, now: float) -> Peer:
        """Somebody dialled us: let it in, unless its name is held."""
        peer = Peer(link, card, now)
        verdict = self.admission.claim(peer)
        if verdict.hang_up is not None:
            self._replace(verdict.hang_up, peer)
        if verdict.probe is not None:
            self._out.greet(verdict.probe, "ping")
        if verdict.refusal:
            self._turn_away(peer, verdict.refusal)
        elif verdict.admitted:
            self._welcome(peer)
        return peer

    def _welcome(self, peer: Peer) -> None:
        """A neighbour is in: give it its name, and all that waits for it."""
        self.admission.admitted(peer)
        self.admission.beat_again()
        self._give_rights(peer)
        self._routing.add(peer)
        if peer.is_ours and peer.card.dials:
            self._tell_door(peer)
            self._greet_stretched(peer, "welcome")
        self._change(peer, PeerState.ALIVE)
        self._dependents.joined(peer)
        self._restore(peer)

    def _welcomed(self, peer: Peer) -> None:
        """We are let in, unless we have left for a door."""
        if peer.link not in self._routing.peers and peer.state is PeerState.JOINING:
            self._welcome(peer)

    def _restore(self, peer: Peer) -> None:
        """A way is back: what goes through it is sent again at once, here and by those below us.

        Whoever joins the tree is nobody's way yet, but for our own inner node, to which everybody's data may go.
        """
        self._dependents.restored(peer)
        if not peer.card.dials or peer.name == self._routing.inner:
            for other in self._routing:
                if other.is_ours and other.card.dials and other is not peer:
                    self._out.greet(other.link, "restored")

    # Doors

    def _tell_door(self, peer: Peer) -> None:
        """Tell a neighbour where our inner node takes in what we would pass on, before it sends us anything."""
        inner = self._routing.inner
        is_there = bool(self.doors.inner) and inner in self._routing.names
        if is_there and peer.name != inner and self._dependents.passes_streams_on():
            self._out.greet(peer.link, "door", self.doors.inner)

    def _hello(self, peer: Peer, text: str) -> None:
        """A dialler asks to be known. Our inner node may tell its door: those who came before it are told, too."""
        self._counts["hellos"] += 1
        if not text or peer.name != self._routing.inner or peer.link not in self._routing.peers:
            return
        self.doors.inner = text
        for other in self._routing:
            if other.is_ours and other.card.dials:
                self._tell_door(other)

    def _follow(self, peer: Peer, text: str) -> None:
        """Leave the station for the door that it told of, if it is for us."""
        door = self.doors.to_follow(text)
        if door is not None:
            self._out.others.append(Follow(door))
            peer.state = PeerState.GONE
            self.hang_up(peer, "there is a straight way")
            self._out.greet(peer.link, "bye")

    def _replace(self, link: Link, peer: Peer) -> None:
        """A holder's name goes to a new connection of the same life, or to the next life of the same key."""
        holder = self._routing.peers[link]
        self.lose(link, "it was started anew")
        if holder.boot != peer.boot:
            self._bar(link, f"a later life with the key of {peer.name!r} has taken its name over")

    def _turn_away(self, peer: Peer, text: str) -> None:
        self._counts["turned away"] += 1
        self._out.note(Level.WARNING, text, peer.name, "NAME")
        if peer.is_ours:
            self._bar(peer.link, text)

    def _bar(self, link: Link, text: str) -> None:
        """Tell a peer of ours that it isn't let in, once, and read nothing more that comes by this link."""
        self._out.greet(link, "refused", text)
        self.barred.add(link)

    def _give_rights(self, peer: Peer) -> None:
        routing = self._routing
        peer.rights = self._authority.rights(peer.card, routing.me, is_root=not routing.upstream)

    def judge_anew(self) -> None:
        """Keys or roles have changed: whoever has lost the right to its name is turned away."""
        for peer in self._routing:
            text = self._authority.refusal(peer.card)
            if not text:
                self._give_rights(peer)
                continue
            self.lose(peer.link, text)
            if peer.card.dials:
                self._turn_away(peer, text)
            else:
                self._out.others.append(Hangup(peer.link, text))

    # Speaking

    def recovered(self, peer: Peer) -> None:
        """Something came from a suspect."""
        self._change(peer, PeerState.ALIVE)

    def greeted(self, peer: Peer, greeting: Greeting) -> None:
        """A neighbour says something about its link."""
        match greeting.word:
            case "ping":
                self._pinged(peer)
            case "pong":
                self._ponged(peer, greeting.text)
            case "hello":
                self._hello(peer, greeting.text)
            case "door" if not peer.card.dials:
                self._follow(peer, greeting.text)
            case "welcome" if not peer.card.dials:
                self._stretch(peer, read_stretch(greeting.text))
                self._welcomed(peer)
            case "restored" if peer.link in self._routing.peers and not peer.card.dials:
                self._restore(peer)
            case "refused" if not peer.card.dials:
                self._rejected(peer, greeting.text)
            case "bye":
                pass  # what else is in its last packet is taken first
            case word:
                self._counts["unknown greetings"] += 1
                self._out.note(Level.DEBUG, f"{peer.name} greets with {word!r:.40}")

    def _pinged(self, peer: Peer) -> None:
        """Answer a heartbeat: at once, or all together where there are many, which costs a fraction."""
        if peer.card.dials and self._rules.stretch(len(self._routing.peers)) > 1:
            peer.awaits_pong = True
        else:
            self._greet_stretched(peer, "pong")

    def _ponged(self, peer: Peer, text: str) -> None:
        """A neighbour lives: what the station that we dialled adds to that, and who has claimed its name in vain."""
        if not peer.card.dials:
            self._stretch(peer, read_stretch(text))
        claimant = self.admission.holder_answered(peer)
        if claimant is not None:
            self._turn_away(claimant, f"the name {peer.name!r} is held by a live peer of {self._routing.me}")

    def _greet_stretched(self, peer: Peer, word: str) -> None:
        """Answer a neighbour; one that dialled us is told how often we want to hear it."""
        peer.awaits_pong = False
        if peer.card.dials:
            self._stretch(peer, self._rules.stretch(len(self._routing.peers)))
        self._out.greet(peer.link, word, tell_stretch(peer.stretch) if peer.card.dials else "")

    def _stretch(self, peer: Peer, stretch: float) -> None:
        """Set how much longer the times are between us and a neighbour: the one of us that was dialled says so."""
        before, peer.stretch = peer.stretch, stretch
        if stretch < before:
            self.admission.beat_again()

    def _rejected(self, peer: Peer, text: str) -> None:
        """The neighbour we dialled won't have us; we dial again later."""
        self.admission.refusal = text
        self._out.note(Level.ERROR, text)
        self._change(peer, PeerState.GONE, text)
        self._dependents.rejected(text)
        self._out.others.append(Hangup(peer.link, text))
        self.lose(peer.link, text)

    def say_goodbye(self) -> None:
        """Tell all neighbours that we are going."""
        for peer in self._routing:
            if peer.is_ours:
                self._out.greet(peer.link, "bye")

    # Going

    def judge(self, now: float) -> None:
        """Beat where we dialled, and judge everybody's silence."""
        for peer in self.admission.expired(now):
            if peer.card.dials:
                self._lose_holder(peer)
                self._welcome(peer)
            else:
                self._out.others.append(Hangup(peer.link, f"{peer.name} did not answer our hello"))
        if not self.admission.beat_due(now):
            return
        least = LONGEST_STRETCH
        for peer in self._routing:
            if peer.is_ours:
                self._beat(peer, now)
                least = min(least, peer.stretch)
            state = peer.judge(now, self._rules)
            if state is PeerState.GONE:
                self.hang_up(peer, f"silent for {now - peer.heard:.1f} s")
            elif state is not peer.state:
                self._change(peer, state, f"silent for {now - peer.heard:.1f} s")
        if least > 1:
            self.admission.beat_later(now, least)

    def _beat(self, peer: Peer, now: float) -> None:
        """Speak to a neighbour if it is time."""
        if peer.awaits_pong:
            self._greet_stretched(peer, "pong")
        elif not peer.card.dials:
            silent_s = now - peer.spoken
            if silent_s >= self._rules.heartbeat_s * 0.9 * peer.stretch:
                self._out.greet(peer.link, "ping")

    def lose(self, link: Link, text: str) -> None:
        """A link has ended."""
        self.admission.forget(link)
        peer = self._routing.peers.get(link)
        if peer is not None:
            self._routing.remove(peer)
            self._out.forget(link)
            self._change(peer, PeerState.GONE, text)
            self._dependents.left(link)

    def hang_up(self, peer: Peer, text: str) -> None:
        """Give a link up."""
        self.lose(peer.link, text)
        self._out.others.append(Hangup(peer.link, text))

    def _lose_holder(self, claimant: Peer) -> None:
        holder = self._routing.names.get(claimant.name)
        if holder is not None:
            self.hang_up(holder, "it did not answer when its name was claimed anew")

    def _change(self, peer: Peer, state: PeerState, text: str = "") -> None:
        peer.state = state
        self._out.others.append(PeerChanged(peer.name, state, text, is_parent=not peer.card.dials))
