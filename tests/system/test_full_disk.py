"""A full disk, at the Terminal and at a pilot: reported by name, and nothing is refused or lost (promise B4)."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pilotage.agents.pilot import Pilot
from pilotage.agents.task import Task
from pilotage.agents.terminal import Terminal
from pilotage.app.archive import FolderArchives
from pilotage.app.operator import Operator
from pilotage.protocol.errors import PilotageError
from pilotage.services.store import SessionReader
from tests.cli.processes import run_cli, write_prefs
from tests.system.lab import (
    GoesOn,
    Tick,
    folders_of_the_preferences,
    numbers,
    settings,
    start_terminal,
    wait_for,
)

NAME = "rig"


__all__ = ["folders_of_the_preferences"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the room that is left."""
    filling = folder / "filling"
    with filling.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    return filling


@pytest.mark.only_on("linux")
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounts a file system")
def test_data_that_come_while_the_terminals_disk_is_full_are_stored_when_there_is_room(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotage.agents.pilot.find_task", lambda name: Tick)
    terminal, port = start_terminal(tmp_path / "t", DATADIR=str(small_disk))
    prefs = write_prefs(tmp_path / "o", PUSHPORT=port)
    try:
        with (
            Pilot(settings(tmp_path / "p", NAME=NAME, PUSHPORT=port, MSGPORT=0)) as pilot,
            Operator(settings(tmp_path, PUSHPORT=port), 10.0) as operator,
        ):
            terminal.wait_event(lambda event: event.get("name") == NAME and event["state"] == "IDLE")
            folder = Path(operator.start(NAME, "tick", {}, subject="mouse")["place"])
            wait_for(lambda: len(numbers(folder)) > 10)
            filling = fill(small_disk)
            begun = terminal.wait_event(lambda event: event["event"] == "disk")
            assert not begun["is_over"] and begun["place"] == str(folder)
            at = pilot.runner.current_trial
            wait_for(lambda: pilot.runner.current_trial > at + 50)

            assert list(operator.status()["troubles"]) == [str(folder)]
            told = run_cli("ls", prefs=prefs)
            assert f"the disk refuses what comes for {folder}" in told.stderr, told
            stored = len(numbers(folder))
            assert stored < at + 50
            filling.unlink()
            over = terminal.wait_event(lambda event: event["event"] == "disk" and event["is_over"])
            assert over["place"] == str(folder)
            wait_for(lambda: len(numbers(folder)) > at + 50)
            assert operator.status()["troubles"] == {}
            operator.stop(NAME)
            certificate = operator.end()
            assert certificate["complete"], certificate
            assert numbers(folder) == list(range(pilot.runner.current_trial)), "each row once, in order"
            assert pilot.node.statistics().settled["refused"] == 0
            with SessionReader(folder) as reader:
                assert any(key.startswith("disk:") for key in reader.provenance())
    finally:
        terminal.close()


@dataclass(frozen=True)
class Told:
    """What a journal tells of its disk."""

    file: str
    text: str
    is_over: bool


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with Terminal(FolderArchives(tmp_path / "t" / "data"), settings(tmp_path / "t", PUSHPORT=0)) as terminal:
        yield terminal


def pilot_that_runs(
    task: type[Task], folder: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> Pilot:
    monkeypatch.setattr("pilotage.agents.pilot.find_task", lambda name: task)
    pilot = Pilot(settings(folder, NAME=NAME, PUSHPORT=terminal.port, MSGPORT=0))
    terminal.roster.wait_state(NAME, ["IDLE"], 15)
    terminal.start(NAME, "tick", subject="mouse")
    return pilot


def end_complete(terminal: Terminal) -> None:
    certificate = terminal.end_session()
    assert certificate["complete"], certificate


def lamp(pilot: Pilot) -> float:
    return float((pilot.settings.datadir / "outputs" / "lamp").read_text() or 0)


def disk_events(folder: Path) -> list[dict[str, object]]:
    with SessionReader(folder) as reader:
        events = reader.events()
    return [
        dict(values) for name, values in zip(events.name, events["values"], strict=True) if name == "disk"
    ]


def test_a_task_pauses_while_its_pilots_disk_is_full(
    tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pilot_that_runs(Tick, tmp_path / "p", terminal, monkeypatch) as pilot:
        folder = Path(terminal.sessions.look(terminal.sessions.current)[0])
        wait_for(lambda: len(numbers(folder)) > 5)
        pilot.on_journal(Told("journal.sqlite", "No space left on device", is_over=False))
        pilot.on_journal(Told("journal.sqlite", "No space left on device", is_over=False))
        terminal.roster.wait_state(NAME, ["PAUSED"], 10)
        known = terminal.roster.snapshot()[NAME]
        assert known["reason"] == "paused: No space left on device"
        wait_for(lambda: terminal.roster.snapshot()[NAME]["trouble"] == "No space left on device")
        wait_for(lambda: lamp(pilot) == 0, told=lambda: "the lamp is still lit")
        at, items = pilot.runner.current_trial, dict(pilot.runner.statistics().items)
        assert not threading.Event().wait(0.3)
        assert pilot.runner.current_trial == at, "no stage begins"
        assert dict(pilot.runner.statistics().items) == items, "no source is asked for more"
        assert lamp(pilot) == 0

        pilot.on_journal(Told("journal.sqlite", "can be written", is_over=True))
        terminal.roster.wait_state(NAME, ["RUNNING"], 10)
        wait_for(lambda: pilot.runner.current_trial > at + 5)
        wait_for(lambda: lamp(pilot) == 1)
        wait_for(lambda: terminal.roster.snapshot()[NAME]["trouble"] == "")
        terminal.stop(NAME)
        begun, over = wait_for(lambda: (found := disk_events(folder))[1:] and found)
        assert (begun["is_over"], over["is_over"]) == (False, True)
        end_complete(terminal)


def test_a_paused_task_can_be_stopped_and_one_started_then_pauses_at_once(
    tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pilot_that_runs(Tick, tmp_path / "p", terminal, monkeypatch) as pilot:
        pilot.on_journal(Told("journal.sqlite", "full", is_over=False))
        terminal.roster.wait_state(NAME, ["PAUSED"], 10)
        terminal.stop(NAME)
        assert terminal.roster.snapshot()[NAME]["state"] == "IDLE"
        assert lamp(pilot) == 0
        terminal.start(NAME, "tick", subject="mouse")
        terminal.roster.wait_state(NAME, ["PAUSED"], 10)
        at = pilot.runner.current_trial
        pilot.on_journal(Told("journal.sqlite", "", is_over=True))
        wait_for(lambda: pilot.runner.current_trial > at)
        terminal.stop(NAME)
        end_complete(terminal)


def test_a_task_that_is_to_go_on_does_and_what_was_not_kept_is_counted(
    tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pilot_that_runs(GoesOn, tmp_path / "p", terminal, monkeypatch) as pilot:
        folder = Path(terminal.sessions.look(terminal.sessions.current)[0])
        at = pilot.runner.current_trial
        pilot.on_journal(Told("journal.sqlite", "full", is_over=False))
        wait_for(lambda: pilot.runner.current_trial > at + 10)
        assert terminal.roster.snapshot()[NAME]["state"] == "RUNNING"
        pilot.on_journal(Told("journal.sqlite", "", is_over=True))
        _, over = wait_for(lambda: (found := disk_events(folder))[1:] and found)
        assert int(str(over["rows"])) >= 10
        first, last = json.loads(json.dumps(over["trials"]))
        assert at <= first < last
        assert f"{over['rows']} rows" in str(over["text"])
        terminal.stop(NAME)
        end_complete(terminal)


def test_a_refused_start_leaves_no_folder_and_what_was_current_is_so_again(
    tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pilot_that_runs(Tick, tmp_path / "p", terminal, monkeypatch):
        current = terminal.sessions.current
        with pytest.raises(PilotageError, match="already"):
            terminal.start(NAME, "tick", subject="mouse", session="for_nothing")
        assert terminal.sessions.names() == [current] == terminal.sessions.opened()
        assert terminal.sessions.current == current
        assert not (tmp_path / "t" / "data" / "for_nothing").exists()
        terminal.stop(NAME)
        end_complete(terminal)
        with pytest.raises(PilotageError):
            terminal.start(NAME, "tick", {"no_such": 1}, subject="mouse")
        assert terminal.sessions.names() == [current]
        assert terminal.sessions.current == ""
