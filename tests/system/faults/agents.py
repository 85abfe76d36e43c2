"""One agent's processes: the command that a user or systemd starts, and the station that it starts itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import wait_eventually

UP_S = 25.0
ORPHAN_S = 5.0
"""When a station must have gone after its agent's death: promised is a second; the machine may be busy."""
BACK_S = 20.0


class Agent:
    """`pilotage terminal` or `pilotage pilot`: started, killed, stopped and started again, under one name.

    Args:
        name: what the tests call it.
        arguments: what follows `pilotage`.
        folder: where its preferences lie and its words are kept.
        env: what is added to its environment.
        prefix: what is written before its command line, such as `ip netns exec NAME`.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        folder: Path,
        env: Mapping[str, str],
        prefix: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.folder = folder
        self.lives = 0
        self.events: list[dict[str, Any]] = []
        self._command = [*prefix, sys.executable, "-m", "pilotage", *arguments, "--json", "--until-eof"]
        # An agent's preferences are those of its file alone.
        ours = {key: value for key, value in os.environ.items() if not key.startswith("PILOTAGE_")}
        self._env = {**ours, "PYTHONUTF8": "1", **env}
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    # Life

    def start(self) -> None:
        """Start it, without waiting."""
        assert not self.is_alive, f"{self.name} runs already"
        self._let_go()
        self.lives += 1
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._env,
                start_new_session=True,
            )
        self.events = []
        arguments = (self._process, self.events)
        self._reader = threading.Thread(target=_read, args=arguments, daemon=True)
        self._reader.start()

    def wait_port(self) -> int:
        """Wait until it listens; give its port."""

        def find() -> int:
            if not self.is_alive:
                raise AssertionError(f"{self.name} did not come up: {self.last_words()}")
            return next((e["port"] for e in list(self.events) if e["event"] == "listening"), 0)

        return int(wait_eventually(find, UP_S, 0.02))

    def start_again(self) -> None:
        """Start it as systemd would after a crash: again and again, until it stays."""
        deadline = time.monotonic() + UP_S
        while True:
            self.start()
            try:
                self.wait_port()
            except AssertionError:
                if time.monotonic() > deadline or self.is_alive:
                    raise
            else:
                return

    def end(self) -> int:
        """End it as a user would, and for certain."""
        if self._process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGCONT)
        family = self.family()
        for one in family:
            _tell(one.pid, signal.SIGCONT)
        if self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait(5)
        for one in psutil.wait_procs(family, ORPHAN_S)[1]:
            one.kill()
        self._let_go()
        return code

    def _let_go(self) -> None:
        """Close the pipes of a process that has ended."""
        if self._process is not None and self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        if self._reader:
            self._reader.join(5)

    # What is known

    @property
    def log(self) -> Path:
        """Where it writes its warnings."""
        return self.folder / "stderr.txt"

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    def last_words(self) -> str:
        """Give the end of what it wrote to stderr."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return " / ".join(text.strip().splitlines()[-6:]) or "it wrote nothing"

    def family(self) -> list[psutil.Process]:
        """Give all its processes, the agent's own first."""
        try:
            own = psutil.Process(self.pid)
            return [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def station(self) -> psutil.Process:
        """Give its station's process, waiting for one if there is none."""
        return wait_eventually(self._find_station, BACK_S, 0.02)

    def _find_station(self) -> psutil.Process | None:
        # The one child that has our command line: it was forked.
        try:
            own = psutil.Process(self.pid)
            line = own.cmdline()
            return next((one for one in own.children() if one.cmdline() == line), None)
        except psutil.Error:
            return None

    # Faults

    def kill(self) -> None:
        """Kill the agent's own process at once; its station must follow."""
        station = self.station()
        os.kill(self.pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(5)
        _, left = psutil.wait_procs([station], ORPHAN_S)
        assert not left, f"{self.name}'s station lived on for {ORPHAN_S} s after its agent's death"

    def kill_station(self) -> None:
        """Kill the station's process at once; its agent must start another."""
        old = self.station()
        old.kill()
        wait_eventually(lambda: self.station().pid != old.pid, BACK_S, 0.02)

    def freeze(self, which: str) -> list[int]:
        """Stop `agent`, `station` or `both` where they are; tell which processes these are."""
        pids = self._pids(which)
        for pid in pids:
            _tell(pid, signal.SIGSTOP)
        return pids

    def thaw(self, pids: Sequence[int]) -> None:
        """Let them go on."""
        for pid in pids:
            _tell(pid, signal.SIGCONT)

    def _pids(self, which: str) -> list[int]:
        own = [] if which == "station" else [self.pid]
        return own if which == "agent" else [*own, self.station().pid]


def _tell(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _read(process: subprocess.Popen[bytes], events: list[dict[str, Any]]) -> None:
    """Take in what it prints; the pipe must never fill up."""
    assert process.stdout is not None
    with process.stdout as lines, contextlib.suppress(ValueError):
        events.extend(json.loads(line) for line in lines)
