"""The original, auto-pi-lot 0.5.1: Net_Node to Station to Net_Node, `repeat=True`, CONFIRMs counted.

    python -m benchmarks.peers.autopilot_051 --mode acked --seconds 3
    python -m benchmarks.peers.autopilot_051 --mode rtt --seconds 3

Its processes run under the interpreter that `tests/interop/original/make_venv.py` makes.
"""

from __future__ import annotations

import subprocess
import sys

from .common import CHECKOUT, Peer, main

MAKE_VENV = CHECKOUT / "tests" / "interop" / "original" / "make_venv.py"
ROLES = ("router", "receiver", "sender")


def commands() -> list[tuple[str, list[str]]]:
    """Return the role commands under the original's interpreter, whose environment is built if missing."""
    made = subprocess.run([sys.executable, str(MAKE_VENV)], check=True, stdout=subprocess.PIPE, text=True)
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
)

if __name__ == "__main__":
    main(PEER, {})
