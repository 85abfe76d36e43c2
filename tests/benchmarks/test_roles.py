from __future__ import annotations

import numpy as np
import pytest
from benchmarks.modes import CHUNK_BYTES, FRAME_BYTES, MODES
from benchmarks.peers.bulk import Arrays, BulkArrivals
from benchmarks.peers.common import figures_of
from benchmarks.peers.roles import LANE_SHIFT, Arrivals, Pipeline, Schedule


def test_arrivals_see_doubles_and_disorder() -> None:
    arrivals = Arrivals()
    for n in (0, 1, 3, 2, 2):
        arrivals.note(n)
    assert arrivals.report() == {"received": 5, "duplicates": 1, "out_of_order": 1, "corrupt": 0}
    assert arrivals.report() == {"received": 0, "duplicates": 0, "out_of_order": 0, "corrupt": 0}


def test_order_is_looked_at_for_each_sender() -> None:
    arrivals = Arrivals()
    for n in (5 << LANE_SHIFT, 1, (5 << LANE_SHIFT) + 1, 2):
        arrivals.note(n)
    assert arrivals.report()["out_of_order"] == 0


@pytest.mark.parametrize("size", [CHUNK_BYTES, FRAME_BYTES])
def test_a_damaged_array_is_seen(size: int) -> None:
    arrivals, arrays = BulkArrivals(), Arrays(size)
    arrivals.note_array(3, arrays[3])
    arrivals.note_array(4, memoryview(arrays[4]))
    assert arrivals.report()["corrupt"] == 0
    bad = arrays[5].copy()
    bad[size // 2] ^= 1
    arrivals.note_array(5, bad)
    arrivals.note_array(6, arrays[7])  # somebody else's
    arrivals.note_array(7, arrays[7][:-8])  # cut off
    assert arrivals.report()["corrupt"] == 3


def test_arrays_are_alike_at_both_ends_and_differ_from_each_other() -> None:
    first, second = Arrays(CHUNK_BYTES), Arrays(CHUNK_BYTES)
    assert np.array_equal(first[1], second[1])
    assert not np.array_equal(first[1], first[2])


def test_a_schedule_gives_every_sender_its_share_and_takes_each_confirmation_once() -> None:
    schedule = Schedule(0.05, 100, senders=5, hz=200)
    sent = []
    while schedule.is_on:
        sent += list(schedule.due())
    assert [lane for lane, _ in sent] == [n % 5 for n in range(50)]
    for _, n in sent[1:]:
        schedule.confirm(n)
        schedule.confirm(n)
    result = schedule.result()
    assert (result["wanted"], result["sent"], result["confirmed"]) == (50, 50, 49)
    assert figures_of(result, MODES["fanin"])["delivered_pct"] == 98.0


def test_what_was_counted_in_the_end_is_confirmed_and_latency_is_of_what_was_told() -> None:
    schedule = Schedule(0.05, 0, senders=5, hz=200)
    sent = []
    while schedule.is_on:
        sent += list(schedule.due())
    schedule.confirm(sent[0][1])
    schedule.count(30)
    schedule.count(20)
    assert schedule.is_waiting, "20 of 50 are missing"
    result = schedule.result()
    assert (result["confirmed"], len(result["latency_us"])) == (30, 1)
    schedule.count(50)
    assert not schedule.is_waiting


def test_what_could_not_be_sent_in_time_is_not_delivered() -> None:
    schedule = Schedule(0.0, 0, senders=10, hz=100)
    schedule.wanted = 10
    assert figures_of(schedule.result(), MODES["fanin"])["delivered_pct"] == 0.0


def test_a_pipeline_counts_what_is_confirmed_late_but_not_as_in_time() -> None:
    waiting: list[int] = []
    flushed: list[bool] = []

    def collect(timeout_s: float) -> int:
        if not flushed:
            return len([waiting.pop() for _ in range(len(waiting) - 3)])
        return len([waiting.pop() for _ in range(len(waiting))])

    pipeline = Pipeline(waiting.append, collect, window=8, flush=lambda: flushed.append(True))
    result = pipeline.run(0.02, 0)
    assert result["confirmed"] == result["sent"]
    assert result["in_time"] == result["sent"] - 3


def test_a_paced_pipeline_keeps_its_rate() -> None:
    sent: list[int] = []
    pipeline = Pipeline(sent.append, lambda timeout_s: 0, window=1000, hz=500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.peers.roles.GRACE_S", 0.0)
        assert pipeline.run(0.1, 0)["sent"] in range(40, 52)
