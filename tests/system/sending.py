"""A task that sends a known number of rows and items, and a pilot that runs it in a process of its own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from pilotage.agents import pilot as pilot_module
from pilotage.agents.task import Item, Task, TaskParams, TrialRow, source


class SendsParams(TaskParams):
    rows: int = 30
    items: int = 40
    pause_s: float = 0.0


class SendsTrial(TrialRow):
    wave: Any
    raw: Any
    rt_s: float
    note: Any = None


class Sends(Task[SendsParams]):
    """Sends `rows` trials, `items` items, and waits to be stopped."""

    Params = SendsParams
    TrialData = SendsTrial
    stage_methods = ("send",)

    def send(self) -> dict[str, Any] | None:
        if self.trial_num >= self.params.rows:
            self.stage_block.clear()
            return None
        self.wait(self.params.pause_s)
        return {**row_values(self.trial_num), "TRIAL_END": True}

    @source("count")
    def count(self) -> Iterator[Item]:
        for number in range(self.params.items):
            self.wait(self.params.pause_s)
            yield {"timestamp": number / 7, "count": np.full(3, number, "f4"), "index": number}


def row_values(trial: int) -> dict[str, Any]:
    """Give what a row holds: all that a record must give back bit for bit."""
    return {
        "wave": np.linspace(0, trial, 5, dtype=">f4").reshape(1, 5),
        "raw": bytes(range(trial % 7)),
        "rt_s": 0.1 * trial,
        "note": [float("nan"), None, {"at": datetime(2026, 1, 1, trial % 24), "n": np.int16(trial)}],
    }


def main() -> None:
    """Run a pilot until it is killed: python -m tests.system.sending FOLDER NAME PORT."""
    from tests.system.lab import settings

    folder, name, port = sys.argv[1:]
    pilot_module.find_task = lambda task: Sends  # type: ignore[assignment]
    with pilot_module.Pilot(settings(Path(folder), NAME=name, PUSHPORT=int(port), MSGPORT=0)):
        threading.Event().wait()


if __name__ == "__main__":
    main()
