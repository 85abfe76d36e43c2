"""What we have sent and what became of it: flows, tries, deadlines, one settlement a send.

Laws of this room: each send leaves it exactly once, with its settlement; a place below a flow's floor is never
sent again; no more than `window` places of a flow are open at once, the rest wait here within a bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from pilotage.protocol.records import MAX_HOPS, Ack, Attached, Marks, Parcel, Verdict, in_ranges
from pilotage.protocol.settlement import DELIVERED, Reason, Settlement, expired, refused

FOREVER = float("inf")
WINDOW = 4096

Emit = Callable[[Parcel], bool]
"""Puts a parcel on its way; False when there is no link for it now."""

Settled = list[tuple[Any, Settlement]]
"""Ended sends: the handle that came with each, and its end."""


@dataclass(frozen=True, slots=True)
class DeliveryRules:
    """How patiently sends are repeated.

    Attributes:
        repeat_interval_s: wait before the first repetition, and between those of a message that isn't durable.
        longest_wait_s: bound of a durable message's growing waits, and of questions after a received message.
        patience_s: how long a message that isn't durable waits for a link to exist at all, and for a word of a
            recipient that had received it.
        window: open places in a flow.
        max_waiting: sends of one flow that may wait for the window.
        max_flows: (recipient, key) pairs remembered; beyond it the longest unused empty one is forgotten.
    """

    repeat_interval_s: float = 5.0
    longest_wait_s: float = 60.0
    patience_s: float = 30.0
    window: int = WINDOW
    max_waiting: int = 100_000
    max_flows: int = 10_000


@dataclass(slots=True)
class SendRequest:
    """A message to be sent.

    Attributes:
        path: names to reach, the recipient last.
        verb: the message's key.
        body: its encoded body.
        frames: raw frames of its arrays.
        handle: whatever the settlement is to be given to.
        name: the message's id, for texts about it.
        ordered: resend it until received, in the order of its flow (`repeat=True`).
        durable: resend it until settled.
        tries: transmissions at most, where not durable (the message's ttl).
        is_json: the body is an original JSON envelope.
    """

    path: tuple[str, ...]
    verb: str
    body: bytes
    frames: Attached | int
    handle: Any
    name: str = ""
    ordered: bool = True
    durable: bool = False
    tries: int = 2
    is_json: bool = False


class Pending:
    """A send that has not ended."""

    __slots__ = ("asked", "due", "handle", "name", "parcel", "received", "since", "tries", "wait")

    def __init__(self, request: SendRequest, parcel: Parcel, now: float, wait: float) -> None:
        self.parcel = parcel
        self.handle = request.handle
        self.name = request.name
        self.tries = FOREVER if request.durable else max(1, request.tries if request.ordered else 1)
        self.wait = wait
        self.due = now + wait
        self.since = now
        self.asked = 0
        self.received = False

    @property
    def durable(self) -> bool:
        """Tell whether it is sent again until it is settled."""
        return bool(self.parcel.marks & Marks.DURABLE)


@dataclass(slots=True)
class OutFlow:
    """Sends of ours to one recipient with one key."""

    number: int
    path: tuple[str, ...]
    verb: str
    next_seq: int = 1
    floor: int = 1
    life: int = 0
    heard: int = 0
    due: float = FOREVER
    asked_at: float = FOREVER
    open: dict[int, Pending] = field(default_factory=dict)
    waiting: deque[SendRequest] = field(default_factory=deque)


class Outbox:
    """All sends of one originator.

    Args:
        boot: this life's number.
        emit: puts a parcel on its way.
        rules: patience.
    """

    def __init__(self, boot: int, emit: Emit, rules: DeliveryRules) -> None:
        self.boot = boot
        self.rules = rules
        self.resent = 0
        self.received: list[Any] = []
        self._numbers = 0
        self._emit = emit
        self._flows: dict[tuple[tuple[str, ...], str, bool], OutFlow] = {}
        self._by_number: dict[int, OutFlow] = {}
        self._agenda: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return sum(len(flow.open) + len(flow.waiting) for flow in self._flows.values())

    def unsettled(self) -> Iterator[Pending]:
        """Iterate over the sends that have been transmitted, or tried, and have not ended."""
        for flow in self._flows.values():
            yield from flow.open.values()

    def send(self, request: SendRequest, now: float) -> Settled:
        """Take a send; answer with its settlement if it ends at once (a path too long, a full queue)."""
        if len(request.path) > MAX_HOPS:
            text = f"{request.name}: {len(request.path)} names on its way; {MAX_HOPS} are the most"
            return [(request.handle, refused(Reason.INVALID, text))]
        flow = self._flow(request)
        if flow.next_seq - flow.floor < self.rules.window:
            self._open(flow, request, now)
            return []
        if len(flow.waiting) < self.rules.max_waiting:
            flow.waiting.append(request)
            return []
        text = f"{request.name}: {len(flow.waiting)} messages to {flow.path[-1]} with key {flow.verb} wait already"
        return [(request.handle, refused(Reason.QUEUE_FULL, text))]

    def acked(self, ack: Ack, now: float) -> Settled:
        """Learn how a flow stands at its recipient."""
        flow = self._by_number.get(ack.flow)
        if flow is None or ack.boot != self.boot:
            return []
        ended: Settled = []
        heard: list[Pending] = []
        if ack.life:
            flow.asked_at = FOREVER
            self._meet_life(flow, ack, now, ended)
            heard = self._mark_received(flow, ack, now)
        for verdict in ack.verdicts:
            pending = flow.open.get(verdict.seq)
            # A station on the way may refuse a late copy of what the recipient has long received.
            if pending is not None and (ack.life or not pending.received):
                self._end(flow, verdict.seq, _settlement(verdict), ended)
        if ack.life:
            for seq in self._settled_places(flow, ack):
                self._end(flow, seq, DELIVERED, ended)
        self.received += [pending.handle for pending in heard if pending.parcel.seq in flow.open]
        self._advance(flow, now)
        if ack.life and ack.received_beyond and ack.received < flow.floor - 1:
            self._probe(flow)
        return ended

    def time_passed(self, now: float) -> Settled:
        """Resend and expire what is due."""
        ended: Settled = []
        while self._agenda and self._agenda[0][0] <= now:
            due, number = heappop(self._agenda)
            flow = self._by_number.get(number)
            if flow is not None and flow.due == due:
                self._sweep(flow, now, ended)
        return ended

    def next_due(self) -> float:
        """Tell when `time_passed` has something to do."""
        return self._agenda[0][0] if self._agenda else FOREVER

    def link_restored(self, concerns: Callable[[tuple[str, ...]], bool], now: float) -> None:
        """Resend at once what may have been lost with a link, for the paths that it concerns."""
        for flow in self._flows.values():
            if flow.open and concerns(flow.path):
                for pending in flow.open.values():
                    if not pending.received:
                        self._transmit(flow, pending, now)
                self._schedule(flow)

    def interrupt(self, text: str) -> Settled:
        """End every send that is left: the originator is going."""
        ended: Settled = []
        for flow in self._flows.values():
            requests = [pending.handle for pending in flow.open.values()]
            requests += [request.handle for request in flow.waiting]
            ended += [(handle, refused(Reason.INTERRUPTED, text)) for handle in requests]
            flow.open.clear()
            flow.waiting.clear()
            flow.floor = flow.next_seq
        return ended

    def _flow(self, request: SendRequest) -> OutFlow:
        key = (request.path, request.verb, request.ordered)
        flow = self._flows.get(key)
        if flow is None:
            if len(self._flows) >= self.rules.max_flows:
                self._forget_unused()
            self._numbers += 1
            flow = self._flows[key] = OutFlow(self._numbers, request.path, request.verb)
            self._by_number[flow.number] = flow
        return flow

    def _forget_unused(self) -> None:
        """Forget the oldest flow in which nothing is open; its number is never given again."""
        for key, flow in self._flows.items():
            if not flow.open and not flow.waiting:
                del self._flows[key], self._by_number[flow.number]
                return

    def _open(self, flow: OutFlow, request: SendRequest, now: float) -> None:
        marks = (
            (Marks.ORDERED if request.ordered else 0)
            | (Marks.DURABLE if request.durable else 0)
            | (Marks.JSON if request.is_json else 0)
        )
        seq = flow.next_seq
        flow.next_seq = seq + 1
        parcel = Parcel(
            [],
            [],
            self.boot,
            flow.number,
            seq,
            flow.floor,
            flow.verb,
            marks,
            request.body,
            request.frames,
        )
        pending = Pending(request, parcel, now, self.rules.repeat_interval_s)
        flow.open[seq] = pending
        self._transmit(flow, pending, now)
        if pending.due < flow.due:
            self._set_due(flow, pending.due)

    def _transmit(self, flow: OutFlow, pending: Pending, now: float) -> bool:
        """Put a parcel on its way if it has tries left and a link; else leave it waiting, and say False."""
        if pending.tries < 1:
            return False
        parcel = pending.parcel
        parcel.path, parcel.trail, parcel.floor = list(flow.path), [], flow.floor
        if not self._emit(parcel):
            return False
        self.resent += pending.asked > 0
        pending.asked += 1
        pending.tries -= 1
        pending.due = now + self._wait(pending)
        return True

    def _wait(self, pending: Pending) -> float:
        """Give the wait after a transmission: constant, or growing and jittered where durable."""
        wait = pending.wait
        if pending.durable:
            pending.wait = min(wait * 2, self.rules.longest_wait_s)
            # A spread of ±12 % that differs from message to message, without asking for chance.
            wait *= 0.88 + 0.24 * ((pending.parcel.seq * 0.6180339887 + pending.asked * 0.37) % 1.0)
        return wait

    def _sweep(self, flow: OutFlow, now: float, ended: Settled) -> None:
        before = len(ended)
        for pending in [pending for pending in flow.open.values() if pending.due <= now]:
            if pending.received:
                self._question(flow, pending, now, ended)
            elif self._transmit(flow, pending, now):
                continue
            elif pending.tries >= 1 and (pending.durable or now - pending.since < self.rules.patience_s):
                pending.due = now + self.rules.repeat_interval_s
            else:
                self._end(flow, pending.parcel.seq, _expiry(flow, pending, self.rules), ended)
        self._advance(flow, now)
        if len(ended) > before and flow.open:
            self._probe(flow)
        self._schedule(flow)

    def _question(self, flow: OutFlow, pending: Pending, now: float, ended: Settled) -> None:
        """Ask about a message that was received, unless its recipient has been silent for too long."""
        if not pending.durable and now - flow.asked_at > self.rules.patience_s:
            text = f"{pending.name}: {flow.path[-1]} received it and has not been heard of since"
            self._end(flow, pending.parcel.seq, refused(Reason.INTERRUPTED, text), ended)
            return
        pending.wait = min(pending.wait * 2, self.rules.longest_wait_s)
        pending.due = now + pending.wait
        flow.asked_at = min(flow.asked_at, now)
        self._probe(flow)

    def _meet_life(self, flow: OutFlow, ack: Ack, now: float, ended: Settled) -> None:
        """Notice that the recipient was started anew: what the old one had only received is in doubt."""
        if flow.life and flow.life != ack.life:
            flow.heard = 0
            for seq, pending in list(flow.open.items()):
                if pending.received and pending.durable:
                    pending.received = False
                    self._transmit(flow, pending, now)
                elif pending.received:
                    text = f"{pending.name}: {flow.path[-1]} ended before it had handled it"
                    self._end(flow, seq, refused(Reason.INTERRUPTED, text), ended)
        flow.life = ack.life

    def _mark_received(self, flow: OutFlow, ack: Ack, now: float) -> list[Pending]:
        places: list[int] = list(
            range(max(flow.floor, flow.heard + 1), min(ack.received, flow.next_seq - 1) + 1)
        )
        if ack.received_beyond:
            places += [seq for seq in flow.open if seq > ack.received and in_ranges(ack.received_beyond, seq)]
        flow.heard = max(flow.heard, ack.received)
        heard = [
            pending for seq in places if (pending := flow.open.get(seq)) is not None and not pending.received
        ]
        for pending in heard:
            pending.received = True
            pending.wait = self.rules.repeat_interval_s
            pending.due = now + pending.wait
        return heard

    def _settled_places(self, flow: OutFlow, ack: Ack) -> Iterable[int]:
        if not ack.settled_beyond:
            return range(flow.floor, min(ack.settled, flow.next_seq - 1) + 1)
        return [seq for seq in flow.open if seq <= ack.settled or in_ranges(ack.settled_beyond, seq)]

    def _end(self, flow: OutFlow, seq: int, settlement: Settlement, ended: Settled) -> None:
        pending = flow.open.pop(seq, None)
        if pending is not None:
            ended.append((pending.handle, settlement))

    def _advance(self, flow: OutFlow, now: float) -> None:
        """Raise the floor over what has ended, and let waiting sends into the window."""
        flow.floor = next(iter(flow.open), flow.next_seq)
        while flow.waiting and flow.next_seq - flow.floor < self.rules.window:
            self._open(flow, flow.waiting.popleft(), now)

    def _probe(self, flow: OutFlow) -> None:
        """Ask how the flow stands, and tell its floor: a recipient may hold later messages for its sake."""
        self._emit(
            Parcel(
                list(flow.path), [], self.boot, flow.number, flow.next_seq - 1, flow.floor, flow.verb,
                Marks.PROBE, b"",
            )
        )  # fmt: skip

    def _schedule(self, flow: OutFlow) -> None:
        self._set_due(flow, min((pending.due for pending in flow.open.values()), default=FOREVER))

    def _set_due(self, flow: OutFlow, due: float) -> None:
        flow.due = due
        if due != FOREVER:
            heappush(self._agenda, (due, flow.number))


def _settlement(verdict: Verdict) -> Settlement:
    return Settlement(verdict.outcome, verdict.reason, verdict.text, verdict.answer or None)


def _expiry(flow: OutFlow, pending: Pending, rules: DeliveryRules) -> Settlement:
    if not pending.asked:
        return expired(f"{pending.name}: no link towards {flow.path[0]} for {rules.patience_s:g} s")
    times = "once" if pending.asked == 1 else f"{pending.asked} times"
    return expired(f"{pending.name}: sent {times} to {'/'.join(flow.path)}, and nothing confirmed it")
