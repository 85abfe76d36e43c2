"""The command `pilotage`. Law of this floor: a command says what it did, and its exit code says how it went."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process, and end it with the command's exit code."""
    from pilotage.cli.program import run

    sys.exit(run(sys.argv[1:]))
