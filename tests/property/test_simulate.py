"""Seeded scenes keep the promises, are the same each time, and can see a broken rule."""

from __future__ import annotations

import pytest

from pilotage.protocol.inbox import Inbox
from pilotage.testing import simulate
from pilotage.testing.invariants import violations
from pilotage.testing.scenes import play


def test_seeds_keep_the_promises(capsys):
    assert simulate.main(["--seeds", "60"]) == 0, capsys.readouterr().out
    assert "60 seeds" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_seeds_keep_the_promises(capsys):
    assert simulate.main(["--seeds", "2000", "--start", "100000"]) == 0, capsys.readouterr().out


def test_a_seed_is_the_same_world_each_time():
    one, other = play(5, tracing=True), play(5, tracing=True)
    assert one.recorder.trace == other.recorder.trace and len(one.recorder.trace) > 100


def test_a_broken_order_is_seen_with_its_seed_and_trace(monkeypatch, capsys):
    def hold(_inbox, flow, parcel, ready):
        flow.beyond[parcel.seq] = None
        ready.append(parcel)

    monkeypatch.setattr(Inbox, "_hold", hold)
    assert simulate.main(["--seeds", "20", "--trace"]) == 1
    said = capsys.readouterr().out
    assert "D4: " in said and "seed " in said and " handles " in said


def test_a_broken_memory_is_seen(monkeypatch):
    arrived = Inbox.arrived

    def forgetful(self, parcel):
        self._flows.pop((parcel.boot, parcel.flow), None)
        return arrived(self, parcel)

    monkeypatch.setattr(Inbox, "arrived", forgetful)
    broken = [text for seed in range(4) for text in violations(play(seed))]
    assert any(text.startswith("D2: ") for text in broken)
