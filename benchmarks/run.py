"""Compare all peers side by side on loopback, in interleaved rounds, and say what each lost.

    python -m benchmarks.run                                    every peer, about two minutes
    python -m benchmarks.run --peers raw_pyzmq autopilot_051 --json results.json
    python -m benchmarks.run --acked-rounds 3 --rtt-rounds 20 --seconds 1

Read ratios within one table: machines drift. A ratio is the median of the ratios of the rounds, in each of
which every peer is measured once, so that the drift hits all alike. All processes stay up between slices: a
peer that burns CPU when idle slows the others down. Exit code 1 if a peer lost or duplicated a message, if it
failed, or if Pilotage (`ours`) missed one of its bars.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .peers.common import BenchmarkFailed, Measurement, Session, load_peer

PEERS = Path(__file__).parent / "peers"
HELPERS = {"__init__", "common", "roles"}
REFERENCE, ORIGINAL, OURS = "raw_pyzmq", "autopilot_051", "ours"
WARM_UP_S = 0.3
WIDTH = 130

Rounds = dict[str, list[Measurement]]


@dataclass(frozen=True)
class Bar:
    """What Pilotage must reach: a ratio of one figure to another peer's, over enough rounds."""

    mode: str
    figure: str
    peer: str
    at_least: float = 0.0
    at_most: float = float("inf")
    rounds: int = 1

    def judge(self, measured: dict[str, Rounds]) -> tuple[bool, str]:
        """Tell whether it is met, and say so."""
        mine, theirs = (measured[self.mode].get(name, []) for name in (OURS, self.peer))
        what = f"{self.mode}: {OURS} {self.figure} / {self.peer}"
        if not mine or not theirs:
            return True, f"{what}: not measured in this run"
        ratio = median_ratio(mine, theirs, self.figure)
        is_met = self.at_least <= ratio <= self.at_most and len(mine) >= self.rounds
        wanted = f"at least {self.at_least:g}" if self.at_least else f"at most {self.at_most:g}"
        rounds = f"over {len(mine)} pairs (at least {self.rounds})"
        return is_met, f"{what} = {ratio:.2f} {rounds}, wanted {wanted}: {'met' if is_met else 'MISSED'}"


FAULTS = ("lost", "duplicates", "unreceived", "out_of_order")
UNITS = {
    "rate_per_s": "rate /s",
    "cpu_s_per_10k": "CPU s/10k",
    "rtt_p50_us": "p50 µs",
    "rtt_p99_us": "p99 µs",
}

BARS = (
    Bar("acked", "rate_per_s", ORIGINAL, at_least=10.0),
    Bar("rtt", "rtt_p50_us", REFERENCE, at_most=1.5, rounds=20),
)


def known_peers() -> list[str]:
    """Return the names of all peer modules, the reference first."""
    names = {file.stem for file in PEERS.glob("*.py")} - HELPERS
    return sorted((n for n in names if not n.endswith("_roles")), key=lambda n: (n != REFERENCE, n))


def measure_rounds(sessions: list[Session], mode: str, rounds: int, seconds: float) -> Rounds:
    """Measure each session once a round, in turning order, after one short slice that is thrown away."""
    measured: Rounds = {session.peer.name: [] for session in sessions}
    for session in sessions:
        session.measure(mode, WARM_UP_S)
    for number in range(rounds):
        start = number % len(sessions)
        for session in sessions[start:] + sessions[:start]:
            measured[session.peer.name].append(session.measure(mode, seconds))
    return measured


def median_ratio(mine: list[Measurement], reference: list[Measurement], figure: str) -> float:
    """Return the median over rounds of one figure's ratio to the reference's."""
    pairs = zip(mine, reference, strict=True)
    return float(statistics.median(getattr(a, figure) / getattr(b, figure) for a, b in pairs))


def summarize(measured: Rounds, figures: list[str], references: list[str]) -> dict[str, dict[str, Any]]:
    """Return for each peer the medians, the range and ratios of the first figure, and the summed counts."""
    summary = {}
    for name, slices in measured.items():
        values = [getattr(one, figures[0]) for one in slices]
        counts = ("sent", "lost", "duplicates", "out_of_order")
        summary[name] = {
            **{figure: statistics.median(getattr(one, figure) for one in slices) for figure in figures},
            "range": [min(values), max(values)],
            **{f"/ {other}": median_ratio(slices, measured[other], figures[0]) for other in references},
            "rounds": len(slices),
            **{count: sum(getattr(one, count) for one in slices) for count in counts},
            "unreceived": sum(max(0, one.sent - one.received) for one in slices),
        }
    return summary


