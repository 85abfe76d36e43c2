"""Compare all peers side by side on loopback, in interleaved rounds, and say what each lost.

    python -m benchmarks.run                                    every peer, about four minutes
    python -m benchmarks.run --peers raw_pyzmq autopilot_051 --json results.json
    python -m benchmarks.run --acked-rounds 3 --rtt-rounds 20 --seconds 1
    python -m benchmarks.run --modes durable                    only what is stored, beside NATS JetStream

Modes: `acked` counts confirmed messages, `rtt` times round trips, `durable` counts confirmed rows of trial data. What
a confirmation says differs there from peer to peer: the column "promise" tells it. Files lie in the folder for
temporary ones; set TMPDIR to a folder on the disk to be measured if that is kept in memory.

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
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from .peers.common import BenchmarkFailed, Measurement, Peer, Session, load_peer

PEERS = Path(__file__).parent / "peers"
HELPERS = {"__init__", "common", "roles"}
REFERENCE, ORIGINAL, OURS = "raw_pyzmq", "autopilot_051", "ours"
JETSTREAM, OURS_DURABLE = "nats_jetstream", "ours_durable"
ALSO_AS_DURABLE = {OURS: "handled, in memory", ORIGINAL: "received, in memory"}
"""Peers that promise no durability: in that mode they are asked to do what they do in `acked`, which promises this."""

FIGURES = {
    "acked": ["rate_per_s", "cpu_s_per_10k"],
    "rtt": ["rtt_p50_us", "rtt_p99_us", "cpu_s_per_10k"],
    "durable": ["rate_per_s", "handled_per_s", "cpu_s_per_10k"],
}
TITLES = {
    "acked": "acked 200-byte messages",
    "rtt": "round trips, one at a time",
    "durable": "confirmed 200-byte rows of trial data",
}
MEMORY_DISKS = ("tmpfs", "ramfs")
WARM_UP_S = 0.3
WIDTH = 150

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
    mine: str = OURS

    def judge(self, measured: dict[str, Rounds]) -> tuple[bool, str]:
        """Tell whether it is met, and say so."""
        mine, theirs = (measured.get(self.mode, {}).get(name, []) for name in (self.mine, self.peer))
        what = f"{self.mode}: {self.mine} {self.figure} / {self.peer}"
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
    "handled_per_s": "handled /s",
    "cpu_s_per_10k": "CPU s/10k",
    "rtt_p50_us": "p50 µs",
    "rtt_p99_us": "p99 µs",
}

BARS = (
    Bar("acked", "rate_per_s", ORIGINAL, at_least=10.0),
    Bar("rtt", "rtt_p50_us", REFERENCE, at_most=1.5, rounds=20),
    Bar("durable", "rate_per_s", JETSTREAM, at_least=1.0, mine=OURS_DURABLE),
)


def known_peers() -> list[str]:
    """Return the names of all peer modules, the reference first."""
    names = {file.stem for file in PEERS.glob("*.py")} - HELPERS
    return sorted((n for n in names if not n.endswith("_roles")), key=lambda n: (n != REFERENCE, n))


def answers(peer: Peer, mode: str) -> bool:
    """Tell whether a peer is measured in a mode."""
    return mode in peer.modes or (mode == "durable" and peer.name in ALSO_AS_DURABLE)


def references_of(mode: str, reference: str, measured: Rounds) -> list[str]:
    """Return the peers to which ratios are given in a mode, of those that were measured."""
    wanted = [JETSTREAM, OURS] if mode == "durable" else [reference, ORIGINAL]
    return [name for name in dict.fromkeys(wanted) if name in measured]


def measure_rounds(sessions: list[Session], mode: str, rounds: int, seconds: float) -> Rounds:
    """Measure each session once a round, in turning order, after one short slice that is thrown away."""
    measured: Rounds = {session.peer.name: [] for session in sessions}
    for session in sessions:
        session.measure(_asked(session.peer, mode), WARM_UP_S)
    for number in range(rounds):
        start = number % len(sessions)
        for session in sessions[start:] + sessions[:start]:
            measured[session.peer.name].append(session.measure(_asked(session.peer, mode), seconds))
    return measured


def _asked(peer: Peer, mode: str) -> str:
    return mode if mode in peer.modes else "acked"


def median_ratio(mine: list[Measurement], reference: list[Measurement], figure: str) -> float:
    """Return the median over rounds of one figure's ratio to the reference's."""
    pairs = zip(mine, reference, strict=True)
    return float(statistics.median(getattr(a, figure) / getattr(b, figure) for a, b in pairs))


def summarize(
    measured: Rounds, figures: list[str], references: list[str], promises: dict[str, str] | None = None
) -> dict[str, dict[str, Any]]:
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
            **({"promise": promises[name]} if promises else {}),
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
    if isinstance(value, str):
        return value
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
    parser.add_argument("--modes", nargs="+", choices=list(FIGURES), default=list(FIGURES))
    parser.add_argument("--reference", choices=known_peers(), default=REFERENCE)
    parser.add_argument("--acked-rounds", type=int, default=7)
    parser.add_argument("--durable-rounds", type=int, default=7)
    parser.add_argument("--rtt-rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one acked or durable slice")
    parser.add_argument("--rtt-seconds", type=float, default=0.5, help="of one round-trip slice")
    parser.add_argument("--json", type=Path, help="write all slices and summaries here")
    arguments = parser.parse_args()
    if arguments.reference not in arguments.peers and arguments.modes != ["durable"]:
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
        "disk": kind_of_disk(Path(tempfile.gettempdir())),
    }


def kind_of_disk(folder: Path) -> str:
    """Return the file system on which a folder lies."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    inside = [point for point in mounts if folder.resolve().is_relative_to(point)]
    return mounts[max(inside, key=lambda point: len(point.parts))] if inside else "unknown"


