"""Paths from the wire stay in their folder, on every file system that we meet (promise B2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotage.net.files import read_file, write_file
from pilotage.net.jail import inside, is_device
from pilotage.protocol.errors import InvalidMessage, TaskError

HOSTILE = {
    "up": ["../a", "a/../../b", "a/../b", "..", "/../../etc/passwd", "./..", "a/.."],
    "nothing": ["", "/", "//", ".", "./."],
    "drives and shares": [
        "C:/a",
        "C:a",
        "c:",
        "\\\\host\\share\\a",
        "a\\..\\b",
        "\\\\?\\C:\\a",
        "file:///etc/passwd",
    ],
    "streams of a file": ["a.wav:hidden", "a::$DATA"],
    "devices": [
        "CON",
        "nul",
        "aux.txt",
        "a/COM1",
        "lpt9.wav",
        "COM¹",
        "conin$",
        "nul .txt",
        "ＮＵＬ",
        "prn.",
    ],
    "not to be seen": ["a\0b", "a\nb", "\x1b[2Jx", "a\u202egpj.exe", "a\u200bb", "\ud800", "\x7f"],
    "reads like another": ["．．/a", "a／b", "a＼b", "‥/a", "…", "a：b", "․․/a", "℀"],
    "stripped by Windows": ["a.", "a ", " a", "a/b. /c", "..."],
    "too long": ["a" * 256, "é" * 128, "/".join(["ab"] * 400)],
    "ours": [".arriving-x"],
}


@pytest.mark.parametrize("path", [path for paths in HOSTILE.values() for path in paths])
def test_a_hostile_path_is_refused_everywhere(tmp_path: Path, path: str) -> None:
    with pytest.raises(TaskError):
        inside(tmp_path / "sounds", path)
    with pytest.raises(InvalidMessage):
        read_file(tmp_path / "sounds", path)
    with pytest.raises(InvalidMessage):
        write_file(tmp_path / "sounds", {"path": path, "file": ""})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "path",
    [
        "a.wav",
        "/tones/a.wav",
        "tones//a.wav",
        "./a",
        "häufig/ton 1.wav",
        "音/a",
        "a..b",
        ".hidden",
        "console",
        "com10",
        "%2e%2e/a",
        "~/a",
    ],
)
def test_an_honest_path_is_taken(tmp_path: Path, path: str) -> None:
    place = write_file(tmp_path, {"path": path, "file": "UklGRg=="})
    assert place.is_relative_to(tmp_path.resolve()) and place.read_bytes() == b"RIFF"
    assert read_file(tmp_path, path)["file"] == "UklGRg=="


@pytest.mark.only_on("linux", "darwin")
def test_no_link_leads_out(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    (tmp_path / "secret").write_text("key")
    (folder / "out").symlink_to(tmp_path)
    (folder / "file").symlink_to(tmp_path / "secret")
    (folder / "round").symlink_to(folder / "round")
    (folder / "in").symlink_to(folder)
    for path in ("out/secret", "file", "round", "round/a", "in"):
        with pytest.raises(TaskError):
            inside(folder, path)
        with pytest.raises(InvalidMessage):
            write_file(folder, {"path": path, "file": ""})
    assert (tmp_path / "secret").read_text() == "key"


@pytest.mark.parametrize("file", ["?", "é", "====", "\ud800"])
def test_what_is_no_base64_is_refused(tmp_path: Path, file: str) -> None:
    with pytest.raises(InvalidMessage, match="FILE"):
        write_file(tmp_path, {"path": "a", "file": file})
    assert not list(tmp_path.iterdir())


def test_devices_are_known_by_name_alone() -> None:
    assert all(map(is_device, ("nul", "Con", "COM1.tar.gz", "lpt³", "AUX  .x")))
    assert not any(map(is_device, ("null", "com", "com0x", "console", "xaux", "lpt")))
