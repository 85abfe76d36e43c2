"""The reference and the public names say the same."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pilotage

HEADING = re.compile(r"^#+ .*$", re.MULTILINE)
ROW = re.compile(r"^\| *(`[^`]+`)", re.MULTILINE)
DOTTED = re.compile(r"`(pilotage(?:\.\w+)+)")


def read_reference(root: Path) -> str:
    pages = sorted((root / "docs/reference").glob("*.md"))
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def resolves(dotted: str) -> bool:
    """Tell whether a dotted name leads somewhere: through attributes, or else through modules."""
    found: object = pilotage
    path = "pilotage"
    for part in dotted.split(".")[1:]:
        path += f".{part}"
        if not hasattr(found, part):
            try:
                found = importlib.import_module(path)
            except ImportError:
                return False
        else:
            found = getattr(found, part)
    return True


def test_each_public_name_is_in_the_reference(root: Path) -> None:
    reference = read_reference(root)
    entries = "\n".join(HEADING.findall(reference) + ROW.findall(reference))
    names = getattr(pilotage, "__all__", ())
    missing = [name for name in names if not re.search(rf"`(?:pilotage\.)?{re.escape(name)}\b", entries)]
    assert missing == [], "these need a heading or a table row of their own in docs/reference/"


def test_each_public_name_exists() -> None:
    missing = [name for name in getattr(pilotage, "__all__", ()) if not hasattr(pilotage, name)]
    assert missing == []


def test_each_heading_of_the_reference_names_what_exists(root: Path) -> None:
    names = {name for heading in HEADING.findall(read_reference(root)) for name in DOTTED.findall(heading)}
    assert sorted(name for name in names if not resolves(name)) == []
