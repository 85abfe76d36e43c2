"""One writer a session, on a disk that keeps its word.

Law: the lock is held by the operating system through SQLite, so it ends with its process, however that ends.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sqlite3
import sys
import time
from pathlib import Path

from pilotage.protocol.errors import StoreError

LOCK_FILE = "writer.lock"
HOLDER_FILE = "writer.json"

NETWORK_FILESYSTEMS = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "smb2",
        "9p",
        "drvfs",
        "afs",
        "ncpfs",
        "fuse.sshfs",
        "fuse.rclone",
    }
    | {"fuse.davfs", "davfs", "ceph", "fuse.glusterfs", "lustre", "vboxsf", "fuse.vmhgfs-fuse"}
)


class WriterLock:
    """Hold a session's folder for this process alone.

    Raises:
        StoreError: Another process, or another store in this one, writes there; the text names it.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock at once, or fail."""
        self._folder = folder
        self._connection = sqlite3.connect(
            folder / LOCK_FILE, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as cause:
            self._connection.close()
            raise StoreError(
                f"session {str(folder)!r} is being written by {_holder(folder)}: close that one first"
                if "locked" in str(cause)
                else f"session {str(folder)!r} can't be locked for writing ({cause}): check the folder's "
                f"rights"
            ) from cause
        self._sign()

    def release(self) -> None:
        """Let others write; may be called again."""
        (self._folder / HOLDER_FILE).unlink(missing_ok=True)
        self._connection.close()

    def _sign(self) -> None:
        holder = {"pid": os.getpid(), "host": platform.node(), "since": time.time()}
        try:
            (self._folder / HOLDER_FILE).write_text(json.dumps(holder), encoding="utf-8")
        except OSError as cause:
            self._connection.close()
            raise StoreError(
                f"session {str(self._folder)!r} can't be written ({cause}): free space or rights"
            ) from cause


def refuse_network_folder(folder: Path, mounts: str | None = None) -> None:
    """Refuse a folder on a network mount, where SQLite's shared memory and locks don't hold.

    Args:
        folder: Where a session is to be written.
        mounts: The text of /proc/mounts; read from there when None (elsewhere than on Linux nothing is
            checked).

    Raises:
        StoreError: The folder lies on a network file system.
    """
    if mounts is None:
        if not sys.platform.startswith("linux"):
            return
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    point, kind = _mount_of(folder.resolve(), mounts)
    if kind in NETWORK_FILESYSTEMS:
        raise StoreError(
            f"session folder {str(folder)!r} lies on a network file system ({kind} at {point!r}), where "
            f"a crash or a "
            "second machine can corrupt SQLite's log: write to a local disk and copy the closed session there"
        )


def _mount_of(folder: Path, mounts: str) -> tuple[str, str]:
    best = ("/", "")
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1])
        if folder.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, fields[2])
    return best


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER_FILE).read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']!r}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process (which has not signed yet)"
