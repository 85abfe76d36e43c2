"""The demo's course: what happens when, told step by step to whoever shows it.

Law: whatever happens, no process outlives it. What it does, it asks of the Terminal as any operator would.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilotage.agents.record import Record, read_record
from pilotage.app.demo.layout import (
    CAMERA,
    CHUNK_SAMPLES,
    RIG_A,
    RIG_B,
    SUBJECT_A,
    SUBJECT_B,
    TERMINAL,
    Plan,
    data_dir,
    write_prefs,
)
from pilotage.app.demo.processes import Processes
from pilotage.app.operator import Operator
from pilotage.net.prefs import Preferences
from pilotage.protocol.errors import MachineError
from pilotage.services.store import SessionReader

READY_TIMEOUT_S = 25.0
LOOK_S = 0.2
PILOTS = (RIG_A, CAMERA, RIG_B)
CHANGE_AT, RESTART_AT = 0.35, 0.55
NEW_REWARD_MS = 35


@dataclass(frozen=True, slots=True)
class Progress:
    """How it stands.

    Attributes:
        elapsed_s: since the tasks were started, in seconds.
        pilots: what the Terminal knows of each pilot.
        stored: entries stored by now, by pilot and "trials" or the stream's name.
    """

    elapsed_s: float = 0.0
    pilots: dict[str, dict[str, Any]] = field(default_factory=dict)
    stored: dict[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Watchers:
    """Whom to tell: `step` takes a text for each thing that was done, `progress` how it stands, often."""

    step: Callable[[str], None]
    progress: Callable[[Progress], None]


class Demo:
    """One run.

    Args:
        folder: a folder that `layout.prepare` has filled.
        plan: what to run.
        seconds: how long the tasks run.
        watchers: whom to tell.
    """

    def __init__(self, folder: Path, plan: Plan, seconds: float, watchers: Watchers) -> None:
        self._folder = folder
        self._plan = plan
        self._seconds = seconds
        self._tell = watchers
        self._processes = Processes()
        self._place: Path | None = None
        self._began = 0.0

    def run(self) -> None:
        """Run it to its end; the plan, saved in the folder, then says what was run.

        Raises:
            PilotageError: something went wrong; all processes have ended.
        """
        with self._processes:
            port = self._start_terminal()
            settings = Preferences(environ={}, file=None)
            settings.set("PUSHPORT", port)
            with Operator(settings.snapshot(), READY_TIMEOUT_S) as operator:
                self._start_pilots(port)
                self._wait_pilots(operator, PILOTS, lambda known: known["state"] == "IDLE", "become IDLE")
                self._start_tasks(operator)
                self._play(operator)
                self._finish(operator)
        self._tell.step(f"all {len(self._processes.started)} processes have ended")

    # Processes

    def _start_terminal(self) -> int:
        process = self._processes.start(TERMINAL, "terminal", write_prefs(self._folder, TERMINAL, PUSHPORT=0))
        port = process.wait_listening()
        self._tell.step(f"a Terminal listens on port {port} (process {process.pid})")
        return port

    def _start_pilots(self, port: int) -> None:
        def start(name: str, **more: Any) -> Any:
            prefs = write_prefs(self._folder, name, NAME=name, PUSHPORT=port, MSGPORT=0, **more)
            return self._processes.start(name, "pilot", prefs)

        rig_a = start(RIG_A, LINEAGE="PARENT", CHILDID=[CAMERA])
        rig_b = start(RIG_B)
        parent_port = rig_a.wait_listening()
        cam = start(CAMERA, LINEAGE="CHILD", PARENTID=RIG_A, PARENTPORT=parent_port)
        for process in (rig_b, cam):
            process.wait_listening()
        pids = ", ".join(f"{one.name} (process {one.pid})" for one in (rig_a, cam, rig_b))
        self._tell.step(f"pilots run: {pids}; {CAMERA} is a child of {RIG_A}")

    def _wait_pilots(
        self, operator: Operator, names: Sequence[str], is_ready: Callable[[dict[str, Any]], bool], what: str
    ) -> None:
        """Wait until each of these pilots was as wanted; computers differ in how long that takes."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        left = set(names)
        while left:
            pilots = operator.pilots()
            self._check(pilots)
            left -= {name for name in left if name in pilots and is_ready(pilots[name])}
            if left and time.monotonic() > deadline:
                states = ", ".join(
                    f"{name} ({pilots.get(name, {}).get('state', 'not seen')})" for name in left
                )
                raise MachineError(
                    f"{states} did not {what} within {READY_TIMEOUT_S:g} s; this computer may be too busy"
                )
            time.sleep(LOOK_S if left else 0)

    def _check(self, pilots: dict[str, dict[str, Any]]) -> None:
        """See that all processes are alive and no task has failed."""
        self._processes.check()
        for name, known in pilots.items():
            if known["state"] == "ERROR":
                raise MachineError(f"{name}: {known['reason']}")

    # Tasks

    def _start_tasks(self, operator: Operator) -> None:
        begun = self._start_choice(operator)
        self._place = Path(begun["place"])
        count = sum(len(paths) for paths in self._plan.sounds.values())
        self._tell.step(
            f"{RIG_A} has fetched {count} sounds from the Terminal and runs the choice task: "
            "the subject is simulated, the sounds are not played aloud"
        )
        video = {"path": self._plan.video, "name": "camera"}
        operator.start(CAMERA, "camera", video, SUBJECT_A, begun["session"], parent=RIG_A)
        self._tell.step(
            f"{CAMERA} streams {self._plan.video}, started through {RIG_A}, in whose name its frames come"
        )
        signal = {
            "path": self._plan.signal,
            "column": self._plan.column,
            "sampling_rate_hz": self._plan.rate_hz,
            "name": "ecg",
            "chunk_samples": CHUNK_SAMPLES,
        }
        operator.start(RIG_B, "replay", signal, SUBJECT_B, begun["session"])
        self._tell.step(f"{RIG_B} replays {self._plan.signal} at {self._plan.rate_hz:g} Hz")
        self._wait_pilots(operator, PILOTS, _has_begun, "begin to run")
        self._began = time.monotonic()

    def _start_choice(self, operator: Operator) -> dict[str, Any]:
        sounds = {
            side: [{"type": "File", "path": path} for path in paths]
            for side, paths in self._plan.sounds.items()
        }
        params = {
            "stim": {"sounds": sounds},
            "player": "silent",
            "simulated": {"accuracy": {"L": 0.85, "R": 0.75}, "rt_median_ms": 200},
            "iti_ms": 100,
            "punish_ms": 300,
            "seed": 7,
        }
        return operator.start(RIG_A, "choice", params, SUBJECT_A)

    def _play(self, operator: Operator) -> None:
        self._watch_until(operator, CHANGE_AT)
        answer = operator.change(RIG_A, {"reward_ms": NEW_REWARD_MS})
        self._tell.step(
            f"set {RIG_A} reward_ms={NEW_REWARD_MS}: the running task answers {json.dumps(answer)}"
        )
        self._watch_until(operator, RESTART_AT)
        operator.stop(RIG_A)
        self._tell.step(f"stopped {RIG_A}; {CAMERA} and {RIG_B} go on")
        self._start_choice(operator)
        self._wait_pilots(operator, [RIG_A], _has_begun, "begin to run")
        self._tell.step(f"{RIG_A} runs again in the same session: {self._resumed()}")
        self._watch_until(operator, 1.0)

    def _resumed(self) -> str:
        starts = [run for run in self._runs() if run["what"] == "start"]
        number = starts[-1]["current_trial"] if starts else "?"
        return f"it counts on with trial {number}; a trial that was cut short stays, marked as not complete"

    def _runs(self) -> list[dict[str, Any]]:
        session = self._place.name if self._place else ""
        return list(read_record(Record(data_dir(self._folder, RIG_A), RIG_A).place(session)))

    def _watch_until(self, operator: Operator, share: float) -> None:
        end = self._began + share * self._seconds
        while time.monotonic() < end:
            now = self._look(operator)
            self._check(now.pilots)
            self._tell.progress(now)
            time.sleep(min(LOOK_S, max(0.0, end - time.monotonic())))

    def _look(self, operator: Operator) -> Progress:
        stored: dict[tuple[str, str], int] = {}
        if self._place is not None:
            with SessionReader(self._place) as reader:
                summary = reader.summary()
            stored[RIG_A, "trials"] = summary.complete_trials
            for stream in summary.streams:
                key = (stream.pilot, stream.name)
                stored[key] = stored.get(key, 0) + stream.length
        return Progress(time.monotonic() - self._began, operator.pilots(), stored)

    def _finish(self, operator: Operator) -> None:
        operator.stop_all()
        self._tell.progress(self._look(operator))
        self._tell.step("STOPALL: all tasks have ended, outputs are safe")
        certificate = operator.end()
        word = "both sides hold the same" if certificate["complete"] else "both sides DIFFER"
        self._tell.step(f"COHERE: {word}; the session is ended")
        for text in certificate["fetched"]:
            self._tell.step(text)
        self._plan.session = self._relative(certificate["place"])
        self._plan.records = {
            name: self._relative(account["record"])
            for name, account in certificate["accounts"].items()
            if "record" in account
        }
        self._plan.save(self._folder)

    def _relative(self, path: str) -> str:
        return Path(path).resolve().relative_to(self._folder.resolve()).as_posix()


def _has_begun(known: dict[str, Any]) -> bool:
    """Tell whether a pilot runs its task, or has come to the recording's end already."""
    return bool(known["state"] == "RUNNING" or known["reason"] == "exhausted")
