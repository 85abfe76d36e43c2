"""kill -9 of each process of the tree, at random moments under load: each row is stored once, and it is certified."""

from __future__ import annotations

import random
import time

import pytest

from tests.system.faults.conftest import seeded
from tests.system.faults.rig import Plan, Rig

pytestmark = [pytest.mark.only_on("linux", "darwin"), pytest.mark.timeout(180)]

PLAN = Plan(pilots=["rig_a"], children={"kid": "rig_a"})
TARGETS = ["rig_a station", "rig_a", "terminal station", "terminal"]
MAX_WAIT_S = 1.5
# A killed pilot's stream isn't kept by it (its rows are), so that its load has none.
STREAM_HZ = {"rig_a": 0.0}


@seeded()
@pytest.mark.parametrize("target", TARGETS)
def test_a_kill_loses_and_doubles_nothing(rig: Rig, target: str, seed: int, chance: random.Random) -> None:
    rig.begin(stream_hz=STREAM_HZ.get(target, 20.0))
    moment_s = chance.uniform(0, MAX_WAIT_S)
    time.sleep(moment_s)
    rig.strike(target)
    rig.wait_well()
    rig.wait_more_rows()
    rig.finish_and_check(f"{target} killed after {moment_s:.3f} s, seed {seed}")


@seeded(fast=1, slow=5)
def test_kills_in_a_row_lose_and_double_nothing(rig: Rig, seed: int, chance: random.Random) -> None:
    """One kill after the other, the next one perhaps before the tree has mended the last."""
    rig.begin()
    targets = chance.sample(TARGETS, len(TARGETS))
    for target in targets:
        time.sleep(chance.uniform(0, 0.5))
        rig.strike(target)
    rig.wait_well()
    rig.wait_more_rows()
    rig.finish_and_check(f"killed {', '.join(targets)}, seed {seed}")


@seeded(fast=1, slow=3)
def test_a_terminal_that_is_away_is_caught_up_with(rig: Rig, seed: int, chance: random.Random) -> None:
    """Nobody listens for some seconds: pilots go on, and what they sent meanwhile comes later."""
    rig.begin(stream_hz=20.0)
    rig.kill("terminal")
    away_s = chance.uniform(1, 4)
    time.sleep(away_s)
    rig.start_again("terminal")
    rig.wait_well()
    rig.wait_more_rows()
    audit = rig.finish_and_check(f"the Terminal was away for {away_s:.1f} s, seed {seed}")
    assert audit.rows > 2 * 50 * away_s / 2, "pilots stood still while the Terminal was away"
