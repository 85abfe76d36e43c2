"""Seeded scenes keep the promises, are the same each time, and can see a broken rule."""

from __future__ import annotations

import pytest

from pilotage.testing import simulate
from pilotage.testing.scenes import play


def test_seeds_keep_the_promises(capsys):
    assert simulate.main(["--seeds", "500"]) == 0, capsys.readouterr().out
    assert "500 seeds" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_seeds_keep_the_promises(capsys):
    assert simulate.main(["--seeds", "2000", "--start", "100000"]) == 0, capsys.readouterr().out


def test_a_seed_is_the_same_world_each_time():
    one, other = play(5, tracing=True), play(5, tracing=True)
    assert one.recorder.trace == other.recorder.trace and len(one.recorder.trace) > 100


@pytest.mark.parametrize(("rule", "promise"), [("dedup", "D2: "), ("order", "D4: "), ("sync", "D6: ")])
def test_a_broken_rule_is_seen_with_its_seed_and_trace(rule, promise, capsys):
    assert simulate.main(["--seeds", "300", "--without", rule, "--trace"]) == 1
    said = capsys.readouterr().out
    assert promise in said and "seed " in said and "number" in said
    assert rule != "order" or " handles " in said
