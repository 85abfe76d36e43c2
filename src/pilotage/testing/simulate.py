"""Play many seeds: `python -m pilotage.testing.simulate --seeds 1000 --start 0`."""

from __future__ import annotations

import argparse
import re
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context

from pilotage.testing.invariants import violations
from pilotage.testing.sabotage import RULES, without
from pilotage.testing.scenes import play

PART = 25
AHEAD = 4
"""Parts that wait for each process, for there may be millions."""
MOST_LINES = 10
EVENTS = ("** ", " dies", " loses", " connected to", " hangs up")


@dataclass(slots=True)
class Judged:
    """What came of some seeds.

    Attributes:
        seeds: how many were played.
        sends: messages sent in them.
        virtual_s: time that passed in them, in seconds.
        faults: what went wrong in them.
        broken: the promises that were broken, by seed.
    """

    seeds: int = 0
    sends: int = 0
    virtual_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    broken: dict[int, list[str]] = field(default_factory=dict)

    def add(self, other: Judged) -> None:
        """Count other seeds too."""
        self.seeds += other.seeds
        self.sends += other.sends
        self.virtual_s += other.virtual_s
        self.faults += other.faults
        self.broken |= other.broken


def judge(seed: int) -> Judged:
    """Play one seed and see whether the promises held."""
    try:
        world = play(seed)
    except Exception as error:  # noqa: BLE001 whatever comes out of the core breaks promise B1
        return Judged(1, broken={seed: [traceback.format_exc(limit=-6), repr(error)]})
    broken = violations(world)
    told = {seed: broken} if broken else {}
    return Judged(1, len(world.recorder.sends), world.now, world.recorder.faults, told)


def judge_all(seeds: range, rule: str | None = None) -> Judged:
    """Play some seeds, without a rule if one is named."""
    judged = Judged()
    with without(rule):
        for seed in seeds:
            judged.add(judge(seed))
    return judged


def judge_side_by_side(seeds: range, jobs: int, rule: str | None) -> Iterator[Judged]:
    """Play seeds in some processes; give what came of them, part by part."""
    parts = (seeds[at : at + PART] for at in range(0, len(seeds), PART))
    if jobs < 2:
        yield from (judge_all(part, rule) for part in parts)
        return
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        ahead = deque(pool.submit(judge_all, part, rule) for part in islice(parts, AHEAD * jobs))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(judge_all, part, rule) for part in islice(parts, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def main(arguments: list[str] | None = None) -> int:
    """Play the seeds asked for; the exit code tells whether a promise was broken."""
    options = _parse(arguments)
    total, began = Judged(), time.perf_counter()
    seeds = range(options.start, options.start + options.seeds)
    until = began + options.minutes * 60.0
    try:
        for part in judge_side_by_side(seeds, options.jobs, options.without):
            total.add(part)
            for seed, broken in part.broken.items():
                _complain(seed, broken, options)
            if (total.broken and not options.keep_going) or time.perf_counter() > until:
                break
    except KeyboardInterrupt:
        _say("stopped; what was played until then:")
    listed = ", ".join(f"{count} × {what}" for what, count in sorted(total.faults.items()))
    took = time.perf_counter() - began
    _say(
        f"{total.seeds} seeds, {total.sends} sends, {total.virtual_s / 3600:.1f} virtual hours in {took:.1f} s"
    )
    _say(f"faults: {listed or 'none'}")
    _say(f"seeds with a broken promise: {len(total.broken)}{_first(total, options.start)}")
    return 1 if total.broken else 0


def _first(total: Judged, start: int) -> str:
    return f"; the first was number {min(total.broken) - start + 1}" if total.broken else ""


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pilotage.testing.simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many to play")
    parser.add_argument("--start", type=int, default=0, help="the first")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="end after that long at the latest"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes that play side by side")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first broken promise")
    parser.add_argument("--trace", action="store_true", help="show what happened in a seed that broke one")
    parser.add_argument("--without", choices=sorted(RULES), help="take a rule out, to see it noticed")
    return parser.parse_args(arguments)


def _complain(seed: int, broken: list[str], options: argparse.Namespace) -> None:
    _say(f"seed {seed}: {len(broken)} violations")
    for text in broken[:MOST_LINES]:
        _say(f"    {text}")
    if options.trace:
        with without(options.without):
            _show_trace(seed, broken[:MOST_LINES])


def _show_trace(seed: int, broken: list[str]) -> None:
    """Show the faults, the comings and goings, and what happened to the messages that were complained of."""
    concerned = {name for text in broken for name in re.findall(r"\b\w+_\d+\b", text)}
    try:
        trace = play(seed, tracing=True).recorder.trace
    except Exception as error:  # noqa: BLE001 the violations tell where it comes from
        _say(f"  the world ends with {error!r}")
        return
    for at, text in trace:
        if not concerned.isdisjoint(re.findall(r"\b\w+_\d+\b", text)) or any(word in text for word in EVENTS):
            _say(f"  {at:9.4f}  {text[:200]}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
