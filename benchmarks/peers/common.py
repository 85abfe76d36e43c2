"""Run one peer's processes and measure them from outside: rates, losses, round trips, CPU of all processes.

A peer module names its roles as command lines, in the order in which they start, and ends with

    if __name__ == "__main__":
        main(PEER, {"router": open_router, "receiver": open_receiver, "sender": open_sender})

Then `python -m benchmarks.peers.<name> --mode acked --seconds 3` prints one JSON line, and `benchmarks.run`
can compare it. The sender answers the peer's modes (`acked`, `rtt`, `durable`); a receiver answers `count`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from .roles import DURABLE_WINDOW, WINDOW, Addresses, Role, serve

CHECKOUT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
SLACK_S = 20.0


class BenchmarkFailed(RuntimeError):
    """A measured process did not start, ended, or gave no answer in time."""


@dataclass(frozen=True)
class Peer:
    """A system to measure.

    Attributes:
        name: its module's name in `benchmarks.peers`.
        commands: makes (role, command line) in starting order; called once, it may prepare an environment.
        window: how many messages may be unconfirmed in the mode `acked`.
        durable_window: the same in the mode `durable`: more, for a disk that syncs takes its time.
        modes: what its sender answers; the first is what its module measures when it isn't told.
        promise: what a confirmation says in `durable` mode.
        missing: says what this machine lacks to run it; an empty text if nothing.
    """

    name: str
    commands: Callable[[], list[tuple[str, list[str]]]]
    window: int = WINDOW
    durable_window: int = DURABLE_WINDOW
    modes: tuple[str, ...] = ("acked", "rtt")
    promise: str = ""
    missing: Callable[[], str] = str


@dataclass(frozen=True)
class Measurement:
    """One measured slice of one peer. Times in µs or s; `cpu_s` is over all its processes."""

    peer: str
    mode: str
    seconds: float
    sent: int
    confirmed: int
    received: int
    duplicates: int
    out_of_order: int
    cpu_s: float
    rate_per_s: float | None = None
    rtt_p50_us: float | None = None
    rtt_p99_us: float | None = None
    handled_per_s: float | None = None
    cpu_s_per_10k: float = field(init=False)

    def __post_init__(self) -> None:
        per_10k = self.cpu_s / self.confirmed * 10_000 if self.confirmed else float("nan")
        object.__setattr__(self, "cpu_s_per_10k", round(per_10k, 3))

    @property
    def lost(self) -> int:
        """How many were sent and not confirmed."""
        return self.sent - self.confirmed


class Process:
    """One role's process, asked by JSON lines."""

    def __init__(self, role: str, command: list[str], home: Path) -> None:
        self.role = role
        self._log = (home / f"{role}.txt").open("w+")
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=CHECKOUT,
            env={**os.environ, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def ask(self, question: Mapping[str, Any], timeout_s: float) -> Any:
        """Send one line and return the answer.

        Raises:
            BenchmarkFailed: it ended, or did not answer within `timeout_s` seconds.
        """
        if self._popen.stdin is None or self._popen.stdout is None:
            raise BenchmarkFailed(f"{self.role} has no pipes")
        self._popen.stdin.write(json.dumps(question) + "\n")
        self._popen.stdin.flush()
        ready, _, _ = select.select([self._popen.stdout], [], [], timeout_s)
        line = self._popen.stdout.readline() if ready else ""
        if not line:
            raise BenchmarkFailed(f"{self.role} gave no answer to {question}; {self._state()}")
        return json.loads(line)

    def _state(self) -> str:
        code = self._popen.poll()
        self._log.seek(0)
        how = "it runs still" if code is None else f"it ended with {code}"
        return f"{how}; its log ends with: {self._log.read()[-2000:]}"

    def cpu_s(self) -> float:
        """Return the CPU seconds used so far by the process and those it started."""
        root = psutil.Process(self._popen.pid)
        used = [process.cpu_times() for process in (root, *root.children(recursive=True))]
        return float(sum(times.user + times.system for times in used))

    def close(self) -> None:
        """End the process, by force if it takes more than 5 s."""
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        try:
            self._popen.wait(5)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait(5)
        if self._popen.stdout is not None:
            self._popen.stdout.close()
        self._log.close()


class Session:
    """A peer's processes, running; a context manager.

    Raises:
        BenchmarkFailed: one of them did not start.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._next = 0
        self._folder = tempfile.TemporaryDirectory(prefix="pilotage-bench-")
        self._processes: list[Process] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        addresses: Addresses = {}
        for role, command in self.peer.commands():
            process = Process(role, command, Path(self._folder.name))
            self._processes.append(process)
            addresses |= process.ask(addresses, START_TIMEOUT_S)

    def measure(self, mode: str, seconds: float) -> Measurement:
        """Measure one slice.

        Args:
            mode: "acked" (confirmed messages in a window), "durable" (the same, once they are stored) or "rtt"
                (one at a time).
            seconds: how long to send.

        Raises:
            BenchmarkFailed: a process ended or gave no answer.
        """
        *others, sender = self._processes
        cpu_before = self._cpu_s()
        window = self.peer.durable_window if mode == "durable" else self.peer.window
        question = {"what": mode, "seconds": seconds, "first": self._next, "window": window}
        began = time.perf_counter()
        result = sender.ask(question, seconds + SLACK_S)
        self._next += result["sent"]
        receivers = [process for process in others if process.role == "receiver"]
        counts = [process.ask({"what": "count"}, SLACK_S) for process in receivers]
        # A receiver that lags behind answers when it has all: that time and work are part of the slice.
        wall_s, cpu_s = time.perf_counter() - began, self._cpu_s() - cpu_before
        seen = {name: sum(count[name] for count in counts) for name in counts[0]}
        figures: dict[str, Any] = {
            "sent": result["sent"], "confirmed": result["confirmed"], **seen, **_figures(result)
        }  # fmt: skip
        figures["handled_per_s"] = round(seen["received"] / wall_s, 1)
        return Measurement(self.peer.name, mode, seconds, cpu_s=round(cpu_s, 3), **figures)

    def _cpu_s(self) -> float:
        return sum(process.cpu_s() for process in self._processes)

    def close(self) -> None:
        """End all processes, the sender first."""
        while self._processes:
            self._processes.pop().close()
        self._folder.cleanup()


def _figures(result: dict[str, Any]) -> dict[str, float]:
    if "rtt_us" not in result:
        return {"rate_per_s": round(result["in_time"] / result["elapsed_s"], 1)}
    times = sorted(result["rtt_us"])
    p99 = times[int(0.99 * (len(times) - 1))]
    return {"rtt_p50_us": round(statistics.median(times), 1), "rtt_p99_us": p99}


def load_peer(name: str) -> Peer:
    """Return the peer of the module `benchmarks.peers.<name>`."""
    peer: Peer = importlib.import_module(f"benchmarks.peers.{name}").PEER
    return peer


def role_commands(name: str, *roles: str) -> list[tuple[str, list[str]]]:
    """Return the command lines of roles that run under this interpreter in module `name`."""
    start = [sys.executable, "-m", f"benchmarks.peers.{name}", "--role"]
    return [(role, [*start, role]) for role in roles]


def main(peer: Peer, roles: Mapping[str, Callable[[Addresses], Role]]) -> None:
    """Be the command line of a peer's module: measure it once, or run one of its roles."""
    parser = argparse.ArgumentParser(description=f"Measure {peer.name} on loopback; prints one JSON line.")
    parser.add_argument("--mode", choices=peer.modes, default=peer.modes[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--role", choices=sorted(roles), help="used by the benchmark itself")
    arguments = parser.parse_args()
    if arguments.role:
        serve(roles[arguments.role])
        return
    with Session(peer) as session:
        session.measure(arguments.mode, min(0.5, arguments.seconds))
        began = time.perf_counter()
        measured = session.measure(arguments.mode, arguments.seconds)
        wall_s = round(time.perf_counter() - began, 2)
    sys.stdout.write(json.dumps({**asdict(measured), "lost": measured.lost, "wall_s": wall_s}) + "\n")
