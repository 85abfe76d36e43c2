"""`import pilotage` is light: a Raspberry Pi pays at each start for what it loads."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {"av", "blosc2", "numexpr", "pandas", "pydantic", "rich", "scipy", "typer", "xarray", "zarr"}


def test_import_pilotage_loads_nothing_heavy() -> None:
    script = "import json, sys, pilotage; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert "pilotage" in loaded
    assert HEAVY & loaded == set()
