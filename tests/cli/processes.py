"""Real processes of the command line: agents that run, and commands that end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEADLINE_S = 30.0


def write_prefs(folder: Path, **values: Any) -> Path:
    """Write a preferences file whose folders all lie in `folder`."""
    (folder / "sounds").mkdir(parents=True, exist_ok=True)
    own = {
        "DATADIR": str(folder / "data"),
        "SOUNDDIR": str(folder / "sounds"),
        "PILOT_DB": str(folder / "db.json"),
        "KEYDIR": str(folder / "keys"),
        "MSGPORT": 0,
    }
    path = folder / "prefs.json"
    path.write_text(json.dumps({**own, **values}))
    return path


def command(*arguments: object, prefs: Path | None = None) -> list[str]:
    chosen = [] if prefs is None else ["--prefs", str(prefs)]
    return [sys.executable, "-m", "pilotage", *chosen, *map(str, arguments)]


def environment() -> dict[str, str]:
    """Give ours without the folders that the test's own nodes use: the preferences file says which ones they are."""
    own = ("PILOTAGE_DATADIR", "PILOTAGE_KEYDIR")
    return {name: value for name, value in os.environ.items() if name not in own}


def run_cli(
    *arguments: object, prefs: Path | None = None, says: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, with what is typed into it."""
    return subprocess.run(
        command(*arguments, prefs=prefs),
        env={**environment(), **env},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        input=says,
    )


def the_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a failed command wrote to stderr."""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("pilotage: "), done.stderr
    return lines[0].removeprefix("pilotage: ")


class AgentProcess:
    """`pilotage terminal` or `pilotage pilot`, with the events that it prints."""

    def __init__(self, *arguments: object, prefs: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            command(*arguments, "--json", prefs=prefs),
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()

    def wait_event(self, wanted: Callable[[dict[str, Any]], bool], since: int = 0) -> dict[str, Any]:
        def find() -> dict[str, Any] | None:
            return next((event for event in self.events[since:] if wanted(event)), None)

        with self._changed:
            found = self._changed.wait_for(find, DEADLINE_S)
        assert found, self.events
        return found

    def wait_port(self) -> int:
        return int(self.wait_event(lambda event: event["event"] == "listening")["port"])

    def wait_state(self, state: str) -> None:
        self.wait_event(lambda event: event.get("state") == state)

    def end(self, ask: Callable[[], object]) -> tuple[int, float, str]:
        """Ask it to end; return its exit code, how many seconds it took, and what it wrote to stderr."""
        began = time.monotonic()
        ask()
        code = self.process.wait(DEADLINE_S)
        elapsed_s = time.monotonic() - began
        self._reader.join(DEADLINE_S)
        return code, elapsed_s, (self.process.stderr.read() if self.process.stderr else b"").decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE_S)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
