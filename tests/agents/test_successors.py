"""New keys for old, between a Terminal's node and those of pilots."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from pilotage import Net_Node, Terminal_Station
from pilotage.agents.successors import PilotSuccessors, TerminalSuccessors
from pilotage.net.keys import KeyFolder, KnownKey, make_pair
from pilotage.net.security import Security
from tests.system.lab import settings


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[dict[str, Net_Node]]:
    """A Terminal that knows the keys `rig` and `away`, and a pilot `rig_a`, which speaks by the first."""
    KeyFolder(tmp_path / "rig").know(KnownKey("T", make_pair("T").public, "admin"))
    for name in ("rig", "away"):
        KeyFolder(tmp_path / "T").know(KnownKey(name, make_pair(name).public))
    with ExitStack() as stack:
        helpers = stack.enter_context(ThreadPoolExecutor(1))
        station = Terminal_Station(settings=settings(tmp_path, PUSHPORT=0))
        station.start()
        stack.callback(station.release)
        successors = TerminalSuccessors(Security(tmp_path / "T"), lambda: ["rig_a"], helpers.submit)
        listens = {
            "_T": {"REKEY": successors.l_rekey},
            "_rig_a": {"REKEY": PilotSuccessors(Security(tmp_path / "rig")).l_rekey},
            "T_cli": {},
        }
        made = {name: Net_Node(name, "T", station.listen_port, own) for name, own in listens.items()}
        for node in made.values():
            stack.enter_context(node)
            node.wait_connected(20)
        successors.node = made["_T"]
        yield made


def test_whoever_has_a_key_is_told_whatever_it_calls_itself(
    nodes: dict[str, Net_Node], tmp_path: Path
) -> None:
    public = make_pair("T").public
    told = nodes["T_cli"].send("_T", "REKEY", {"public": public}).result(20)
    assert told == {"rig": "", "away": "it is not connected"}
    assert KeyFolder(tmp_path / "rig").find("T").next == public