def wide_console() -> Console:
    """Return a console that leaves a table its width where no terminal bounds it, as in a log."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def show(console: Console, title: str, summary: dict[str, dict[str, Any]]) -> None:
    """Print one summary as a table; what a good run has none of stands in one column."""
    table = Table(title=title)
    rows = {name: _row(row) for name, row in summary.items()}
    for number, column in enumerate(["peer", *next(iter(rows.values()))]):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for name, row in rows.items():
        table.add_row(name, *row.values())
    console.print(table, soft_wrap=True)


def _row(row: dict[str, Any]) -> dict[str, str]:
    cells = {UNITS.get(name, name): _cell(value) for name, value in row.items() if name not in FAULTS}
    bad = [f"{row[name]} {name}" for name in FAULTS if row[name]]
    return {**cells, "faults": ", ".join(bad) or "none"}


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return "–".join(_cell(inner) for inner in value)
    return f"{value:,.3f}" if isinstance(value, float) and value < 100 else f"{value:,.0f}"


def faults(summaries: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Return a sentence for each peer and mode that lost or duplicated messages."""
    bad = ("lost", "duplicates", "unreceived")
    return [
        f"{name}, {mode}: " + ", ".join(f"{row[count]} {count}" for count in bad)
        for mode, summary in summaries.items()
        for name, row in summary.items()
        if any(row[count] for count in bad)
    ]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers", nargs="+", choices=known_peers(), default=known_peers())
    parser.add_argument("--reference", choices=known_peers(), default=REFERENCE)
    parser.add_argument("--acked-rounds", type=int, default=7)
    parser.add_argument("--rtt-rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one acked slice")
    parser.add_argument("--rtt-seconds", type=float, default=0.5, help="of one round-trip slice")
    parser.add_argument("--json", type=Path, help="write all slices and summaries here")
    arguments = parser.parse_args()
    if arguments.reference not in arguments.peers:
        parser.error(f"--peers must contain the reference, {arguments.reference}")
    return arguments


def machine() -> dict[str, Any]:
    """Say where and when this was measured, and how busy the machine was."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load_1_min": os.getloadavg()[0],
    }


def run(arguments: argparse.Namespace) -> dict[str, Rounds]:
    """Start all peers and measure both modes."""
    with ExitStack() as stack:
        sessions = [stack.enter_context(Session(load_peer(name))) for name in arguments.peers]
        return {
            "acked": measure_rounds(sessions, "acked", arguments.acked_rounds, arguments.seconds),
            "rtt": measure_rounds(sessions, "rtt", arguments.rtt_rounds, arguments.rtt_seconds),
        }


def main() -> int:
    """Measure, print, write, and return the exit code."""
    arguments, console, where = parse_arguments(), wide_console(), machine()
    try:
        measured = run(arguments)
    except BenchmarkFailed as error:
        console.print(f"failed: {error}", markup=False)
        return 1
    references = [arguments.reference]
    references += [ORIGINAL] if ORIGINAL in arguments.peers and arguments.reference != ORIGINAL else []
    figures = {"acked": ["rate_per_s", "cpu_s_per_10k"], "rtt": ["rtt_p50_us", "rtt_p99_us", "cpu_s_per_10k"]}
    summaries = {mode: summarize(rounds, figures[mode], references) for mode, rounds in measured.items()}
    titles = {"acked": "acked 200-byte messages", "rtt": "round trips, one at a time"}
    for mode, summary in summaries.items():
        show(console, f"{titles[mode]}; load {where['load_1_min']:.1f} at the start", summary)
    if arguments.json:
        slices = {m: {n: [asdict(s) for s in r] for n, r in rounds.items()} for m, rounds in measured.items()}
        document = {"machine": where, "summaries": summaries, "slices": slices}
        arguments.json.write_text(json.dumps(document, indent=1))
    found = faults(summaries)
    for fault in found:
        console.print(fault, style="bold red")
    verdicts = [bar.judge(measured) for bar in BARS]
    for is_met, text in verdicts:
        console.print(text, style="green" if is_met else "bold red")
    return 1 if found or not all(is_met for is_met, _ in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
