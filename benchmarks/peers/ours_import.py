"""How long `import pilotage` takes, with each of its public names loaded: they load when they are first asked for.

    python -m benchmarks.peers.ours_import --mode import --seconds 3

A fresh interpreter each time, and each time after one that imports nothing, which is subtracted. Files are in the
disk's cache, and compiled.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import Any

from .common import Peer, main, role_commands
from .roles import Addresses

PEER = Peer("ours_import", lambda: role_commands("ours_import", "sender"), modes=("import",))
NOTHING = "pass"
PLAIN = "import pilotage"
EVERYTHING = "import pilotage\nfor name in pilotage.__all__: getattr(pilotage, name)"
LEAST_PAIRS = 3


def run_s(script: str) -> float:
    """Return how long a fresh interpreter takes for a script."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    return time.perf_counter() - began


class Sender:
    """Start interpreters."""

    def __init__(self, _addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        run_s(EVERYTHING)

    def request(self, what: str, seconds: float, **_how: Any) -> dict[str, Any]:
        """Measure for so long; the only thing it is asked (`import`)."""
        if what != "import":
            raise ValueError(f"the importer can't {what}")
        times: dict[str, list[float]] = {script: [] for script in (NOTHING, PLAIN, EVERYTHING)}
        end = time.perf_counter() + seconds
        while len(times[NOTHING]) < LEAST_PAIRS or time.perf_counter() < end:
            for script, taken in times.items():
                taken.append(run_s(script))
        bare, plain, everything = (statistics.median(taken) for taken in times.values())
        figures = {"import_s": everything - bare, "plain_import_s": plain - bare, "bare_python_s": bare}
        return {
            "sent": 0, "confirmed": 0, "figures": {name: round(value, 4) for name, value in figures.items()}
        }  # fmt: skip

    def close(self) -> None:
        """Nothing is open."""


if __name__ == "__main__":
    main(PEER, {"sender": Sender})
