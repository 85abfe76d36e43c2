"""The core: stimuli in, instructions out. One exchange serves a station and a node alike.

It joins the rooms: routing says where, outbox and inbox keep the delivery promises, liveness judges neighbours,
`original` stands in for peers of the JSON wire. It does no I/O, asks for no time and knows no thread.

Law of this room: each stimulus takes a batch and is answered by few, large instructions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilotage.protocol.admission import Admission
from pilotage.protocol.edge import Edge
from pilotage.protocol.errors import PeerError
from pilotage.protocol.inbox import Inbox, NoRoom, Token
from pilotage.protocol.instructions import (
    Accepted,
    Card,
    Delivery,
    Dialect,
    Drop,
    HandOver,
    Hangup,
    Instruction,
    Keep,
    Level,
    Link,
    Note,
    PeerChanged,
    PeerState,
    Progress,
    Service,
    Settle,
    Transmit,
)
from pilotage.protocol.liveness import LivenessRules, Peer
from pilotage.protocol.original import Confirmation
from pilotage.protocol.outbox import Outbox
from pilotage.protocol.records import (
    MAX_HOPS,
    MAX_PACKET_BYTES,
    MAX_PACKET_PARCELS,
    Ack,
    Frame,
    Greeting,
    Marks,
    Packet,
    Parcel,
    Verdict,
    decode_packet,
    encode_packet,
)
from pilotage.protocol.routing import Routing
from pilotage.protocol.sends import FOREVER, DeliveryRules, Kept, Place, SendRequest
from pilotage.protocol.settlement import Outcome, Reason, Settlement, refused
from pilotage.protocol.waiting import WaitingRoom

Arrival = tuple[Link, Card, Sequence[Frame]]
"""A transmission: the link it came on, who is there, and its frames (without a routing id)."""

HandlingResult = tuple[Token, Settlement, bytes]
"""How a message that was handed over has ended, and the listen's answer, encoded."""


@dataclass(frozen=True, slots=True)
class ExchangeConfig:
    """Who an exchange is, and its rules.

    Attributes:
        me: our name.
        boot: this life: a random number of 63 bits, never 0.
        upstream: the socket by which we dial up the tree; "" where we don't.
        delivery: patience of our sends.
        liveness: judgement of silence.
        holds_s: how long a message waits here for a recipient that isn't connected; less than its originator waits
            before it sends it again, so that a refusal is certain.
        ack_within_s: how long we may take to say that a message was received, if it isn't over by then.
        stopped_after_s: having done nothing for that long, we have been stopped: what waits to be read is too old
            to be passed on (it is sent again), and our neighbours are met anew.
    """

    me: str
    boot: int
    upstream: str = ""
    delivery: DeliveryRules = field(default_factory=DeliveryRules)
    liveness: LivenessRules = field(default_factory=LivenessRules)
    holds_s: float = 4.0
    ack_within_s: float = 0.01
    stopped_after_s: float = 30.0


