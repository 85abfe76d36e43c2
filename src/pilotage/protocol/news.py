"""News: of which flows there is something to say to their originators, and when it is said.

What only has been received may be over in a moment, and one acknowledgement says both. What nobody can ask for waits
longer, so that one says what many would have said.
Law of this room: whatever there is to say is said within a bounded time; what somebody may wait for is said at once
when it is over.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from pilotage.protocol.sends import FOREVER

Flow = TypeVar("Flow")

FlowId = tuple[int, int]
"""The originator's life and its number for the flow."""

WITHIN_S = 0.01
UNWATCHED_WITHIN_S = 0.025
"""What QUIC allows by itself (`max_ack_delay`, RFC 9000, 18.2)."""

TOGETHER_S = 0.005
"""What is due within this time is said together; not more of it, for whoever passes it on has others to serve."""

UNTOLD_MOST = 64
"""Ends of a flow for which nobody can ask, and that are told together at most."""


class News(Generic[Flow]):
    """Flows of which there is something to say.

    Args:
        within_s: how long we may take to say that a message was received, if it isn't over by then.
        unwatched_within_s: how long we may take to say how messages stand for which nobody can ask.

    Attributes:
        hurries: something is to be said at once.
        flows: of which something is to be said soon.
        due: when something is to be said at the latest.
        unwatched: of which something is to be said in a while, and since when; of no others is there anything to say.
    """

    def __init__(self, within_s: float = WITHIN_S, unwatched_within_s: float = UNWATCHED_WITHIN_S) -> None:
        self.hurries = False
        self._within_s = within_s
        self._unwatched_within_s = unwatched_within_s
        self.flows: dict[FlowId, Flow] = {}
        self.due = self._due = FOREVER
        self.unwatched: dict[FlowId, tuple[Flow, float]] = {}

    def _set_due(self) -> None:
        """Note when something is to be said, now that something else is."""
        self.due = min(self._due, self._unwatched_due) if self.unwatched else self._due

    @property
    def _unwatched_due(self) -> float:
        """When the one that waits longest has waited long enough."""
        _, since = next(iter(self.unwatched.values()))
        return since + self._unwatched_within_s

    def add(self, key: FlowId, flow: Flow, now: float) -> None:
        """Have it said soon how a flow stands."""
        if not self.flows:
            self._due = now + self._within_s
            self.due = min(self.due, self._due)
        self.flows[key] = flow
        if key in self.unwatched:
            del self.unwatched[key]
            self._set_due()

    def add_unwatched(self, key: FlowId, flow: Flow, since: float) -> None:
        """Have it said in a while how a flow stands, for nobody can ask for what has changed in it since then."""
        if key not in self.flows and key not in self.unwatched:
            if not self.unwatched:
                self.due = min(self._due, since + self._unwatched_within_s)
            self.unwatched[key] = flow, since

    def forget(self, key: FlowId) -> None:
        """Say nothing of a flow."""
        self.flows.pop(key, None)
        self.unwatched.pop(key, None)
        if not self.flows:
            self._due = FOREVER
        self._set_due()

    def hurry(self) -> None:
        """Have all of it said at once."""
        self._hurry(FOREVER)

    def _hurry(self, until: float) -> None:
        """Have that said at once which has waited since then, or for longer, and all that is to be said soon."""
        self.hurries = True
        for key, (flow, since) in list(self.unwatched.items()):
            if since > until:
                return
            self.flows[key] = flow
            del self.unwatched[key]

    def take(self, now: float, *, goes_anyway: bool) -> list[Flow]:
        """Give the flows of which something is to be said now.

        Args:
            now: the time.
            goes_anyway: something else goes out now, and what is to be said soon may go with it.
        """
        if self.unwatched and now >= self._unwatched_due:
            self._hurry(now - self._unwatched_within_s + TOGETHER_S)
        if not (self.hurries or goes_anyway or now >= self._due):
            return []
        said, self.flows = list(self.flows.values()), {}
        self.hurries, self._due = False, FOREVER
        self._set_due()
        return said
