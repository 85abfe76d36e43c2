"""Diary: which task runs, in a small file, so that the next life of a pilot knows what was interrupted."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from pilotage.agents.start import TaskStart

log = logging.getLogger(__name__)


class Diary:
    """A small file that says which task runs, so that the next life knows what was interrupted.

    Args:
        path: where it lies.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fails = False

    def left(self) -> dict[str, Any] | None:
        """Give what the last life was running when it ended, if it was running anything."""
        try:
            found = json.loads(self._path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("%s can't be read (%s); what ran before is not known", self._path, error)
            return {"task_type": "a task", "trial": "?", "session": "?"}
        return found if isinstance(found, dict) else None

    def note(self, start: TaskStart, trial: int) -> None:
        """Write down what runs."""
        told = {
            "task_type": start.task_type,
            "session": start.session,
            "subject": start.subject,
            "trial": trial,
        }
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps(told))
            part.replace(self._path)
            self._fails = False
        except OSError as error:
            if not self._fails:
                log.warning("%s can't be written: %s", self._path, error)
            self._fails = True

    def close(self) -> None:
        """Nothing runs any more."""
        self._path.unlink(missing_ok=True)
