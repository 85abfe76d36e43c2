"""The queue before the disk."""

from __future__ import annotations

from pilotage.services.store import Event
from pilotage.services.store.intake import Intake
from pilotage.services.store.packing import Group, Job


def jobs(*sizes: int) -> list[Job]:
    group = Group(len(sizes), lambda ends: None)
    return [Job(Event("rig", str(at), {}), group, at, size=size) for at, size in enumerate(sizes)]


def test_all_is_taken_in_order_within_both_bounds() -> None:
    intake, waiting = Intake(100, 10_000), jobs(10, 20, 30, 500, 40)
    intake.put(waiting, 0)
    assert intake.take(2, 1000) == waiting[:2]
    assert intake.take(10, 100) == waiting[2:3]
    assert intake.take(10, 100) == waiting[3:4]  # alone it may be larger
    assert intake.depth() == (1, 600)
    intake.release(waiting[:4])
    assert intake.take(10, 100) == waiting[4:]
    assert intake.depth() == (0, 40)


def test_nothing_is_taken_where_nothing_waits_however_much_is_being_written() -> None:
    intake = Intake(100, 10_000)
    intake.put(jobs(500), 0)
    assert len(intake.take(10, 1000)) == 1
    assert intake.take(10, 100, timeout_s=0) == []
    intake.close()
    assert intake.take(10, 100) == []
