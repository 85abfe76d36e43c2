"""A simulated process: a real exchange, and what a driver and listens would do around it.

Law of this room: it carries instructions out as `transport.driver` does, and adds nothing of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random

from msgspec.structs import replace

from pilotage.protocol.bodies import decode_body, encode_body
from pilotage.protocol.exchange import Exchange, ExchangeConfig
from pilotage.protocol.inbox import Handled, Token
from pilotage.protocol.instructions import (
    Accepted,
    Arrival,
    Card,
    Dialect,
    Drop,
    Follow,
    HandOver,
    Hangup,
    Instruction,
    Keep,
    Link,
    Note,
    PeerChanged,
    Progress,
    Service,
    Settle,
    Transmit,
)
from pilotage.protocol.liveness import LivenessRules
from pilotage.protocol.message import Message
from pilotage.protocol.records import Frame, Marks, Parcel
from pilotage.protocol.sends import FOREVER, DeliveryRules, Kept, Part, Pending, Place
from pilotage.protocol.settlement import DELIVERED, Reason, Settlement, refused
from pilotage.testing.agenda import Agenda
from pilotage.testing.disks import Disk
from pilotage.testing.network import Connection, End, Network
from pilotage.testing.recorder import Identity, Recorder, Resumed, Sent

ALL_VERBS = ("NOW", "LATER", "FAIL", "ASK", "DATA")
"""Listens that return at once, that end later, that fail, that answer; DATA is kept by its sender and stored."""

SYNCS_S = (0.0002, 0.005, 0.005, 0.2)
"""How long a disk may take to sync; a worn card stalls now and then."""


UNWATCHED_IN_A_ROW = 7
"""So many sends in a row are ones for whose end nobody can ask, then as many others."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every process of a world shares."""

    agenda: Agenda
    network: Network
    chance: Random
    recorder: Recorder
    delivery: DeliveryRules
    liveness: LivenessRules
    find: Callable[[str], End]


@dataclass(frozen=True, slots=True)
class Role:
    """What a process is, in all its lives.

    Attributes:
        name: its name.
        upstream: the station that it dials; "" for none.
        passes: keys that it passes on to its inner node.
        holds_s: patience of its waiting room.
        slowest_s: the longest that one of its listens takes.
    """

    name: str
    upstream: str = ""
    passes: frozenset[str] = frozenset()
    holds_s: float = 5.0
    slowest_s: float = 3.0


