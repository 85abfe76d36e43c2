"""Nothing in the checkout leans on one person's machine, or is left for later."""

from __future__ import annotations

import re
from pathlib import Path

FOLDERS = ("src", "tests", "docs", "examples", "benchmarks", ".ci")
ENDINGS = {".py", ".md", ".toml", ".txt", ".json", ".sh", ".cfg", ".yml", ".yaml", ""}
# Spelled with a class each, so that this file passes its own test.
FOLDERS_OF_MACHINES = r"(?<![\w.~])/(?:[w]ork|[r]oot|[h]ome/\w+|[U]sers/\w+|[o]pt/\w+)\b"
MACHINE = re.compile(FOLDERS_OF_MACHINES + r"|\.\./[s]hared\b|[C]:\\+Users\\+\w+")
LATER = re.compile(r"\b(?:[T]ODO|[F]IXME|[X]XX)\b")


def list_files(root: Path) -> list[Path]:
    files = [path for path in root.iterdir() if path.is_file() and path.name != ".coverage"]
    for folder in FOLDERS:
        # What a fuzzer has kept is bytes, not text.
        files += [
            path for path in (root / folder).rglob("*") if path.is_file() and "corpus" not in path.parts
        ]
    return [path for path in files if path.suffix in ENDINGS and ".egg-info" not in str(path)]


def find_lines(root: Path, pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in list_files(root)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def test_the_patterns_see_what_they_are_for() -> None:
    assert MACHINE.search("/".join(["", "home", "ada", "data"]))
    assert MACHINE.search("open('" + "/".join(["", "work", "x"]) + "')")
    assert not MACHINE.search("docs/work and ~/work")
    assert LATER.search("# TO" + "DO: later")


def test_no_path_of_somebodys_machine(root: Path) -> None:
    assert find_lines(root, MACHINE) == []


def test_nothing_is_left_for_later(root: Path) -> None:
    assert find_lines(root, LATER) == []
