"""Play many seeds: `python -m pilotage.testing.simulate --seeds 1000 --start 0`."""

from __future__ import annotations

import argparse
import re
import sys
import time
import traceback
from collections import Counter

from pilotage.testing.invariants import violations
from pilotage.testing.scenes import play

EVENTS = ("** ", " dies", " loses", " connected to", " hangs up")


def judge(
    seed: int, *, tracing: bool = False
) -> tuple[list[str], float, Counter[str], int, list[tuple[float, str]]]:
    """Play one seed: give its violations, virtual seconds, faults, sends and trace."""
    try:
        world = play(seed, tracing=tracing)
    except Exception as error:  # noqa: BLE001 whatever comes out of the core breaks promise B1
        return [traceback.format_exc(limit=-6), repr(error)], 0.0, Counter(), 0, []
    return (
        violations(world),
        world.now,
        world.recorder.faults,
        len(world.recorder.sends),
        world.recorder.trace,
    )


def main(arguments: list[str] | None = None) -> int:
    """Play the seeds asked for; the exit code tells whether a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m pilotage.testing.simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many to play")
    parser.add_argument("--start", type=int, default=0, help="the first")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first broken promise")
    parser.add_argument("--trace", action="store_true", help="show what happened in a seed that broke one")
    options = parser.parse_args(arguments)
    faults: Counter[str] = Counter()
    virtual_s, sends, bad, began = 0.0, 0, 0, time.perf_counter()
    for seed in range(options.start, options.start + options.seeds):
        broken, seconds, seen, sent, _ = judge(seed)
        virtual_s, sends = virtual_s + seconds, sends + sent
        faults += seen
        if broken:
            bad += 1
            _say(f"seed {seed}: {len(broken)} violations")
            for text in broken[:10]:
                _say(f"    {text}")
            if options.trace:
                _show_trace(seed, broken[:10])
            if not options.keep_going:
                break
    took = time.perf_counter() - began
    listed = ", ".join(f"{count} × {what}" for what, count in sorted(faults.items()))
    played = seed - options.start + 1
    _say(f"{played} seeds, {sends} sends, {virtual_s / 3600:.1f} virtual hours in {took:.1f} s")
    _say(f"faults: {listed or 'none'}")
    _say(f"seeds with a broken promise: {bad}")
    return 1 if bad else 0


def _show_trace(seed: int, broken: list[str]) -> None:
    """Show the faults, the comings and goings, and what happened to the messages that were complained of."""
    concerned = {name for text in broken for name in re.findall(r"\b\w+_\d+\b", text)}
    for at, text in judge(seed, tracing=True)[4]:
        if not concerned.isdisjoint(re.findall(r"\b\w+_\d+\b", text)) or any(word in text for word in EVENTS):
            _say(f"  {at:9.4f}  {text[:200]}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