def choose_peers(names: list[str], modes: list[str], console: Console) -> list[Peer]:
    """Return the peers that these modes need, and say which can't be measured here and why."""
    peers = []
    for peer in map(load_peer, names):
        if not any(answers(peer, mode) for mode in modes):
            continue
        if missing := peer.missing():
            console.print(f"{peer.name} is skipped: {missing}", style="bold yellow", markup=False)
        else:
            peers.append(peer)
    return peers


def run(arguments: argparse.Namespace, peers: list[Peer]) -> dict[str, Rounds]:
    """Start all peers and measure each mode with those that answer it."""
    rounds = {
        "acked": arguments.acked_rounds,
        "rtt": arguments.rtt_rounds,
        "durable": arguments.durable_rounds,
    }
    seconds = {**dict.fromkeys(FIGURES, arguments.seconds), "rtt": arguments.rtt_seconds}
    with ExitStack() as stack:
        sessions = [stack.enter_context(Session(peer)) for peer in peers]
        asked = {mode: [s for s in sessions if answers(s.peer, mode)] for mode in arguments.modes}
        return {
            mode: measure_rounds(chosen, mode, rounds[mode], seconds[mode])
            for mode, chosen in asked.items()
            if chosen
        }


def judge(measured: dict[str, Rounds], where: dict[str, Any], console: Console) -> bool:
    """Print how each bar of the measured modes was met, and tell whether all were."""
    verdicts = [bar.judge(measured) for bar in BARS if bar.mode in measured]
    if "durable" in measured and where["disk"] in MEMORY_DISKS:
        text = f"durable: the files lay in memory ({where['disk']}): set TMPDIR to a folder on a disk"
        verdicts.append((False, text))
    for is_met, text in verdicts:
        console.print(text, style="green" if is_met else "bold red")
    return all(is_met for is_met, _ in verdicts)


def main() -> int:
    """Measure, print, write, and return the exit code."""
    arguments, console, where = parse_arguments(), wide_console(), machine()
    peers = choose_peers(arguments.peers, arguments.modes, console)
    try:
        measured = run(arguments, peers)
    except BenchmarkFailed as error:
        console.print(f"failed: {error}", markup=False)
        return 1
    promises = {peer.name: peer.promise or ALSO_AS_DURABLE.get(peer.name, "") for peer in peers}
    summaries = {}
    for mode, rounds in measured.items():
        references = references_of(mode, arguments.reference, rounds)
        told = promises if mode == "durable" else None
        summaries[mode] = summarize(rounds, FIGURES[mode], references, told)
        show(console, f"{TITLES[mode]}; load {where['load_1_min']:.1f} at the start", summaries[mode])
    if arguments.json:
        slices = {m: {n: [asdict(s) for s in r] for n, r in rounds.items()} for m, rounds in measured.items()}
        document = {"machine": where, "summaries": summaries, "slices": slices}
        arguments.json.write_text(json.dumps(document, indent=1))
    found = faults(summaries)
    for fault in found:
        console.print(fault, style="bold red")
    return 0 if judge(measured, where, console) and not found else 1


if __name__ == "__main__":
    sys.exit(main())
