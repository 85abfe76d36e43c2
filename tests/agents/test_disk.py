"""Troubles of disks: when a pilot is told to pause, and when to go on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pilotage.agents.disk import DiskTrouble, DiskWatch
from pilotage.transport.journal import Entry, Journal, JournalRules
from tests.conftest import wait_eventually


@dataclass(frozen=True)
class Told:
    """A trouble, or its end."""

    text: str
    is_over: bool = False
    file: str = "journal"


def watched() -> tuple[DiskWatch, list[str]]:
    told: list[str] = []
    return DiskWatch(
        lambda reason: told.append("pause"), lambda: told.append("resume"), lambda *_: None
    ), told


def test_a_trouble_that_is_told_twice_ends_once() -> None:
    watch, told = watched()
    for _ in range(2):
        watch.note(Told("No space left on device"))
    watch.note(Told("", is_over=True))
    assert told == ["pause", "resume"]


def test_troubles_of_one_file_that_overlap_end_when_both_have(tmp_path: Path) -> None:
    troubles: list[DiskTrouble] = []
    rules = JournalRules(max_bytes=4000)
    entries = [Entry(1, 1, seq, ("T",), "DATA", (str(seq),), 0, (bytes(1000),), ()) for seq in range(8)]
    with Journal(tmp_path / "j.sqlite", rules, lambda places: None, troubles.append) as journal:
        journal.keep(entries)
        wait_eventually(lambda: troubles)
        journal.drop([(1, 1, seq) for seq in range(8)])
        full, room = wait_eventually(lambda: troubles if len(troubles) == 2 else None)
    watch, told = watched()
    watch.note(full)
    watch.note(Told("the journal can't be written (database or disk is full)", file=full.file))
    watch.note(Told("the journal can be written again", is_over=True, file=full.file))
    assert told == ["pause"], "its bounds are exceeded still"
    watch.note(room)
    assert told == ["pause", "resume"]
