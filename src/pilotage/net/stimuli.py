"""The files that a task asks for before it starts, and where they may lie.

Law: a path that came from the network stays inside its folder; a leading slash means that folder's top.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pilotage.net.jail import inside
from pilotage.protocol.errors import TaskError

FILE_TYPES = frozenset({"File", "Speech"})


def stimulus_files(stim: object) -> list[str]:
    """List the files of a stimulus description, each once, in its order.

    Args:
        stim: ``{"sounds": {side: [{"type", "path"}, …]}}``, or with ``manager`` and ``groups``: a list of
            such dictionaries with ``sounds``. Only sounds of type File and Speech have files.

    Returns:
        Paths relative to the folder of sounds.

    Raises:
        TaskError: the description isn't built like that, or a sound of type File has no path.
    """
    if not isinstance(stim, Mapping):
        raise TaskError(f"stim must be a dictionary with sounds or groups, not {type(stim).__name__}")
    paths = (_path(sound) for sound in _sounds(stim) if sound.get("type") in FILE_TYPES)
    return list(dict.fromkeys(paths))


def _sounds(stim: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    groups = [stim, *_listed(stim.get("groups") or [], "stim.groups")]
    for group in groups:
        sides = group.get("sounds") or {}
        if not isinstance(sides, Mapping):
            raise TaskError(f"stim.sounds must map sides to lists of sounds, not be {type(sides).__name__}")
        for side, sounds in sides.items():
            yield from _listed(sounds, f"stim.sounds.{side}")


def _listed(value: object, where: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, Mapping) for item in value):
        raise TaskError(f"{where} must be a list of dictionaries, not {value!r:.80}")
    return list(value)


def _path(sound: Mapping[str, Any]) -> str:
    path = sound.get("path")
    if not isinstance(path, str) or not path:
        raise TaskError(f"stim: a sound of type {sound.get('type')} needs a path, got {path!r}")
    return path


def missing_files(paths: Iterable[str], folder: Path) -> list[str]:
    """List those of the paths that are no file inside the folder yet.

    Raises:
        TaskError: a path leads out of the folder.
    """
    return [path for path in paths if not inside(folder, path).is_file()]
