"""Assignment: one order that a pilot carries out, and what belongs to it alone: whose data it makes, where they go."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from pilotage.agents.account import Account
from pilotage.agents.start import TaskStart
from pilotage.agents.states import State
from pilotage.net.streams import Stream


@dataclass(slots=True, eq=False)
class Assignment:
    """An order that was taken, from then until its end is told.

    Attributes:
        start: the order.
        account: what was sent for its session.
        streams: those that it has opened, by name.
        begun: set when it runs, or has failed to.
        state: the last state of its task.
        error: what went wrong in its task.
    """

    start: TaskStart
    account: Account
    streams: dict[str, Stream] = field(default_factory=dict)
    begun: threading.Event = field(default_factory=threading.Event)
    state: State = State.PREPARING
    error: str = ""

    @property
    def session(self) -> str:
        """The session to which its data belong."""
        return self.start.session_name
