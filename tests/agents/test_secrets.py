"""Secrets are in no record and no message: a preference that is one isn't told, and HANDSHAKE tells five things."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage import Net_Node, Terminal_Station
from pilotage.agents.pilot import Pilot
from pilotage.net.pref_keys import Prefs, public_values
from tests.conftest import wait_eventually
from tests.system.lab import settings


@dataclass
class WithSecrets:
    name: str = "rig"
    api_token: str = "hunter2"
    Password: str = "hunter2"
    private_key_file: str = "hunter2"
    subject: str | None = None


def test_a_secret_preference_is_not_told() -> None:
    assert public_values(WithSecrets()) == {"name": "rig"}
    assert "pushport" in public_values(Prefs())


def test_a_handshake_tells_what_is_needed_and_no_preferences(tmp_path: Path) -> None:
    got: list[Any] = []
    with Terminal_Station({}, settings(tmp_path / "T", PUSHPORT=0)) as station:
        station.start()
        with Net_Node(
            "_T", "T", station.listen_port, {"HANDSHAKE": got.append, "STATE": got.append}, journal=None
        ):
            known = settings(tmp_path / "rig", NAME="rig", PUSHPORT=station.listen_port, MSGPORT=0)
            with Pilot(known):
                wait_eventually(lambda: [one for one in got if "ip" in one], timeout_s=20)
    told = {name for one in got for name in one}
    assert told <= {"pilot", "ip", "state", "reason", "parent"}
    assert str(tmp_path) not in repr(got), "no folder of this machine is told"
