"""What has arrived for us: once, in order, and what we say back.

Laws of this room: a place of a flow is handed out at most once; an ordered flow is handed out without gaps, but
for those that its originator has given up (its floor); what is remembered of a flow lies between its floor and
its window, so memory is bounded by flows × window.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pilotage.protocol.outbox import WINDOW
from pilotage.protocol.records import Ack, Marks, Parcel, Verdict, as_ranges
from pilotage.protocol.settlement import Outcome, Settlement

FlowId = tuple[int, int]
"""The originator's life and its number for the flow."""

Token = tuple[int, int, int]
"""A message handed out: its flow, and its place in it."""


@dataclass(slots=True)
class InFlow:
    """What has arrived of one flow."""

    boot: int
    number: int
    floor: int
    received: int
    settled: int
    trail: list[str]
    fresh: int = 0
    beyond: dict[int, Parcel | None] = field(default_factory=dict)
    settled_beyond: set[int] = field(default_factory=set)
    verdicts: dict[int, Verdict] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        """Tell whether nothing is open in it."""
        return self.received == self.settled and not self.beyond


class Inbox:
    """All flows that end here.

    Args:
        life: this recipient's life, a random 63-bit number.
        max_flows: flows remembered; beyond it the one that was idle longest is forgotten.
        window: open places in a flow.
    """

    def __init__(self, life: int, max_flows: int = 100_000, window: int = WINDOW) -> None:
        self.life = life
        self.duplicates = 0
        self.beyond_window = 0
        self._max_flows = max_flows
        self._window = window
        self._flows: dict[FlowId, InFlow] = {}
        self.hurries = False
        self._unsaid: dict[FlowId, InFlow] = {}

    def __len__(self) -> int:
        return len(self._flows)

    def arrived(self, parcel: Parcel) -> list[Parcel]:
        """Take a parcel in; answer with those that may be handled now, in order."""
        key = (parcel.boot, parcel.flow)
        flow = self._flows.get(key) or self._learn(key, parcel)
        flow.trail = parcel.trail
        self._unsaid[key] = flow
        ready: list[Parcel] = []
        if parcel.floor > flow.floor:
            self._raise_floor(flow, parcel.floor, ready)
        if parcel.marks & Marks.PROBE:
            self.hurries = True
            return ready
        seq = parcel.seq
        if seq == flow.received + 1:
            flow.received = seq
            flow.fresh += 1
            ready.append(parcel)
            if flow.beyond:
                self._release(flow, ready)
        elif seq <= flow.received or seq in flow.beyond:
            self.duplicates += 1
            self.hurries = True
        elif seq >= flow.floor + self._window:
            self.beyond_window += 1
        else:
            self._hold(flow, parcel, ready)
        return ready

    def settle(self, token: Token, settlement: Settlement, answer: bytes = b"") -> None:
        """Note how a message that was handed out has ended."""
        flow = self._flows.get((token[0], token[1]))
        seq = token[2]
        if flow is None or seq <= flow.settled or seq in flow.settled_beyond:
            return
        if answer or settlement.outcome is not Outcome.DELIVERED:
            flow.verdicts[seq] = Verdict(seq, settlement.outcome, settlement.reason, settlement.text, answer)
        if seq == flow.settled + 1:
            flow.settled = seq
            while flow.settled + 1 in flow.settled_beyond:
                flow.settled += 1
                flow.settled_beyond.discard(flow.settled)
        else:
            flow.settled_beyond.add(seq)
        self._unsaid[token[0], token[1]] = flow
        self.hurries = True

    @property
    def has_news(self) -> bool:
        """Tell whether a flow has changed since the last `acks`."""
        return bool(self._unsaid)

    def acks(self) -> list[Ack]:
        """Say how each flow stands that has changed since the last call."""
        if not self._unsaid:
            return []
        said = [self._ack(flow) for flow in self._unsaid.values()]
        self._unsaid = {}
        self.hurries = False
        return said

    def restore(self, seen: Iterable[tuple[FlowId, int]]) -> None:
        """Take over what an earlier life committed: flows, and the place up to which each is over."""
        for (boot, number), settled in seen:
            self._flows[boot, number] = InFlow(boot, number, settled + 1, settled, settled, [])

    def _learn(self, key: FlowId, parcel: Parcel) -> InFlow:
        if len(self._flows) >= self._max_flows:
            self._forget_idle()
        floor = max(1, parcel.floor)
        flow = InFlow(key[0], key[1], floor, floor - 1, floor - 1, parcel.trail)
        self._flows[key] = flow
        return flow

    def _forget_idle(self) -> None:
        """Forget the oldest flow in which nothing is open, or else the oldest: the bound holds."""
        idle = (key for key, flow in self._flows.items() if flow.idle)
        key = next(idle, next(iter(self._flows)))
        del self._flows[key]
        self._unsaid.pop(key, None)

    def _hold(self, flow: InFlow, parcel: Parcel, ready: list[Parcel]) -> None:
        """Keep a parcel that came before its elders; hand it out at once where order isn't asked for."""
        flow.fresh += 1
        self.hurries = True
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
        for seq in [seq for seq in flow.verdicts if seq < floor]:
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
