"""START says what became of it, with real agents and their stations."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotage.agents.pilot import Pilot
from pilotage.agents.terminal import Terminal
from pilotage.app.archive import FolderArchive, FolderArchives
from pilotage.net.pref_keys import Prefs
from pilotage.net.prefs import Preferences
from pilotage.protocol.errors import Refused, StoreError


def settings(folder: Path, **known: object) -> Prefs:
    prefs = Preferences(environ={}, file=None)
    places = {"SOUNDDIR": folder / "sounds", "DATADIR": folder / "data", "PILOT_DB": folder / "pilots.json"}
    places["KEYDIR"] = folder / "keys"
    for key, value in {**places, **known}.items():
        prefs.set(key, str(value) if isinstance(value, Path) else value)
    return prefs.snapshot()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with Terminal(FolderArchives(tmp_path / "t" / "data"), settings(tmp_path / "t", PUSHPORT=0)) as terminal:
        yield terminal


@pytest.fixture
def pilot(tmp_path: Path, terminal: Terminal) -> Iterator[Pilot]:
    (tmp_path / "p" / "sounds").mkdir(parents=True)
    (tmp_path / "p" / "sounds" / "signal.csv").write_text("\n".join(str(n / 10) for n in range(3000)))
    known = settings(tmp_path / "p", NAME="rig", PUSHPORT=terminal.port, MSGPORT=0)
    with Pilot(known) as pilot:
        terminal.roster.wait_state("rig", ["IDLE"], 15)
        yield pilot


def test_a_start_whose_file_is_nowhere_fails_and_names_it(terminal: Terminal, pilot: Pilot) -> None:
    with pytest.raises(Refused, match=r"missing\.csv"):
        terminal.start("rig", "replay", {"path": "missing.csv", "sampling_rate_hz": 100})


def test_what_keeps_its_empty_session_does_not_hide_why_a_start_was_refused(
    terminal: Terminal, pilot: Pilot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def discard(archive: FolderArchive, timeout_s: float) -> None:
        raise StoreError("can't be removed")

    before = terminal.sessions.begin()
    monkeypatch.setattr(FolderArchive, "discard", discard)
    with pytest.raises(Refused, match=r"missing\.csv"):
        terminal.start(
            "rig", "replay", {"path": "missing.csv", "sampling_rate_hz": 100}, session="of this alone"
        )
    assert terminal.sessions.current == before, "the session before is the current one again"


def test_an_empty_session_is_removed_though_somebody_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = FolderArchives(tmp_path).create("empty", {})
    remove, failures = shutil.rmtree, [errno.ENOTEMPTY, errno.ENOENT]

    def disturbed(folder: Path) -> None:
        if failures:
            raise OSError(failures.pop(), "disturbed", str(folder))
        remove(folder)

    monkeypatch.setattr(shutil, "rmtree", disturbed)
    archive.discard(5.0)
    assert list(tmp_path.iterdir()) == [] and failures == []


def test_a_start_that_is_delivered_runs_and_can_be_changed_at_once(terminal: Terminal, pilot: Pilot) -> None:
    terminal.start(
        "rig", "replay", {"path": "signal.csv", "sampling_rate_hz": 100, "name": "wave"}, subject="m1"
    )
    with pytest.raises(Refused, match="path"):
        terminal.change("rig", {"path": "other.csv"})
    terminal.stop("rig")
    assert terminal.end_session()["complete"]


def test_a_pilot_that_was_started_anew_accounts_for_what_it_sent_before(
    terminal: Terminal, pilot: Pilot, tmp_path: Path
) -> None:
    session = terminal.start("rig", "replay", {"path": "signal.csv", "sampling_rate_hz": 100})["session"]
    terminal.stop("rig")
    pilot.close()
    with Pilot(settings(tmp_path / "p", NAME="rig", PUSHPORT=terminal.port, MSGPORT=0)):
        terminal.roster.wait_state("rig", ["IDLE"], 15)
        certificate = terminal.end_session(session)
    assert certificate["complete"], certificate
