"""The floors hold, and each contract that guards them can see a violation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FLOORS = "A door opens only downward"
SERVICES = "A service knows no other service"
TESTING = "The simulated world is never imported at run time"
FRONT = "The front door doesn't lead to the simulated world"
ROOT_DOOR = "Nobody below the composition reaches up through the front door"
CIRCLE = "No import runs in a circle"
PURE = "The protocol touches no socket, thread, clock, chance or file"

PLANTED = {
    "a door opens upward": ("transport/planted.py", "import pilotage.net", FLOORS),
    "agents use a service": ("agents/planted.py", "import pilotage.services.store", FLOORS),
    "a service uses an agent": ("services/planted.py", "import pilotage.agents", FLOORS),
    "a folder without a floor": ("attic/__init__.py", "", FLOORS),
    "a service uses another": ("services/planted.py", "import pilotage.services.store", SERVICES),
    "run time uses testing": ("app/planted.py", "import pilotage.testing", TESTING),
    "the front door uses testing": ("__init__.py", "import pilotage.testing", FRONT),
    "net uses the front door": ("net/planted.py", "from pilotage import prefs", ROOT_DOOR),
    "a circle": ("app/planted.py", "import pilotage.app.planted_too", CIRCLE),
}
IMPURE = (
    *("zmq", "tornado", "socket", "select", "threading", "asyncio", "time", "datetime", "random"),
    *("uuid", "logging", "os", "multiprocessing", "queue"),
)


def run_contracts(root: Path, source: Path) -> subprocess.CompletedProcess[str]:
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", command, "--config", str(root / "pyproject.toml"), "--no-cache"],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(source), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def source(root: Path, tmp_path: Path) -> Path:
    """A copy of the source, to plant things in."""
    copy = tmp_path / "src"
    shutil.copytree(
        root / "src" / "pilotage", copy / "pilotage", ignore=shutil.ignore_patterns("__pycache__")
    )
    return copy


def plant(source: Path, where: str, text: str) -> None:
    path = source / "pilotage" / where
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(f"\n{text}\n")


def test_the_floors_hold(root: Path) -> None:
    done = run_contracts(root, root / "src")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("violation", PLANTED)
def test_a_planted_violation_is_seen(violation: str, root: Path, source: Path) -> None:
    where, text, contract = PLANTED[violation]
    plant(source, where, text)
    plant(source, "app/planted_too.py", "import pilotage.app.planted" if violation == "a circle" else "")
    done = run_contracts(root, source)
    assert done.returncode == 1
    assert f"{contract} BROKEN" in done.stdout, done.stdout + done.stderr


def test_each_impure_import_of_the_protocol_is_seen(root: Path, source: Path) -> None:
    plant(source, "protocol/planted.py", "\n".join(f"import {name}" for name in IMPURE))
    done = run_contracts(root, source)
    assert done.returncode == 1
    assert f"{PURE} BROKEN" in done.stdout, done.stdout + done.stderr
    assert [name for name in IMPURE if f"pilotage.protocol.planted -> {name} " not in done.stdout] == []
