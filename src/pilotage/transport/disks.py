"""What a file needs of its disk: one process that writes it, and a file system that keeps its word.

Law: a lock is held by the operating system through SQLite, so it ends with its process, however that ends, and
isn't inherited by a process that was forked off.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sqlite3
import sys
import time
from contextlib import suppress
from pathlib import Path

from pilotage.protocol.errors import FileHeld, MachineError

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


class FileLock:
    """Hold a file's name for this process alone, from now until `release`.

    Args:
        lock: a file that carries the lock. Nothing else may open it: on POSIX systems that would end the lock.
        holder: a file that tells people who holds it.

    Raises:
        FileHeld: another process holds it, or this one does already; the text names the process.
        MachineError: the lock can't be taken, for rights or the like.
    """

    def __init__(self, lock: Path, holder: Path) -> None:
        """Take the lock at once, or fail."""
        self._holder = holder
        try:
            self._connection = sqlite3.connect(lock, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as cause:
            raise MachineError(str(cause)) from cause
        try:
            if self._connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                # A lock file that isn't empty can be locked on a full disk too.
                self._connection.execute("PRAGMA user_version=1")
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as cause:
            self._connection.close()
            if "locked" in str(cause):
                raise FileHeld(_read_holder(holder)) from cause
            raise MachineError(str(cause)) from cause

    def sign(self) -> None:
        """Write down who we are, for those who find it held.

        Raises:
            OSError: the disk is full, or the like; the lock is held all the same.
        """
        told = {"pid": os.getpid(), "host": platform.node(), "since": time.time()}
        self._holder.write_text(json.dumps(told), encoding="utf-8")

    def release(self) -> None:
        """Let others have it; may be called again."""
        with suppress(OSError):  # it only informs
            self._holder.unlink(missing_ok=True)
        self._connection.close()


def find_network_mount(folder: Path, mounts: str | None = None) -> str:
    """Tell whether a folder lies on a network mount, where SQLite's log and locks don't hold.

    Args:
        folder: where something is to be written; it need not be there yet.
        mounts: the text of /proc/mounts; read from there when None. Elsewhere than on Linux only the network
            names of Windows are known.

    Returns:
        The file system and where it is mounted, for people; empty for a local folder.
    """
    if mounts is None:
        if not sys.platform.startswith("linux"):
            share = folder.resolve().drive
            return f"network share {share!r}" if share.startswith("\\\\") else ""
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    point, kind = _mount_of(folder.resolve(), mounts)
    return f"{kind} at {point!r}" if kind in NETWORK_FILESYSTEMS else ""


def sync_folder(folder: Path) -> None:
    """Put a folder's list of names on the disk; Windows does so by itself.

    Raises:
        OSError: the disk failed.
    """
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they survive a power cut.

    Raises:
        OSError: there is no room, no right, or a file of that name.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


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


def _read_holder(file: Path) -> str:
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']!r}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process (which has not signed yet)"
