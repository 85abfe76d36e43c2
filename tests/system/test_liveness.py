"""Who lives and who doesn't, as the Terminal sees it: in the stated times, whatever stopped talking (L1, L2)."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pilotage.agents.pilot import Pilot
from pilotage.agents.terminal import Terminal
from pilotage.app.archive import FolderArchives
from pilotage.protocol.liveness import LivenessRules
from tests.cli.processes import AgentProcess
from tests.system.lab import folders_of_the_preferences, settings, start_pilot, station_of, wait_for
from tests.transport.relay import Relay

__all__ = ["folders_of_the_preferences"]

RULES = LivenessRules()
SLACK_S = 3.0
"""A heartbeat, since silence counts from the last one and is judged at the next, and what a busy machine adds."""


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with Terminal(FolderArchives(tmp_path / "t" / "data"), settings(tmp_path / "t", PUSHPORT=0)) as terminal:
        yield terminal


@pytest.fixture
def agents() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def pilot_in(folder: Path, port: int, agents: ExitStack, name: str = "rig", **prefs: object) -> AgentProcess:
    pilot = start_pilot(folder / name, name, port, **prefs)
    agents.callback(pilot.close)
    return pilot


def link(terminal: Terminal, name: str = "rig") -> str:
    return str(terminal.roster.snapshot().get(name, {}).get("link", ""))


def wait_link(terminal: Terminal, wanted: str, within_s: float, name: str = "rig") -> float:
    """Wait until the view of a pilot is as wanted; tell how long it took."""
    began = time.monotonic()
    wait_for(lambda: link(terminal, name) == wanted, within_s, lambda: f"{name} is {link(terminal, name)!r}")
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.only_on("linux", "darwin")
@pytest.mark.parametrize("what", ["the whole rig", "the pilot's process alone"])
def test_a_pilot_that_is_stopped_is_suspect_then_gone_and_alive_when_it_goes_on(
    what: str, tmp_path: Path, terminal: Terminal, agents: ExitStack
) -> None:
    pilot = pilot_in(tmp_path, terminal.port, agents)
    wait_link(terminal, "alive", 15)
    stopped = [pilot.process, *([station_of(pilot)] if what == "the whole rig" else [])]
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    try:
        suspect_s = wait_link(terminal, "suspect", RULES.suspect_after_s + SLACK_S)
        gone_s = suspect_s + wait_link(terminal, "gone", RULES.gone_after_s - RULES.suspect_after_s + SLACK_S)
        assert suspect_s > RULES.suspect_after_s - RULES.heartbeat_s - 0.5
        assert gone_s > RULES.gone_after_s - RULES.heartbeat_s - 0.5
        assert terminal.roster.snapshot()["rig"]["age_s"] > RULES.suspect_after_s
    finally:
        for process in stopped:
            process.send_signal(signal.SIGCONT)
    wait_link(terminal, "alive", 10)


@pytest.mark.slow
@pytest.mark.only_on("linux", "darwin")
def test_a_connection_that_silently_carries_nothing_is_noticed_at_both_ends(
    tmp_path: Path, terminal: Terminal
) -> None:
    relay = Relay(terminal.port)
    with Pilot(settings(tmp_path / "p", NAME="rig", PUSHPORT=relay.port, MSGPORT=0)) as pilot:
        wait_link(terminal, "alive", 15)
        relay.freeze()
        wait_link(terminal, "suspect", RULES.suspect_after_s + SLACK_S)
        wait_link(terminal, "gone", RULES.gone_after_s - RULES.suspect_after_s + SLACK_S)
        wait_for(lambda: pilot.link == "gone", SLACK_S, lambda: pilot.link)
        relay.thaw()
        wait_link(terminal, "alive", 10)
        wait_for(lambda: pilot.link == "alive", 5)
    relay.close()


def test_a_rebooted_pilot_takes_over_at_once_though_its_old_connection_stands(
    tmp_path: Path, terminal: Terminal, agents: ExitStack
) -> None:
    relay = Relay(terminal.port)
    old = pilot_in(tmp_path, relay.port, agents)
    wait_link(terminal, "alive", 15)
    relay.freeze()
    old.process.kill()
    old.process.wait(10)
    began = time.monotonic()
    heard = terminal.roster.snapshot()["rig"]["heard"]
    pilot_in(tmp_path / "again", terminal.port, agents)
    up_s = time.monotonic() - began
    wait_for(lambda: terminal.roster.snapshot()["rig"]["heard"] > heard, RULES.probe_s + SLACK_S)
    wait_link(terminal, "alive", 1)
    assert time.monotonic() - began < up_s + RULES.probe_s + SLACK_S < RULES.suspect_after_s + up_s
    relay.close()


@pytest.mark.only_on("linux", "darwin")
def test_the_terminal_hears_of_a_grandchilds_death_and_return(
    tmp_path: Path, terminal: Terminal, agents: ExitStack
) -> None:
    rig = pilot_in(tmp_path, terminal.port, agents, CHILDID=["cam"])
    lineage = {"LINEAGE": "CHILD", "PARENTID": "rig", "PARENTIP": "127.0.0.1"}
    port = rig.wait_port()
    cam = pilot_in(tmp_path, terminal.port, agents, name="cam", PARENTPORT=port, **lineage)
    wait_link(terminal, "alive", 15, "cam")
    assert terminal.roster.snapshot()["cam"]["parent"] == "rig"
    cam.process.kill()
    wait_link(terminal, "gone", 1.5 + SLACK_S, "cam")
    assert link(terminal, "rig") == "alive"
    pilot_in(tmp_path / "again", terminal.port, agents, name="cam", PARENTPORT=port, **lineage)
    wait_link(terminal, "alive", 10, "cam")

    rig.process.kill()
    wait_link(terminal, "gone", 1.5 + SLACK_S, "rig")
    wait_link(terminal, "gone", 1.0, "cam")
    pilot_in(tmp_path, terminal.port, agents, MSGPORT=port, CHILDID=["cam"])
    wait_link(terminal, "alive", 10, "rig")
    wait_link(terminal, "alive", 10, "cam")


@pytest.mark.only_on("linux", "darwin")
def test_a_view_is_never_older_than_the_heartbeat(
    tmp_path: Path, terminal: Terminal, agents: ExitStack
) -> None:
    interval_s = 0.5
    pilot_in(tmp_path, terminal.port, agents, PING_INTERVAL=interval_s)
    wait_link(terminal, "alive", 15)
    ages: list[float] = []
    end = time.monotonic() + 8 * interval_s
    while time.monotonic() < end:
        ages.append(terminal.roster.snapshot()["rig"]["age_s"])
        time.sleep(0.01)
    assert max(ages) < 2 * interval_s, "one interval, and what a busy machine adds"
    assert max(ages) > interval_s / 2


@pytest.mark.only_on("linux", "darwin")
def test_the_terminals_view_survives_its_stations_death(
    tmp_path: Path, terminal: Terminal, agents: ExitStack
) -> None:
    pilot = pilot_in(tmp_path, terminal.port, agents)
    wait_link(terminal, "alive", 15)
    kept = terminal._keeper.station
    assert kept.pid is not None
    pilot.process.kill()
    kept.kill()
    wait_link(terminal, "gone", 10)
    pilot_in(tmp_path / "again", terminal.port, agents)
    wait_link(terminal, "alive", 15)
