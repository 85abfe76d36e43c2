"""The file that changes what roles may send: KEYDIR/roles.toml.

    [node]                        # a role
    FILE = ["up"]                 # a key, and to whom it may be sent
    OPEN_DOOR = []                # nobody
    "*" = ["up", "own"]           # every key that the table doesn't name

Law of this room: a file that can't be used is an error that names its line; it never counts as half of one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilotage.protocol.errors import InvalidKey
from pilotage.protocol.roles import Roles, check_change

ROLES_FILE = "roles.toml"
MAX_BYTES = 65_536
MAX_KEY_CHARS = 255


def read_roles(folder: Path) -> Roles:
    """Give what roles may send, as the file in the keys' folder says; the built-in table if there is none.

    Raises:
        InvalidKey: the file can't be used; the text names its line.
    """
    file = folder / ROLES_FILE
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InvalidKey(f"{file} is longer than {MAX_BYTES} bytes")
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Roles()
    except (OSError, ValueError) as error:
        raise InvalidKey(f"the roles' file {file} can't be read: {error}") from error
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidKey(f"{file} is no TOML: {error}") from error
    return Roles().changed({role: _row(file, text, role, row) for role, row in found.items()})


def _row(file: Path, text: str, role: str, row: Any) -> Mapping[str, list[str]]:
    if not isinstance(row, dict):
        raise InvalidKey(f"{file}, line {_line(text, role)}: {role} must be a table of a role: [{role}]")
    if not row:
        _check(file, _line(text, role), role, "", [])
    for key, words in row.items():
        _check(file, _line(text, role, key), role, key, words)
    return row


def _check(file: Path, line: int, role: str, key: str, words: Any) -> None:
    try:
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f'{key} needs a list of recipients, such as ["up"], not {words!r:.60}')
        if len(key) > MAX_KEY_CHARS:
            raise ValueError(f"no message has a key of {len(key)} letters")
        check_change(role, key, words)
    except ValueError as error:
        raise InvalidKey(f"{file}, line {line}: {error}") from error


def _line(text: str, role: str, key: str = "") -> int:
    """Find where a key of a role stands, as people write it; else where the role does."""
    part = r"[\"']?{}[\"']?\s*"
    head = re.compile(r"\s*\[?\s*" + part.format(re.escape(role)) + r"([].=]|$)")
    wanted = re.compile(r"\s*(.*[{,.])?\s*" + part.format(re.escape(key)) + "=")
    inside, began = False, 1
    for number, line in enumerate(text.splitlines(), 1):
        if head.match(line):
            inside, began = True, number
        elif line.lstrip().startswith("["):
            inside = False
        if inside and key and wanted.match(line):
            return number
    return began
