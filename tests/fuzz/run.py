"""Fuzz all targets for a while, and say what came of it.

    python -m tests.fuzz.run --minutes 60 --workers 2          (make fuzz FUZZ_MINUTES=60)
    python -m tests.fuzz.run --minutes 1 --targets exchange body

Prints, for each target: executions, exceptions that are no documented errors, stalls (an input that took more than a
second of CPU time) and memory. Exit code 1 if there were any, or if memory grew beyond its bound. What was found lies
in `tests/fuzz/corpus/TARGET/`, where `make test` feeds it again; what merely reached new code lies in `build/fuzz`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.fuzz.targets import TARGETS

MAX_GROWTH_MB = 300.0
"""An engine keeps what it has found to be new in memory, too."""
GRACE_S = 400.0
SLICE_S = 300.0
ROOT = Path(__file__).parents[2]


def fuzz(target: str, seconds: float, *, is_plain: bool, seed: int) -> dict[str, Any]:
    """Fuzz one target in a process of its own, and give its account."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.engine",
            target,
            str(seconds),
            str(report),
            "--seed",
            str(seed),
        ]
        try:
            done = subprocess.run(
                [*command, *["--plain"] * is_plain], cwd=ROOT, capture_output=True, text=True, check=False,
                timeout=seconds + GRACE_S,
            )  # fmt: skip
            died = "" if done.returncode == 0 else f"ended with {done.returncode}: {done.stderr[-500:]}"
        except subprocess.TimeoutExpired:
            died = f"did not end {GRACE_S:g} s after its time"
        found: dict[str, Any] = json.loads(report.read_text()) if report.exists() else _nothing(target)
    if died:
        found["exceptions"].append(f"the process {died}")
    return found


def _nothing(target: str) -> dict[str, Any]:
    return {
        "target": target, "executions": 0, "exceptions": [], "stalls": [], "slowest_s": 0.0, "growth_mb": 0.0,
        "peak_mb": 0.0,
    }  # fmt: skip


def join(accounts: list[dict[str, Any]]) -> dict[str, Any]:
    """Join the accounts of one target's slices."""
    whole = _nothing(accounts[0]["target"])
    for one in accounts:
        whole["executions"] += one["executions"]
        whole["exceptions"] = sorted({*whole["exceptions"], *one["exceptions"]})
        whole["stalls"] = sorted({*whole["stalls"], *one["stalls"]})
        for name in ("slowest_s", "growth_mb", "peak_mb"):
            whole[name] = max(whole[name], one[name])
    return whole


def is_bad(account: dict[str, Any]) -> bool:
    """Tell whether a target had findings."""
    return bool(account["exceptions"] or account["stalls"] or account["growth_mb"] > MAX_GROWTH_MB)


def plan(targets: list[str], seconds: float, workers: int) -> list[tuple[str, float]]:
    """Share the time out: (target, seconds) in slices, each target's first slice before anybody's second."""
    whole = sum(TARGETS[name].share for name in targets)
    left = {name: seconds * workers * TARGETS[name].share / whole for name in targets}
    slices: list[tuple[str, float]] = []
    while any(rest > 0 for rest in left.values()):
        for name, rest in left.items():
            if rest > 0:
                size = rest if rest < 2 * SLICE_S else SLICE_S
                slices.append((name, size))
                left[name] = rest - size
    return slices


def show(accounts: list[dict[str, Any]], took_s: float) -> None:
    """Print the table."""
    print(
        f"{'target':10} {'executions':>12} {'exceptions':>11} {'stalls':>7} {'slowest':>9} {'growth':>9} {'peak':>8}"
    )
    for one in accounts:
        figures = f"{one['slowest_s']:8.3f}s {one['growth_mb']:6.0f} MB {one['peak_mb']:5.0f} MB"
        print(
            f"{one['target']:10} {one['executions']:12,} {len(one['exceptions']):11} {len(one['stalls']):7} {figures}"
        )
        for text in (*one["exceptions"], *(f"stall: {name}" for name in one["stalls"])):
            print(f"    {text}")
    executions = sum(one["executions"] for one in accounts)
    exceptions, stalls = (sum(len(one[what]) for one in accounts) for what in ("exceptions", "stalls"))
    growth = max(one["growth_mb"] for one in accounts)
    print(
        f"{executions:,} executions in {took_s / 60:.1f} min: {exceptions} exceptions, {stalls} stalls, "
        f"memory grew by {growth:.0f} MB at most"
    )


def main() -> int:
    """Fuzz, print, and give the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--targets", nargs="*", choices=sorted(TARGETS), default=None)
    parser.add_argument("--plain", action="store_true", help="don't use atheris, even where it is installed")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    is_plain = chosen.plain or importlib.util.find_spec("atheris") is None
    print(
        f"inputs are {'bent blindly (atheris is not installed)' if is_plain else 'led by coverage (atheris)'}"
    )
    began = time.monotonic()
    slices = plan(chosen.targets or list(TARGETS), chosen.minutes * 60, chosen.workers)
    done: dict[str, list[dict[str, Any]]] = {}
    with ThreadPoolExecutor(chosen.workers) as pool:
        work = [
            pool.submit(fuzz, name, seconds, is_plain=is_plain, seed=chosen.seed + number)
            for number, (name, seconds) in enumerate(slices)
        ]
        for one in work:
            account = one.result()
            done.setdefault(account["target"], []).append(account)
    accounts = [join(parts) for parts in done.values()]
    show(accounts, time.monotonic() - began)
    return int(any(is_bad(account) for account in accounts))


if __name__ == "__main__":
    sys.exit(main())
