"""Where processes of one machine meet: sockets in a folder that only their user may enter; what tells machines apart.

Law of this room: what is found in a folder that others may write to is not trusted; there is a way without it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
import time
import uuid
from functools import cache
from pathlib import Path

MAX_PATH_BYTES = 100
"""The system allows a socket's path a few more."""

SPARED_S = 10.0
"""A younger socket is left alone: between its name and its listening lies a moment."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
LOOPBACK = "127.0.0.1"


@cache
def machine_mark() -> str:
    """Give what tells this machine from others, from one start of it to the next where the system says so."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return f"{uuid.getnode():012x}"


def door_name(stem: str, port: int) -> str:
    """Give the name of a door beside a port; without one it is the stem alone."""
    return f"{stem}-{port}" if port else stem


def near_door(name: str) -> str:
    """Give the path of the door of that name, if there is one on this machine, of this user; else ""."""
    if not (hasattr(socket, "AF_UNIX") and hasattr(os, "getuid")):
        return ""
    try:
        path = _folder() / name
        is_there = len(os.fsencode(path)) <= MAX_PATH_BYTES and stat.S_ISSOCK(path.lstat().st_mode)
        return str(path) if is_there else ""
    except OSError:
        return ""


def door_path(name: str) -> str:
    """Give a free path for a socket that only this user's processes may dial; "" where there is none."""
    if not (hasattr(socket, "AF_UNIX") and hasattr(os, "getuid")):
        return ""
    try:
        folder = _folder()
        _sweep(folder)
    except OSError:
        return ""
    path = str(folder / name)
    return path if len(os.fsencode(path)) <= MAX_PATH_BYTES else ""


def bound_path(path: str) -> socket.socket:
    """Give a socket that is bound to a path.

    Raises:
        OSError: there are no such sockets, here or in that folder.
    """
    one = socket.socket(socket.AF_UNIX)
    try:
        one.bind(path)
    except OSError:
        one.close()
        raise
    return one


def _folder() -> Path:
    """Give this user's folder, made if it isn't there.

    Raises:
        OSError: it can't be made, or others may write to it.
    """
    folder = Path(tempfile.gettempdir()) / f"pilotage-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{str(folder)!r} is not a folder of this user's alone")
    return folder


def _sweep(folder: Path) -> None:
    """Remove what processes have left that were killed: nobody answers there. What is new may be about to listen."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime < SPARED_S:
                continue
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue
