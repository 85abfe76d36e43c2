"""The demo's processes: the commands that ship, each in a process of its own, ended by its id in any case.

Law: a process that was started here ends: asked by the end of its standard input (which it also sees if the demo itself
dies), then told, then killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pilotage.protocol.errors import MachineError

START_TIMEOUT_S = 20.0
ASK_S, TELL_S, KILL_S = 2.5, 1.0, 2.0
LOOK_S = 0.2
ERROR_LINES = 3


class AgentProcess:
    """One agent's process.

    Args:
        name: the agent's.
        command: `terminal` or `pilot`.
        prefs: its file of preferences; what it writes goes beside it.
    """

    def __init__(self, name: str, command: str, prefs: Path) -> None:
        self.name = name
        self.listening: dict[str, Any] = {}
        self._listens = threading.Event()
        self._log = prefs.parent / "stderr.txt"
        arguments = [
            sys.executable,
            "-m",
            "pilotage",
            "--prefs",
            str(prefs),
            command,
            "--json",
            "--until-eof",
        ]
        # Ctrl-C at the terminal is for the demo, which then ends its processes in order.
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(os.environ),
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        self._reader = threading.Thread(target=self._read, name=f"reads-{name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Tell whether it runs."""
        return self._process.poll() is None

    def wait_listening(self, timeout_s: float = START_TIMEOUT_S) -> int:
        """Wait until it listens; give its port.

        Raises:
            MachineError: it has ended, or doesn't come up; the text has what it wrote last.
        """
        deadline = time.monotonic() + timeout_s
        while not self._listens.wait(LOOK_S):
            if not self.is_alive or time.monotonic() > deadline:
                raise MachineError(f"{self.name} did not come up: {self.last_words()}")
        if not self.listening:
            raise MachineError(f"{self.name} did not come up: {self.last_words()}")
        return int(self.listening["port"])

    def last_words(self) -> str:
        """Give the last lines that it wrote to stderr."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return " / ".join(lines[-ERROR_LINES:]) or f"it wrote nothing to {self._log}"

    def ask_to_end(self) -> None:
        """Have it end, without waiting."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except OSError:
                # It has ended by itself; that is as well.
                return

    def end(self) -> int:
        """End it, and wait until it has ended; give its exit code."""
        self.ask_to_end()
        for wait_s, then in ((ASK_S, self._process.terminate), (TELL_S, self._process.kill)):
            try:
                code = self._process.wait(wait_s)
                break
            except subprocess.TimeoutExpired:
                then()
        else:
            code = self._process.wait(KILL_S)
        self._reader.join(LOOK_S)
        return code

    def _read(self) -> None:
        """Take in what it prints; the pipe must never fill up."""
        if self._process.stdout is None:
            return
        with self._process.stdout as lines:
            for line in lines:
                event = json.loads(line)
                if event.get("event") == "listening":
                    self.listening = event
                    self._listens.set()
        self._listens.set()


class Processes:
    """All processes of one demo, ended together whatever happens."""

    def __init__(self) -> None:
        self.started: list[AgentProcess] = []

    def start(self, name: str, command: str, prefs: Path) -> AgentProcess:
        """Start one more."""
        process = AgentProcess(name, command, prefs)
        self.started.append(process)
        return process

    def check(self) -> None:
        """See that all are alive.

        Raises:
            MachineError: one has ended; the text has what it wrote last.
        """
        for process in self.started:
            if not process.is_alive:
                raise MachineError(
                    f"{process.name} (process {process.pid}) has ended: {process.last_words()}"
                )

    def end(self, at_once: bool = False) -> None:
        """End all: the Terminal, started first, after its pilots, unless it has to be at once."""
        for process in self.started if at_once else self.started[:0:-1]:
            process.ask_to_end()
        for process in reversed(self.started):
            process.end()

    def __enter__(self) -> Self:
        """Use it as a context that ends all."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """End all."""
        self.end(at_once=error is not None)


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Leave out preferences of ours: each agent has a file of its own."""
    kept = {name: value for name, value in ours.items() if not name.startswith("PILOTAGE_")}
    return {**kept, "PYTHONUTF8": "1"}
