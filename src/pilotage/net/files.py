"""FILE: a Terminal's station gives files of its folder, a pilot's station asks for them and keeps them.

Law of this room: a path from the wire stays inside the folder, and a file appears there whole or not at all.
"""

from __future__ import annotations

import base64
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.net.jail import ARRIVING, inside
from pilotage.net.receipt import Receipt
from pilotage.protocol.errors import InvalidMessage, MachineError, TaskError
from pilotage.protocol.settlement import Outcome

MAX_FILE_BYTES = 44 * 2**20
"""In base64 that is what one message carries."""
LOOK_S = 0.2


def read_file(folder: Path, path: object) -> dict[str, Any]:
    """Read a file of a folder for the wire.

    Args:
        folder: such as SOUNDDIR.
        path: relative to it, with "/" between its parts.

    Returns:
        The documented value of FILE: `path`, and `file` in base64.

    Raises:
        InvalidMessage: no such path, or it leads out of the folder.
        MachineError: there is no such file, it is too large, or it can't be read.
    """
    if not isinstance(path, str):
        raise InvalidMessage(f"FILE needs a path as its value, not {type(path).__name__}")
    try:
        place = inside(folder, path)
    except TaskError as error:
        raise InvalidMessage(str(error)) from error
    try:
        if not place.is_file():
            raise MachineError(f"there is no file {path!r} in the Terminal's folder {folder}; put it there")
        with place.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise MachineError(
                f"{path!r} has {place.stat().st_size} bytes; a file of one message has at most {MAX_FILE_BYTES}"
            )
        return {"path": path, "file": base64.b64encode(content).decode()}
    except OSError as error:
        raise MachineError(f"{path!r} can't be read from {folder}: {error.strerror}") from error


def write_file(folder: Path, value: object) -> Path:
    """Write a file that came by the wire.

    Args:
        folder: such as SOUNDDIR; made if missing.
        value: the documented value of FILE.

    Returns:
        Where it lies now.

    Raises:
        InvalidMessage: not that value, or a path that leads out of the folder.
        MachineError: it can't be written.
    """
    if (
        not isinstance(value, dict)
        or not isinstance(value.get("path"), str)
        or not isinstance(value.get("file"), str)
    ):
        raise InvalidMessage("a FILE that brings a file needs path and file (in base64)")
    try:
        content = base64.b64decode(value["file"], validate=True)
        place = inside(folder, value["path"])
    except ValueError as error:  # binascii.Error and TaskError are such, and so is what isn't ASCII
        raise InvalidMessage(f"FILE {value['path']!r:.80}: {error}") from error
    try:
        _write_whole(place, content)
    except OSError as error:
        raise MachineError(f"{value['path']!r} can't be written to {folder}: {error.strerror}") from error
    return place


def _write_whole(place: Path, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place.parent, prefix=ARRIVING, delete=False) as part:
        arriving = Path(part.name)
        try:
            part.write(content)
        except OSError:
            arriving.unlink(missing_ok=True)
            raise
    arriving.replace(place)


@dataclass(slots=True, eq=False)
class _Wanted:
    """A file that is awaited, and what was told of it: "" that it is here, else why it isn't."""

    path: str
    told: str | None = None


class Fetcher:
    """Files that we have asked for and that aren't here yet. Any thread.

    Args:
        folder: where they go.
        ask: sends FILE with a path up to the Terminal.
        block: the documented `file_block`: set while no file is awaited.
    """

    def __init__(self, folder: Path, ask: Callable[[str], Receipt], block: threading.Event) -> None:
        self.folder = folder
        self._ask = ask
        self._block = block
        self._changed = threading.Condition()
        self._awaited: list[_Wanted] = []
        block.set()

    def arrived(self, value: object) -> None:
        """Take a file in, or the news that there is none.

        Raises:
            InvalidMessage: it is no such value.
            MachineError: it can't be written.
        """
        if isinstance(value, dict) and "error" in value and "file" not in value:
            self._note(str(value.get("path")), str(value["error"]))
            return
        try:
            write_file(self.folder, value)
        except MachineError as error:
            self._note(str(value["path"]) if isinstance(value, dict) else "", str(error))
            raise
        self._note(str(value["path"]) if isinstance(value, dict) else "", "")

    def fetch(self, path: str, deadline: Callable[[], float], cancelled: threading.Event) -> None:
        """Ask for a file and wait for it.

        Args:
            path: relative to the folder.
            deadline: tells how many seconds are left.
            cancelled: set when it isn't wanted any more.

        Raises:
            MachineError: the Terminal hasn't got it, or it did not come in time.
        """
        wanted = _Wanted(path)
        with self._changed:
            self._awaited.append(wanted)
            self._block.clear()
        self._ask(path).add_callback(lambda receipt: self._answered(path, receipt))
        with self._changed:
            while wanted.told is None and deadline() > 0 and not cancelled.is_set():
                self._changed.wait(min(LOOK_S, max(0.0, deadline())))
            self._awaited.remove(wanted)
            if not self._awaited:
                self._block.set()
        told = wanted.told
        if told is None:
            raise MachineError(
                f"{path!r} did not come from the Terminal in time" + " (stopped)" * cancelled.is_set()
            )
        if told:
            raise MachineError(told)

    def _answered(self, path: str, receipt: Receipt) -> None:
        settlement = receipt.settlement
        if settlement is not None and settlement.outcome is not Outcome.DELIVERED:
            self._note(path, f"{path!r} could not be fetched: {settlement.text}")

    def _note(self, path: str, text: str) -> None:
        with self._changed:
            for wanted in self._awaited:
                if wanted.path == path:
                    wanted.told = text
            self._changed.notify_all()
