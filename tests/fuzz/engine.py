"""Feed one target, in a process of its own, and keep account: executions, findings, stalls, memory.

    python -m tests.fuzz.engine TARGET SECONDS REPORT [--plain] [--seed N]

With atheris (where it installs) inputs are led by what code they reach; without it they are bent blindly. An input
that breaks a target is put into `corpus/TARGET/` and the run goes on.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"
GROWN = Path(__file__).parents[2] / "build" / "fuzz"
STALL_S = 1.0
WARM_UP = 5_000
MAX_BYTES = 8_192
MAX_FINDINGS = 20
REPORT_EVERY_S = 1.0


def rss_mb() -> float:
    """Give the memory that this process holds now."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


class Account:
    """What a run has met; written down every second, since the engine may end the process by itself."""

    def __init__(self, target: str, report: Path, findings: Path) -> None:
        self.target = target
        self.executions = 0
        self.exceptions: dict[str, str] = {}
        self.stalls: list[str] = []
        self.slowest_s = 0.0
        self.warm_mb = 0.0
        self._report = report
        self._findings = findings
        self._next_report = 0.0

    def feed(self, run: Callable[[bytes], None], data: bytes) -> None:
        """Run a target once."""
        began = time.process_time()
        try:
            run(data)
        except Exception as error:  # noqa: BLE001 - a finding, whatever it is
            self._note(error, data)
        took = time.process_time() - began
        self.executions += 1
        if took > self.slowest_s:
            self.slowest_s = took
            if took > STALL_S and len(self.stalls) < MAX_FINDINGS:
                self.stalls.append(self._keep(data))
        if self.executions == WARM_UP:
            gc.collect()
            self.warm_mb = rss_mb()
        if time.monotonic() >= self._next_report:
            self.write()

    def _note(self, error: Exception, data: bytes) -> None:
        """Keep an input that broke the target, once for each place where it did."""
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {error!s:.200}"
        place = where.split(": ", maxsplit=1)[0]
        if place not in self.exceptions and len(self.exceptions) < MAX_FINDINGS:
            self.exceptions[place] = f"{where} ({self._keep(data)})"

    def _keep(self, data: bytes) -> str:
        self._findings.mkdir(parents=True, exist_ok=True)
        place = self._findings / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
        place.write_bytes(data)
        return place.name

    def write(self) -> None:
        """Write the account down."""
        self._next_report = time.monotonic() + REPORT_EVERY_S
        gc.collect()
        told = {
            "target": self.target,
            "executions": self.executions,
            "exceptions": list(self.exceptions.values()),
            "stalls": self.stalls,
            "slowest_s": self.slowest_s,
            "growth_mb": rss_mb() - self.warm_mb if self.warm_mb else 0.0,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        part = self._report.with_suffix(".part")
        part.write_text(json.dumps(told))
        part.replace(self._report)


def kept_inputs(target: str) -> list[bytes]:
    """Give the inputs that earlier runs have kept."""
    return [file.read_bytes() for file in sorted((CORPUS / target).glob("*"))]


def bent(known: list[bytes], chance: random.Random) -> Iterator[bytes]:
    """Bend known inputs for ever: bytes flipped, cut, doubled, numbers made large, two of them joined."""
    while True:
        data = bytearray(chance.choice(known))
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(7):
                case 0 if at < len(data):
                    data[at] = chance.randrange(256)
                case 1 if at < len(data):
                    data[at] ^= 1 << chance.randrange(8)
                case 2:
                    del data[at : at + chance.choice((1, 2, 8, 64))]
                case 3:
                    data[at:at] = data[at : at + chance.choice((1, 4, 32))] * chance.choice((1, 2, 50))
                case 4:
                    data[at:at] = chance.choice((b"\xff" * 4, b"\xff" * 8, bytes(4), b"\x80" * 4, b"[" * 200))
                case 5:
                    other = chance.choice(known)
                    data[at:] = other[chance.randrange(len(other) + 1) :]
                case 6:
                    data[at:at] = chance.randbytes(chance.choice((1, 2, 4, 9)))
        yield bytes(data[:MAX_BYTES])


def run_plain(
    account: Account,
    run: Callable[[bytes], None],
    known: list[bytes],
    seed: int,
    *,
    end: float,
    most: int = 10**12,
) -> None:
    """Feed known inputs, then bent ones, until a moment of the monotonic clock, or so many."""
    for data in known:
        account.feed(run, data)
    for data in islice(bent(known, random.Random(seed)), most):
        if time.monotonic() > end:
            return
        account.feed(run, data)


def run_led(
    account: Account, run: Callable[[bytes], None], known: list[bytes], seconds: float, seed: int
) -> None:
    """Feed what libFuzzer makes of them; it ends this process."""
    import atheris

    grown = GROWN / account.target
    grown.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(known):
            (Path(folder) / f"{number}").write_bytes(data)
        options = [
            "-rss_limit_mb=4096", f"-max_len={MAX_BYTES}", "-timeout=300", f"-max_total_time={seconds:.0f}",
            f"-seed={seed}", "-verbosity=0", "-print_final_stats=0", "-close_fd_mask=3", "-detect_leaks=0",
            f"-artifact_prefix={GROWN}/",
        ]  # fmt: skip
        atheris.Setup([sys.argv[0], *options, str(grown), folder], lambda data: account.feed(run, data))
        atheris.Fuzz()


def _instrumented() -> Any:
    """Load the targets; with atheris so that it sees which code is reached."""
    import atheris

    with atheris.instrument_imports(include=["pilotage.protocol", "pilotage.net", "pilotage.agents"]):
        from tests.fuzz.targets import TARGETS
    return TARGETS


def main() -> None:
    """Fuzz one target."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("seconds", type=float)
    parser.add_argument("report", type=Path)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    if chosen.plain:
        from tests.fuzz.targets import TARGETS
    else:
        TARGETS = _instrumented()  # noqa: N806
    target = TARGETS[chosen.target]
    account = Account(chosen.target, chosen.report, CORPUS / chosen.target)
    known = [*target.seeds(), *kept_inputs(chosen.target)]
    end = time.monotonic() + chosen.seconds
    if chosen.plain:
        run_plain(account, target.run, known, chosen.seed, end=end)
    else:
        run_led(account, target.run, known, chosen.seconds, chosen.seed)
    account.write()


if __name__ == "__main__":
    main()
