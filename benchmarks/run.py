"""Compare all peers side by side on loopback, in interleaved rounds, and say what each lost.

    python -m benchmarks.run                                    everything, about ten minutes
    python -m benchmarks.run --modes acked rtt --json results.json --plot bench.png
    python -m benchmarks.run --peers raw_pyzmq ours --modes acked --rounds 9 --seconds 3
    python -m benchmarks.run --modes durable                    only what is stored, beside NATS JetStream

What each mode measures stands in `benchmarks/modes.py`, what must be reached in `benchmarks/bars.py`. What a
confirmation says differs from peer to peer: the column "promise" tells it. Files lie in the folder for temporary
ones; set TMPDIR to a folder on the disk to be measured if that is kept in memory.

Read ratios within one table: machines drift. A ratio is the median of the ratios of the rounds, in each of
which every peer is measured once, so that the drift hits all alike. All processes of a mode's peers stay up between
its slices: a peer that burns CPU when idle slows the others down. Exit code 1 if a peer lost, doubled or damaged a
message (unless it is known to, as the original is), if one failed, or if Pilotage missed one of its bars.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from .bars import BARS, Verdict
from .modes import MODES, REFERENCE, Mode
from .peers.common import BenchmarkFailed, Measurement, Peer, Session, load_peer
from .tables import Summary, faults, show, show_bars, summarize, wide_console

PEERS = Path(__file__).parent / "peers"
HELPERS = {"__init__", "common", "roles", "bulk"}
MEMORY_DISKS = ("tmpfs", "ramfs")
ON_A_DISK = ("durable", "store", "recorded")

Measured = dict[str, dict[str, list[Measurement]]]


def known_peers() -> list[str]:
    """Return the names of all peer modules, the reference first."""
    names = {file.stem for file in PEERS.glob("*.py")} - HELPERS
    return sorted((n for n in names if not n.endswith("_roles")), key=lambda n: (n != REFERENCE, n))


def measure_rounds(
    sessions: list[Session], mode: Mode, rounds: int, seconds: float
) -> dict[str, list[Measurement]]:
    """Measure each session once a round, in turning order, after one short slice that is thrown away."""
    measured: dict[str, list[Measurement]] = {session.peer.name: [] for session in sessions}
    for session in sessions if mode.warm_up_s else ():
        session.measure(mode.name, mode.warm_up_s)
    for number in range(rounds):
        start = number % len(sessions)
        for session in sessions[start:] + sessions[:start]:
            if mode.name in ON_A_DISK and hasattr(os, "sync"):
                os.sync()  # what one peer has left to the system to write would hold up the next one's syncs
            measured[session.peer.name].append(session.measure(mode.name, seconds))
    return measured


def measure(mode: Mode, peers: list[Peer], rounds: int | None, seconds: float | None) -> dict[str, Any]:
    """Start a mode's peers, measure them, and end them."""
    chosen = [peer for peer in peers if mode.name in peer.modes]
    with ExitStack() as stack:
        sessions = [stack.enter_context(Session(peer)) for peer in chosen]
        return (
            measure_rounds(sessions, mode, rounds or mode.rounds, seconds or mode.seconds) if sessions else {}
        )


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers", nargs="+", choices=known_peers(), default=known_peers())
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--rounds", type=int, help="of each mode, instead of its own number")
    parser.add_argument("--seconds", type=float, help="of one slice, instead of the mode's own")
    parser.add_argument("--json", type=Path, help="write all slices and summaries here")
    parser.add_argument("--plot", type=Path, help="draw the ratios into this PNG")
    arguments = parser.parse_args(words)
    # Said now, not after ten minutes of measuring.
    if arguments.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install -e '.[bench]'")
    for file in filter(None, (arguments.json, arguments.plot)):
        if not file.absolute().parent.is_dir():
            parser.error(f"there is no folder {file.absolute().parent} for {file.name}")
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
        if not set(peer.modes) & set(modes):
            continue
        if missing := peer.missing():
            console.print(f"{peer.name} is skipped: {missing}", style="bold yellow", markup=False)
        else:
            peers.append(peer)
    return peers


def run(arguments: argparse.Namespace, peers: list[Peer], console: Console) -> tuple[Measured, list[str]]:
    """Measure each mode and print its table; return what was measured, and which modes failed and how."""
    measured: Measured = {}
    failures = []
    for mode in map(MODES.__getitem__, arguments.modes):
        load = os.getloadavg()[0]
        try:
            rounds = measure(mode, peers, arguments.rounds, arguments.seconds)
        except BenchmarkFailed as error:
            failures.append(f"{mode.name} failed: {error}")
            console.print(failures[-1], style="bold red", markup=False)
            continue
        if rounds:
            measured[mode.name] = rounds
            title = f"{mode.name}: {mode.title}; load {load:.1f} at the start"
            show(console, title, summarize(rounds, mode, promises(peers)))
    return measured, failures


def promises(peers: list[Peer]) -> dict[str, str]:
    """Return what each peer's confirmation says."""
    return {peer.name: peer.promise for peer in peers}


def judge(measured: Measured, console: Console) -> list[Verdict]:
    """Print how each bar of the measured modes was met."""
    verdicts = [bar.judge(measured) for bar in BARS if bar.mode in measured]
    if verdicts:
        show_bars(console, verdicts)
    return verdicts


def write(
    path: Path,
    where: dict[str, Any],
    measured: Measured,
    summaries: dict[str, Summary],
    verdicts: list[Verdict],
) -> None:
    """Write everything as JSON."""
    slices = {
        mode: {name: [asdict(s) for s in r] for name, r in rounds.items()}
        for mode, rounds in measured.items()
    }
    bars = [
        {"bar": str(v.bar), "wanted": v.bar.wanted, "value": v.value, "rounds": v.rounds, "verdict": v.text}
        for v in verdicts
    ]
    document = {"machine": where, "bars": bars, "summaries": summaries, "slices": slices}
    path.write_text(json.dumps(document, indent=1))


def complaints(
    peers: list[Peer],
    where: dict[str, Any],
    measured: Measured,
    summaries: dict[str, Summary],
    console: Console,
) -> bool:
    """Print what was lost, and what makes figures worthless; tell whether the run is to fail for it."""
    lossy = {peer.name for peer in peers if peer.loses}
    is_bad = False
    for name, text in faults(summaries):
        console.print(text + (" (known to)" if name in lossy else ""), style="bold red", markup=False)
        is_bad |= name not in lossy
    if where["disk"] in MEMORY_DISKS and set(measured) & set(ON_A_DISK):
        console.print(
            f"files lay in memory ({where['disk']}): set TMPDIR to a folder on a disk", style="bold red"
        )
        is_bad = True
    return is_bad


def main(words: list[str] | None = None) -> int:
    """Measure, print, write, and return the exit code."""
    arguments, console, where = parse_arguments(words), wide_console(), machine()
    peers = choose_peers(arguments.peers, arguments.modes, console)
    measured, failures = run(arguments, peers, console)
    where["load_1_min_end"] = os.getloadavg()[0]
    summaries = {mode: summarize(rounds, MODES[mode], promises(peers)) for mode, rounds in measured.items()}
    verdicts = judge(measured, console)
    if arguments.json:
        write(arguments.json, where, measured, summaries, verdicts)
    if arguments.plot:
        from .plot import draw

        draw(arguments.plot, measured, verdicts, where)
    is_bad = complaints(peers, where, measured, summaries, console)
    return 1 if is_bad or failures or not all(verdict.is_met for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
