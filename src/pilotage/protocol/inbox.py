"""What has arrived for us: once, in order, and what we say back.

Laws of this room: a place of a flow is handed out at most once; an ordered flow is handed out without gaps, but
for those that its originator has given up (its floor); what is remembered of a flow lies between its floor and
its window, so memory is bounded by flows × window. A flow is forgotten only when no copy of its messages can come
any more: its originator has told that all of it is over, and nothing of it came for longer than any copy can be on
its way; or nothing of it came for a day (decision 0010). Where nothing may be forgotten, no further flow begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from pilotage.protocol.news import UNTOLD_MOST, FlowId, News
from pilotage.protocol.records import Ack, Marks, Parcel, Verdict, as_ranges
from pilotage.protocol.sends import FOREVER, WINDOW
from pilotage.protocol.settlement import DELIVERED, Outcome, Settlement

Token = tuple[int, int, int]
"""A message handed out: its flow, and its place in it."""


class Handled(NamedTuple):
    """How messages that were handed out have ended.

    Attributes:
        token: the first of them.
        settlement: their end.
        answer: the listen's answer, encoded; only where it is one message.
        messages: how many of the flow, from that one on.
    """

    token: Token
    settlement: Settlement = DELIVERED
    answer: bytes = b""
    messages: int = 1


FORGET_AFTER_S = 600.0
"""Longer than a copy can be on its way: each hop holds it for seconds, and a path has at most 16."""

FORGET_ANYWAY_S = 86_400.0
"""Its originator has ended without telling that all of it is over, and no later life has taken it up."""

LOOK_AGAIN_S = 1.0


class NoRoom(Exception):
    """No further flow can be remembered now."""


@dataclass(slots=True)
class InFlow:
    """What has arrived of one flow.

    Attributes:
        watched: the last place for whose end its originator may wait.
        told: we have said that every place up to this one is over.
    """

    boot: int
    number: int
    floor: int
    received: int
    settled: int
    trail: list[str]
    last: float = 0.0
    fresh: int = 0
    watched: int = 0
    told: int = 0
    beyond: dict[int, Parcel | None] = field(default_factory=dict)
    settled_beyond: set[int] = field(default_factory=set)
    verdicts: dict[int, Verdict] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Tell whether its originator knows that all of it is over."""
        return self.floor > self.received and not self.beyond


