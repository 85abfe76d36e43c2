"""What we have sent and what became of it: flows, tries, deadlines, one settlement a send.

Laws of this room: each send leaves it exactly once, with its settlement; a place below a flow's floor is never
sent again; no more than `window` places of a flow are under way at once, the rest wait here within a bound; what
is to be kept is named for the journal once, and named again when it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from operator import attrgetter
from typing import Any

from pilotage.protocol.flows import Flows, OutFlow, runs_of
from pilotage.protocol.news import UNTOLD_MOST
from pilotage.protocol.records import (
    MAX_HOPS,
    Ack,
    Attached,
    Marks,
    Parcel,
    Verdict,
)
from pilotage.protocol.sends import (
    FOREVER,
    DeliveryRules,
    Emit,
    Journaled,
    Kept,
    Part,
    Pending,
    Place,
    Settled,
    kept_from,
)
from pilotage.protocol.settlement import DELIVERED, Reason, Settlement, expired, refused

_due_of = attrgetter("due")
_is_unwatched = attrgetter("unwatched")

TOGETHER_S = 0.05
"""What is due within this time of a sweep is done in it: sweeps cost, and nobody waits for milliseconds here."""


class Outbox:
    """All sends of one originator.

    Args:
        boot: this life's number.
        emit: puts a parcel on its way.
        rules: patience.

    Attributes:
        has_words: there is something in one of these lists, until somebody takes it from here.
        received: the handles of sends that have arrived.
        unkept: what the journal is to keep.
        over: what the journal may drop, likewise: all that it keeps as one is over.
        partly_over: of what it goes on to keep these are over, likewise.
        agenda: a heap of when which flow is to be looked at, its life and number behind the time.
    """

    def __init__(self, boot: int, emit: Emit, rules: DeliveryRules) -> None:
        self.boot = boot
        self.rules = rules
        self.resent = 0
        self.has_words = False
        self.received: list[Any] = []
        self.unkept: list[Kept] = []
        self.over: list[Place] = []
        self.partly_over: list[Part] = []
        self.agenda: list[tuple[float, int, int]] = []
        # Where little may be under way, each end lets something through.
        self._spares = rules.window > UNTOLD_MOST
        self._emit = emit
        self._flows = Flows(boot, rules.max_flows)

    def __len__(self) -> int:
        return sum(flow.count for flow in self._flows)

    def unsettled(self) -> Iterator[Pending]:
        """Iterate over the sends that have been transmitted, or tried, and have not ended."""
        for flow in self._flows:
            yield from flow.under_way()

    def send(self, sends: Iterable[Pending], now: float) -> Settled:
        """Take sends; answer with the settlements of those that end at once (a path too long, a full queue).

        What follows each other in a flow goes out together.
        """
        ended: Settled = []
        touched: dict[int, OutFlow] = {}
        flow: OutFlow | None = None
        room = 0
        for pending in sends:
            if (
                flow is None
                or pending.verb != flow.verb
                or pending.path != flow.path
                or pending.ordered != flow.ordered
            ):
                flow, room = self._flow_of(pending), 0
                if flow is None:
                    text = f"{len(pending.path)} names on its way; {MAX_HOPS} are the most"
                    ended += _refusals(pending, Reason.INVALID, text)
                    continue
                touched[flow.number] = flow
            count = len(pending.bodies)
            if room < count and (room := self._room(flow, count, now)) < count:
                text = (
                    f"{self.rules.max_waiting} messages to {flow.path[-1]} with key {flow.verb} wait already"
                )
                ended += _refusals(pending.cut(room) if room else pending, Reason.QUEUE_FULL, text)
                if not room:
                    continue
            room -= len(pending.bodies)
            self._take(flow, pending, now)
        for flow in touched.values():
            self._let_through(flow, now)
        return ended

    def _flow_of(self, pending: Pending) -> OutFlow | None:
        """Give the flow of a send, or None where its path is too long."""
        key = (pending.path, pending.verb, pending.ordered)
        flow = self._flows.own(key)
        if flow is None and len(pending.path) <= MAX_HOPS:
            flow = self._flows.begin(key)
        return flow

    def _room(self, flow: OutFlow, wanted: int, now: float) -> int:
        """Tell for how many more messages a flow has room, in its window and behind it."""
        most = self.rules.max_waiting
        waiting = flow.next_seq - 1 - flow.sent
        if waiting + wanted > most:
            self._let_through(flow, now)
            waiting = flow.count_waiting()
            if not (waiting or flow.waits):
                most += max(0, flow.floor + self.rules.window - flow.next_seq)
        return max(0, most - waiting)

    def restore(self, kept: Iterable[Kept], handle_for: Callable[[Kept], Any], now: float) -> None:
        """Go on with what earlier lives have kept, in the order in which they had sent it.

        Args:
            kept: the journal's content, in its order.
            handle_for: gives what each settlement is to be given to.
            now: the time.
        """
        flows: dict[tuple[int, int], OutFlow] = {}
        journaled: dict[Place, Journaled] = {}
        for one in kept:
            (boot, number, _), seq = one.place, one.seq
            flow = flows.get((boot, number))
            if flow is None:
                ordered = bool(one.marks & Marks.ORDERED)
                flow = OutFlow(boot, number, one.path, one.verb, ordered, floor=seq, sent=seq - 1)
                flows[boot, number] = flow
            pending = Pending(
                one.path,
                one.verb,
                list(one.bodies),
                Attached(one.frames) if one.frames else 0,
                handle_for(one),
                list(one.names),
                bool(one.marks & Marks.ORDERED),
                durable=bool(one.marks & Marks.DURABLE),
                tries=FOREVER,
                kept=True,
                seq=seq,
                marks=one.marks,
                wait=self.rules.repeat_interval_s,
                safe=True,
                journaled=journaled.setdefault(one.place, Journaled(one.place, 0)),
            )
            journaled[one.place].open += len(one.bodies)
            if one.deadline != FOREVER:
                self._give_until(flow, pending, one.deadline)
            flow.add(pending)
            flow.next_seq = pending.end
        self._flows.put_before_own(flows.values())
        for flow in flows.values():
            self._let_through(flow, now)

    def persisted(self, places: Iterable[Place]) -> list[Any]:
        """Learn what the journal has safe; give the handles of those that are still open."""
        accepted: list[Any] = []
        for place in places:
            flow = self._flows.find(*place[:2])
            for pending in flow.journaled_at(place) if flow is not None else ():
                pending.safe = True
                accepted.append(pending.handle)
        return accepted

    def acked(self, ack: Ack, now: float) -> Settled:
        """Learn how a flow stands at its recipient."""
        flow = self._flows.find(ack.boot, ack.flow)
        if flow is None:
            return []
        ended: Settled = []
        if ack.life:
            flow.asked_at = FOREVER
            if flow.life != ack.life:
                self._meet_life(flow, ack, now, ended)
        for verdict in ack.verdicts:
            pending = flow.find(verdict.seq)
            # A station on the way may refuse a late copy of what the recipient has long received.
            if pending is not None and (ack.life or not pending.received):
                (pending,) = flow.take(verdict.seq, verdict.seq + 1)
                settlement = _verdict_of(verdict, pending, ack.life)
                self._tell_end(flow, pending, [(pending.handle, settlement)], ended)
        if ack.life:
            if flow.open:
                self._end_settled(flow, ack, ended)
            if flow.open:
                self._mark_received(flow, ack, now)
            flow.heard = max(flow.heard, ack.received)
        self._advance(flow, now)
        if ack.life and ack.received_beyond and ack.received < flow.floor - 1:
            self._probe(flow)
        return ended

    def time_passed(self, now: float) -> Settled:
        """Resend and expire what is due."""
        ended: Settled = []
        while self.agenda and self.agenda[0][0] <= now:
            due, boot, number = heappop(self.agenda)
            flow = self._flows.find(boot, number)
            if flow is not None and flow.due == due:
                self._sweep(flow, now, ended)
        return ended

    def next_due(self) -> float:
        """Tell when `time_passed` has something to do."""
        return self.agenda[0][0] if self.agenda else FOREVER

    def link_restored(self, concerns: Callable[[tuple[str, ...]], bool], now: float) -> None:
        """Resend at once what may have been lost with a link, for the paths that it concerns.

        What was received may be over, and the word of that lost as well: it is asked for.
        """
        for flow in self._flows:
            if flow.open and concerns(flow.path):
                under_way = list(flow.under_way())
                unheard = [pending for pending in under_way if not pending.received]
                self._transmit(flow, unheard, now)
                if len(unheard) < len(under_way):
                    self._probe(flow)
                self._schedule(flow)

    def ask_for_ends(self) -> None:
        """Ask in each flow in which something is under way."""
        for flow in self._flows:
            if flow.open and flow.sent >= flow.floor:
                self._probe(flow)

    def interrupt(self, reason: Reason, text: str, *, durable_too: bool) -> Settled:
        """End every send that is left: the originator is going, or isn't let in.

        Args:
            reason: of the refusal.
            text: for people.
            durable_too: those too that would be sent until they are settled; the journal keeps those that it has.
        """
        ended: Settled = []
        for flow in self._flows:
            for pending in flow.take(0, flow.next_seq):
                if durable_too or not pending.durable:
                    kept = "; its journal keeps it, and it is sent when we are back" if pending.safe else ""
                    ended.append((pending.handle, refused(reason, text + kept)))
                else:
                    flow.add(pending)
            flow.floor = flow.open[0].seq if flow.open else flow.next_seq
        return ended

    # Flows

    def _take(self, flow: OutFlow, pending: Pending, now: float) -> None:
        """Give messages their places; they are transmitted when the window lets them through."""
        marks = Marks.ORDERED if pending.ordered else 0
        if pending.is_json:
            marks |= Marks.JSON
        if pending.durable:
            marks |= Marks.DURABLE
            pending.tries = FOREVER
        elif not pending.ordered:
            pending.tries = 1
        pending.marks = marks
        pending.wait = self.rules.repeat_interval_s
        pending.seq = seq = flow.next_seq
        flow.next_seq = seq + len(pending.bodies)
        flow.add(pending)
        if pending.deadline_s is not None:
            self._give_until(flow, pending, now + pending.deadline_s)
        if flow.after is not None and flow.waits and not pending.durable:
            self._give_until(flow, pending, now + self.rules.patience_s)
        if pending.kept:
            place = (flow.boot, flow.number, seq)
            pending.journaled = Journaled(place, len(pending.bodies))
            self.unkept.append(kept_from(pending, place))
            self.has_words = True

    def _give_until(self, flow: OutFlow, pending: Pending, deadline: float) -> None:
        """Have a send expire at a time, wherever it is by then."""
        pending.deadline = min(pending.deadline, deadline)
        heappush(flow.deadlines, (deadline, pending.seq, pending.end))
        if deadline < flow.due:
            self._set_due(flow, deadline)

    def _let_through(self, flow: OutFlow, now: float) -> None:
        """Transmit what the window has room for."""
        first = flow.sent + 1
        last = min(flow.next_seq - 1, flow.floor + self.rules.window - 1)
        if last < first or (flow.after is not None and flow.waits):
            return
        flow.sent = last
        going = flow.part(first, last + 1)
        if not going:
            return
        for pending in going:
            pending.since = now
            pending.due = now + pending.wait
        self._transmit(flow, going, now)
        due = min(map(_due_of, going)) if len(going) > 1 else going[0].due
        if due < flow.due:
            self._set_due(flow, due)

    def _transmit(self, flow: OutFlow, sends: list[Pending], now: float) -> None:
        """Put sends on their way, in runs, while there is a link; those without tries or time left stay as they are."""
        for run in runs_of(sends, now):
            first = run[0]
            marks = first.marks
            if first.unwatched and self._spares and all(map(_is_unwatched, run)):
                marks |= Marks.UNWATCHED
            parcel = Parcel(
                list(flow.path),
                [],
                flow.boot,
                flow.number,
                first.seq,
                flow.floor,
                flow.verb,
                marks,
                first.bodies if len(run) == 1 else [body for pending in run for body in pending.bodies],
                first.frames,
            )
            if not self._emit(parcel):
                return
            flow.told = flow.floor
            if first.asked:
                self.resent += len(parcel.bodies)
            due = now + (self._growing_wait(first) if first.durable else first.wait)
            for pending in run:
                pending.asked += 1
                pending.wait = first.wait
                pending.due = due

    def _growing_wait(self, pending: Pending) -> float:
        """Give the wait after a transmission of what is durable: growing, and jittered."""
        wait = pending.wait
        pending.wait = min(wait * 2, self.rules.longest_wait_s)
        # A spread of ±12 % that differs from message to message, without asking for chance.
        return wait * (0.88 + 0.24 * ((pending.seq * 0.6180339887 + pending.asked * 0.37) % 1.0))

    def _sweep(self, flow: OutFlow, now: float, ended: Settled) -> None:
        before = len(ended)
        self._end_late(flow, now, ended)
        soon = now + TOGETHER_S
        due = [pending for pending in flow.under_way() if pending.due <= soon < pending.deadline]
        unheard = [pending for pending in due if not pending.received]
        self._transmit(flow, unheard, now)
        for pending in unheard:
            if pending.due <= now:
                self._wait_on(flow, pending, now, ended)
        asks = self._question(flow, [pending for pending in due if pending.received], now, ended)
        self._advance(flow, now)
        if asks or (len(ended) > before if flow.open else flow.told < flow.floor):
            self._probe(flow)
        self._schedule(flow)

    def _end_late(self, flow: OutFlow, now: float, ended: Settled) -> None:
        """End what is past its deadline, wherever it waits."""
        while flow.deadlines and flow.deadlines[0][0] <= now:
            _, first, end = heappop(flow.deadlines)
            for pending in flow.part(first, end):
                if pending.deadline <= now:
                    self._expire(flow, pending, _lateness(flow), ended)

    def _wait_on(self, flow: OutFlow, pending: Pending, now: float, ended: Settled) -> None:
        """Wait for a link, or expire: it is due, and couldn't be transmitted again."""
        if pending.asked < pending.tries and (pending.durable or now - pending.since < self.rules.patience_s):
            pending.due = now + self.rules.repeat_interval_s
        else:
            self._expire(flow, pending, _silence(flow, pending, self.rules), ended)

    def _question(self, flow: OutFlow, sends: list[Pending], now: float, ended: Settled) -> bool:
        """Tell whether to ask about received messages; end them if their recipient was silent for too long."""
        if not sends:
            return False
        is_silent = now - flow.asked_at > self.rules.patience_s
        flow.asked_at = min(flow.asked_at, now)
        asks = False
        for pending in sends:
            if is_silent and not pending.durable:
                self._interrupt(flow, pending, "received it and has not been heard of since", ended)
                continue
            pending.wait = min(pending.wait * 2, self.rules.longest_wait_s)
            pending.due = now + pending.wait
            asks = True
        return asks

    # What recipients say

    def _meet_life(self, flow: OutFlow, ack: Ack, now: float, ended: Settled) -> None:
        """Notice that the recipient was started anew: what the old one had only received is in doubt."""
        if flow.life:
            flow.heard = 0
            doubtful = [pending for pending in flow.under_way() if pending.received]
            for pending in doubtful:
                if pending.durable:
                    pending.received = False
                else:
                    self._interrupt(flow, pending, "ended before it had handled it", ended)
            self._transmit(flow, [pending for pending in doubtful if pending.durable], now)
        flow.life = ack.life

    def _mark_received(self, flow: OutFlow, ack: Ack, now: float) -> None:
        """Note what has arrived there and isn't over yet, by what this acknowledgement says."""
        behind = max(flow.floor, flow.heard + 1, ack.settled + 1)
        for first, last in ((behind, ack.received), *_pairs(ack.received_beyond)):
            # Each place once, whatever is said how often: ranges ascend where they are honest.
            for pending in flow.part(max(first, behind), min(last, flow.sent) + 1):
                if not pending.received:
                    pending.received = True
                    pending.wait = self.rules.repeat_interval_s
                    pending.due = now + pending.wait
                    self.received.append(pending.handle)
                    self.has_words = True
            behind = max(behind, last + 1)

    def _end_settled(self, flow: OutFlow, ack: Ack, ended: Settled) -> None:
        """End what is delivered, by what an acknowledgement says."""
        for first, last in ((flow.floor, ack.settled), *_pairs(ack.settled_beyond)):
            for pending in flow.take(first, min(last, flow.sent) + 1):
                self._tell_end(flow, pending, [(pending.handle, DELIVERED)], ended)

    def _expire(self, flow: OutFlow, pending: Pending, text: str, ended: Settled) -> None:
        flow.take(pending.seq, pending.end)
        self._tell_end(flow, pending, pending.ends(lambda name: expired(f"{name}: {text}")), ended)

    def _interrupt(self, flow: OutFlow, pending: Pending, what: str, ended: Settled) -> None:
        flow.take(pending.seq, pending.end)
        text = f"{flow.path[-1]} {what}"
        self._tell_end(flow, pending, _refusals(pending, Reason.INTERRUPTED, text), ended)

    def _tell_end(self, flow: OutFlow, pending: Pending, ends: Settled, ended: Settled) -> None:
        """Pass on how messages have ended, to the journal as well if it has them."""
        ended += ends
        journaled = pending.journaled
        if journaled is not None:
            self.has_words = True
            journaled.open -= len(pending.bodies)
            if not journaled.open:
                self.over.append(journaled.place)
            else:
                self.partly_over.append((journaled.place, pending.seq, pending.end))

    def _advance(self, flow: OutFlow, now: float) -> None:
        """Raise the floor over what has ended, and let through what waits: here, or behind this flow."""
        flow.floor = flow.open[0].seq if flow.open else flow.next_seq
        if flow.sent + 1 < flow.next_seq:
            self._let_through(flow, now)
        if flow.open or (flow.after is not None and flow.waits):
            return
        if flow.boot != self.boot:
            self._retire(flow, now)
        elif flow.told < flow.floor and flow.due == FOREVER:
            # Its recipient must remember what it has seen until it is told that all of it is over.
            self._set_due(flow, now + self.rules.patience_s)

    def _retire(self, flow: OutFlow, now: float) -> None:
        """Leave an earlier life's flow, which is over, and begin with what came after it."""
        self._probe(flow)
        for one in self._flows.remove(flow):
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
            [],
        )
        if self._emit(parcel):
            flow.told = flow.floor

    def _schedule(self, flow: OutFlow) -> None:
        while flow.deadlines and not flow.holds(*flow.deadlines[0][1:]):
            heappop(flow.deadlines)
        late = flow.deadlines[0][0] if flow.deadlines else FOREVER
        self._set_due(flow, min(late, *(pending.due for pending in flow.under_way()), FOREVER))

    def _set_due(self, flow: OutFlow, due: float) -> None:
        flow.due = due
        if due != FOREVER:
            heappush(self.agenda, (due, flow.boot, flow.number))


