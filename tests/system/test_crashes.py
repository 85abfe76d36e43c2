"""Processes that die by kill -9: who starts again what, what is reported, and that outputs are safe (L3, L4)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pilotage.agents.record import Record
from pilotage.agents.terminal import Terminal
from pilotage.app.archive import FolderArchives
from pilotage.services.store import SessionReader
from tests.cli.processes import AgentProcess
from tests.conftest import is_alive
from tests.system.lab import (
    declare_tick,
    folders_of_the_preferences,
    numbers,
    settings,
    start_pilot,
    station_of,
    wait_for,
)

__all__ = ["folders_of_the_preferences"]

pytestmark = pytest.mark.only_on("linux", "darwin")

NAME = "rig"
EXIT_WITHIN_S = 1.0
BUSY_S = 1.0
"""What a busy machine adds."""


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with Terminal(FolderArchives(tmp_path / "t" / "data"), settings(tmp_path / "t", PUSHPORT=0)) as terminal:
        yield terminal


@pytest.fixture
def pilot(tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentProcess]:
    declare_tick(tmp_path, monkeypatch)
    pilot = start_pilot(tmp_path / "p", NAME, terminal.port)
    terminal.roster.wait_state(NAME, ["IDLE"], 15)
    yield pilot
    pilot.close()


def begin(terminal: Terminal) -> Path:
    folder = Path(terminal.start(NAME, "tick", subject="mouse")["place"])
    wait_more(folder)
    return folder


def wait_more(folder: Path, count: int = 20) -> None:
    wanted = len(numbers(folder)) + count
    wait_for(lambda: len(numbers(folder)) >= wanted, told=lambda: f"{len(numbers(folder))} of {wanted} rows")


def end_and_check(terminal: Terminal, folder: Path) -> None:
    terminal.stop(NAME)
    certificate = terminal.end_session()
    assert certificate["complete"], certificate["differences"]
    stored = numbers(folder)
    assert sorted(stored) == list(range(len(stored))), "each row is there once"


def test_a_pilots_station_that_dies_is_started_again_and_data_go_on(
    tmp_path: Path, terminal: Terminal, pilot: AgentProcess
) -> None:
    folder = begin(terminal)
    port = pilot.wait_port()
    old = station_of(pilot)
    old.kill()
    wait_more(folder, 40)
    new = wait_for(lambda: station_of(pilot) if not old.is_running() else None)
    assert new.pid != old.pid
    assert port in {one.laddr.port for one in new.net_connections() if one.status == psutil.CONN_LISTEN}
    assert pilot.process.poll() is None
    assert terminal.roster.snapshot()[NAME]["state"] == "RUNNING"
    end_and_check(terminal, folder)


def test_the_terminals_station_that_dies_is_started_again_and_data_go_on(
    tmp_path: Path, terminal: Terminal, pilot: AgentProcess
) -> None:
    folder = begin(terminal)
    port = terminal.port
    terminal._keeper.station.kill()
    wait_more(folder, 40)
    assert terminal.port == port
    wait_for(lambda: terminal.roster.snapshot()[NAME]["link"] == "alive")
    end_and_check(terminal, folder)


def test_a_pilot_that_dies_leaves_safe_outputs_and_no_station_and_its_next_life_says_what_was_interrupted(
    tmp_path: Path, terminal: Terminal, pilot: AgentProcess
) -> None:
    folder = begin(terminal)
    lamp = tmp_path / "p" / "data" / "outputs" / "lamp"
    wait_for(lambda: lamp.read_text().strip() in ("1", "1.0"))
    station = station_of(pilot)
    began = time.monotonic()
    pilot.process.kill()
    wait_for(lambda: float(lamp.read_text() or 1) == 0, EXIT_WITHIN_S + BUSY_S)
    gone = wait_for(lambda: not is_alive(station), EXIT_WITHIN_S + BUSY_S)
    assert gone and time.monotonic() - began < EXIT_WITHIN_S + BUSY_S
    wait_for(lambda: terminal.roster.snapshot()[NAME]["link"] == "gone")

    again = start_pilot(tmp_path / "p", NAME, terminal.port)
    try:
        terminal.roster.wait_state(NAME, ["INTERRUPTED"], 15)
        known = terminal.roster.snapshot()[NAME]
        # What it had sent and the Terminal hadn't settled comes out of its journal.
        wait_for(lambda: (stored := numbers(folder)) and sorted(stored) == list(range(max(stored) + 1)))
        event = wait_for(lambda: interruption(folder))
        assert f"interrupted in trial {event['trial']} of session {folder.name}" in known["reason"]
        assert event["task_type"] == "tick" and event["subject"] == "mouse"
        # The very last row may have died before it was on the disk of the outbox; the record has it.
        record = Record(tmp_path / "p" / "data", NAME)
        recorded = [row.trial_num for row in record.rows(folder.name)]
        assert event["trial"] == max(recorded) + 1, "the trial that ran: each row here ends one"
        assert set(numbers(folder)) <= set(recorded)
        assert float(lamp.read_text()) == 0, "nothing runs until it is asked for"
        terminal.start(NAME, "tick", subject="mouse")
        wait_more(folder)
        end_and_check_rows(terminal, folder)
    finally:
        again.close()


def interruption(folder: Path) -> dict[str, object] | None:
    with SessionReader(folder) as reader:
        events = reader.events()
    found = [dict(v) for name, v in zip(events.name, events["values"], strict=True) if name == "interrupted"]
    return found[0] if found else None


def end_and_check_rows(terminal: Terminal, folder: Path) -> None:
    """End, and see that trials go on counting over the crash, each there once."""
    terminal.stop(NAME)
    terminal.end_session()
    stored = numbers(folder)
    assert sorted(set(stored)) == sorted(stored) == list(range(len(stored)))
