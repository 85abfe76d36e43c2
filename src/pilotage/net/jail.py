"""Paths that came by the wire: each stays inside its folder, on every file system that we meet.

Law of this room: the strictest file system decides. A name that means something else to another one (a drive, a device,
a stream of a file, a dot that is stripped, a letter that turns into a slash) is refused everywhere: what is safe on
one machine stays safe where the folder is copied to.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from pilotage.protocol.errors import TaskError

MAX_PART_BYTES = 255
MAX_PATH_BYTES = 1024
ARRIVING = ".arriving-"
"""What the names of files begin with that aren't here wholly yet."""

_FORBIDDEN = frozenset('\\:*?"<>|')
_TURNS_INTO = frozenset("/\\:")
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?:\s*\..*)?", re.IGNORECASE | re.DOTALL
)


def inside(folder: Path, path: str) -> Path:
    """Resolve a path that must stay inside a folder.

    Args:
        folder: the folder it belongs to.
        path: relative, with ``/`` between its parts; a leading slash means the folder's top.

    Returns:
        The absolute path; the file need not exist.

    Raises:
        TaskError: the path is empty or too long, has a part that no file may be called (``..``, a drive, a device,
            control characters), or leads out of the folder by a symbolic link.
    """
    parts = [part for part in path.lstrip("/").split("/") if part not in ("", ".")]
    if not parts:
        raise TaskError(f"{path!r:.80} names no file inside {folder}")
    for part in parts:
        fault = _fault(part)
        if fault:
            raise TaskError(f"{path!r:.80} is no path inside {folder}: the part {part!r:.80} {fault}")
    if len("/".join(parts).encode()) > MAX_PATH_BYTES:
        raise TaskError(f"{path!r:.80} is longer than {MAX_PATH_BYTES} bytes, the most that a path may have")
    try:
        top = folder.resolve()
        found = top.joinpath(*parts).resolve()
        is_circle = any(step.is_symlink() for step in (found, *found.parents))  # from Python 3.13 on
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, up to Python 3.12
        raise TaskError(f"{path!r:.80} can't be looked up in {folder}: {error}") from error
    if is_circle:
        raise TaskError(f"{path!r:.80} can't be looked up in {folder}: links lead in a circle")
    if found == top or not found.is_relative_to(top):
        raise TaskError(f"{path!r:.80} leads out of {folder}; files of a task stay inside it")
    return found


def is_device(name: str) -> bool:
    """Tell whether Windows takes a name for a device, such as ``nul`` or ``COM1.txt``."""
    return _DEVICE.fullmatch(name) is not None


def _fault(part: str) -> str:
    """Tell what is wrong with one part of a path; empty for nothing."""
    if not part.isprintable():
        return "holds characters that can't be seen"
    if set(part) & _FORBIDDEN:
        return 'holds one of \\ : * ? " < > |, which not every file system allows'
    plain = unicodedata.normalize("NFKC", part)
    if set(plain) & _TURNS_INTO or not plain.strip(". "):
        return "leads elsewhere, or may be read as if it did"
    if part.strip(" ") != part or part.endswith("."):
        return "begins or ends with a space, or ends with a dot"
    if is_device(part) or is_device(plain):
        return "is the name of a device on Windows"
    if part.startswith(ARRIVING):
        return "is the name of a file that is still arriving"
    return f"is longer than {MAX_PART_BYTES} bytes" if len(part.encode()) > MAX_PART_BYTES else ""
