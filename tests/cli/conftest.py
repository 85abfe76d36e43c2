"""A Terminal and a pilot, each in a process of its own, for all tests of one module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.processes import AgentProcess, write_prefs


@dataclass
class Lab:
    """A Terminal, its pilot `rig_b`, and the preferences by which commands reach the Terminal."""

    folder: Path
    prefs: Path
    terminal: AgentProcess
    pilot: AgentProcess


def open_lab(folder: Path) -> Lab:
    terminal = AgentProcess("terminal", prefs=write_prefs(folder / "T", PUSHPORT=0))
    port = terminal.wait_port()
    pilot = AgentProcess("pilot", "--name", "rig_b", prefs=write_prefs(folder / "rig_b", PUSHPORT=port))
    lines = "".join(f"{number / 10}\n" for number in range(1000))
    (folder / "rig_b" / "sounds" / "ramp.csv").write_text(lines)
    prefs = write_prefs(folder / "operator", PUSHPORT=port, DATADIR=str(folder / "T" / "data"))
    terminal.wait_event(lambda event: event.get("name") == "rig_b" and event["state"] == "IDLE")
    return Lab(folder, prefs, terminal, pilot)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    opened = open_lab(tmp_path_factory.mktemp("lab"))
    yield opened
    opened.pilot.close()
    opened.terminal.close()
