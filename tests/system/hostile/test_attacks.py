"""Every known attack over real sockets, while a good pilot works: its rows all arrive, once and in order."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotage import Outcome
from tests.conftest import wait_eventually
from tests.system.hostile.attacks import ATTACKS, VICTIM, Runs
from tests.system.hostile.lab import Lab, open_lab

pytestmark = [pytest.mark.only_on("linux"), pytest.mark.timeout(180)]
STRANGERS = [name for name, attack in ATTACKS.items() if not attack.needs]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with open_lab(tmp_path_factory.mktemp("hostile")) as lab:
        yield lab


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", STRANGERS)
def test_an_attack_harms_nobody(lab: Lab, name: str) -> None:
    before, files, pid = len(lab.stored()), files_in(lab.folder), lab.station.pid
    rows = lab.suffer(name, seconds=0.3)
    assert not rows.failed
    assert lab.stored()[before:] == rows.sent, "each row once, in order"
    assert not lab.marker.exists(), "code of the attacker's ran"
    assert files_in(lab.folder) <= files, "something was written"
    assert lab.station.is_alive() and lab.station.pid == pid and os.getpgid(pid)
    assert lab.holder.send("T", "PING").wait_settled(10).outcome is Outcome.DELIVERED
    assert not lab.station.statistics().counts.get("turns failed")


def test_the_pickles_would_run_where_they_are_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "pwned"
    pickle.loads(pickle.dumps(Runs(marker)))
    assert marker.exists()


def test_no_name_was_stolen(lab: Lab) -> None:
    rows = lab.suffer("names")
    assert lab.stored()[-len(rows.sent) :] == rows.sent
    assert [value for key, value in lab.got if key == "DATA" and "stolen" in value] == []
    assert lab.holder.statistics().peers == {"T": "alive"} and lab.pilot.statistics().peers == {"T": "alive"}
    told: list[object] = []
    lab.holder.listens["HELLO"] = told.append
    assert lab.boss.send(VICTIM, "HELLO", 1).wait_settled(10).outcome is Outcome.DELIVERED
    assert told == [1]


def test_what_is_replayed_is_handled_once(lab: Lab) -> None:
    before = len(lab.got)

    def replayed() -> list[str]:
        came = lab.got[before:]
        return sorted(value["replayed"] for key, value in came if key == "DATA" and "replayed" in value)

    lab.suffer("replays")
    wait_eventually(lambda: len(replayed()) > 1, timeout_s=10)
    assert replayed() == ["json", "own"]


def test_what_was_refused_is_recorded(lab: Lab) -> None:
    def verbs() -> set[str]:
        return {value["verb"] for key, value in lab.got if key == "AUDIT" and value.get("refused")}

    attempts = {"killing": {"KILL", "WATCH", "CLOSING"}, "paths": {"FILE"}, "names": {"NAME"}}
    for name, wanted in attempts.items():
        if not wanted <= verbs():
            lab.suffer(name)
        wait_eventually(lambda wanted=wanted: wanted <= verbs(), timeout_s=10)
