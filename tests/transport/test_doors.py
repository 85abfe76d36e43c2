"""Where processes of one machine meet: names, what is swept away, and what isn't."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotage.protocol.zmtp import metadata
from pilotage.transport import clear_listener
from pilotage.transport.clear_listener import ClearListener
from pilotage.transport.doors import MAX_PATH_BYTES, SPARED_S, bound_path, door_path, near_door
from pilotage.transport.rules import SocketRules

pytestmark = pytest.mark.only_on("linux")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give this user's folder, in a folder for temporary files of its own."""
    with tempfile.TemporaryDirectory() as alone:
        monkeypatch.setattr(tempfile, "tempdir", alone)
        yield Path(alone) / f"pilotage-{os.getuid()}"


def test_a_door_is_found_by_its_name(folder: Path) -> None:
    path = door_path("a1-5560")
    assert path == str(folder / "a1-5560") and near_door("a1-5560") == ""
    with bound_path(path):
        assert near_door("a1-5560") == path
    (folder / "file").touch()
    assert near_door("file") == near_door("nothing") == ""


def test_what_nobody_answers_at_is_swept_away_once_it_is_no_longer_new(folder: Path) -> None:
    old, new, alive = (door_path(name) for name in ("old", "new", "alive"))
    with bound_path(old), bound_path(new), bound_path(alive) as one:
        one.listen()
        before = time.time() - 2 * SPARED_S
        for path in (old, alive):
            os.utime(path, (before, before))
        door_path("next")
        assert sorted(path.name for path in folder.iterdir()) == ["alive", "new"]


def test_a_path_too_long_for_the_system_is_neither_made_nor_dialled(folder: Path) -> None:
    name = "x" * (MAX_PATH_BYTES - len(str(folder)))
    assert door_path(name) == ""
    folder.mkdir(exist_ok=True)
    here = os.open(folder, os.O_RDONLY)
    with bound_path(f"/proc/self/fd/{here}/{name}"):
        assert near_door(name) == ""
    os.close(here)


def test_others_folders_are_not_trusted(folder: Path) -> None:
    with bound_path(door_path("a1")):
        folder.chmod(0o755)
        assert near_door("a1") == door_path("a2") == ""


def test_a_station_listens_where_the_system_refuses_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socket.socket):
        def __init__(self, family: int = -1, *given: object, **named: object) -> None:
            if family == socket.AF_UNIX:
                raise OSError(97, "Address family not supported by protocol")
            super().__init__(family, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(clear_listener.socket, "socket", Refusing)
    listener = ClearListener("127.0.0.1", 0, "hub", metadata("hub", 1, 3), SocketRules(), "a1")
    assert listener.port and listener.door == ("", 0)
    listener.close()
