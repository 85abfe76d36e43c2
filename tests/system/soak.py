"""Run many pilots for long, with faults throughout: nothing may be lost, and nothing may grow.

    python -m tests.system.soak                            30 minutes, 20 pilots; the same as `make soak`
    python -m tests.system.soak --minutes 2 --pilots 4 --seed 7

Each pilot is a real process with its station. Rows come at 5 a second; every second pilot has a stream too, and its
agent is stopped and cut off but not killed, since only rows outlive their sender. The Terminal and its station are
killed in the first third alone, so that they, too, live long enough to be watched. Exit code 1 if a row or item was
lost or doubled, if the certificate doesn't say complete, or if memory, file handles or threads of a process grew.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from pilotage.protocol.errors import PilotageError
from tests.system.faults.rig import TERMINAL, Plan, Rig, quiet

RATE_HZ, STREAM_HZ = 5.0, 2.0
LOOK_S = 5.0
WARM_UP = 0.35
"""Share of the run that isn't watched: what starts, and the third in which the Terminal is killed."""
MIN_SAMPLES = 6
MB = 1 << 20
MAX_GROWTH = {"memory": 12 * MB, "handles": 8, "threads": 3}
"""By how much a process may have more in the last third of the time it was watched than in the first."""
TYPICAL = {"memory": statistics.median, "handles": statistics.median, "threads": min}
"""What stands for a third. Pools of threads breathe with the load, within their bound; a leak raises what is left."""
PAUSE_S = (1.0, 6.0)
FREEZE_S = (5.0, 20.0)
STALL_S = (1.0, 15.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process used at one moment."""

    at: float
    memory: int
    handles: int
    threads: int


@dataclass(frozen=True, slots=True)
class Growth:
    """What became of one number of one process."""

    process: str
    what: str
    first: float
    last: float

    @property
    def is_flat(self) -> bool:
        return self.last - self.first <= MAX_GROWTH[self.what]


class Watch(threading.Thread):
    """Looks at all processes every few seconds."""

    def __init__(self, rig: Rig, look_s: float) -> None:
        super().__init__(name="watch", daemon=True)
        self.samples: dict[tuple[str, int], list[Sample]] = defaultdict(list)
        self._rig, self._look_s = rig, look_s
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(self._look_s):
            for name, agent in self._rig.agents.items():
                for at, process in enumerate(agent.family() if agent.is_alive else []):
                    self._look(f"{name} station" if at else name, process)

    def _look(self, name: str, process: psutil.Process) -> None:
        try:
            with process.oneshot():
                memory, threads = process.memory_info().rss, process.num_threads()
                sample = Sample(time.monotonic(), memory, process.num_fds(), threads)
        except psutil.Error:
            return  # it has just been killed
        self.samples[name, process.pid].append(sample)

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def growths(self, since: float, until: float) -> list[Growth]:
        """Judge each process that lived through all of this time."""
        found = []
        for (name, pid), samples in self.samples.items():
            if not samples or samples[0].at > since + LOOK_S or samples[-1].at < until - 2 * LOOK_S:
                continue
            watched = [sample for sample in samples if since <= sample.at <= until]
            if len(watched) >= MIN_SAMPLES:
                found += [_growth(f"{name} ({pid})", what, watched) for what in MAX_GROWTH]
        return found


def _growth(process: str, what: str, samples: list[Sample]) -> Growth:
    third = len(samples) // 3
    numbers = [getattr(sample, what) for sample in samples]
    typical = TYPICAL[what]
    return Growth(process, what, float(typical(numbers[:third])), float(typical(numbers[-third:])))


class Storm:
    """Draws faults by a seed, one after the other; those that last end by themselves.

    Args:
        rig: what they befall.
        seed: of all that is drawn.
        mortal: pilots whose agents may be killed.
        log: is told of each.
    """

    def __init__(self, rig: Rig, seed: int, mortal: list[str], log: Callable[[str], None]) -> None:
        self.counts: Counter[str] = Counter()
        self._rig, self._chance, self._mortal, self._log = rig, random.Random(seed), mortal, log
        self._frozen: set[str] = set()
        self._stalled = False
        self._timers: list[threading.Timer] = []
        kinds = {
            self.kill_station: 3,
            self.kill_pilot: 2,
            self.freeze: 2,
            self.cut: 3,
            self.stall: 2,
            self.slow: 1,
        }
        self._kinds = [kind for kind, weight in kinds.items() for _ in range(weight)]

    def blow(self, duration_s: float) -> None:
        """Strike until the time is over."""
        began = time.monotonic()
        fatal = [(0.08, f"{TERMINAL} station"), (0.2, TERMINAL)]
        while (now := time.monotonic() - began) < duration_s:
            if fatal and now >= fatal[0][0] * duration_s:
                self._kill(fatal.pop(0)[1])
            else:
                self._chance.choice(self._kinds)()
            time.sleep(self._chance.uniform(*PAUSE_S))
            self._check()

    def _check(self) -> None:
        """See that nobody has ended but by our hand."""
        for name, agent in self._rig.agents.items():
            assert agent.is_alive, f"{name} has ended by itself: {agent.last_words()}"

    def calm(self) -> None:
        """Wait until what lasts is over."""
        for timer in self._timers:
            timer.join()
        self._timers.clear()

    def kill_station(self) -> None:
        self._kill(f"{self._pick(self._rig.names)} station")

    def kill_pilot(self) -> None:
        self._kill(self._pick(self._mortal))

    def freeze(self) -> None:
        name = self._pick([*self._rig.names, TERMINAL])
        which, length_s = self._chance.choice(["agent", "station", "both"]), self._chance.uniform(*FREEZE_S)
        agent = self._rig.agents[name]
        self._note("SIGSTOP", f"{name} {which} for {length_s:.1f} s")
        self._frozen.add(name)
        pids = agent.freeze(which)

        def end() -> None:
            agent.thaw(pids)
            self._frozen.discard(name)

        self._later(length_s, end)
        if name == TERMINAL:
            # Nobody can be started again meanwhile: only links may suffer.
            self.cut()
            self.calm()

    def cut(self) -> None:
        assert self._rig.proxy is not None
        share = self._chance.uniform(0.1, 1.0)
        self._note("cut", f"{share:.0%} of the connections")
        self._rig.proxy.cut(share, self._chance.getrandbits(32))

    def stall(self) -> None:
        assert self._rig.proxy is not None
        if self._stalled:
            return
        length_s = self._chance.uniform(*STALL_S)
        self._note("stall", f"all links for {length_s:.1f} s")
        self._stalled = True
        self._rig.proxy.stall()
        self._later(length_s, self._resume)

    def slow(self) -> None:
        assert self._rig.proxy is not None
        length_s = self._chance.uniform(*STALL_S)
        self._note("delay", f"all links for {length_s:.1f} s")
        self._rig.proxy.delay(self._chance.uniform(0.01, 0.2))
        self._later(length_s, lambda: self._rig.proxy and self._rig.proxy.delay(0))

    def _resume(self) -> None:
        assert self._rig.proxy is not None
        self._rig.proxy.resume()
        self._stalled = False

    def _kill(self, target: str) -> None:
        self._note("kill -9", target)
        self._rig.strike(target)

    def _pick(self, names: list[str]) -> str:
        return self._chance.choice([name for name in names if name not in self._frozen])

    def _later(self, seconds: float, work: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, work)
        timer.start()
        self._timers = [one for one in self._timers if one.is_alive()] + [timer]

    def _note(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        self._log(f"{kind}: {text}")


@dataclass
class Result:
    """How a soak ended; `faults` is empty if it is right."""

    rows: int
    items: int
    struck: Counter[str]
    growths: list[Growth]
    faults: list[str]


def soak(folder: Path, minutes: float, pilots: int, seed: int, log: Callable[[str], None]) -> Result:
    """Run one soak.

    Args:
        folder: where everything lies.
        minutes: how long faults are played.
        pilots: how many there are.
        seed: of the faults.
        log: is told of each fault.
    """
    names = [f"rig_{number:02}" for number in range(pilots)]
    streaming = names[::2]
    with Rig(folder, Plan(pilots=names, with_proxy=True)) as rig:
        rates = {name: {"stream_hz": STREAM_HZ} for name in streaming}
        rig.begin(rate_hz=RATE_HZ, each=rates)
        log(f"{pilots} pilots run in session {rig.session}")
        duration_s = minutes * 60
        watch, storm = Watch(rig, min(LOOK_S, duration_s / 40)), Storm(rig, seed, names[1::2], log)
        began = time.monotonic()
        watch.start()
        faults = attempt(lambda: storm.blow(duration_s))
        ended = time.monotonic()
        storm.calm()
        watch.stop()
        growths = watch.growths(began + WARM_UP * duration_s, ended)
        faults += [
            f"{one.process}: {one.what} grew from {one.first:g} to {one.last:g}"
            for one in growths
            if not one.is_flat
        ]
        if not any(one.process.startswith(TERMINAL) for one in growths):
            faults.append("no process of the Terminal lived long enough to be judged")
        faults += attempt(lambda: rig.finish_and_check(f"{storm.counts.total()} faults, seed {seed}"))
        audit = rig.audit()
        return Result(audit.rows, audit.items, storm.counts, growths, faults)


def attempt(work: Callable[[], object]) -> list[str]:
    """Do something that may fail; give what went wrong."""
    try:
        work()
    except (AssertionError, PilotageError, TimeoutError) as error:
        return [f"{type(error).__name__}: {error}"]
    return []


def show(result: Result, console: Console) -> None:
    """Print what was watched, by role, and the verdict."""
    roles: dict[tuple[str, str], list[Growth]] = defaultdict(list)
    for one in result.growths:
        name, _, rest = one.process.partition(" ")
        who = "terminal" if name == TERMINAL else "pilot"
        roles[f"{who} station" if rest.startswith("station") else who, one.what].append(one)
    table = Table("process", "what", "watched", "first third", "last third", "most growth", "allowed")
    for (role, what), some in sorted(roles.items()):
        unit, name = (MB, " MB") if what == "memory" else (1, "")
        values = (
            statistics.median(one.first for one in some),
            statistics.median(one.last for one in some),
            max(one.last - one.first for one in some),
            MAX_GROWTH[what],
        )
        table.add_row(role, what, str(len(some)), *(f"{value / unit:.4g}{name}" for value in values))
    console.print(table)
    struck = ", ".join(f"{count} × {kind}" for kind, count in result.struck.most_common())
    console.print(f"{result.rows} rows and {result.items} items sent; {struck}")
    for fault in result.faults:
        console.print(f"NOT RIGHT: {fault}", style="bold red", highlight=False)
    if not result.faults:
        console.print("each stored exactly once, the certificate says complete, nothing has grown")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--pilots", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument(
        "--folder", type=Path, help="where to keep everything; it is removed afterwards if not given"
    )
    asked = parser.parse_args()
    console = Console(width=120 if not sys.stdout.isatty() else None)
    console.print(f"seed {asked.seed}")
    began = time.monotonic()

    def log(text: str) -> None:
        console.print(f"{time.monotonic() - began:7.1f} s  {text}", highlight=False)

    with (
        quiet(),
        tempfile.TemporaryDirectory(prefix="pilotage-soak-", ignore_cleanup_errors=True) as temporary,
    ):
        folder = asked.folder or Path(temporary)
        result = soak(folder, asked.minutes, asked.pilots, asked.seed, log)
    show(result, console)
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
