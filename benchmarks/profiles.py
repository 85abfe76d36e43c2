"""Where a peer's processes spend their time: py-spy looks at each of them while one mode is measured.

    python -m benchmarks.profiles ours --mode acked --seconds 5

Prints for each process its share of a core and, of the samples in which a thread was active, the share of each file
and of the functions that were at the top of the stack. Code without Python frames (sockets, locks, encoding) counts
for the Python function that called it. py-spy must be allowed to look at processes of yours (Linux: root, or
kernel.yama.ptrace_scope = 0). Sampling slows what is measured: read shares, not rates.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .peers.common import BenchmarkFailed, Process, Session, load_peer
from .run import known_peers
from .tables import wide_console

SAMPLES_PER_S = 200
SLACK_S = 40.0
TOP = 12
FRAME = re.compile(r"^(?P<function>.*) \((?P<file>[^()]*?)(?::\d+)?\)$")


@dataclass
class Shares:
    """How many samples each file and function had at the top of an active thread's stack."""

    files: Counter[str] = field(default_factory=Counter)
    functions: Counter[str] = field(default_factory=Counter)
    total: int = 0

    def add(self, stack: str, count: int) -> None:
        """Take samples of one stack, as py-spy writes it: frames from the outermost to the top."""
        found = FRAME.match(stack.rpartition(";")[2])
        function, file = (found["function"], shorten(found["file"])) if found else (stack, "?")
        self.files[file] += count
        self.functions[f"{function} ({file})"] += count
        self.total += count


def shorten(file: str) -> str:
    """Leave what tells a file from others: where it lies within its package."""
    parts = Path(file).parts
    for root in ("site-packages", "src"):
        if root in parts:
            return "/".join(parts[parts.index(root) + 1 :])
    return "/".join(parts[-2:])


def read(record: Path) -> Shares:
    """Read what py-spy has recorded as `raw`."""
    shares = Shares()
    for line in record.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        shares.add(stack, int(count))
    return shares


def record(processes: list[Process], folder: Path, seconds: float) -> list[tuple[str, subprocess.Popen[str]]]:
    """Begin to look at processes, and at those that they started.

    Raises:
        BenchmarkFailed: there is no py-spy.
    """
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        raise BenchmarkFailed("py-spy is not installed (pip install -e '.[bench]')")
    start = [program, "record", "--format", "raw", "--subprocesses", "--rate", str(SAMPLES_PER_S)]
    return [
        (
            one.role,
            subprocess.Popen(
                [
                    *start,
                    "--duration",
                    str(round(seconds)),
                    "--output",
                    str(folder / one.role),
                    "--pid",
                    str(one.pid),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            ),
        )
        for one in processes
    ]


def profile(
    name: str, mode: str, seconds: float, roles: list[str] | None = None
) -> tuple[dict[str, Shares], dict[str, float]]:
    """Measure one slice while py-spy looks; return each role's shares, and the slice's figures.

    Args:
        name: the peer.
        mode: what is measured.
        seconds: for how long.
        roles: at which processes to look; at all if not given.

    Raises:
        BenchmarkFailed: a process of the peer or py-spy failed.
    """
    with tempfile.TemporaryDirectory() as folder, Session(load_peer(name)) as session:
        session.measure(mode, min(1.0, seconds))
        with ExitStack() as stack:
            looked_at = [one for one in session.processes if not roles or one.role in roles]
            watchers = record(looked_at, Path(folder), seconds)
            for _, watcher in watchers:
                stack.enter_context(ended(watcher))
            figures = session.measure(mode, seconds + 1).figures
            shares = {role: finish(role, watcher, Path(folder) / role) for role, watcher in watchers}
        return shares, figures


@contextmanager
def ended(watcher: subprocess.Popen[str]) -> Iterator[None]:
    """See to it that a py-spy doesn't outlive its use."""
    try:
        yield
    finally:
        watcher.kill()
        watcher.communicate()


def finish(role: str, watcher: subprocess.Popen[str], file: Path) -> Shares:
    """Wait for a py-spy and read what it has recorded.

    Raises:
        BenchmarkFailed: it could not look at the process, or takes too long.
    """
    try:
        _, errors = watcher.communicate(timeout=SLACK_S)
    except subprocess.TimeoutExpired as error:
        raise BenchmarkFailed(f"py-spy does not come to an end with {role}") from error
    if watcher.returncode:
        raise BenchmarkFailed(f"py-spy could not look at {role}: {errors.strip()}")
    return read(file)


def show(console: Console, role: str, shares: Shares, cpu_pct: float) -> None:
    """Print one process's table."""
    title = f"{role}: {cpu_pct:.0f} % of a core, {shares.total} active samples"
    table = Table("file", "%", "function at the top of the stack", "%", title=title)
    files, functions = shares.files.most_common(TOP), shares.functions.most_common(TOP)
    for at in range(max(len(files), len(functions))):
        row: list[str] = []
        for many in (files, functions):
            what, count = many[at] if at < len(many) else ("", 0)
            row += [what, f"{100 * count / shares.total:.1f}" if what else ""]
        table.add_row(*row)
    console.print(table, soft_wrap=True)


def main(words: list[str] | None = None) -> int:
    """Profile one peer and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("peer", choices=known_peers())
    parser.add_argument("--mode", help="the peer's first one if not given")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--roles", nargs="+", help="at which processes to look (router, receiver, sender)")
    arguments = parser.parse_args(words)
    console, modes = wide_console(), load_peer(arguments.peer).modes
    mode = arguments.mode or modes[0]
    if mode not in modes:
        parser.error(f"{arguments.peer} is measured in {', '.join(modes)}")
    try:
        shares, figures = profile(arguments.peer, mode, arguments.seconds, arguments.roles)
    except BenchmarkFailed as error:
        console.print(f"failed: {error}", markup=False)
        return 1
    for role, one in shares.items():
        show(console, role, one, figures[f"{role}_cpu_pct"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
