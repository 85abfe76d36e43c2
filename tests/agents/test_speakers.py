"""Who may speak for whom in what a Terminal is sent: data, states and events in another's name are refused (X2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from pilotage.agents.terminal import Terminal
from pilotage.app.archive import FolderArchives
from pilotage.app.audit import FILE, FileAudit
from pilotage.net.keys import KeyFolder, KnownKey, make_pair
from pilotage.net.node import Net_Node
from pilotage.net.security import Security
from pilotage.protocol.errors import Refused
from pilotage.services.audit import read_log
from tests.system.lab import numbers, settings, wait_for
from tests.transport.locks import OUTSIDE

# Another address of the loopback interface stands for another machine: Linux alone has it.
pytestmark = pytest.mark.only_on("linux")

PILOTS = ("rig_a", "rig_b")
ROW = {"subject": "m", "session": "a"}


class Lab:
    """A Terminal that knows the keys of two pilots, and one on its own machine that has none."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        station, mine = make_pair("T"), KeyFolder(folder / "T")
        mine.keep(station)
        for name in PILOTS:
            pair, theirs = make_pair(name), KeyFolder(folder / name)
            mine.know(KnownKey(name, pair.public, "pilot"))
            theirs.keep(pair)
            theirs.know(KnownKey("T", station.public, "admin"))
        audit = stack.enter_context(closing(FileAudit(folder)))
        prefs = settings(folder, PUSHPORT=0, KEYDIR=str(folder / "T"))
        self.terminal = stack.enter_context(Terminal(FolderArchives(folder / "data"), prefs, audit))
        self.terminal.sessions.begin("a")
        self._folder, self._stack = folder, stack

    def node(self, name: str, owner: str) -> Net_Node:
        security = Security(self._folder / owner)
        port, host = self.terminal.port, OUTSIDE if owner else "127.0.0.1"
        return self._stack.enter_context(
            Net_Node(name, "T", port, {}, upstream_ip=host, journal=None, security=security)
        )

    def audited(self) -> list[str]:
        links, _ = read_log(self._folder / FILE)
        return [link.content for link in links]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(tmp_path, stack)


MESSAGES: dict[str, dict[str, Any]] = {
    "DATA": {**ROW, "trial_num": 7},
    "CONTINUOUS": {**ROW, "timestamp": 1.0, "eye": 1.0, "stream": "eye"},
    "STATE": {"state": "RUNNING"},
    "EVENT": {"session": "a", "name": "error", "text": "forged"},
    "HANDSHAKE": {"state": "IDLE", "ip": "10.0.0.1"},
}


@pytest.mark.parametrize("verb", MESSAGES)
def test_a_pilots_key_does_not_speak_for_another(lab: Lab, verb: str) -> None:
    thief = lab.node("_rig_b", "rig_b")
    with pytest.raises(Refused, match=r"not allowed.*can't speak for 'rig_a'"):
        thief.send("_T", verb, {**MESSAGES[verb], "pilot": "rig_a"}).result(20)
    assert not lab.terminal.roster.snapshot().get("rig_a", {}).get("state")
    refused = wait_for(lambda: [entry for entry in lab.audited() if "refused" in entry])
    assert any(all(word in entry for word in (verb, '"rig_a"', '"_rig_b"')) for entry in refused)


def test_nor_does_it_by_way_of_the_station(lab: Lab) -> None:
    thief = lab.node("rig_b", "rig_b")
    with pytest.raises(Refused, match="can't speak for 'rig_a'"):
        thief.send("T", "HANDSHAKE", {"pilot": "rig_a", "state": "IDLE", "ip": "10.0.0.1"}).result(20)
    with pytest.raises(Refused, match="PEER is told to the station"):
        thief.send("_T", "PEER", {"name": "rig_a", "link": "gone"}).result(20)


def test_it_speaks_for_its_own_and_who_has_none_on_this_machine_for_all(lab: Lab) -> None:
    for number, (name, owner) in enumerate((("_rig_a", "rig_a"), ("rig_a_eye", "rig_a"), ("camera", ""))):
        sender = lab.node(name, owner)
        sender.send("_T", "DATA", {**ROW, "trial_num": number, "pilot": "rig_a"}).result(20)
    place = Path(lab.terminal.sessions.look("a")[0])
    assert numbers(place) == [0, 1, 2]


def test_who_is_paired_later_is_protected_too(lab: Lab, tmp_path: Path) -> None:
    newcomer = make_pair("rig_c")
    thief = lab.node("_rig_b", "rig_b")
    row = {**ROW, "pilot": "rig_c"}
    thief.send("_T", "DATA", {**row, "trial_num": 0}).result(20)  # nobody's name yet
    KeyFolder(tmp_path / "T").know(KnownKey("rig_c", newcomer.public, "pilot"))

    def is_refused() -> bool:
        try:
            thief.send("_T", "DATA", {**row, "trial_num": 1}).result(20)
        except Refused:
            return True
        return False

    wait_for(is_refused)
