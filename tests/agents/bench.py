"""A recorder that stands where a pilot's network would, a full disk, small tasks, and ways to wait for conditions."""

from __future__ import annotations

import errno
import os
import threading
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
from pydantic import Field

from pilotage.agents.outputs import Output
from pilotage.agents.runner import RunnerPorts, TaskRunner
from pilotage.agents.start import TaskStart, parse_start
from pilotage.agents.states import State
from pilotage.agents.task import Fixed, Item, Task, TaskParams, TrialRow, source
from pilotage.services.store.writer import BatchWriter

DEADLINE_S = 15.0


def wait_until(condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Wait for a condition; fail the test when it doesn't come true in time."""
    end = time.monotonic() + deadline_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        pause.wait(0.002)


class Recorder:
    """Keeps what a runner tells."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.states: list[tuple[State, str]] = []
        self.errors: list[tuple[str, str]] = []
        self.items: dict[str, list[Item]] = {}

    def put(self, stream: str, item: Item) -> None:
        self.items.setdefault(stream, []).append(item)

    def ports(self, **others: Any) -> RunnerPorts:
        given: dict[str, Any] = {
            "on_data": self.rows.append,
            "on_state": lambda state, reason: self.states.append((state, reason)),
            "on_error": lambda text, trace: self.errors.append((text, trace)),
            "put": self.put,
        }
        return RunnerPorts(**{**given, **others})

    @property
    def path(self) -> list[State]:
        return [state for state, _ in self.states]


def runner_in(folder: Path, recorder: Recorder, **ports: Any) -> TaskRunner:
    """Make a runner whose files and file outputs lie in one folder."""
    return TaskRunner(recorder.ports(**ports), folder=folder, outputs_folder=folder / "outputs")


def order(task: str = "test", **value: Any) -> TaskStart:
    """Make the order of a START message."""
    return parse_start({"task_type": task, "pilot": "rig_a", "subject": "mouse_1", **value})


def write_wav(path: Path, hz: float = 1000.0, duration_s: float = 0.01) -> None:
    """Write a pure tone, 16 bit, mono, 44.1 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(int(duration_s * 44_100)) / 44_100
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes((np.sin(2 * np.pi * hz * times) * 20_000).astype("<i2").tobytes())


class BlinkParams(TaskParams):
    level: Annotated[float, Field(ge=0, le=1)] = 1.0
    lit_ms: float = 1.0
    fail_in_trial: int = -1
    colour: Annotated[str, Fixed()] = "red"


class BlinkTrial(TrialRow):
    level: float
    note: str | None = None


class Blink(Task[BlinkParams]):
    """Two stages, one output; fails when told to."""

    Params = BlinkParams
    TrialData = BlinkTrial
    stage_methods = ("light", "dark")
    declared_outputs: ClassVar = {"lamp": Output("file", "lamp", safe=0)}
    ended = 0

    def light(self) -> dict[str, Any]:
        self.outputs["lamp"].set(self.params.level)
        self.wait(self.params.lit_ms / 1000)
        return {"level": self.params.level}

    def dark(self) -> dict[str, Any]:
        if self.trial_num == self.params.fail_in_trial:
            raise ZeroDivisionError("the lamp is gone")
        self.outputs["lamp"].set(0)
        return {"TRIAL_END": True}

    def end(self) -> None:
        type(self).ended += 1


class Patient(Blink):
    """Lights the lamp and waits for a trigger that never comes."""

    stage_methods = ("light",)

    def light(self) -> dict[str, Any]:
        self.outputs["lamp"].set(1)
        self.stage_block.clear()
        return {"level": 1.0}


class Counter(Task[TaskParams]):
    """One source that counts without end."""

    @source("count")
    def count(self) -> Iterator[Item]:
        number = 0
        while True:
            self.wait(0.001)
            yield {"timestamp": self.wall_time(), "n": number}
            number += 1


def lamp(folder: Path) -> float:
    """Read the lamp's value, as any program may."""
    return float((folder / "outputs" / "lamp").read_text())


def fetcher(source_folder: Path, target: Path) -> Callable[[Sequence[str], threading.Event], None]:
    """Copy missing files from one folder into the other, as a pilot would fetch them."""

    def fetch(paths: Sequence[str], stopping: threading.Event) -> None:
        for path in paths:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes((source_folder / path).read_bytes())

    return fetch


class FullDisk:
    """A disk that refuses while it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        write = BatchWriter._transact

        def transact(writer: BatchWriter, batch: Any) -> Any:
            if self.is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(writer, batch)

        monkeypatch.setattr(BatchWriter, "_transact", transact)
