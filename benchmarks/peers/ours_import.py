"""How long `import pilotage` takes, with each of its public names loaded: they load when they are first asked for.

    python -m benchmarks.peers.ours_import --mode import --seconds 3

A fresh interpreter each time, in turns with one that imports nothing, which is subtracted, with one that imports
what we depend on and nothing of ours, and with one that makes a node, with which numpy and tornado come. Each figure
is the least of its runs: what else the machine does can only add.
CPU seconds are judged, which on a machine that does nothing else are the seconds it takes.
Files are in the disk's cache, and compiled.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

from .common import Peer, main, role_commands
from .roles import Addresses

PEER = Peer("ours_import", lambda: role_commands("ours_import", "sender"), modes=("import",))
NOTHING = "pass"
PLAIN = "import pilotage"
DEPENDENCIES = "import asyncio, msgspec, zmq"
EVERYTHING = "import pilotage\nfor name in pilotage.__all__: getattr(pilotage, name)"
FIRST_NODE = f"{EVERYTHING}\npilotage.Net_Node('rig', '', 0, {{}}, router_port=0, journal=None).release()"
LEAST_RUNS = 5


def run_s(script: str) -> tuple[float, float]:
    """Return how long a fresh interpreter takes for a script, and the CPU seconds of it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    elapsed_s, after = time.perf_counter() - began, os.times()
    used_s = after.children_user + after.children_system - before.children_user - before.children_system
    return elapsed_s, used_s


class Sender:
    """Start interpreters."""

    def __init__(self, _addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        run_s(EVERYTHING)

    def request(self, what: str, seconds: float, **_how: Any) -> dict[str, Any]:
        """Measure for so long; the only thing it is asked (`import`)."""
        if what != "import":
            raise ValueError(f"the importer can't {what}")
        times: dict[str, list[tuple[float, float]]] = {
            script: [] for script in (NOTHING, PLAIN, DEPENDENCIES, EVERYTHING, FIRST_NODE)
        }
        end = time.perf_counter() + seconds
        while len(times[NOTHING]) < LEAST_RUNS or time.perf_counter() < end:
            for script, taken in times.items():
                taken.append(run_s(script))
        least = {
            script: (min(s for s, _ in taken), min(cpu for _, cpu in taken))
            for script, taken in times.items()
        }
        bare_s, bare_cpu_s = least[NOTHING]
        figures = {
            "import_cpu_s": least[EVERYTHING][1] - bare_cpu_s,
            "dependencies_cpu_s": least[DEPENDENCIES][1] - bare_cpu_s,
            "first_node_cpu_s": least[FIRST_NODE][1] - bare_cpu_s,
            "import_s": least[EVERYTHING][0] - bare_s,
            "plain_import_s": least[PLAIN][0] - bare_s,
            "bare_python_s": bare_s,
        }
        return {
            "sent": 0, "confirmed": 0, "figures": {name: round(value, 4) for name, value in figures.items()}
        }  # fmt: skip

    def close(self) -> None:
        """Nothing is open."""


if __name__ == "__main__":
    main(PEER, {"sender": Sender})
