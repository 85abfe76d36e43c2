"""A Terminal and a Pilot on this machine: replay a recorded heart signal, change nothing, lose nothing."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from pilotage.agents.pilot import Pilot
from pilotage.agents.tasks.recordings import heart_signal
from pilotage.agents.terminal import Terminal
from pilotage.app.archive import FolderArchives
from pilotage.net.prefs import Preferences, Prefs
from pilotage.services.store import SessionReader


def settings(**values: object) -> Prefs:
    """Make preferences for one agent: the defaults and these, whatever this machine's file says."""
    preferences = Preferences(environ={}, file=None)
    for key, value in values.items():
        preferences.set(key, value)
    return preferences.snapshot()


def wait_for_items(
    terminal: Terminal, session: str, stream: str, count: int, timeout_s: float = 20.0
) -> None:
    """Wait until that many items of a stream are stored; raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        held = terminal.sessions.archive(session).holdings()
        if any(one.mark.count >= count for one in held if one.key.name == stream):
            return
        time.sleep(0.05)
    raise TimeoutError(f"{stream} has fewer than {count} items after {timeout_s} s")


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="first-tree-"))
    sounds = folder / "rig_b" / "sounds"
    sounds.mkdir(parents=True)
    shutil.copy(heart_signal(), sounds / "heart.csv")

    here = settings(PUSHPORT=0, DATADIR=folder / "data", PILOT_DB=folder / "pilots.json")
    with Terminal(FolderArchives(here.datadir), here) as terminal:
        there = settings(
            NAME="rig_b", PUSHPORT=terminal.port, MSGPORT=0, SOUNDDIR=sounds, DATADIR=folder / "rig_b"
        )
        with Pilot(there):
            terminal.roster.wait_state("rig_b", ["IDLE"], timeout_s=10)
            replay = {"path": "heart.csv", "sampling_rate_hz": 100, "name": "ecg", "chunk_samples": 10}
            began = terminal.start("rig_b", "replay", replay, subject="mouse_1")
            wait_for_items(terminal, began["session"], "ecg", 20)
            terminal.stop("rig_b")
            certificate = terminal.end_session()

    print("complete:", certificate["complete"])
    assert certificate["complete"], certificate["differences"]
    with SessionReader(certificate["place"]) as session:
        ecg = session.stream("rig_b", "ecg")
    print(ecg.shape, "samples of the heart signal lie in", certificate["place"])


if __name__ == "__main__":
    main()
