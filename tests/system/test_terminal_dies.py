"""A task outlives its Terminal: the pilot goes on, and what it sent meanwhile is in the session in the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotage.agents.pilot import Pilot
from pilotage.app.operator import Operator
from tests.cli.processes import AgentProcess, run_cli, write_prefs
from tests.system.lab import (
    Tick,
    folders_of_the_preferences,
    numbers,
    settings,
    start_terminal,
    wait_for,
)

MEANWHILE = 40


__all__ = ["folders_of_the_preferences"]


@pytest.fixture
def first(tmp_path: Path) -> Iterator[tuple[AgentProcess, int]]:
    terminal, port = start_terminal(tmp_path / "t")
    yield terminal, port
    terminal.close()


@pytest.fixture
def pilot(
    tmp_path: Path, first: tuple[AgentProcess, int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pilot]:
    monkeypatch.setattr("pilotage.agents.pilot.find_task", lambda name: Tick)
    known = settings(tmp_path / "p", NAME="rig", PUSHPORT=first[1], MSGPORT=0, PING_INTERVAL=1)
    with Pilot(known) as pilot:
        first[0].wait_event(lambda event: event.get("name") == "rig" and event["state"] == "IDLE")
        yield pilot


def ask(port: int) -> Operator:
    return Operator(settings(Path("unused"), PUSHPORT=port), 10.0)


def begin(port: int) -> Path:
    with ask(port) as operator:
        begun = operator.start("rig", "tick", {}, subject="mouse")
    folder = Path(begun["place"])
    wait_for(lambda: len(numbers(folder)) > 10)
    return folder


def end_and_check(port: int, folder: Path, pilot: Pilot) -> dict[str, Any]:
    """Stop and end, and compare what is stored with what the pilot says that it counted."""
    with ask(port) as operator:
        operator.stop("rig")
        certificate = operator.end()
    assert certificate["session"] == folder.name
    assert certificate["complete"], certificate
    stored = numbers(folder)
    assert sorted(stored) == list(range(pilot.runner.current_trial)), "each row is there once"
    assert stored == sorted(stored)
    return certificate


def test_a_session_goes_on_when_its_terminal_comes_back(
    tmp_path: Path, first: tuple[AgentProcess, int], pilot: Pilot
) -> None:
    terminal, port = first
    folder = begin(port)
    terminal.process.kill()
    terminal.process.wait(10)
    at = pilot.runner.current_trial
    wait_for(lambda: pilot.runner.current_trial > at + MEANWHILE)
    assert str(pilot.runner.state) == "RUNNING"

    again, _ = start_terminal(tmp_path / "t", port)
    try:
        with ask(port) as operator:
            known = operator.status()
        assert (known["current"], known["open"]) == (folder.name, [folder.name])
        wait_for(lambda: len(numbers(folder)) >= at + MEANWHILE)
        status = run_cli(
            "status", "--json", prefs=write_prefs(tmp_path / "o", PUSHPORT=port, DATADIR=str(folder.parent))
        )
        assert json.loads(status.stdout)["session"] == folder.name, status.stderr
        end_and_check(port, folder, pilot)
        with ask(port) as operator:
            assert operator.status()["open"] == []
    finally:
        again.close()

    third, _ = start_terminal(tmp_path / "t", port)
    try:
        with ask(port) as operator:
            assert operator.status()["open"] == [], "what was ended stays ended"
    finally:
        third.close()


def test_a_session_goes_on_at_a_terminal_that_was_given_its_folder(
    tmp_path: Path, first: tuple[AgentProcess, int], pilot: Pilot
) -> None:
    terminal, port = first
    folder = begin(port)
    terminal.process.kill()
    terminal.process.wait(10)
    at = pilot.runner.current_trial

    elsewhere = tmp_path / "other" / "data" / folder.name
    shutil.copytree(folder, elsewhere)
    shutil.rmtree(tmp_path / "t")
    again, _ = start_terminal(tmp_path / "other", port)
    try:
        again.wait_event(lambda event: event.get("name") == "rig" and event["state"] == "RUNNING")
        again.wait_event(lambda event: event.get("name") == "rig" and event["ip"] != "")
        wait_for(lambda: len(numbers(elsewhere)) >= at)
        end_and_check(port, elsewhere, pilot)
    finally:
        again.close()
