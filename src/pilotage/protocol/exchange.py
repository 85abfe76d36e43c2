"""The core: stimuli in, instructions out. One exchange serves a station and a node alike.

It joins the rooms: routing says where, outbox and inbox keep the delivery promises, `neighbours` knows who is there,
`strangers` judges who isn't in yet and `permits` what roles allow, `edge` stands in for peers of the JSON wire,
`outgoing` gathers what comes of it. It does no I/O, asks for no time and knows no thread.

Law of this room: each stimulus takes a batch and is answered by few, large instructions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilotage.protocol.authority import Authority
from pilotage.protocol.edge import Edge
from pilotage.protocol.errors import PeerError
from pilotage.protocol.inbox import Handled, Inbox, NoRoom
from pilotage.protocol.instructions import (
    Accepted,
    Arrival,
    Card,
    Drop,
    Instruction,
    Keep,
    Level,
    Link,
    PeerState,
    Progress,
    Service,
)
from pilotage.protocol.liveness import LivenessRules, Peer
from pilotage.protocol.neighbours import Neighbours
from pilotage.protocol.news import UNWATCHED_WITHIN_S, WITHIN_S, News
from pilotage.protocol.original import Confirmation
from pilotage.protocol.outbox import Outbox
from pilotage.protocol.outgoing import Outgoing
from pilotage.protocol.patience import PatienceRules
from pilotage.protocol.permits import Permits
from pilotage.protocol.records import (
    MAX_HOPS,
    Ack,
    Frame,
    Marks,
    Packet,
    Parcel,
    Verdict,
    decode_packet,
)
from pilotage.protocol.routing import Routing
from pilotage.protocol.sends import DeliveryRules, Kept, Pending, Place
from pilotage.protocol.settlement import Outcome, Reason, Settlement, refused
from pilotage.protocol.strangers import Strangers
from pilotage.protocol.waiting import WaitingRoom

STREAM_VERBS = ("STREAM", "CONTINUOUS")
"""Keys of what a stream sends: batches, and single items."""

SUSPECT, JOINING = PeerState.SUSPECT, PeerState.JOINING
HANDLE, PASS_ON = Service.HANDLE, Service.PASS_ON
"""Looked up once: Python looks for a member of an enumeration as long as for ten other names."""


@dataclass(frozen=True, slots=True)
class ExchangeConfig:
    """Who an exchange is, and its rules.

    Attributes:
        me: our name.
        boot: this life: a random number of 63 bits, never 0.
        upstream: the socket by which we dial up the tree; "" where we don't.
        delivery: patience of our sends.
        liveness: judgement of silence.
        patience: with links that send what can't be used.
        holds_s: how long a message waits here for a recipient that isn't connected; less than its originator waits
            before it sends it again, so that a refusal is certain.
        ack_within_s: how long we may take to say that a message was received, if it isn't over by then.
        unwatched_within_s: how long we may take to say how messages stand for which nobody can ask.
        stopped_after_s: having done nothing for that long, we have been stopped: what waits to be read is too old
            to be passed on (it is sent again), and our neighbours are met anew.
    """

    me: str
    boot: int
    upstream: str = ""
    delivery: DeliveryRules = field(default_factory=DeliveryRules)
    liveness: LivenessRules = field(default_factory=LivenessRules)
    patience: PatienceRules = field(default_factory=PatienceRules)
    holds_s: float = 4.0
    ack_within_s: float = WITHIN_S
    unwatched_within_s: float = UNWATCHED_WITHIN_S
    stopped_after_s: float = 30.0


class Exchange:
    """All that one station or node knows and decides.

    Args:
        config: who we are.
        serves: tells what we do with a key.
        authority: who owns which name; without it everybody may have any.

    Attributes:
        sent: messages that we were asked to send.
        received: messages and confirmations that have arrived.
        counts: everything else that is counted, by what it is.
        strangers: who judges what comes from who isn't a neighbour.
        admission: our door.
        doors: the straight ways that we tell of, or follow.
    """

    def __init__(
        self,
        config: ExchangeConfig,
        serves: Callable[[str], Service],
        authority: Authority | None = None,
    ) -> None:
        self.config = config
        self.authority = authority or Authority()
        self.sent = 0
        self.received = 0
        self.counts: Counter[str] = Counter()
        self.routing = Routing(config.me, config.upstream, self.authority)
        self.outbox = Outbox(config.boot, self._forward, config.delivery)
        self.inbox = Inbox(config.boot, news=News(config.ack_within_s, config.unwatched_within_s))
        self.waiting = WaitingRoom(config.holds_s)
        self.edge = Edge(config.me, config.delivery)
        self._out = Outgoing()
        self._permits = Permits(self.routing, self._out, self.counts, self._refuse_not_allowed)
        self._neighbours = Neighbours(
            self.routing, config.liveness, self._out, self.counts, self, self.authority
        )
        self.admission = self._neighbours.admission
        self.doors = self._neighbours.doors
        self.strangers = Strangers(
            config.patience, self.routing, self._neighbours, self.edge, self._out, self.counts
        )
        self._serves = serves
        self._now = 0.0
        # Looked up once, for each turn asks; neither changes.
        self._stopped_after_s = config.stopped_after_s
        self._has_rate = self.strangers.patience.has_rate

    # Stimuli

    def link_up(self, link: Link, card: Card, now: float) -> list[Instruction]:
        """A link that we dialled is there, and this is who answered."""
        self._begin(now)
        self.strangers.renew(link)
        self._neighbours.dialled(Peer(link, card, now))
        return self._finish()

    def link_down(self, link: Link, now: float, text: str = "its connection ended") -> list[Instruction]:
        """A link has ended."""
        self._begin(now)
        self.strangers.forget(link)
        self._neighbours.lose(link, text)
        return self._finish()

    def authority_changed(self, now: float) -> list[Instruction]:
        """Keys have changed: judge everybody who is connected anew."""
        self._begin(now)
        self._neighbours.judge_anew()
        return self._finish()

    def turn(
        self,
        arrivals: Sequence[Arrival],
        results: Iterable[Handled],
        requests: Sequence[Pending],
        now: float,
    ) -> list[Instruction]:
        """Take in all that one turn of a loop has found, and answer it together."""
        if now - self._now > self._stopped_after_s:
            self._begin(now)
        self._now = now
        if self._has_rate:
            arrivals = self.strangers.within_rate(arrivals, now)
        for link, card, frames in arrivals:
            peer = self.routing.peers.get(link) or self.strangers.meet(link, card, frames, now)
            if peer is not None:
                self._frames(peer, frames)
        for result in results:
            self.inbox.settle(*result)
        if requests:
            self._send(requests)
        return self._finish()

    def frames_arrived(self, arrivals: Sequence[Arrival], now: float) -> list[Instruction]:
        """Transmissions arrived, on any links, in order for each."""
        return self.turn(arrivals, (), (), now)

    def send(self, requests: Sequence[Pending], now: float) -> list[Instruction]:
        """Messages of ours are to be sent."""
        return self.turn((), (), requests, now)

    def handled(self, results: Iterable[Handled], now: float) -> list[Instruction]:
        """Listens have ended: these messages are over."""
        return self.turn((), results, (), now)

    def _send(self, requests: Sequence[Pending]) -> None:
        for request in requests:
            self.sent += len(request.bodies)
        refusal = self.admission.refusal
        if refusal:
            turned = [request for request in requests if not request.durable]
            self._out.ended += [(request.handle, refused(Reason.NAME_TAKEN, refusal)) for request in turned]
            requests = [request for request in requests if request.durable]
        self._out.ended += self.outbox.send(requests, self._now)

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
            self._out.others.append(Accepted(accepted))
        return self._finish()

    def pass_on(self, parcels: Iterable[tuple[Parcel, str]], now: float) -> list[Instruction]:
        """Send parcels that came to us on to somebody else, who will settle them in our stead."""
        self._begin(now)
        for parcel, name in parcels:
            parcel.path = [name]
            if not self._forward(parcel):
                self._hold(parcel)
        return self._finish()

    def time_passed(self, now: float) -> list[Instruction]:
        """Time has passed: repeat, expire, beat, judge."""
        self._begin(now)
        self._out.ended += self.outbox.time_passed(now)
        again, over = self.edge.time_passed(now)
        self._out.raw += again
        self.outbox.resent += len(again)
        for token, settlement in over:
            self.inbox.settle(token, settlement)
        for parcel, name in self.waiting.time_passed(now):
            self._refuse(parcel, Reason.UNKNOWN_RECIPIENT, f"{name} is not connected to {self.config.me}")
        self._neighbours.judge(now)
        return self._finish()

    def ask_for_ends(self, now: float) -> list[Instruction]:
        """Somebody can't wait for the ends of what we have sent."""
        self._begin(now)
        self.outbox.ask_for_ends()
        return self._finish()

    def release(self, now: float) -> list[Instruction]:
        """We are going: tell the neighbours, and settle what is open."""
        self._begin(now)
        self.inbox.news.hurry()
        self._neighbours.say_goodbye()
        text = f"{self.config.me} was released"
        self._out.ended += self.outbox.interrupt(Reason.INTERRUPTED, text, durable_too=True)
        return self._finish()

    def wake_at(self) -> float:
        """Tell when `time_passed` is to be called next."""
        due, agenda, admission = self.inbox.news.due, self.outbox.agenda, self.admission
        if agenda and agenda[0][0] < due:
            due = agenda[0][0]
        if admission.candidates or self.waiting.messages or self.edge.is_used:
            return min(due, admission.next_due(), self.waiting.next_due(), self.edge.next_due())
        return admission.next_beat if admission.next_beat < due and self.routing.peers else due

    def _begin(self, now: float) -> None:
        """Begin a stimulus. With neighbours there is one each second, so that a long gap means that we were stopped."""
        idle_s = now - self._now
        self._now = now
        if idle_s > self._stopped_after_s and self.routing.peers:
            for peer in self.routing:
                if peer.is_ours:
                    self._neighbours.hang_up(peer, f"{self.config.me} was stopped for {idle_s:.0f} s")
                    self.strangers.outdate(peer.link)

    # What neighbours' coming and going brings about (see `neighbours.Dependents`)

    def joined(self, peer: Peer) -> None:
        """A neighbour is in: it is given all that waits for it."""
        for parcel in self.waiting.claim(lambda parcel: self.routing.next_hop(parcel) is peer):
            if not self._forward(parcel):
                self._hold(parcel)

    def restored(self, peer: Peer) -> None:
        """A way is back: what may have been lost with it is sent again."""
        self.outbox.link_restored(lambda path: self._leads_through(path, peer), self._now)

    def left(self, link: Link) -> None:
        """A link has ended: what an original had not confirmed on it is over."""
        for token, settlement in self.edge.link_lost(link):
            self.inbox.settle(token, settlement)

    def rejected(self, text: str) -> None:
        """We are not let in: every send ends that isn't durable."""
        self._out.ended += self.outbox.interrupt(Reason.NAME_TAKEN, text, durable_too=False)

    def passes_streams_on(self) -> bool:
        """Tell whether our inner node is the one who takes in the streams that come here."""
        return all(self._serves(verb) is PASS_ON for verb in STREAM_VERBS)

    def _leads_through(self, path: tuple[str, ...], peer: Peer) -> bool:
        return self.routing.next_hop(Parcel(list(path), [], 0, 0, 0, 0, "", 0, [])) is peer

    # Frames in

    def _frames(self, peer: Peer, frames: Sequence[Frame]) -> None:
        peer.heard = self._now
        if peer.state is SUSPECT:
            self._neighbours.recovered(peer)
        try:
            if peer.is_ours:
                self._packet(peer, decode_packet(frames))
            else:
                self._envelope(peer, frames)
        except PeerError as error:
            self.counts["malformed"] += 1
            self._out.note(Level.WARNING, f"from {peer.name or 'a stranger'}: {error}")
            self.strangers.offend(peer, sum(map(len, frames)), self._now)

    def _packet(self, peer: Peer, packet: Packet) -> None:
        greetings, routing = packet.greetings, self.routing
        for greeting in greetings:
            self._neighbours.greeted(peer, greeting)
        if peer.link not in routing.peers:
            self.counts["from strangers"] += len(packet.acks) + len(packet.parcels)
            self.strangers.offend(peer, 0, self._now)
            return
        rights = peer.rights
        for ack in packet.acks if rights is None else self._permits.confirmable(peer, packet.acks):
            self.received += ack.fresh
            ack.fresh = 0
            self._route_ack(ack)
        for parcel in (
            packet.parcels if rights is None else self._permits.permitted(peer, rights, packet.parcels)
        ):
            trail = parcel.trail
            trail.append(peer.name)
            self.received += len(parcel.bodies)
            hops = len(trail)
            if hops > 1 and (stolen := routing.learn(trail)):
                self._refuse_name(parcel, stolen)
            elif hops > MAX_HOPS or not self._forward(parcel):
                self._hold(parcel)
        if greetings and any(greeting.word == "bye" for greeting in greetings):
            self._neighbours.lose(peer.link, "it said goodbye")

    def _envelope(self, peer: Peer, frames: Sequence[Frame]) -> None:
        """An original peer sent something: stand in for it as the originator."""
        if peer.link not in self.routing.peers:
            self.counts["from strangers"] += 1
            self.strangers.offend(peer, 0, self._now)
            return
        taken = self.edge.arrived(peer, frames)
        self.received += taken.counts
        self._out.raw += taken.replies
        if taken.note is not None:
            self._out.others.append(taken.note)
        if taken.confirmed is not None:
            self.inbox.settle(taken.confirmed, Settlement(Outcome.DELIVERED))
        if taken.sender and taken.sender != peer.name and self.routing.learn([taken.sender, peer.name]):
            self.counts["names refused"] += 1
            self._out.note(Level.WARNING, f"{peer.name} can't speak for {taken.sender!r:.80}")
            return
        if taken.request is not None:
            self._send_for(peer, taken.request)

    def _send_for(self, peer: Peer, request: Pending) -> None:
        """Send what an original has sent, if its role lets it."""
        text = self._permits.refusal(peer, request)
        if text:
            self._out.ended.append((request.handle, refused(Reason.NOT_ALLOWED, text)))
        else:
            self._out.ended += self.outbox.send((request,), self._now)

    # Routes

    def _hold(self, parcel: Parcel) -> None:
        """Have a parcel wait that can't go on now; refuse one that goes round in a circle."""
        if len(parcel.trail) > MAX_HOPS:
            self._refuse(parcel, Reason.INVALID, f"it went through more than {MAX_HOPS} stations: a loop?")
        elif not parcel.marks & Marks.PROBE:
            for unwanted in self.waiting.hold(parcel, self._now):
                self.counts["waiting room full"] += len(unwanted.bodies)
                self._refuse(unwanted, Reason.QUEUE_FULL, f"too many messages wait at {self.config.me}")

    def _forward(self, parcel: Parcel) -> bool:
        """Take a parcel that is for us, or queue it for the neighbour that leads on; False for neither."""
        path, routing = parcel.path, self.routing
        me = routing.me
        while len(path) > 1 and (path[0] == me or not path[0]):
            path.pop(0)
        name = path[0]
        if name == me or ((not name or name == routing.inner) and self._answers_for(name, parcel)):
            if self.authority.is_used:
                self._permits.confirmers.sent(parcel.boot, parcel.flow, me)
            self._take(parcel)
            return True
        peer = routing.names.get(name) or routing.next_hop(parcel)
        if peer is None or peer.state is JOINING:
            return False
        if peer.is_ours:
            if self.authority.is_used:
                self._permits.confirmers.sent(parcel.boot, parcel.flow, peer.name)
            self._out.packets[peer.link].parcels.append(parcel)
        else:
            self._to_original(peer, parcel)
        return True

    def _answers_for(self, name: str, parcel: Parcel) -> bool:
        """Tell whether what goes to nobody by name, or to our inner node, is for us."""
        if not parcel.trail:
            return False
        # Stations answer for an inner node that isn't there, as the original's do.
        return not name or (name not in self.routing.names and self._serves(parcel.verb) is HANDLE)

    def _take(self, parcel: Parcel) -> None:
        if self._serves(parcel.verb) is PASS_ON:
            if parcel.marks & Marks.PROBE:
                parcel.path = [self.routing.inner]
                self._forward(parcel)
                return
            self._out.passing.append(parcel)
            return
        self._out.parcels += self._arrived(parcel)

    def _arrived(self, parcel: Parcel) -> list[Parcel]:
        """Take a parcel in, as its recipient or an original's stand-in; give those that may be handled now."""
        try:
            return self.inbox.arrived(parcel, self._now)
        except NoRoom:
            self.counts["flows full"] += 1
            text = f"{self.config.me} remembers {len(self.inbox)} flows, its most; try again in some minutes"
            self._refuse(parcel, Reason.QUEUE_FULL, text)
            return []

    def _to_original(self, peer: Peer, parcel: Parcel) -> None:
        """Hand a parcel to an original peer, as its recipient in the peer's stead."""
        for ready in self._arrived(parcel):
            for one in ready.singles():
                transmission, settlement = self.edge.post(peer, one, one.place, self._now)
                if transmission is not None:
                    self._out.raw.append(transmission)
                if settlement is not None:
                    self.inbox.settle(one.place, settlement)

    def _refuse_name(self, parcel: Parcel, stolen: str) -> None:
        """A neighbour brings a message of somebody whom it can't speak for."""
        self.counts["names refused"] += 1
        self._refuse(parcel, Reason.NOT_ALLOWED, f"{parcel.trail[-1]} can't speak for {stolen!r:.80}")

    def _refuse(self, parcel: Parcel, reason: Reason, text: str) -> None:
        """Answer in the recipient's stead that a parcel can't reach it. Durable ones come again by themselves."""
        self.counts["refused"] += len(parcel.bodies)
        self._out.note(Level.WARNING, f"{parcel.verb} from {'/'.join(parcel.trail) or 'here'}: {text}")
        if not parcel.marks & Marks.DURABLE:
            self._say_refused(parcel, reason, text)

    def _refuse_not_allowed(self, parcel: Parcel, text: str) -> None:
        """Refuse what its bringer's role doesn't allow; durable ones, too, for sending them again would not help."""
        self.received += len(parcel.bodies)
        self.counts["refused"] += len(parcel.bodies)
        self._say_refused(parcel, Reason.NOT_ALLOWED, text)

    def _say_refused(self, parcel: Parcel, reason: Reason, text: str) -> None:
        places = range(parcel.seq, parcel.seq + len(parcel.bodies))
        verdicts = [Verdict(seq, Outcome.REFUSED, reason, text) for seq in places]
        self._route_ack(Ack(parcel.trail[::-1], parcel.boot, parcel.flow, 0, 0, [], 0, [], 0, verdicts))

    def _route_ack(self, ack: Ack) -> None:
        path, routing = ack.path, self.routing
        while path and path[0] == routing.me:
            path.pop(0)
        if not path:
            self._out.ended += self.outbox.acked(ack, self._now)
            return
        peer = routing.names.get(path[0])
        if peer is None or not peer.is_ours:
            self.counts["acks without a way"] += 1
            return
        self._out.packets[peer.link].acks.append(ack)

    # Instructions out

    def _finish(self) -> list[Instruction]:
        """Gather everything that this stimulus has brought about."""
        news, out = self.inbox.news, self._out
        if news.hurries or self._now >= news.due or (news.flows and out.packets):
            for ack in self.inbox.acks(self._now, goes_anyway=bool(out.packets)):
                self._route_ack(ack)
        if self.outbox.has_words:
            self._pass_words_on(self.outbox)
        if out.ended and self.edge.is_used:
            out.ended = [pair for pair in out.ended if not self._stands_in_ended(*pair)]
        return out.take(self.routing.peers, self._now)

    def _pass_words_on(self, outbox: Outbox) -> None:
        """Tell what the journal is to keep or drop, and what has arrived."""
        outbox.has_words = False
        others = self._out.others
        if outbox.unkept:
            others.append(Keep(outbox.unkept))
            outbox.unkept = []
        if outbox.over or outbox.partly_over:
            others.append(Drop(outbox.over, outbox.partly_over))
            outbox.over, outbox.partly_over = [], []
        received, outbox.received = outbox.received, []
        told = [handle for handle in received if not self._stands_in_received(handle)]
        if told:
            others.append(Progress(told))

    def _stands_in_received(self, handle: Any) -> bool:
        """Confirm to an original what we sent in its stead; False where the send was our own."""
        if isinstance(handle, Confirmation):
            self._out.raw += self.edge.received(handle)
            return True
        return False

    def _stands_in_ended(self, handle: Any, settlement: Settlement) -> bool:
        if isinstance(handle, Confirmation):
            self._out.raw += self.edge.ended(handle, settlement)
            return True
        return False
