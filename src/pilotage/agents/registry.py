"""Find tasks by name: those that ship, and those that a lab's packages declare.

Law: a package that can't be loaded costs nothing but itself. A package declares its tasks in the entry
point group ``pilotage.tasks``, for example ``[project.entry-points."pilotage.tasks"]`` with ``blink =
"my_lab.blink:Blink"``.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Mapping
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pilotage.agents.task import Task
from pilotage.protocol.errors import TaskError

GROUP = "pilotage.tasks"
SHIPPED: Mapping[str, str] = MappingProxyType(
    {
        "choice": "pilotage.agents.tasks.choice:Choice",
        "camera": "pilotage.agents.tasks.camera:Camera",
        "replay": "pilotage.agents.tasks.replay:Replay",
    }
)
_log = logging.getLogger(__name__)


def known_tasks() -> dict[str, str]:
    """List the tasks by name, without loading any.

    Returns:
        ``module:Class`` by name, sorted; the shipped names can't be taken by others.
    """
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        for point in _points(distribution):
            # The first on sys.path wins, as it does for import.
            found.setdefault(point.name, point.value)
    return dict(sorted({**found, **SHIPPED}.items()))


def _points(distribution: metadata.Distribution) -> list[metadata.EntryPoint]:
    try:
        return [point for point in distribution.entry_points if point.group == GROUP]
    except Exception:  # noqa: BLE001 - somebody else's broken package
        _log.exception("the entry points of an installed package can't be read; its tasks are left out")
        return []


def find_task(name: str) -> type[Task[Any]]:
    """Load a task by its name.

    Args:
        name: as START's ``task_type`` gives it.

    Returns:
        The task's class.

    Raises:
        TaskError: no task has this name (the text lists those there are), its package can't be imported, or
            what it declares isn't a Task.
    """
    known = known_tasks()
    if name not in known:
        raise TaskError(f"no task {name!r} is installed here; there are: {', '.join(known)}")
    found = _load(name, known[name])
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise TaskError(f"task {name!r}: {known[name]} is no subclass of pilotage's Task")
    _read_sources(found)
    return found


def _read_sources(cls: type[Task[Any]]) -> None:
    try:
        task_code_hash(cls)
    except TaskError as error:
        _log.warning("%s; its code won't be in the provenance", error)


def _load(name: str, place: str) -> object:
    module, _, path = place.partition(":")
    try:
        found: object = import_module(module.strip())
        for part in path.split("[")[0].strip().split("."):
            found = getattr(found, part)
    except Exception as error:
        raise TaskError(
            f"task {name!r} ({place}) can't be loaded: {type(error).__name__}: {error}"
        ) from error
    return found


def task_code_hash(cls: type[Task[Any]]) -> str:
    """Compute what identifies a task's code, for the provenance of its data.

    The sources are read once, when ``find_task`` loads the task: what somebody edits later isn't what runs.

    Args:
        cls: the task.

    Returns:
        SHA-256 (hexadecimal) over the source files of the class and of its bases up to Task; Task itself is
        covered by the version of Pilotage.

    Raises:
        TaskError: a source can't be read (a class typed into a prompt has none).
    """
    digest = hashlib.sha256()
    for base in cls.__mro__[: cls.__mro__.index(Task)]:
        source = _source(base)
        digest.update(f"{base.__qualname__}\0{len(source)}\0".encode())
        digest.update(source)
    return digest.hexdigest()


@cache
def _source(cls: type) -> bytes:
    try:
        return Path(inspect.getfile(cls)).read_bytes()
    except (OSError, TypeError) as error:
        raise TaskError(f"the source of {cls.__qualname__} can't be read: {error}") from error
