"""The states of a pilot, and the only steps between them (promise L2).

Pure: no clock, no thread, no I/O. A final state (IDLE, ERROR) is reached from STOPPING alone, so that
nobody can report the end of a task that still runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from pilotage.protocol.errors import TaskError


class State(StrEnum):
    """What a pilot does; the value is what STATE carries on the wire."""

    IDLE = "IDLE"
    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    STOPPING = "STOPPING"
    ERROR = "ERROR"
    INTERRUPTED = "INTERRUPTED"


STEPS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.IDLE: frozenset({State.PREPARING, State.INTERRUPTED}),
        State.PREPARING: frozenset({State.RUNNING, State.STOPPING, State.INTERRUPTED}),
        State.RUNNING: frozenset({State.PAUSED, State.STOPPING, State.INTERRUPTED}),
        State.PAUSED: frozenset({State.RUNNING, State.STOPPING, State.INTERRUPTED}),
        State.STOPPING: frozenset({State.IDLE, State.ERROR, State.INTERRUPTED}),
        State.ERROR: frozenset({State.PREPARING, State.IDLE}),
        State.INTERRUPTED: frozenset({State.PREPARING, State.IDLE}),
    }
)
STARTABLE = frozenset(state for state, steps in STEPS.items() if State.PREPARING in steps)


def move(state: State, to: State) -> State:
    """Return ``to`` if the table allows the step from ``state``.

    Args:
        state: the state now.
        to: the state wanted next.

    Returns:
        ``to``, so that a caller writes ``self.state = move(self.state, State.RUNNING)``.

    Raises:
        TaskError: the table has no such step.
    """
    if to not in STEPS[state]:
        allowed = ", ".join(sorted(STEPS[state]))
        raise TaskError(f"a pilot can't go from {state} to {to}; from {state} it can go to: {allowed}")
    return to
