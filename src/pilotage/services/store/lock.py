"""One writer a session, on a disk that keeps its word."""

from __future__ import annotations

from pathlib import Path

from pilotage.protocol.errors import FileHeld, MachineError, StoreError
from pilotage.transport.disks import FileLock, find_network_mount

LOCK_FILE = "writer.lock"
HOLDER_FILE = "writer.json"


class WriterLock:
    """Hold a session's folder for this process alone.

    Raises:
        StoreError: Another process, or another store in this one, writes there; the text names it.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock at once, or fail."""
        name = repr(str(folder))
        try:
            self._lock = FileLock(folder / LOCK_FILE, folder / HOLDER_FILE)
        except FileHeld as cause:
            raise StoreError(f"session {name} is being written by {cause}: close that one first") from cause
        except MachineError as cause:
            raise StoreError(
                f"session {name} can't be locked for writing ({cause}): check the folder's rights"
            ) from cause
        try:
            self._lock.sign()
        except OSError as cause:
            self._lock.release()
            raise StoreError(f"session {name} can't be written ({cause}): free space or rights") from cause

    def release(self) -> None:
        """Let others write; may be called again."""
        self._lock.release()


def refuse_network_folder(folder: Path, mounts: str | None = None) -> None:
    """Refuse a folder on a network mount, where SQLite's shared memory and locks don't hold.

    Args:
        folder: Where a session is to be written.
        mounts: The text of /proc/mounts; read from there when None (elsewhere than on Linux only the network
            names of Windows are known).

    Raises:
        StoreError: The folder lies on a network file system.
    """
    if found := find_network_mount(folder, mounts):
        raise StoreError(
            f"session folder {str(folder)!r} lies on a network file system ({found}), where a crash or a "
            "second machine can corrupt SQLite's log: write to a local disk and copy the closed session there"
        )
