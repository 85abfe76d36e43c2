"""Agents end cleanly within two seconds: on Ctrl-C, on SIGTERM, and at the end of standard input."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import open_lab
from tests.cli.processes import AgentProcess, run_cli

WITHIN_S = 2.0
REPLAY = ("replay", "-p", "path=ramp.csv", "-p", "sampling_rate_hz=50", "-p", "loop=true")

posix = pytest.mark.only_on("linux", "darwin")


def interrupt(agent: AgentProcess) -> Callable[[], None]:
    return lambda: agent.process.send_signal(signal.SIGINT)


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_pilot_and_its_terminal_end_on_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    lab = open_lab(tmp_path)
    try:
        assert run_cli("start", "rig_b", *REPLAY, prefs=lab.prefs).returncode == 0
        lab.terminal.wait_state("RUNNING")
        for agent in (lab.pilot, lab.terminal):
            code, elapsed_s, errors = agent.end(lambda agent=agent: agent.process.send_signal(number))
            assert code == 0, errors
            assert elapsed_s < WITHIN_S
            assert agent.events[-1]["event"] == "ended"
            assert "Traceback" not in errors
        lab.terminal.wait_event(
            lambda event: event.get("reason") == "the pilot closes" and event["state"] == "IDLE"
        )
    finally:
        lab.pilot.close()
        lab.terminal.close()


@posix
def test_a_pilot_ends_though_its_terminal_has_gone(tmp_path: Path) -> None:
    lab = open_lab(tmp_path)
    try:
        assert run_cli("start", "rig_b", *REPLAY, prefs=lab.prefs).returncode == 0
        lab.terminal.wait_state("RUNNING")
        lab.terminal.end(lab.terminal.process.kill)
        _, elapsed_s, errors = lab.pilot.end(interrupt(lab.pilot))
        assert elapsed_s < WITHIN_S, errors
        assert "Traceback" not in errors
    finally:
        lab.pilot.close()
        lab.terminal.close()


def test_an_agent_ends_with_its_standard_input_if_asked(tmp_path: Path) -> None:
    prefs = tmp_path / "prefs.json"
    prefs.write_text(
        json.dumps({"PUSHPORT": 0, "DATADIR": str(tmp_path), "PILOT_DB": str(tmp_path / "db.json")})
    )
    agent = AgentProcess("terminal", "--until-eof", prefs=prefs)
    try:
        agent.wait_port()
        assert agent.process.stdin is not None
        code, elapsed_s, errors = agent.end(agent.process.stdin.close)
        assert code == 0 and "Traceback" not in errors
        assert elapsed_s < WITHIN_S
    finally:
        agent.close()
