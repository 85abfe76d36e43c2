"""Preferences: what this machine and this user want, in four layers.

Law: a value comes from the highest layer that has one: `set()`, then the environment, then the
user's file, then the default; and nothing that a layer says is ignored in silence. Objects below
this floor never look here: they are given a `Prefs`, frozen, or plain arguments made from one.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pilotage.net.pref_files import NO_FILE, PrefFile, find_file, read_file, write_file
from pilotage.net.pref_keys import KEYS, Key, Prefs, find_key
from pilotage.net.pref_values import Lineage, LogLevel
from pilotage.transport.forks import keep_free

__all__ = ["Layer", "Lineage", "LogLevel", "PrefInfo", "Preferences", "Prefs", "prefs"]

PREFIX = "PILOTAGE_"

# Variables with our prefix that are no preferences: which file to read.
RESERVED = frozenset({"PILOTAGE_PREFS"})

log = logging.getLogger(__name__)


class Layer(StrEnum):
    """Where a value comes from; each layer covers those before it."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    SET = "set"


@dataclass(frozen=True, slots=True)
class PrefInfo:
    """One preference as it stands: what it is, what it is worth now, and who said so."""

    key: str
    type: str
    default: object
    value: object
    layer: Layer
    source: str
    meaning: str


@dataclass(frozen=True, slots=True)
class _Held:
    value: object
    layer: Layer
    source: str


class Preferences:
    """The four layers together; `pilotage.prefs` is the one that everybody shares.

    The file is found and read at first use, the environment at each. Any thread may call any method.

    >>> mine = Preferences(environ={"PILOTAGE_PREFS": "", "PILOTAGE_MSGPORT": "6000"}, file=None)
    >>> mine.get("MSGPORT")
    6000

    Args:
        environ: The environment to look into; the process's own if it isn't given.
        file: The user's file, or None for no file at all; where the platform keeps it if it isn't given.
    """

    def __init__(self, environ: Mapping[str, str] | None = None, file: Path | str | None = "") -> None:
        self._environ: Mapping[str, str] = os.environ if environ is None else environ
        self._where = file
        self._file: PrefFile | None = NO_FILE if file is None else None
        self._set: dict[str, object] = {}
        self._lock = threading.RLock()

    def get(self, key: str) -> Any:
        """Return a preference's value now, in its own type; None if it has none.

        Raises:
            InvalidPref: There is no such key, or a layer holds a key or value that can't be.
        """
        return _hand_out(self._find(find_key(key)).value)

    def set(self, key: str, value: object) -> None:
        """Give a preference a value for the rest of this process, above every other layer.

        Stations that already run keep what they were made with.

        Raises:
            InvalidPref: There is no such key, or it can't take this value; nothing has changed then.
        """
        read = find_key(key, "set()").read(value, "set()")
        with self._lock:
            self._set[key] = read

    def unset(self, key: str) -> None:
        """Take back what `set()` said about a key, so that the lower layers show again.

        Raises:
            InvalidPref: There is no such key.
        """
        find_key(key, "unset()")
        with self._lock:
            self._set.pop(key, None)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Read a file, JSON if it ends in .json and TOML otherwise, in place of the user's file.

        Raises:
            InvalidPref: It can't be read, or a key or value in it can't be; nothing has changed then.
        """
        loaded = _read(Path(path).expanduser())
        with self._lock:
            self._file = loaded

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write every value that isn't the default to a file, whole or not at all.

        Raises:
            InvalidPref: The path ends in neither .toml nor .json, it can't be written, or a layer
                holds a key or value that can't be.
        """
        held = self._all()
        values = {name: one.value for name, one in held.items() if one.layer is not Layer.DEFAULT}
        write_file(Path(path).expanduser(), values)

    def snapshot(self) -> Prefs:
        """Return all values as they are now, frozen and picklable, to configure objects from.

        Raises:
            InvalidPref: A layer holds a key or value that can't be.
        """
        held = self._all()
        return Prefs(**{KEYS[name].attribute: one.value for name, one in held.items()})  # type: ignore[arg-type]

    def describe(self) -> tuple[PrefInfo, ...]:
        """Return every preference with its type, default, value, layer, source and meaning.

        Raises:
            InvalidPref: A layer holds a key or value that can't be.
        """
        held = self._all()
        return tuple(_inform(KEYS[name], one) for name, one in held.items())

    def unused(self) -> tuple[str, ...]:
        """Return the keys of the original Autopilot that the file holds and Pilotage has no use for.

        Raises:
            InvalidPref: The file holds a key or value that can't be.
        """
        return self._read_user_file().unused

    def _all(self) -> dict[str, _Held]:
        with self._lock:
            return {name: self._find(key) for name, key in KEYS.items()}

    def _find(self, key: Key) -> _Held:
        with self._lock:
            file, variables = self._read_user_file(), self._find_variables()
            if key.name in self._set:
                return _Held(self._set[key.name], Layer.SET, "set()")
        if key.name in variables:
            source = f"the environment variable {PREFIX}{key.name}"
            return _Held(key.read(variables[key.name], source), Layer.ENVIRONMENT, source)
        if key.name in file.values:
            return _Held(file.values[key.name], Layer.FILE, file.sources[key.name])
        return _Held(key.read(key.default, "the default"), Layer.DEFAULT, "the default")

    def _read_user_file(self) -> PrefFile:
        with self._lock:
            if self._file is None:
                path = Path(self._where) if self._where else find_file(self._environ)
                self._file = NO_FILE if path is None else _read(path)
            return self._file

    def _find_variables(self) -> dict[str, str]:
        variables = {}
        for variable, text in self._environ.items():
            if variable.startswith(PREFIX) and variable not in RESERVED:
                name = variable.removeprefix(PREFIX)
                find_key(name, f"the environment variable {variable}")
                variables[name] = text
        return variables


def _read(path: Path) -> PrefFile:
    file = read_file(path)
    if file.unused:
        log.warning("%s: Pilotage has no use for %s", path, ", ".join(file.unused))
    return file


def _hand_out(value: object) -> object:
    # The documented type of CHILDID is a list; a copy, so that nobody changes it under another.
    return list(value) if isinstance(value, tuple) else value


def _inform(key: Key, held: _Held) -> PrefInfo:
    default = _hand_out(key.read(key.default, "the default"))
    return PrefInfo(key.name, key.kind, default, _hand_out(held.value), held.layer, held.source, key.meaning)


prefs = Preferences()
keep_free(prefs._lock)


def journal_folder(named: str | Path | None) -> Path | None:
    """Give the folder of the journals: the one that is named, `journal` in DATADIR for "", None for None."""
    if named is None:
        return None
    return Path(named).expanduser() if named else Path(prefs.get("DATADIR")) / "journal"
