"""Run one peer's processes and measure them from outside: rates, losses, round trips, CPU of all processes.

A peer module names its roles as command lines, in the order in which they start, and ends with

    if __name__ == "__main__":
        main(PEER, {"router": open_router, "receiver": open_receiver, "sender": open_sender})

Then `python -m benchmarks.peers.<name> --mode acked --seconds 3` prints one JSON line, and `benchmarks.run`
can compare it. The sender answers what its modes ask (`benchmarks.modes`); a receiver answers `count`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import psutil

from benchmarks.modes import MODES, Mode

from .roles import Addresses, Role, serve

CHECKOUT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
SLACK_S = 40.0
SEEN = ("received", "duplicates", "out_of_order", "corrupt")


class BenchmarkFailed(RuntimeError):
    """A measured process did not start, ended, or gave no answer in time."""


@dataclass(frozen=True)
class Peer:
    """A system to measure.

    Attributes:
        name: its module's name in `benchmarks.peers`.
        commands: makes (role, command line) in starting order; called once, it may prepare an environment.
        windows: how many messages may be unconfirmed, for each mode in which the mode's own number doesn't fit.
        modes: what its sender answers; the first is what its module measures when it isn't told.
        promise: what a confirmation says.
        loses: it is known to lose messages; that is shown, but not held against the run.
        missing: says what this machine lacks to run it; an empty text if nothing.
    """

    name: str
    commands: Callable[[], list[tuple[str, list[str]]]]
    windows: Mapping[str, int] = field(default_factory=dict)
    modes: tuple[str, ...] = ("acked", "rtt")
    promise: str = ""
    loses: bool = False
    missing: Callable[[], str] = str


@dataclass(frozen=True)
class Measurement:
    """One measured slice of one peer; `cpu_s` is over all its processes, the figures are named with their units."""

    peer: str
    mode: str
    seconds: float
    sent: int
    confirmed: int
    received: int
    duplicates: int
    out_of_order: int
    corrupt: int
    cpu_s: float
    figures: dict[str, float]

    @property
    def lost(self) -> int:
        """How many were sent and not confirmed."""
        return self.sent - self.confirmed


class Usage(NamedTuple):
    """What a role uses: CPU seconds of all its processes; CPU and MB of those it started, or its own if none."""

    cpu_s: float
    station_cpu_s: float
    station_mb: float


def _cpu_s(processes: list[psutil.Process]) -> float:
    used = [process.cpu_times() for process in processes]
    return float(sum(times.user + times.system for times in used))


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
        with contextlib.suppress(BrokenPipeError):  # it ended before it read this: there is no answer either
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

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._popen.pid

    def used(self) -> Usage:
        """Return what the process and those it started use and have used so far."""
        root = psutil.Process(self._popen.pid)
        children = root.children(recursive=True)
        own, theirs = _cpu_s([root]), _cpu_s(children)
        station = children or [root]
        return Usage(
            own + theirs, theirs if children else own, sum(one.memory_info().rss for one in station) / 1e6
        )

    def close(self) -> None:
        """End the process, by force if it takes more than 5 s."""
        if self._popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # what it never read
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

    @property
    def processes(self) -> list[Process]:
        """One for each role, the sender last."""
        return list(self._processes)

    def measure(self, mode: str, seconds: float) -> Measurement:
        """Measure one slice.

        Args:
            mode: a name of `benchmarks.modes.MODES`.
            seconds: how long to send.

        Raises:
            BenchmarkFailed: a process ended or gave no answer.
        """
        how = MODES[mode]
        before = self._used()
        began = time.perf_counter()
        result = self._processes[-1].ask(self._question(how, seconds), seconds + SLACK_S)
        self._next += result["sent"]
        receivers = [process for process in self._processes[:-1] if process.role == "receiver"]
        # Where there is no receiver, the sender itself has looked at what came out.
        counts = [result, *(process.ask({"what": "count"}, SLACK_S) for process in receivers)]
        # A receiver that lags behind answers when it has all: that time and work are part of the slice.
        wall_s, after = time.perf_counter() - began, self._used()
        seen = {name: sum(count.get(name, 0) for count in counts) for name in SEEN}
        cpu_s = sum(after[role].cpu_s - before[role].cpu_s for role in after)
        figures = {**figures_of(result, how), **_shares(before, after, wall_s)}
        figures["handled_per_s"] = round(seen["received"] / wall_s, 1)
        if result["confirmed"]:
            figures["cpu_s_per_10k"] = round(cpu_s / result["confirmed"] * 10_000, 3)
        sent, confirmed = result["sent"], result["confirmed"]
        return Measurement(
            self.peer.name, mode, seconds, sent, confirmed, **seen, cpu_s=round(cpu_s, 3), figures=figures
        )

    def _question(self, mode: Mode, seconds: float) -> dict[str, Any]:
        asks = {"what": mode.what, "seconds": seconds, "first": self._next, **mode.asks}
        if mode.name in self.peer.windows:
            asks["window"] = self.peer.windows[mode.name]
        return asks

    def _used(self) -> dict[str, Usage]:
        return {process.role: process.used() for process in self._processes}

    def close(self) -> None:
        """End all processes, the sender first."""
        while self._processes:
            self._processes.pop().close()
        self._folder.cleanup()


def figures_of(result: Mapping[str, Any], mode: Mode) -> dict[str, float]:
    """Return the figures that a sender's answer contains."""
    figures: dict[str, float] = dict(result.get("figures", {}))
    if "in_time" in result:
        figures["rate_per_s"] = round(result["in_time"] / result["elapsed_s"], 1)
        figures["mb_per_s"] = round(figures["rate_per_s"] * mode.asks.get("size", 0) / 1e6, 1)
    if "rtt_us" in result:
        figures["rtt_p50_us"], figures["rtt_p99_us"] = _p50_p99(result["rtt_us"])
    if "wanted" in result:
        figures["delivered_pct"] = round(100 * result["confirmed"] / max(1, result["wanted"]), 2)
        figures["p50_ms"], figures["p99_ms"] = (round(us / 1e3, 3) for us in _p50_p99(result["latency_us"]))
    if "loaded_us" in result:
        _, figures["idle_p99_us"] = _p50_p99(result["idle_us"])
        figures["loaded_p50_us"], figures["loaded_p99_us"] = _p50_p99(result["loaded_us"])
        figures["p99_x_idle"] = round(figures["loaded_p99_us"] / figures["idle_p99_us"], 3)
        figures["stream_mb_per_s"] = round(result["stream_mb_per_s"], 1)
    return figures


def _p50_p99(times: Sequence[float]) -> tuple[float, float]:
    if not times:
        return float("nan"), float("nan")
    ordered = sorted(times)
    return round(statistics.median(ordered), 1), ordered[int(0.99 * (len(ordered) - 1))]


def _shares(before: Mapping[str, Usage], after: Mapping[str, Usage], wall_s: float) -> dict[str, float]:
    """Return each role's share of a core, and what a station alone takes."""
    shares = {
        f"{role}_cpu_pct": round(100 * (used.cpu_s - before[role].cpu_s) / wall_s, 3)
        for role, used in after.items()
    }
    if (station := after.get("router")) is not None:
        used_s = station.station_cpu_s - before["router"].station_cpu_s
        shares |= {"station_cpu_pct": round(100 * used_s / wall_s, 3), "station_mb": station.station_mb}
    return shares


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