class Exchange:
    """All that one station or node knows and decides.

    Args:
        config: who we are.
        serves: tells what we do with a key.
    """

    def __init__(self, config: ExchangeConfig, serves: Callable[[str], Service]) -> None:
        self.config = config
        self.counts: Counter[str] = Counter()
        self.routing = Routing(config.me, config.upstream)
        self.outbox = Outbox(config.boot, self._emit, config.delivery)
        self.inbox = Inbox(config.boot)
        self.waiting = WaitingRoom(config.holds_s)
        self.edge = Edge(config.me, config.delivery)
        self.admission = Admission(self.routing, config.liveness)
        self._serves = serves
        self._now = 0.0
        self._packets: dict[Link, Packet] = {}
        self._raw: list[tuple[Link, Sequence[Frame]]] = []
        self._deliveries: list[Delivery] = []
        self._ended: list[tuple[Any, Settlement]] = []
        self._others: list[Instruction] = []
        self._acks_due = FOREVER
        self._stale: set[Link] = set()

    # Stimuli

    def link_up(self, link: Link, card: Card, now: float) -> list[Instruction]:
        """A link that we dialled is there, and this is who answered."""
        self._begin(now)
        self._stale.discard(link)
        peer = Peer(link, card, now)
        if peer.is_ours:
            self.admission.introduce(peer)
            self._greet(link, "hello")
        else:
            self._welcome(peer)
        return self._finish()

    def link_down(self, link: Link, now: float, text: str = "its connection ended") -> list[Instruction]:
        """A link has ended."""
        self._begin(now)
        self._stale.discard(link)
        self._lose(link, text)
        return self._finish()

    def turn(
        self,
        arrivals: Iterable[Arrival],
        results: Iterable[HandlingResult],
        requests: Iterable[SendRequest],
        now: float,
    ) -> list[Instruction]:
        """Take in all that one turn of a loop has found, and answer it together."""
        self._begin(now)
        self._arrive(arrivals)
        self._settle(results)
        self._send(requests)
        return self._finish()

    def frames_arrived(self, arrivals: Iterable[Arrival], now: float) -> list[Instruction]:
        """Transmissions arrived, on any links, in order for each."""
        self._begin(now)
        self._arrive(arrivals)
        return self._finish()

    def send(self, requests: Iterable[SendRequest], now: float) -> list[Instruction]:
        """Messages of ours are to be sent."""
        self._begin(now)
        self._send(requests)
        return self._finish()

    def handled(self, results: Iterable[HandlingResult], now: float) -> list[Instruction]:
        """Listens have ended: these messages are over."""
        self._begin(now)
        self._settle(results)
        return self._finish()

    def _arrive(self, arrivals: Iterable[Arrival]) -> None:
        for link, card, frames in arrivals:
            peer = self.routing.peers.get(link) or self.admission.candidate(link)
            if peer is None:
                if link in self._stale:
                    self.counts["too old to be read"] += 1
                    continue
                if card.dialect is Dialect.JSON:
                    self.edge.met(link, frames)
                peer = self._meet(link, card)
            self._frames(peer, frames)

    def _send(self, requests: Iterable[SendRequest]) -> None:
        for request in requests:
            self.counts["sent"] += 1
            if self.admission.refusal and not request.durable:
                self._ended.append((request.handle, refused(Reason.NAME_TAKEN, self.admission.refusal)))
            else:
                self._ended += self.outbox.send(request, self._now)

    def restore(
        self, kept: Iterable[Kept], handle_for: Callable[[Kept], Any], now: float
    ) -> list[Instruction]:
        """Go on with what earlier lives of ours have kept; the first stimulus, if it comes at all."""
        self._begin(now)
        self.outbox.restore(kept, handle_for, now)
        return self._finish()

    def persisted(self, places: Iterable[Place], now: float) -> list[Instruction]:
        """The journal has these sends safe."""
        self._begin(now)
        accepted = self.outbox.persisted(places)
        if accepted:
            self._others.append(Accepted(accepted))
        return self._finish()

    def _settle(self, results: Iterable[HandlingResult]) -> None:
        for token, settlement, answer in results:
            self.inbox.settle(token, settlement, answer)

    def pass_on(self, parcels: Iterable[tuple[Parcel, str]], now: float) -> list[Instruction]:
        """Send parcels that came to us on to somebody else, who will settle them in our stead."""
        self._begin(now)
        for parcel, name in parcels:
            parcel.path = [name]
            self._forward_or_hold(parcel)
        return self._finish()

    def time_passed(self, now: float) -> list[Instruction]:
        """Time has passed: repeat, expire, beat, judge."""
        self._begin(now)
        self._ended += self.outbox.time_passed(now)
        again, over = self.edge.time_passed(now)
        self._raw += again
        self.outbox.resent += len(again)
        for token, settlement in over:
            self.inbox.settle(token, settlement)
        for parcel, name in self.waiting.time_passed(now):
            self._refuse(parcel, Reason.UNKNOWN_RECIPIENT, f"{name} is not connected to {self.config.me}")
        self._judge()
        return self._finish()

    def release(self, now: float) -> list[Instruction]:
        """We are going: tell the neighbours, and settle what is open."""
        self._begin(now)
        for peer in self.routing:
            if peer.is_ours:
                self._greet(peer.link, "bye")
        text = f"{self.config.me} was released"
        self._ended += self.outbox.interrupt(Reason.INTERRUPTED, text, durable_too=True)
        return self._finish()

    def wake_at(self) -> float:
        """Tell when `time_passed` is to be called next."""
        times = (
            self.outbox.next_due(),
            self.edge.next_due(),
            self.waiting.next_due(),
            self.admission.next_due(),
            self._acks_due,
        )
        return min(times)

    def _begin(self, now: float) -> None:
        """Begin a stimulus. With neighbours there is one each second, so that a long gap means that we were stopped."""
        idle_s = now - self._now
        self._now = now
        if idle_s > self.config.stopped_after_s and self.routing.peers:
            for peer in self.routing:
                if peer.is_ours:
                    self._hang_up(peer, f"{self.config.me} was stopped for {idle_s:.0f} s")
                    self._stale.add(peer.link)

    # Neighbours

    def _meet(self, link: Link, card: Card) -> Peer:
        """Somebody dialled us: let it in, unless its name is held."""
        peer = Peer(link, card, self._now)
        verdict = self.admission.claim(peer)
        if verdict.hang_up is not None:
            self._lose(verdict.hang_up, "it was started anew")
        if verdict.probe is not None:
            self._greet(verdict.probe, "ping")
        if verdict.refusal:
            self._turn_away(peer, verdict.refusal)
        elif verdict.admitted:
            self._welcome(peer)
        return peer

    def _welcome(self, peer: Peer) -> None:
        """A neighbour is in: give it its name, and all that waits for it."""
        self.admission.admitted(peer)
        self.routing.add(peer)
        if peer.is_ours and peer.card.dials:
            self._greet(peer.link, "welcome")
        self._change(peer, PeerState.ALIVE)
        waiting = self.waiting.claim(lambda parcel: self.routing.next_hop(parcel) is peer)
        for parcel in waiting:
            self._forward_or_hold(parcel)
        self._restored(peer)

    def _restored(self, peer: Peer) -> None:
        """A way is back: resend at once what goes through it, and let those below us do so too.

        Whoever joins the tree is nobody's way yet, but for our own inner node, to which everybody's data may go.
        """
        self.outbox.link_restored(lambda path: self._leads_through(path, peer), self._now)
        if not peer.card.dials or peer.name == self.routing.inner:
            for other in self.routing:
                if other.is_ours and other.card.dials and other is not peer:
                    self._greet(other.link, "restored")

    def _leads_through(self, path: tuple[str, ...], peer: Peer) -> bool:
        return self.routing.next_hop(Parcel(list(path), [], 0, 0, 0, 0, "", 0, b"")) is peer

    def _turn_away(self, peer: Peer, text: str) -> None:
        self.counts["turned away"] += 1
        self._others.append(Note(Level.WARNING, text))
        if peer.is_ours:
            self._greet(peer.link, "refused", text)

    def _lose(self, link: Link, text: str) -> None:
        self.admission.forget(link)
        peer = self.routing.peers.get(link)
        if peer is None:
            return
        self.routing.remove(peer)
        self._packets.pop(link, None)
        self._change(peer, PeerState.GONE, text)
        for token, settlement in self.edge.link_lost(link):
            self.inbox.settle(token, settlement)

    def _judge(self) -> None:
        """Beat where we dialled, and judge everybody's silence."""
        for peer in self.admission.expired(self._now):
            if peer.card.dials:
                self._lose_holder(peer)
                self._welcome(peer)
            else:
                self._others.append(Hangup(peer.link, f"{peer.name} did not answer our hello"))
        if not self.admission.beat_due(self._now):
            return
        rules = self.config.liveness
        for peer in self.routing:
            if peer.is_ours and not peer.card.dials and self._now - peer.spoken >= rules.heartbeat_s * 0.9:
                self._greet(peer.link, "ping")
            state = peer.judge(self._now, rules)
            if state is PeerState.GONE:
                self._hang_up(peer, f"silent for {self._now - peer.heard:.1f} s")
            elif state is not peer.state:
                self._change(peer, state, f"silent for {self._now - peer.heard:.1f} s")

    def _lose_holder(self, claimant: Peer) -> None:
        holder = self.routing.names.get(claimant.name)
        if holder is not None:
            self._hang_up(holder, "it did not answer when its name was claimed anew")

    def _change(self, peer: Peer, state: PeerState, text: str = "") -> None:
        peer.state = state
        self._others.append(PeerChanged(peer.name, state, text, is_parent=not peer.card.dials))

    def _hang_up(self, peer: Peer, text: str) -> None:
        self._lose(peer.link, text)
        self._others.append(Hangup(peer.link, text))

    # Frames in

    def _frames(self, peer: Peer, frames: Sequence[Frame]) -> None:
        peer.heard = self._now
        if peer.state is PeerState.SUSPECT:
            self._change(peer, PeerState.ALIVE)
        try:
            if peer.is_ours:
                self._packet(peer, decode_packet(frames))
            else:
                self._envelope(peer, frames)
        except PeerError as error:
            self.counts["malformed"] += 1
            self._others.append(Note(Level.WARNING, f"from {peer.name or 'a stranger'}: {error}"))

    def _packet(self, peer: Peer, packet: Packet) -> None:
        for greeting in packet.greetings:
            self._greeted(peer, greeting)
        if peer.link not in self.routing.peers:
            self.counts["from strangers"] += len(packet.acks) + len(packet.parcels)
            return
        name = peer.name
        for ack in packet.acks:
            self.counts["received"] += ack.fresh
            ack.fresh = 0
            self._route_ack(ack)
        for parcel in packet.parcels:
            parcel.trail.append(name)
            if not parcel.marks & Marks.PROBE:
                self.counts["received"] += 1
            if len(parcel.trail) > 1:
                self.routing.learn(parcel.trail)
            self._forward_or_hold(parcel)
        if any(greeting.word == "bye" for greeting in packet.greetings):
            self._lose(peer.link, "it said goodbye")

    def _envelope(self, peer: Peer, frames: Sequence[Frame]) -> None:
        """An original peer sent something: stand in for it as the originator."""
        if peer.link not in self.routing.peers:
            self.counts["from strangers"] += 1
            return
        taken = self.edge.arrived(peer, frames)
        self.counts["received"] += taken.counts
        self._raw += taken.replies
        if taken.note is not None:
            self._others.append(taken.note)
        if taken.confirmed is not None:
            self.inbox.settle(taken.confirmed, Settlement(Outcome.DELIVERED))
        if taken.sender and taken.sender != peer.name:
            self.routing.learn([taken.sender, peer.name])
        if taken.request is not None:
            self._ended += self.outbox.send(taken.request, self._now)

    def _greeted(self, peer: Peer, greeting: Greeting) -> None:
        match greeting.word:
            case "ping":
                self._greet(peer.link, "pong")
            case "pong":
                claimant = self.admission.holder_answered(peer)
                if claimant is not None:
                    self._turn_away(
                        claimant, f"the name {peer.name!r} is held by a live peer of {self.config.me}"
                    )
            case "hello":
                self.counts["hellos"] += 1
            case "welcome" if not peer.card.dials:
                if peer.link not in self.routing.peers:
                    self._welcome(peer)
            case "restored" if peer.link in self.routing.peers and not peer.card.dials:
                self._restored(peer)
            case "refused" if not peer.card.dials:
                self._rejected(peer, greeting.text)
            case "bye":
                pass  # what else is in its last packet is taken first
            case word:
                self.counts["unknown greetings"] += 1
                self._others.append(Note(Level.DEBUG, f"{peer.name} greets with {word!r:.40}"))

    def _rejected(self, peer: Peer, text: str) -> None:
        """The neighbour we dialled won't have us: every send ends that isn't durable, and we dial again later."""
        self.admission.refusal = text
        self._others.append(Note(Level.ERROR, text))
        self._change(peer, PeerState.GONE, text)
        self._ended += self.outbox.interrupt(Reason.NAME_TAKEN, text, durable_too=False)
        self._others.append(Hangup(peer.link, text))
        self._lose(peer.link, text)

    # Routes

    def _emit(self, parcel: Parcel) -> bool:
        """Put a parcel of our own on its way; tell whether there was a link."""
        return self._forward(parcel)

    def _forward_or_hold(self, parcel: Parcel) -> None:
        if len(parcel.trail) > MAX_HOPS:
            self._refuse(parcel, Reason.INVALID, f"it went through more than {MAX_HOPS} stations: a loop?")
        elif not self._forward(parcel) and not parcel.marks & Marks.PROBE:
            for unwanted in self.waiting.hold(parcel, self._now):
                self.counts["waiting room full"] += 1
                self._refuse(unwanted, Reason.QUEUE_FULL, f"too many messages wait at {self.config.me}")

    def _forward(self, parcel: Parcel) -> bool:
        """Take a parcel that is for us, or queue it for the neighbour that leads on; False for neither."""
        path = parcel.path
        me = self.routing.me
        while len(path) > 1 and (path[0] == me or not path[0]):
            path.pop(0)
        if self._is_for_us(path[0], parcel):
            self._take(parcel)
            return True
        peer = self.routing.next_hop(parcel)
        if peer is None or peer.state is PeerState.JOINING:
            return False
        if peer.is_ours:
            self._queue(peer, parcel)
        else:
            self._to_original(peer, parcel)
        return True

    def _is_for_us(self, name: str, parcel: Parcel) -> bool:
        if name == self.routing.me:
            return True
        if name == self.routing.inner:
            # Stations answer for an inner node that isn't there, as the original's do.
            absent = name not in self.routing.names
            return absent and bool(parcel.trail) and self._serves(parcel.verb) is Service.HANDLE
        return not name and bool(parcel.trail)

    def _take(self, parcel: Parcel) -> None:
        if self._serves(parcel.verb) is Service.PASS_ON:
            if parcel.marks & Marks.PROBE:
                parcel.path = [self.routing.inner]
                self._forward(parcel)
                return
            self._deliveries.append(Delivery(None, parcel))
            return
        for ready in self._arrived(parcel):
            self._deliveries.append(Delivery((ready.boot, ready.flow, ready.seq), ready))

    def _arrived(self, parcel: Parcel) -> list[Parcel]:
        """Take a parcel in, as its recipient or an original's stand-in; give those that may be handled now."""
        try:
            return self.inbox.arrived(parcel, self._now)
        except NoRoom:
            self.counts["flows full"] += 1
            text = f"{self.config.me} remembers {len(self.inbox)} flows, its most; try again in some minutes"
            self._refuse(parcel, Reason.QUEUE_FULL, text)
            return []

    def _queue(self, peer: Peer, parcel: Parcel) -> None:
        packet = self._packets.get(peer.link)
        if packet is None:
            packet = self._packets[peer.link] = Packet([], [], [])
        packet.parcels.append(parcel)

    def _to_original(self, peer: Peer, parcel: Parcel) -> None:
        """Hand a parcel to an original peer, as its recipient in the peer's stead."""
        for ready in self._arrived(parcel):
            token = (ready.boot, ready.flow, ready.seq)
            transmission, settlement = self.edge.post(peer, ready, token, self._now)
            if transmission is not None:
                self._raw.append(transmission)
            if settlement is not None:
                self.inbox.settle(token, settlement)

    def _refuse(self, parcel: Parcel, reason: Reason, text: str) -> None:
        """Answer in the recipient's stead that a parcel can't reach it. Durable ones come again by themselves."""
        self.counts["refused"] += 1
        self._others.append(
            Note(Level.WARNING, f"{parcel.verb} from {'/'.join(parcel.trail) or 'here'}: {text}")
        )
        if not parcel.marks & Marks.DURABLE:
            verdict = Verdict(parcel.seq, Outcome.REFUSED, reason, text)
            self._route_ack(Ack(parcel.trail[::-1], parcel.boot, parcel.flow, 0, 0, [], 0, [], 0, [verdict]))

    def _route_ack(self, ack: Ack) -> None:
        path = ack.path
        while path and path[0] == self.routing.me:
            path.pop(0)
        if not path:
            self._ended += self.outbox.acked(ack, self._now)
            return
        peer = self.routing.names.get(path[0])
        if peer is None or not peer.is_ours:
            self.counts["acks without a way"] += 1
            return
        packet = self._packets.get(peer.link)
        if packet is None:
            packet = self._packets[peer.link] = Packet([], [], [])
        packet.acks.append(ack)

    def _greet(self, link: Link, word: str, text: str = "") -> None:
        packet = self._packets.get(link)
        if packet is None:
            packet = self._packets[link] = Packet([], [], [])
        packet.greetings.append(Greeting(word, text))

    # Instructions out

    def _finish(self) -> list[Instruction]:
        """Gather everything that this stimulus has brought about."""
        self._say_acks()
        instructions = self._others
        self._others = []
        self._tell_journal(instructions)
        received, self.outbox.received = self.outbox.received, []
        told = [handle for handle in received if not self._stands_in_received(handle)]
        if told:
            instructions.append(Progress(told))
        ended, self._ended = self._ended, []
        settled = [pair for pair in ended if not self._stands_in_ended(*pair)]
        if self._packets or self._raw:
            instructions.append(Transmit(self._transmissions()))
        if self._deliveries:
            instructions.append(HandOver(self._deliveries))
            self._deliveries = []
        if settled:
            instructions.append(Settle(settled))
        return instructions

    def _tell_journal(self, instructions: list[Instruction]) -> None:
        outbox = self.outbox
        if outbox.unkept:
            instructions.append(Keep(outbox.unkept))
            outbox.unkept = []
        if outbox.over:
            instructions.append(Drop(outbox.over))
            outbox.over = []

    def _stands_in_received(self, handle: Any) -> bool:
        """Confirm to an original what we sent in its stead; False where the send was our own."""
        if isinstance(handle, Confirmation):
            self._raw += self.edge.received(handle)
            return True
        return False

    def _stands_in_ended(self, handle: Any, settlement: Settlement) -> bool:
        if isinstance(handle, Confirmation):
            self._raw += self.edge.ended(handle, settlement)
            return True
        return False

    def _say_acks(self) -> None:
        """Say how flows stand: at once where a message is over or something goes out anyway, else in a moment.

        What has only been received may be over by then, and one acknowledgement says both.
        """
        inbox = self.inbox
        if not inbox.has_news:
            return
        within = self.config.ack_within_s
        if inbox.hurries or self._packets or self._now >= self._acks_due or not within:
            self._acks_due = FOREVER
            for ack in inbox.acks():
                self._route_ack(ack)
        else:
            self._acks_due = min(self._acks_due, self._now + within)

    def _transmissions(self) -> list[tuple[Link, Sequence[Frame]]]:
        batch, self._raw = self._raw, []
        for link, packet in self._packets.items():
            peer = self.routing.peers.get(link)
            if peer is not None:
                peer.spoken = self._now
            batch += [(link, encode_packet(part)) for part in _split(packet)]
        self._packets = {}
        return batch


def _split(packet: Packet) -> Iterable[Packet]:
    """Cut a packet where it is too long for one transmission."""
    parcels = packet.parcels
    if len(parcels) < 2 or (
        len(parcels) <= MAX_PACKET_PARCELS and sum(p.size for p in parcels) <= MAX_PACKET_BYTES
    ):
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
