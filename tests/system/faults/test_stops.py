"""SIGSTOP of each process: it stands still for a while, as under a debugger or on a machine that is short of memory."""

from __future__ import annotations

import random
import time

import pytest

from tests.system.faults.conftest import seeded
from tests.system.faults.rig import Plan, Rig

pytestmark = [pytest.mark.only_on("linux", "darwin"), pytest.mark.timeout(180)]

PLAN = Plan(pilots=["rig_a"], children={"kid": "rig_a"})
TARGETS = [("rig_a", "station"), ("rig_a", "agent"), ("terminal", "station"), ("terminal", "agent")]


def stand_still(rig: Rig, name: str, which: str, seconds: float, seed: int, chance: random.Random) -> None:
    rig.begin(stream_hz=20.0)
    moment_s = chance.uniform(0, 1)
    time.sleep(moment_s)
    agent = rig.agents[name]
    pids = agent.freeze(which)
    time.sleep(seconds)
    agent.thaw(pids)
    rig.wait_well()
    rig.wait_more_rows()
    rig.finish_and_check(
        f"{name}'s {which} stood still for {seconds:g} s after {moment_s:.3f} s, seed {seed}"
    )


@seeded(fast=1, slow=1)
@pytest.mark.parametrize(("name", "which"), TARGETS)
def test_standing_still_loses_and_doubles_nothing(
    rig: Rig, name: str, which: str, seed: int, chance: random.Random
) -> None:
    stand_still(rig, name, which, 2.0, seed, chance)


@pytest.mark.slow
@seeded(fast=2, slow=2)
@pytest.mark.parametrize(("name", "which"), [*TARGETS, ("rig_a", "both"), ("terminal", "both")])
def test_standing_still_for_long_loses_and_doubles_nothing(
    rig: Rig, name: str, which: str, seed: int, chance: random.Random
) -> None:
    """For 30 s: by then its neighbours call it gone."""
    stand_still(rig, name, which, 30.0, seed, chance)