def _lateness(flow: OutFlow) -> str:
    if flow.waits:
        return f"what an earlier life sent to {flow.path[-1]} with key {flow.verb} isn't over yet"
    return "its deadline passed, and nothing had confirmed it"


def _pairs(ranges: list[int]) -> Iterable[tuple[int, int]]:
    """Give [first, last, first, last, …] two by two."""
    return zip(ranges[::2], ranges[1::2], strict=False)


def _refusals(pending: Pending, reason: Reason, text: str) -> Settled:
    return pending.ends(lambda name: refused(reason, f"{name}: {text}"))


def _verdict_of(verdict: Verdict, pending: Pending, life: int) -> Settlement:
    if not life and pending.asked > 1:
        # What a station says of the last copy says nothing of the earlier ones, which may have got through.
        name = pending.names[0]
        return expired(
            f"{name}: sent {pending.asked} times, and nothing confirmed it; at last {verdict.text}"
        )
    return Settlement(verdict.outcome, verdict.reason, verdict.text, verdict.answer or None)


def _silence(flow: OutFlow, pending: Pending, rules: DeliveryRules) -> str:
    if not pending.asked:
        return f"no link towards {flow.path[0]} for {rules.patience_s:g} s"
    times = "once" if pending.asked == 1 else f"{pending.asked} times"
    return f"sent {times} to {'/'.join(flow.path)}, and nothing confirmed it"
