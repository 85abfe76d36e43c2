"""What the tests of survival share: preferences in a folder, a Terminal's process, and a task that counts."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from pilotage.agents.outputs import Output
from pilotage.agents.task import Item, Task, TaskParams, TrialRow, source
from pilotage.net.pref_keys import Prefs
from pilotage.net.prefs import Preferences
from tests.cli.processes import AgentProcess, write_prefs

TICK_S = 0.02


@pytest.fixture(autouse=True)
def folders_of_the_preferences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes take DATADIR from their preferences' file, which the environment would outdo."""
    monkeypatch.delenv("PILOTAGE_DATADIR", raising=False)


def settings(folder: Path, **known: object) -> Prefs:
    """Make preferences whose folders all lie in `folder`."""
    prefs = Preferences(environ={}, file=None)
    places = {"SOUNDDIR": folder / "sounds", "DATADIR": folder / "data", "PILOT_DB": folder / "pilots.json"}
    places["KEYDIR"] = folder / "keys"
    for key, value in {**places, **known}.items():
        prefs.set(key, str(value) if isinstance(value, Path) else value)
    return prefs.snapshot()


class TickTrial(TrialRow):
    number: int


class Tick(Task[TaskParams]):
    """Counts: a row for each trial, an item in a stream, a lamp that is lit in each stage and between stages."""

    TrialData = TickTrial
    stage_methods = ("tick",)
    declared_outputs: ClassVar = {"lamp": Output("file", "lamp", safe=0)}

    def tick(self) -> dict[str, Any]:
        self.outputs["lamp"].set(1)
        self.wait(TICK_S)
        return {"number": self.trial_num, "TRIAL_END": True}

    @source("count")
    def count(self) -> Iterator[Item]:
        number = 0
        while True:
            self.wait(TICK_S)
            yield {"timestamp": self.wall_time(), "count": number}
            number += 1


class GoesOn(Tick):
    """The same, but a full disk doesn't make it pause."""

    on_disk_full = "go on"


def start_terminal(folder: Path, port: int = 0, **prefs: Any) -> tuple[AgentProcess, int]:
    """Start a Terminal's process; give it, and its port."""
    terminal = AgentProcess("terminal", prefs=write_prefs(folder, PUSHPORT=port, **prefs))
    return terminal, terminal.wait_port()


def numbers(session: Path) -> list[int]:
    """Give the trials' numbers that a session holds, as its messages came."""
    with sqlite3.connect(f"file:{session / 'session.sqlite'}?mode=ro", uri=True) as connection:
        found = connection.execute("SELECT trial_num FROM data_messages ORDER BY id").fetchall()
    connection.close()
    return [number for (number,) in found]


def wait_for(condition: Any, timeout_s: float = 30.0, told: Any = lambda: "") -> Any:
    """Wait for a condition, and say at the end what was told instead."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s; {told()}"
        time.sleep(0.02)
    return found


def declare_tick(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pilots' processes find the task `tick`, as they find those of an installed package."""
    place = folder / "packages" / "lab_tick-1.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-tick\nVersion: 1\n")
    (place / "entry_points.txt").write_text(f"[pilotage.tasks]\ntick = {__name__}:Tick\n")
    monkeypatch.setenv("PYTHONPATH", f"{place.parent}{os.pathsep}{Path(__file__).parents[2]}")


def start_pilot(folder: Path, name: str, port: int, **prefs: Any) -> AgentProcess:
    """Start a pilot's process and wait until it listens."""
    pilot = AgentProcess("pilot", "--name", name, prefs=write_prefs(folder, PUSHPORT=port, **prefs))
    pilot.wait_port()
    return pilot


def station_of(agent: AgentProcess) -> psutil.Process:
    """Give an agent's station: the one of its children that multiprocessing has started."""
    children = psutil.Process(agent.process.pid).children()
    found = [child for child in children if "pilotage.agents.watchdog" not in child.cmdline()]
    stations = [child for child in found if "resource_tracker" not in " ".join(child.cmdline())]
    assert len(stations) == 1, [child.cmdline() for child in children]
    return stations[0]
