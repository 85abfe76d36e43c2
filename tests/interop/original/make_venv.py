"""Make the virtual environment in which the original, auto-pi-lot 0.5.1, runs.

The original pins numpy 1 and pydantic 1, so it can't share ours. The environment is built beside its
place and moved there in one step: several test processes may ask at once, and an interrupted build leaves
nothing that looks finished. It is kept until `requirements.txt` changes.

    python tests/interop/original/make_venv.py      prints the path of its interpreter

Environment: ORIGINAL_AUTOPILOT_VENV (its place; default `.venv-original` in the checkout),
ORIGINAL_AUTOPILOT_PYTHON (a Python 3.11 or 3.12 to build it with).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
STAMP = "pilotage-requirements.sha256"
SUPPORTED = ("3.12", "3.11")


class NoSuitablePython(RuntimeError):
    """No interpreter here can run the original (it needs CPython 3.11 or 3.12 and `fork`)."""


def venv_path() -> Path:
    """Return where the environment lies, or will lie."""
    configured = os.environ.get("ORIGINAL_AUTOPILOT_VENV")
    return Path(configured).resolve() if configured else HERE.parents[2] / ".venv-original"


def interpreter(venv: Path) -> Path:
    """Return the interpreter of the environment at `venv`."""
    return venv / "bin" / "python"


def base_python() -> str:
    """Choose the interpreter to build with.

    Raises:
        NoSuitablePython: on Windows, or if no Python 3.11 or 3.12 is found.
    """
    if sys.platform == "win32":
        raise NoSuitablePython("the original needs fork, which Windows lacks: run this on Linux or macOS")
    configured = os.environ.get("ORIGINAL_AUTOPILOT_PYTHON")
    if configured:
        return configured
    if f"{sys.version_info.major}.{sys.version_info.minor}" in SUPPORTED:
        return sys.executable
    for version in SUPPORTED:
        found = shutil.which(f"python{version}")
        if found:
            return found
    raise NoSuitablePython(
        "no Python 3.11 or 3.12 found to run auto-pi-lot 0.5.1: install one, or name it in "
        "ORIGINAL_AUTOPILOT_PYTHON"
    )


def wanted_stamp() -> str:
    """Return the digest that a finished environment carries."""
    return hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()


def is_ready(venv: Path) -> bool:
    """Tell whether `venv` was finished with the present requirements and its interpreter still exists."""
    stamp = venv / STAMP
    return stamp.is_file() and stamp.read_text() == wanted_stamp() and interpreter(venv).exists()


def build(venv: Path) -> None:
    """Install the requirements into a new environment at `venv`.

    Raises:
        NoSuitablePython: see `base_python`.
        subprocess.CalledProcessError: pip failed; what it said is on standard error.
    """
    # Without pip of its own it is made quicker, and also where Debian has taken ensurepip away.
    subprocess.run([base_python(), "-m", "venv", "--without-pip", str(venv)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(interpreter(venv)), "install", "--quiet"]
    only_wheels = ["--no-deps", "--only-binary", ":all:", "--requirement", str(REQUIREMENTS)]
    subprocess.run([*pip, *only_wheels, "--disable-pip-version-check"], check=True, stdout=sys.stderr)
    (venv / STAMP).write_text(wanted_stamp())


def ensure_venv() -> Path:
    """Return the interpreter of a finished environment, building it if it is missing or outdated.

    Raises:
        NoSuitablePython: see `base_python`.
        subprocess.CalledProcessError: pip failed.
    """
    venv = venv_path()
    if is_ready(venv):
        return interpreter(venv)
    venv.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{venv.name}.", dir=venv.parent) as workshop:
        fresh = Path(workshop) / "fresh"
        build(fresh)
        install(fresh, venv, Path(workshop) / "outdated")
    return interpreter(venv)


def install(fresh: Path, venv: Path, outdated: Path) -> None:
    """Move a finished environment to its place, unless another process was quicker.

    Raises:
        OSError: the place can't be written.
    """
    try:
        if venv.exists() and not is_ready(venv):
            venv.rename(outdated)
        fresh.rename(venv)
    except OSError:
        if not is_ready(venv):
            raise


if __name__ == "__main__":
    sys.stdout.write(f"{ensure_venv()}\n")