class Process:
    """One life of a station or node.

    Args:
        role: what it is.
        around: the world it lives in.
        disk: what earlier lives have left.
    """

    def __init__(self, role: Role, around: Surroundings, disk: Disk) -> None:
        self.role = role
        self.name = role.name
        self.alive = True
        self.boot = around.chance.getrandbits(62) + 1
        self.dialled: Connection | None = None
        self._around = around
        self._skew = around.chance.random() * 1000.0
        self._links: dict[Link, Connection] = {}
        self._arrivals: list[Arrival] = []
        self._requests: list[Pending] = []
        self._turning = False
        self._alarm = FOREVER
        self._sent = 0
        self._disk = disk
        self._disk_rests_at = 0.0
        self._stopped_until = 0.0
        upstream = "pusher" if role.upstream else ""
        config = ExchangeConfig(
            role.name, self.boot, upstream, around.delivery, around.liveness, holds_s=role.holds_s
        )
        self.exchange = Exchange(config, self._serves)
        self._go_on()
        if role.upstream:
            around.agenda.after(0.0, self._dial, 0.02)

    @property
    def _now(self) -> float:
        return self._around.agenda.now + self._skew

    def _serves(self, verb: str) -> Service:
        if verb in self.role.passes:
            return Service.PASS_ON
        return Service.HANDLE if verb in ALL_VERBS and not self.role.passes else Service.NONE

    @property
    def runs(self) -> bool:
        """Tell whether it lives and isn't stopped."""
        return self.alive and self._around.agenda.now >= self._stopped_until

    def stop(self, for_s: float) -> None:
        """Have it do nothing for a while, as SIGSTOP does; what comes meanwhile waits for it."""
        self._stopped_until = self._around.agenda.now + for_s
        self._say(f"is stopped for {for_s:.1f} s")

    def _postponed(self, action: Callable[..., None], *args: object) -> bool:
        """Put off what is due while it is stopped; True also if it has ended."""
        if self.runs:
            return False
        if self.alive:
            self._around.agenda.at(self._stopped_until, action, *args)
        return True

    # Sending

    def send(self, path: tuple[str, ...], verb: str, *, ordered: bool = True, durable: bool = False) -> Sent:
        """Send a message whose content tells which it is."""
        identity = (self.name, f"{self.name}_{self._sent}", f"life {self.boot}")
        self._sent += 1
        recorder = self._around.recorder
        number = len(recorder.sends)
        sent = Sent(number, identity, self.boot, path, verb, ordered, durable, self._around.agenda.now)
        recorder.send(sent)
        flags = {} if ordered else {"NOREPEAT": True}
        message = Message.from_parts(
            id=identity[1],
            sender=self.name,
            to=path[-1],
            key=verb,
            value=sent.number,
            timestamp=identity[2],
            flags=flags,
        )
        body, frames = encode_body(message)
        self._say(f"sends {sent}")
        pending = Pending(path, verb, [body], frames, [sent], [identity[1]], ordered, durable, kept=durable)
        pending.unwatched = number // UNWATCHED_IN_A_ROW % 2 == 0
        self._leave(pending)
        self._turn_soon()
        return sent

    def _leave(self, send: Pending) -> None:
        """Leave a send for the next turn; with the last one, if it is of the same flow."""
        last = self._requests[-1] if self._requests else None
        if last is None or (last.path, last.verb, last.ordered) != (send.path, send.verb, send.ordered):
            self._requests.append(send)
            return
        last.bodies += send.bodies
        last.names += send.names
        last.handle += send.handle
        last.unwatched &= send.unwatched

    # Its disk

    def _go_on(self) -> None:
        """Go on with what earlier lives have left in the journal."""
        left = [self._in_time(one, self._skew) for one in self._disk.left()]
        if left:
            names = [name for one in left for name in one.names]
            self._sent = max(int(name.rpartition("_")[2]) for name in names) + 1
            self._say(f"finds {len(names)} messages in its journal")
            self._run(self.exchange.restore(left, self._resume, self._now))

    def _resume(self, kept: Kept) -> list[Resumed]:
        messages = [decode_body(kept.verb, body, kept.frames) for body in kept.bodies]
        return [Resumed(self._around.recorder.find(_identity(message))) for message in messages]

    def _in_time(self, kept: Kept, shift_s: float) -> Kept:
        return replace(kept, deadline=kept.deadline + shift_s)

    def _tell_disk(self, instruction: Keep | Drop | Accepted) -> None:
        match instruction:
            case Keep(sends):
                self._keep(sends)
            case Drop(places, parts):
                self._when_synced(self._dropped, places, parts)
            case Accepted(handles):
                for sent in chain(*handles):
                    sent.accepted = True

    def _keep(self, sends: list[Kept]) -> None:
        self._when_synced(self._kept, [self._in_time(one, -self._skew) for one in sends])

    def _when_synced(self, action: Callable[..., None], *args: object) -> None:
        """Have something done when the disk comes to it: one thing after the other."""
        now = self._around.agenda.now
        self._disk_rests_at = max(now, self._disk_rests_at) + self._around.chance.choice(SYNCS_S)
        self._around.agenda.after(self._disk_rests_at - now, action, *args)

    def _kept(self, sends: list[Kept]) -> None:
        if not self._postponed(self._kept, sends):
            self._disk.keep(sends)
            self._run(self.exchange.persisted([one.place for one in sends], self._now))

    def _dropped(self, places: list[Place], parts: list[Part]) -> None:
        if not self._postponed(self._dropped, places, parts):
            self._disk.drop(places, parts)

    # The network's side

    def card(self, *, dials: bool) -> Card:
        """Tell who this is."""
        return Card(Dialect.OWN, self.name, self.boot, dials)

    def routing_id(self, number: int) -> bytes:
        """Give the routing id that a listener's socket would give to its connection."""
        return number.to_bytes(5, "big")

    def arrived(self, connection: Connection, frames: Sequence[Frame]) -> None:
        """Keep a transmission for the next turn, so that some come as batches."""
        self._arrivals.append((connection.link_at(self), connection.card_at(self), frames))
        self._links[connection.link_at(self)] = connection
        self._turn_soon()

    def connected(self, connection: Connection) -> None:
        """Our dialling has led to a connection."""
        if self._postponed(self.connected, connection):
            return
        self.dialled = connection
        self._links[connection.link_at(self)] = connection
        self._say(f"is connected to {connection.listener.name}")
        self._run(self.exchange.link_up(connection.link_at(self), connection.card_at(self), self._now))

    def ended(self, connection: Connection) -> None:
        """A connection has ended."""
        if self._postponed(self.ended, connection):
            return
        link = connection.link_at(self)
        if self._links.get(link) is not connection:
            return
        del self._links[link]
        self._say(f"loses its connection with {connection.other(self).name}")
        self._run(self.exchange.link_down(link, self._now))
        if connection is self.dialled:
            self._redial()

    def _turn(self) -> None:
        if self._postponed(self._turn):
            return
        self._turning = False
        arrivals, self._arrivals = self._arrivals, []
        requests, self._requests = self._requests, []
        known = [one for one in arrivals if one[0] in self._links]
        self._run(self.exchange.turn(known, (), requests, self._now))

    def _turn_soon(self) -> None:
        """Have a turn in a moment, so that some of what comes by then is taken in together."""
        if not self._turning:
            self._turning = True
            self._around.agenda.after(self._around.chance.random() * 0.002, self._turn)

    def _redial(self) -> None:
        self.dialled = None
        self._around.agenda.after(0.02 + self._around.chance.random() * 0.2, self._dial, 0.04)

    def _dial(self, wait_s: float) -> None:
        if self._postponed(self._dial, wait_s) or self.dialled is not None:
            return
        connection = self._around.network.connect(self, self._around.find(self.role.upstream))
        if connection is None:
            self._around.agenda.after(wait_s, self._dial, min(wait_s * 1.6, 1.0))
        else:
            self._around.agenda.after(0.002, self._established, connection)
            self.dialled = connection

    def _established(self, connection: Connection) -> None:
        if self.alive and self in connection.open_at:
            self.connected(connection)

    # Instructions

    def _run(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Transmit(batch):
                    self._transmit(batch)
                case HandOver(parcels, passing):
                    self._hand_over(parcels, passing)
                case Settle(ended):
                    self._settle(ended)
                case Progress(received):
                    for sent in chain(*received):
                        sent.received += 1
                case Keep() | Drop() | Accepted():
                    self._tell_disk(instruction)
                case Hangup(link, text):
                    self._hang_up(link, text)
                case PeerChanged() | Note() | Follow():
                    self._say(f"is told {instruction}")
        self._rest()

    def _settle(self, ended: list[tuple[list[Sent | Resumed], Settlement]]) -> None:
        for sends, settlement in ended:
            for sent in sends:
                sent.ends.append(settlement)
                self._say(f"{sent} ends: {settlement}")

    def _transmit(self, batch: list[tuple[Link, Sequence[Frame]]]) -> None:
        for link, frames in batch:
            connection = self._links.get(link)
            if connection is not None:
                self._around.network.transmit(connection, self, frames)

    def _rest(self) -> None:
        due = self.exchange.wake_at()
        if due < self._alarm:
            self._alarm = due
            self._around.agenda.after(max(0.0001, due - self._now), self._ring, due)

    def _ring(self, due: float) -> None:
        if not self._postponed(self._ring, due) and due == self._alarm:
            self._alarm = FOREVER
            self._run(self.exchange.time_passed(max(self._now, due)))

    def _hang_up(self, link: Link, text: str) -> None:
        connection = self._links.get(link)
        self._say(f"hangs up on {connection.other(self).name if connection else link}: {text}")
        if connection is not None and connection is self.dialled:
            del self._links[link]
            self._around.network.close(connection, self)
            self._redial()

    def _hand_over(self, parcels: list[Parcel], passing: list[Parcel]) -> None:
        results: list[Handled] = []
        for parcel in parcels:
            for one in parcel.singles():
                results += self._listen(one.place, one)
        if results:
            self._run(self.exchange.handled(results, self._now))
        for parcel in passing:
            for one in parcel.singles():
                identity_of(one)
        if passing:
            inner = self.exchange.routing.inner
            self._run(self.exchange.pass_on([(parcel, inner) for parcel in passing], self._now))

    def _listen(self, token: Token, parcel: Parcel) -> list[Handled]:
        """Handle a message as its key says; answer with its end, unless that comes later."""
        identity = identity_of(parcel)
        self._around.recorder.handle(self.boot, identity)
        self._say(f"handles {identity[1]} of {identity[2]}")
        result = result_of(token, parcel.verb, identity)
        chance = self._around.chance
        if parcel.verb == "DATA":
            # An original's messages have no place of their own: its id and stamp tell them from all others.
            message: Hashable = identity if parcel.marks & Marks.JSON else token
            self._when_synced(self._committed, message, identity, result)
            return []
        if parcel.verb == "LATER":
            self._around.agenda.after(chance.random() * self.role.slowest_s, self._listened, result)
            return []
        return [result]

    def _committed(self, message: Hashable, identity: Identity, result: Handled) -> None:
        if not self._postponed(self._committed, message, identity, result):
            self._disk.store(message, identity)
            self._listened(result)

    def _listened(self, result: Handled) -> None:
        if not self._postponed(self._listened, result):
            self._run(self.exchange.handled([result], self._now))

    # Its end

    def die(self, *, noticed: bool) -> None:
        """End without a word."""
        self.alive = False
        self._say("dies" if noticed else "loses power")
        self._around.network.vanish(self, noticed=noticed)

    def _say(self, text: str) -> None:
        if self._around.recorder.tracing:
            self._around.recorder.say(self._around.agenda.now, f"{self.name}.{self.boot % 1000:03d} {text}")


def identity_of(parcel: Parcel) -> Identity:
    """Read which message a parcel is."""
    is_json = parcel.marks & Marks.JSON
    return _identity(
        Message(bytes(parcel.bodies[0]))
        if is_json
        else decode_body(parcel.verb, parcel.bodies[0], parcel.frames)
    )


def _identity(message: Message) -> Identity:
    return (str(message.sender), str(message.id), str(message.timestamp))


def result_of(token: Token, verb: str, identity: Identity) -> Handled:
    """Give what a listen makes of a message."""
    if verb == "FAIL":
        return Handled(token, refused(Reason.LISTEN_FAILED, identity[1]))
    return Handled(token, DELIVERED, answer_to(identity) if verb == "ASK" else b"")


def answer_to(identity: Identity) -> bytes:
    """Give the answer that belongs to a message."""
    return f"answer to {identity[1]}".encode()
