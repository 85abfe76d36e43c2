"""The table of states."""

from __future__ import annotations

import itertools

import pytest

from pilotage.agents.states import STEPS, State, move
from pilotage.protocol.errors import TaskError


@pytest.mark.parametrize(("here", "there"), list(itertools.product(State, State)))
def test_only_the_steps_of_the_table_are_taken(here: State, there: State) -> None:
    if there in STEPS[here]:
        assert move(here, there) is there
    else:
        with pytest.raises(TaskError, match=f"from {here} to {there}"):
            move(here, there)


def test_a_task_ends_through_stopping_alone() -> None:
    for final in (State.IDLE, State.ERROR):
        busy = [state for state in (State.PREPARING, State.RUNNING) if final in STEPS[state]]
        assert busy == []


def test_every_state_is_reached_and_left() -> None:
    assert set().union(*STEPS.values()) == set(State)
    assert all(STEPS[state] for state in State)
