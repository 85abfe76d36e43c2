"""What we have sent and what became of it: flows, tries, deadlines, one settlement a send.

Laws of this room: each send leaves it exactly once, with its settlement; a place below a flow's floor is never
sent again; no more than `window` places of a flow are under way at once, the rest wait here within a bound; what
is to be kept is named for the journal once, and named again when it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from typing import Any

from pilotage.protocol.records import MAX_HOPS, Ack, Attached, Marks, Parcel, Verdict, in_ranges
from pilotage.protocol.sends import (
    FOREVER,
    DeliveryRules,
    Emit,
    Kept,
    OutFlow,
    Pending,
    Place,
    SendRequest,
    Settled,
    kept_from,
)
from pilotage.protocol.settlement import DELIVERED, Reason, Settlement, expired, refused

TOGETHER_S = 0.05
"""What is due within this time of a sweep is done in it: sweeps cost, and nobody waits for milliseconds here."""


class Outbox:
    """All sends of one originator.

    Args:
        boot: this life's number.
        emit: puts a parcel on its way.
        rules: patience.

    Attributes:
        unkept: what the journal is to keep, until somebody takes it from here.
        over: what the journal may drop, likewise.
    """

    def __init__(self, boot: int, emit: Emit, rules: DeliveryRules) -> None:
        self.boot = boot
        self.rules = rules
        self.resent = 0
        self.received: list[Any] = []
        self.unkept: list[Kept] = []
        self.over: list[Place] = []
        self._numbers = 0
        self._emit = emit
        self._flows: dict[tuple[tuple[str, ...], str, bool], OutFlow] = {}
        self._by_number: dict[tuple[int, int], OutFlow] = {}
        self._agenda: list[tuple[float, int, int]] = []

    def __len__(self) -> int:
        return sum(len(flow.open) for flow in self._by_number.values())

    def unsettled(self) -> Iterator[Pending]:
        """Iterate over the sends that have been transmitted, or tried, and have not ended."""
        for flow in self._by_number.values():
            yield from flow.under_way()

    def send(self, request: SendRequest, now: float) -> Settled:
        """Take a send; answer with its settlement if it ends at once (a path too long, a full queue)."""
        if len(request.path) > MAX_HOPS:
            text = f"{request.name}: {len(request.path)} names on its way; {MAX_HOPS} are the most"
            return [(request.handle, refused(Reason.INVALID, text))]
        flow = self._flows.get((request.path, request.verb, request.ordered))
        if flow is None or flow.boot != self.boot:
            flow = self._begin(request)
        waiting = flow.next_seq - 1 - flow.sent
        if waiting >= self.rules.max_waiting and (waiting := flow.count_waiting()) >= self.rules.max_waiting:
            text = f"{request.name}: {waiting} messages to {flow.path[-1]} with key {flow.verb} wait already"
            return [(request.handle, refused(Reason.QUEUE_FULL, text))]
        pending = self._take(flow, request, now)
        self._let_through(flow, now)
        if flow.waits and not request.durable:
            self._give_until(flow, pending, now + self.rules.patience_s)
        return []

    def restore(self, kept: Iterable[Kept], handle_for: Callable[[Kept], Any], now: float) -> None:
        """Go on with what earlier lives have kept, in the order in which they had sent it.

        Args:
            kept: the journal's content, in its order.
            handle_for: gives what each settlement is to be given to.
            now: the time.
        """
        flows: dict[tuple[int, int], OutFlow] = {}
        # What this life has begun already, for the disk was slow, comes after all of it.
        ours = {key: flow for key, flow in self._flows.items() if flow.boot == self.boot}
        for one in kept:
            boot, number, seq = one.place
            flow = flows.get((boot, number))
            if flow is None:
                ordered = bool(one.marks & Marks.ORDERED)
                flow = OutFlow(boot, number, one.path, one.verb, ordered, floor=seq, sent=seq - 1)
                flows[boot, number] = self._by_number[boot, number] = flow
                if self._flows.get(flow.key) is ours.get(flow.key):
                    self._flows.pop(flow.key, None)
                self._queue_behind(flow)
            parcel = Parcel([], [], boot, number, seq, flow.floor, one.verb, one.marks, one.body)
            parcel.attached = Attached(one.frames) if one.frames else 0
            pending = Pending(parcel, handle_for(one), one.name, FOREVER, self.rules.repeat_interval_s)
            pending.kept = pending.safe = True
            if one.deadline != FOREVER:
                self._give_until(flow, pending, one.deadline)
            flow.open[seq] = pending
            flow.next_seq = seq + 1
        for key, flow in ours.items():
            if self._flows[key] is not flow:
                self._queue_behind(flow)
        for flow in flows.values():
            self._let_through(flow, now)

    def persisted(self, places: Iterable[Place]) -> list[Any]:
        """Learn what the journal has safe; give the handles of those that are still open."""
        accepted: list[Any] = []
        for boot, number, seq in places:
            flow = self._by_number.get((boot, number))
            pending = flow.open.get(seq) if flow is not None else None
            if pending is not None:
                pending.safe = True
                accepted.append(pending.handle)
        return accepted

    def acked(self, ack: Ack, now: float) -> Settled:
        """Learn how a flow stands at its recipient."""
        flow = self._by_number.get((ack.boot, ack.flow))
        if flow is None:
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
                self._end(flow, verdict.seq, _settlement(verdict, pending, ack.life), ended)
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
            due, boot, number = heappop(self._agenda)
            flow = self._by_number.get((boot, number))
            if flow is not None and flow.due == due:
                self._sweep(flow, now, ended)
        return ended

    def next_due(self) -> float:
        """Tell when `time_passed` has something to do."""
        return self._agenda[0][0] if self._agenda else FOREVER

    def link_restored(self, concerns: Callable[[tuple[str, ...]], bool], now: float) -> None:
        """Resend at once what may have been lost with a link, for the paths that it concerns."""
        for flow in self._by_number.values():
            if flow.open and concerns(flow.path):
                for pending in flow.under_way():
                    if not pending.received:
                        self._transmit(flow, pending, now)
                self._schedule(flow)

    def interrupt(self, reason: Reason, text: str, *, durable_too: bool) -> Settled:
        """End every send that is left: the originator is going, or isn't let in.

        Args:
            reason: of the refusal.
            text: for people.
            durable_too: those too that would be sent until they are settled; the journal keeps those that it has.
        """
        ended: Settled = []
        for flow in self._by_number.values():
            for seq, pending in list(flow.open.items()):
                if durable_too or not pending.durable:
                    kept = "; its journal keeps it, and it is sent when we are back" if pending.safe else ""
                    ended.append((pending.handle, refused(reason, text + kept)))
                    del flow.open[seq]
            flow.floor = next(iter(flow.open), flow.next_seq)
        return ended

    # Flows

    def _begin(self, request: SendRequest) -> OutFlow:
        if len(self._flows) >= self.rules.max_flows:
            self._forget_unused()
        self._numbers += 1
        flow = OutFlow(self.boot, self._numbers, request.path, request.verb, request.ordered)
        self._by_number[self.boot, flow.number] = flow
        self._queue_behind(flow)
        return flow

    def _queue_behind(self, flow: OutFlow) -> None:
        """Make a flow the newest of its path and key; an ordered one waits for those of earlier lives (D4)."""
        earlier = self._flows.get(flow.key)
        if earlier is not None and flow.ordered:
            flow.after = earlier
            earlier.then.append(flow)
        self._flows[flow.key] = flow

    def _forget_unused(self) -> None:
        """Forget the oldest flow in which nothing is open; its number is never given again."""
        for key, flow in self._flows.items():
            if not flow.open:
                del self._flows[key], self._by_number[flow.boot, flow.number]
                return

    def _take(self, flow: OutFlow, request: SendRequest, now: float) -> Pending:
        """Give a send its place; it is transmitted when the window lets it through."""
        marks = (
            (Marks.ORDERED if request.ordered else 0)
            | (Marks.DURABLE if request.durable else 0)
            | (Marks.JSON if request.is_json else 0)
        )
        seq = flow.next_seq
        flow.next_seq = seq + 1
        parcel = Parcel(
            [], [], flow.boot, flow.number, seq, flow.floor, flow.verb, marks, request.body, request.frames
        )
        tries = FOREVER if request.durable else max(1, request.tries if request.ordered else 1)
        pending = Pending(parcel, request.handle, request.name, tries, self.rules.repeat_interval_s)
        if request.deadline_s is not None:
            self._give_until(flow, pending, now + request.deadline_s)
        if request.kept:
            pending.kept = True
            self.unkept.append(kept_from(pending, flow.path))
        flow.open[seq] = pending
        return pending

    def _give_until(self, flow: OutFlow, pending: Pending, deadline: float) -> None:
        """Have a send expire at a time, wherever it is by then."""
        pending.deadline = min(pending.deadline, deadline)
        heappush(flow.deadlines, (deadline, pending.parcel.seq))
        if deadline < flow.due:
            self._set_due(flow, deadline)

    def _let_through(self, flow: OutFlow, now: float) -> None:
        """Transmit what the window has room for."""
        if flow.waits:
            return
        due = flow.due
        while flow.sent < flow.next_seq - 1 and flow.sent + 1 - flow.floor < self.rules.window:
            flow.sent += 1
            pending = flow.open.get(flow.sent)
            if pending is not None:
                pending.since = now
                pending.due = min(now + pending.wait, pending.deadline)
                if pending.deadline > now:
                    self._transmit(flow, pending, now)
                due = min(due, pending.due)
        if due < flow.due:
            self._set_due(flow, due)

    def _transmit(self, flow: OutFlow, pending: Pending, now: float) -> bool:
        """Put a parcel on its way if it has tries left and a link; else leave it waiting, and say False."""
        if pending.tries < 1:
            return False
        parcel = pending.parcel
        # A way of one name is never shortened, so that all parcels of the flow may share it.
        parcel.path = flow.way if len(flow.way) == 1 else flow.way[:]
        parcel.floor = flow.floor
        if not self._emit(parcel):
            return False
        flow.told = flow.floor
        self.resent += pending.asked > 0
        pending.asked += 1
        pending.tries -= 1
        pending.due = min(now + self._wait(pending), pending.deadline)
        return True

    def _wait(self, pending: Pending) -> float:
        """Give the wait after a transmission: constant, or growing and jittered where durable."""
        wait = pending.wait
        if pending.parcel.marks & Marks.DURABLE:
            pending.wait = min(wait * 2, self.rules.longest_wait_s)
            # A spread of ±12 % that differs from message to message, without asking for chance.
            wait *= 0.88 + 0.24 * ((pending.parcel.seq * 0.6180339887 + pending.asked * 0.37) % 1.0)
        return wait

    def _sweep(self, flow: OutFlow, now: float, ended: Settled) -> None:
        before = len(ended)
        self._end_late(flow, now, ended)
        soon = now + TOGETHER_S
        for pending in [pending for pending in flow.under_way() if pending.due <= soon]:
            if pending.deadline > soon:
                self._look_at(flow, pending, now, ended)
        self._advance(flow, now)
        if len(ended) > before if flow.open else flow.told < flow.floor:
            self._probe(flow)
        self._schedule(flow)

    def _end_late(self, flow: OutFlow, now: float, ended: Settled) -> None:
        """End what is past its deadline, wherever it waits."""
        while flow.deadlines and flow.deadlines[0][0] <= now:
            pending = flow.open.get(heappop(flow.deadlines)[1])
            if pending is not None and pending.deadline <= now:
                self._end(flow, pending.parcel.seq, expired(_lateness(flow, pending)), ended)

    def _look_at(self, flow: OutFlow, pending: Pending, now: float, ended: Settled) -> None:
        """Ask, transmit again, wait on or expire: it is due."""
        if pending.received:
            self._question(flow, pending, now, ended)
        elif self._transmit(flow, pending, now):
            return
        elif pending.tries >= 1 and (pending.durable or now - pending.since < self.rules.patience_s):
            pending.due = min(now + self.rules.repeat_interval_s, pending.deadline)
        else:
            self._end(flow, pending.parcel.seq, _expiry(flow, pending, self.rules), ended)

    def _question(self, flow: OutFlow, pending: Pending, now: float, ended: Settled) -> None:
        """Ask about a message that was received, unless its recipient has been silent for too long."""
        if not pending.durable and now - flow.asked_at > self.rules.patience_s:
            text = f"{pending.name}: {flow.path[-1]} received it and has not been heard of since"
            self._end(flow, pending.parcel.seq, refused(Reason.INTERRUPTED, text), ended)
            return
        pending.wait = min(pending.wait * 2, self.rules.longest_wait_s)
        pending.due = min(now + pending.wait, pending.deadline)
        flow.asked_at = min(flow.asked_at, now)
        self._probe(flow)

    # What recipients say

    def _meet_life(self, flow: OutFlow, ack: Ack, now: float, ended: Settled) -> None:
        """Notice that the recipient was started anew: what the old one had only received is in doubt."""
        if flow.life and flow.life != ack.life:
            flow.heard = 0
            for pending in list(flow.under_way()):
                if pending.received and pending.durable:
                    pending.received = False
                    self._transmit(flow, pending, now)
                elif pending.received:
                    text = f"{pending.name}: {flow.path[-1]} ended before it had handled it"
                    self._end(flow, pending.parcel.seq, refused(Reason.INTERRUPTED, text), ended)
        flow.life = ack.life

    def _mark_received(self, flow: OutFlow, ack: Ack, now: float) -> list[Pending]:
        places: list[int] = list(range(max(flow.floor, flow.heard + 1), min(ack.received, flow.sent) + 1))
        if ack.received_beyond:
            places += [
                pending.parcel.seq
                for pending in flow.under_way()
                if pending.parcel.seq > ack.received and in_ranges(ack.received_beyond, pending.parcel.seq)
            ]
        flow.heard = max(flow.heard, ack.received)
        heard = [
            pending for seq in places if (pending := flow.open.get(seq)) is not None and not pending.received
        ]
        for pending in heard:
            pending.received = True
            pending.wait = self.rules.repeat_interval_s
            pending.due = min(now + pending.wait, pending.deadline)
        return heard

    def _settled_places(self, flow: OutFlow, ack: Ack) -> Iterable[int]:
        if not ack.settled_beyond:
            return range(flow.floor, min(ack.settled, flow.sent) + 1)
        places = [pending.parcel.seq for pending in flow.under_way()]
        return [seq for seq in places if seq <= ack.settled or in_ranges(ack.settled_beyond, seq)]

    def _end(self, flow: OutFlow, seq: int, settlement: Settlement, ended: Settled) -> None:
        pending = flow.open.pop(seq, None)
        if pending is not None:
            ended.append((pending.handle, settlement))
            if pending.kept:
                self.over.append((flow.boot, flow.number, seq))

    def _advance(self, flow: OutFlow, now: float) -> None:
        """Raise the floor over what has ended, and let through what waits: here, or behind this flow."""
        flow.floor = next(iter(flow.open), flow.next_seq)
        self._let_through(flow, now)
        if flow.open or flow.waits:
            return
        if flow.boot != self.boot:
            self._retire(flow, now)
        elif flow.told < flow.floor and flow.due == FOREVER:
            # Its recipient must remember what it has seen until it is told that all of it is over.
            self._set_due(flow, now + self.rules.patience_s)

    def _retire(self, flow: OutFlow, now: float) -> None:
        """Leave an earlier life's flow, which is over, and begin with what came after it."""
        self._probe(flow)
        del self._by_number[flow.boot, flow.number]
        if self._flows.get(flow.key) is flow:
            del self._flows[flow.key]
        for one in flow.then:
            one.after = None
            self._advance(one, now)

    def _probe(self, flow: OutFlow) -> None:
        """Ask how the flow stands, and tell its floor: a recipient may hold later messages for its sake."""
        parcel = Parcel(
            list(flow.path),
            [],
            flow.boot,
            flow.number,
            flow.next_seq - 1,
            flow.floor,
            flow.verb,
            Marks.PROBE,
            b"",
        )
        if self._emit(parcel):
            flow.told = flow.floor

    def _schedule(self, flow: OutFlow) -> None:
        while flow.deadlines and flow.deadlines[0][1] not in flow.open:
            heappop(flow.deadlines)
        late = flow.deadlines[0][0] if flow.deadlines else FOREVER
        self._set_due(flow, min(late, *(pending.due for pending in flow.under_way()), FOREVER))

    def _set_due(self, flow: OutFlow, due: float) -> None:
        flow.due = due
        if due != FOREVER:
            heappush(self._agenda, (due, flow.boot, flow.number))


def _lateness(flow: OutFlow, pending: Pending) -> str:
    if flow.waits:
        return f"{pending.name}: what an earlier life sent to {flow.path[-1]} with key {flow.verb} isn't over yet"
    return f"{pending.name}: its deadline passed, and nothing had confirmed it"


def _settlement(verdict: Verdict, pending: Pending, life: int) -> Settlement:
    if not life and pending.asked > 1:
        # What a station says of the last copy says nothing of the earlier ones, which may have got through.
        text = f"{pending.name}: sent {pending.asked} times, and nothing confirmed it; at last {verdict.text}"
        return expired(text)
    return Settlement(verdict.outcome, verdict.reason, verdict.text, verdict.answer or None)


def _expiry(flow: OutFlow, pending: Pending, rules: DeliveryRules) -> Settlement:
    if not pending.asked:
        return expired(f"{pending.name}: no link towards {flow.path[0]} for {rules.patience_s:g} s")
    times = "once" if pending.asked == 1 else f"{pending.asked} times"
    return expired(f"{pending.name}: sent {times} to {'/'.join(flow.path)}, and nothing confirmed it")
