"""The original, auto-pi-lot 0.5.1: Net_Node to Station to Net_Node, `repeat=True`, CONFIRMs counted.

    python -m benchmarks.peers.autopilot_051 --mode acked --seconds 3
    python -m benchmarks.peers.autopilot_051 --mode rtt --seconds 3

Its processes run under the interpreter that `tests/interop/original/make_venv.py` makes.
"""

from __future__ import annotations

import subprocess
import sys

from .common import CHECKOUT, BenchmarkFailed, Peer, main

MAKE_VENV = CHECKOUT / "tests" / "interop" / "original" / "make_venv.py"
ROLES = ("router", "receiver", "sender")


def make_environment() -> subprocess.CompletedProcess[str]:
    """Build the original's environment if it is missing, which takes minutes; its interpreter is printed."""
    command = [sys.executable, str(MAKE_VENV)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def what_is_missing() -> str:
    """Say why there is no original here; nothing if there is."""
    made = make_environment()
    lines = made.stderr.strip().splitlines() or ["no reason given"]
    return f"its environment can't be made ({lines[-1]})" if made.returncode else ""


def commands() -> list[tuple[str, list[str]]]:
    """Return the role commands under the original's interpreter.

    Raises:
        BenchmarkFailed: there is none, and it can't be built.
    """
    made = make_environment()
    if made.returncode:
        raise BenchmarkFailed(made.stderr)
    start = [made.stdout.strip(), "-m", "benchmarks.peers.autopilot_051_roles"]
    return [(role, [*start, role]) for role in ROLES]


PEER = Peer(
    "autopilot_051",
    commands,
    modes=("acked", "rtt", "durable", "fanin", "chunks", "frames"),
    # It loses messages where more wait.
    windows={"durable": 512, "chunks": 64, "frames": 16},
    promise="received, in memory",
    loses=True,
    missing=what_is_missing,
)

if __name__ == "__main__":
    main(PEER, {})
