"""A locked lab whose people and machines have roles: who may do what, and what is recorded of it (promise X2)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotage import Net_Node, Outcome, Reason
from pilotage.net.keys import KnownKey, make_pair
from pilotage.net.security import Security
from tests.cli.processes import run_cli, the_line
from tests.conftest import wait_eventually
from tests.system.test_locked import OUTSIDE, Lab

# Another address of the loopback interface stands for another machine: Linux alone has it.
pytestmark = [pytest.mark.only_on("linux"), pytest.mark.slow, pytest.mark.timeout(180)]

TASK = ("replay", "-p", "path=ramp.csv", "-p", "sampling_rate_hz=50", "-p", "name=ramp")


class Roles(Lab):
    """A lab whose keys were copied by hand, with a pilot that runs."""

    def know(self, name: str, role: str, by: str = "T") -> None:
        """Make a name's key, if it has none, and have somebody know it."""
        own = self.keys(name).own()
        pair = own[0] if own else make_pair(name)
        if not own:
            self.keys(name).keep(pair)
        self.keys(by).know(KnownKey(name, pair.public, role))
        (station,) = self.keys(by).own()
        self.keys(name).know(KnownKey(by, station.public, "admin"))

    def public(self, name: str) -> str:
        return self.keys(name).own()[0].public

    def cli(self, name: str, *arguments: object) -> Any:
        return run_cli(*arguments, prefs=self.terminal_prefs if name == "T" else self.prefs(name))

    def audit(self) -> list[dict[str, Any]]:
        shown = json.loads(run_cli("audit", "--json", prefs=self.terminal_prefs).stdout)
        assert shown["chain"]["whole"]
        entries: list[dict[str, Any]] = shown["entries"]
        return entries


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Roles]:
    opened = Roles(tmp_path)
    opened.keys("T").keep(make_pair("T"))
    opened.start_terminal()
    for name, role in (("rig_a", "pilot"), ("office", "viewer"), ("desk", "operator"), ("cam", "node")):
        opened.know(name, role)
    with socket.create_server(("127.0.0.1", 0)) as free:
        opened.pilot_port = free.getsockname()[1]
    opened.start_pilot("rig_a", MSGPORT=opened.pilot_port)
    (opened.folder / "rig_a" / "sounds" / "ramp.csv").write_text("".join(f"{n / 10}\n" for n in range(3000)))
    opened.wait_link("rig_a", "alive")
    yield opened
    for agent in reversed(opened.agents):
        agent.close()


def test_a_command_acts_with_its_keys_role_and_is_recorded_with_its_key(lab: Roles) -> None:
    assert "rig_a" in lab.cli("office", "ls").stdout
    attempts = {
        "RUN": ("start", "rig_a", *TASK),
        "HALT": ("stop", "--all"),
        "SET": ("set", "rig_a", "x=1"),
        "END": ("end",),
    }
    abuse = [("office", "a viewer", verb) for verb in attempts]
    for who, is_a, verb in (*abuse, ("rig_a", "a pilot", "HALT"), ("cam", "a node", "RUN")):
        refused = lab.cli(who, *attempts[verb])
        text = f"{who} is {is_a} here and can't send {verb} to _T: that needs the role operator or admin"
        assert the_line(refused).endswith(f"not allowed: {text}"), refused.stderr
        assert refused.returncode != 0
    started = lab.cli("desk", "start", "rig_a", *TASK)
    assert started.returncode == 0, started.stderr
    assert lab.cli("desk", "stop", "rig_a").returncode == 0
    assert lab.cli("T", "end").returncode == 0
    entries = lab.audit()
    done = {(one["verb"], one["key"], one["address"]) for one in entries if one["outcome"] == "done"}
    desk = lab.public("desk")
    assert {("START", desk, "127.0.0.1"), ("STOP", desk, "127.0.0.1"), ("END", "", "127.0.0.1")} <= done
    refused = {(one["verb"], one["key"]) for one in entries if one["outcome"].startswith("refused")}
    assert {(verb, lab.public("office")) for verb in attempts} <= refused
    assert f"key {desk[:8]}…" in run_cli("audit", prefs=lab.terminal_prefs, COLUMNS="300").stdout


def test_a_refusal_at_a_pilots_station_is_recorded_at_the_terminal(lab: Roles) -> None:
    lab.know("cam", "node", by="rig_a")
    security = Security(lab.keys("cam").folder)
    with Net_Node(
        "cam", "rig_a", lab.pilot_port, {}, upstream_ip=OUTSIDE, journal=None, security=security
    ) as cam:
        cam.wait_connected(20)
        receipt = cam.send("rig_a", "START", {"task_type": "replay"}).wait_settled(20)
        assert (receipt.outcome, receipt.reason) == (Outcome.REFUSED, Reason.NOT_ALLOWED)

        def noted() -> list[dict[str, Any]]:
            return [one for one in lab.audit() if one["name"] == "cam" and one["verb"] == "START"]

        wait_eventually(lambda: bool(noted()), timeout_s=20)
        (entry,) = noted()
    assert (entry["key"], entry["via"], entry["target"]) == (lab.public("cam"), ["as rig_a says"], "rig_a")
    assert "cam is a node here and can't send START to rig_a" in entry["outcome"]


def test_another_role_and_another_table_hold_at_once(lab: Roles) -> None:
    halt = ("stop", "--all")
    assert lab.cli("office", *halt).returncode != 0
    lab.know("office", "operator")
    wait_eventually(lambda: lab.cli("office", *halt).returncode == 0, timeout_s=20)
    file = lab.keys("T").folder / "roles.toml"
    file.write_text("[operator]\nHALT = []\n")
    wait_eventually(lambda: "needs the role admin" in lab.cli("office", *halt).stderr, timeout_s=20)
    file.write_text("[operator]\nHALT = [\n")  # which nobody can read: what was there before holds
    assert "needs the role admin" in lab.cli("office", *halt).stderr
    file.unlink()
    wait_eventually(lambda: lab.cli("office", *halt).returncode == 0, timeout_s=20)


def test_a_terminal_does_not_start_with_roles_that_nobody_can_read(lab: Roles) -> None:
    (lab.keys("T").folder / "roles.toml").write_text('[node]\nKILL = ["up"]\n')
    refused = run_cli("terminal", "--json", prefs=lab.terminal_prefs)
    assert "roles.toml, line 2: KILL can't be given to node" in the_line(refused)