class Inbox:
    """All flows that end here.

    Args:
        life: this recipient's life, a random 63-bit number.
        max_flows: flows remembered; beyond it those are forgotten of which no copy can come any more.
        window: open places in a flow.
        forget_after_s: how long nothing of a flow must have come before it may be forgotten.
        news: when what is said back; as usual if not given.

    Attributes:
        duplicates: messages that had come before.
        beyond_window: messages from beyond a flow's window, which weren't taken in.
    """

    def __init__(
        self,
        life: int,
        max_flows: int = 100_000,
        window: int = WINDOW,
        forget_after_s: float = FORGET_AFTER_S,
        news: News[InFlow] | None = None,
    ) -> None:
        self.life = life
        self.duplicates = 0
        self.beyond_window = 0
        self._max_flows = max_flows
        self._window = window
        self._forget_after_s = forget_after_s
        self._look_again = 0.0
        self._flows: dict[FlowId, InFlow] = {}
        self.news: News[InFlow] = News() if news is None else news

    def __len__(self) -> int:
        return len(self._flows)

    def arrived(self, parcel: Parcel, now: float) -> list[Parcel]:
        """Take a parcel in; answer with those that may be handled now, in order.

        Raises:
            NoRoom: it begins a flow, and none may be forgotten for it.
        """
        key = (parcel.boot, parcel.flow)
        flow = self._flows.get(key) or self._learn(key, parcel, now)
        flow.trail = parcel.trail
        flow.last = now
        count = len(parcel.bodies)
        if parcel.marks & Marks.UNWATCHED:
            self.news.add_unwatched(key, flow, now)
        else:
            self.news.add(key, flow, now)
            flow.watched = max(flow.watched, parcel.seq + count - 1)
        ready: list[Parcel] = []
        if parcel.floor > flow.floor:
            self._raise_floor(flow, parcel.floor, ready)
        if parcel.marks & Marks.PROBE:
            self.news.hurries = True
            return ready
        if parcel.seq == flow.received + 1 and not flow.beyond:
            flow.received += count
            flow.fresh += count
            ready.append(parcel)
        else:
            self.news.add(key, flow, now)
            for one in parcel.singles():
                self._place(flow, one, ready)
        return ready

    def _place(self, flow: InFlow, parcel: Parcel, ready: list[Parcel]) -> None:
        """Take one message in that may have come before, or before its elders."""
        seq = parcel.seq
        if seq == flow.received + 1:
            flow.received = seq
            flow.fresh += 1
            ready.append(parcel)
            if flow.beyond:
                self._release(flow, ready)
        elif seq <= flow.received or seq in flow.beyond:
            self.duplicates += 1
            self.news.hurries = True
        elif seq >= flow.floor + self._window:
            self.beyond_window += 1
        else:
            self._hold(flow, parcel, ready)

    def settle(self, token: Token, settlement: Settlement, answer: bytes = b"", messages: int = 1) -> None:
        """Note how messages that were handed out have ended; see `Handled`."""
        boot, number, first = token
        key = (boot, number)
        flow = self._flows.get(key)
        if flow is None:
            return
        is_plain = settlement is DELIVERED and not answer
        if first == flow.settled + 1 and not flow.settled_beyond and (is_plain or messages == 1):
            if not is_plain:
                _judge(flow, first, settlement, answer)
            flow.settled += messages
            if is_plain and first > flow.watched and flow.settled - flow.told < UNTOLD_MOST:
                self.news.add_unwatched(key, flow, flow.last)
                return
        else:
            for seq in range(first, first + messages):
                self._settle_one(flow, seq, settlement, answer)
        self.news.add(key, flow, flow.last)
        self.news.hurries = True

    def _settle_one(self, flow: InFlow, seq: int, settlement: Settlement, answer: bytes) -> None:
        """Note how a message has ended that may have ended before, or before its elders."""
        if seq <= flow.settled or seq in flow.settled_beyond:
            return
        _judge(flow, seq, settlement, answer)
        if seq == flow.settled + 1:
            flow.settled = seq
            while flow.settled + 1 in flow.settled_beyond:
                flow.settled += 1
                flow.settled_beyond.discard(flow.settled)
        else:
            flow.settled_beyond.add(seq)

    def acks(self, now: float = FOREVER, *, goes_anyway: bool = False) -> list[Ack]:
        """Say how the flows stand of which something is to be said by now; see `News.take`."""
        return list(map(self._ack, self.news.take(now, goes_anyway=goes_anyway)))

    def _learn(self, key: FlowId, parcel: Parcel, now: float) -> InFlow:
        if len(self._flows) >= self._max_flows:
            self._forget(now)
        floor = max(1, parcel.floor)
        flow = InFlow(key[0], key[1], floor, floor - 1, floor - 1, parcel.trail, told=floor - 1)
        self._flows[key] = flow
        return flow

    def _forget(self, now: float) -> None:
        """Forget all flows of which no copy can come any more; a look at all of them, so not at each newcomer."""
        if now >= self._look_again:
            self._look_again = now + LOOK_AGAIN_S
            for key, flow in list(self._flows.items()):
                silent_s = now - flow.last
                if silent_s > FORGET_ANYWAY_S or (silent_s > self._forget_after_s and flow.is_over):
                    del self._flows[key]
                    self.news.forget(key)
        if len(self._flows) >= self._max_flows:
            raise NoRoom

    def _hold(self, flow: InFlow, parcel: Parcel, ready: list[Parcel]) -> None:
        """Keep a parcel that came before its elders; hand it out at once where order isn't asked for."""
        flow.fresh += 1
        self.news.hurries = True
        if parcel.marks & Marks.ORDERED:
            flow.beyond[parcel.seq] = parcel
        else:
            flow.beyond[parcel.seq] = None
            ready.append(parcel)

    def _release(self, flow: InFlow, ready: list[Parcel]) -> None:
        while flow.received + 1 in flow.beyond:
            flow.received += 1
            parcel = flow.beyond.pop(flow.received)
            if parcel is not None:
                ready.append(parcel)

    def _raise_floor(self, flow: InFlow, floor: int, ready: list[Parcel]) -> None:
        """Give up what the originator has given up."""
        flow.floor = floor
        if flow.verdicts:
            for seq in list(flow.verdicts):
                if seq < floor:
                    del flow.verdicts[seq]
        if flow.received < floor - 1:
            for seq in sorted(seq for seq in flow.beyond if seq < floor):
                del flow.beyond[seq]
            flow.received = floor - 1
            self._release(flow, ready)
        if flow.settled < floor - 1:
            flow.settled = floor - 1
            flow.settled_beyond = {seq for seq in flow.settled_beyond if seq >= floor}
            while flow.settled + 1 in flow.settled_beyond:
                flow.settled += 1
                flow.settled_beyond.discard(flow.settled)

    def _ack(self, flow: InFlow) -> Ack:
        fresh, flow.fresh = flow.fresh, 0
        flow.told = flow.settled
        return Ack(
            flow.trail[::-1],
            flow.boot,
            flow.number,
            self.life,
            flow.received,
            as_ranges(sorted(flow.beyond)) if flow.beyond else [],
            flow.settled,
            as_ranges(sorted(flow.settled_beyond)) if flow.settled_beyond else [],
            fresh,
            list(flow.verdicts.values()) if flow.verdicts else [],
        )


def _judge(flow: InFlow, seq: int, settlement: Settlement, answer: bytes) -> None:
    """Have it said how a message has ended, where that is more than delivered without an answer."""
    if answer or settlement.outcome is not Outcome.DELIVERED:
        flow.verdicts[seq] = Verdict(seq, settlement.outcome, settlement.reason, settlement.text, answer)
