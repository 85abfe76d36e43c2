"""Preferences files: JSON or TOML, found, read and written.

Law: every key that a file holds is either known, or known to be the original's, or an error that
names the file and the line; and a file is replaced whole or not at all.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pilotage.net.pref_keys import KEYS, ORIGINAL_ONLY, find_key
from pilotage.protocol.errors import InvalidPref

FILE_NAMES = ("prefs.toml", "prefs.json")


@dataclass(frozen=True, slots=True)
class PrefFile:
    """What one file says: values by key, where each stands, and the original's keys it holds."""

    path: Path | None
    values: Mapping[str, object]
    sources: Mapping[str, str]
    unused: tuple[str, ...]


NO_FILE = PrefFile(None, {}, {}, ())


def find_folder(environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Return the folder where this platform keeps a user's configuration of Pilotage."""
    if platform == "win32" and environ.get("APPDATA"):
        return Path(environ["APPDATA"]) / "pilotage"
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "pilotage"
    if environ.get("XDG_CONFIG_HOME"):
        return Path(environ["XDG_CONFIG_HOME"]) / "pilotage"
    return Path.home() / ".config" / "pilotage"


def find_file(environ: Mapping[str, str]) -> Path | None:
    """Return the user's preferences file: what PILOTAGE_PREFS names, else the one in their folder.

    Raises:
        InvalidPref: PILOTAGE_PREFS names no file, or the folder holds a TOML and a JSON file.
    """
    named = environ.get("PILOTAGE_PREFS")
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise InvalidPref(
                f"PILOTAGE_PREFS names {path}, which is no file: write it or unset PILOTAGE_PREFS"
            )
        return path
    found = [path for name in FILE_NAMES if (path := find_folder(environ) / name).is_file()]
    if len(found) > 1:
        raise InvalidPref(f"{found[0]} and {found[1]} both exist: keep one of them")
    return found[0] if found else None


def read_file(path: Path) -> PrefFile:
    """Read and check a preferences file.

    Raises:
        InvalidPref: It can't be read, isn't JSON or TOML, or holds a key or value that can't be;
            the text names the file and the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPref(f"the preferences file {path} can't be read: {error}") from error
    return _check(path, text, _parse(path, text))


def _parse(path: Path, text: str) -> Mapping[str, object]:
    parser: Callable[[str], object] = _parse_json if path.suffix.lower() == ".json" else tomllib.loads
    try:
        table = parser(text)
    except (ValueError, RecursionError) as error:
        raise InvalidPref(f"the preferences file {path} is broken: {error}") from error
    if not isinstance(table, dict):
        raise InvalidPref(f"the preferences file {path} must hold one object of keys and values")
    return table


def _parse_json(text: str) -> object:
    def merge(pairs: list[tuple[str, object]]) -> dict[str, object]:
        merged = dict(pairs)
        if len(merged) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the key {twice} stands there twice")
        return merged

    return json.loads(text, object_pairs_hook=merge) if text.strip() else {}


def _check(path: Path, text: str, table: Mapping[str, object]) -> PrefFile:
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    unused = []
    for name, raw in table.items():
        if name in ORIGINAL_ONLY:
            unused.append(name)
            continue
        sources[name] = f"{path}, line {_line_of(text, name)}"
        values[name] = find_key(name, sources[name]).read(_unwrap(raw), sources[name])
    return PrefFile(path, values, sources, tuple(unused))


def _unwrap(raw: object) -> object:
    """Take the value out of the form {"type": …, "value": …}, in which the original describes a key."""
    return raw["value"] if isinstance(raw, dict) and "value" in raw and "type" in raw else raw


def _line_of(text: str, name: str) -> int:
    key = rf'(?:"{re.escape(name)}"|\'{re.escape(name)}\'|(?<![\w-]){re.escape(name)})\s*[=:.\]]'
    found = re.search(key, text)
    return text.count("\n", 0, found.start() if found else 0) + 1


def write_file(path: Path, values: Mapping[str, object]) -> None:
    """Replace a preferences file, synced, whole or not at all; its form follows its ending.

    Raises:
        InvalidPref: The ending is neither .toml nor .json, or the file can't be written.
    """
    render = {".toml": _to_toml, ".json": _to_json}.get(path.suffix.lower())
    if render is None:
        raise InvalidPref(f"{path} must end in .toml or .json, so that its form is known")
    text = render({name: _plain(values[name]) for name in KEYS if name in values})
    try:
        _replace(path, text)
    except OSError as error:
        raise InvalidPref(f"the preferences file {path} can't be written: {error}") from error


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, str | Path) else value


def _to_json(table: Mapping[str, object]) -> str:
    return json.dumps(table, indent=4, ensure_ascii=False) + "\n"


def _to_toml(table: Mapping[str, object]) -> str:
    # TOML has no null, but an empty text reads as *not set* where a key may be unset. Everything else
    # that a preference can be, a number, a text or a list of texts, is written alike in both.
    rows = (
        f"{name} = {json.dumps('' if value is None else value, ensure_ascii=False)}\n"
        for name, value in table.items()
    )
    return "".join(rows).replace("\x7f", "\\u007f")
