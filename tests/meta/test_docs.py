"""What the pages show is true: each Python block runs, and each command shown exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```\s*$", re.M | re.S)
COMMAND = re.compile(r"^\$ (?:\.venv/bin/)?pilotage\b ?([^#\n|&;]*)", re.M)
TIMEOUT_S = 50


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, what its fence says, what it holds."""

    place: str
    info: tuple[str, ...]
    body: str


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    blocks = []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        blocks.append(Block(f"{page.relative_to(ROOT)}:{line}", tuple(match["info"].split()), body))
    return blocks


BLOCKS = [block for page in PAGES for block in read_blocks(page)]
RUNNABLE = [block for block in BLOCKS if block.info == ("python",)]


def find_commands() -> dict[str, str]:
    """Return each `pilotage SUBCOMMAND` that a console block shows, with the place where it does."""
    commands: dict[str, str] = {}
    for block in BLOCKS:
        if block.info[:1] == ("console",):
            for command in COMMAND.findall(block.body):
                words = [word for word in shlex.split(command) if not word.startswith("-")]
                commands.setdefault(words[0] if words else "", block.place)
    return commands


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_each_decision_is_in_the_list(root: Path) -> None:
    shown = (root / "docs" / "README.md").read_text()
    records = sorted((root / "docs" / "explanations" / "decisions").glob("*.md"))
    assert (
        records
        and [file.name for file in records if f"explanations/decisions/{file.name})" not in shown] == []
    )


def test_a_fence_says_python_or_python_no_run() -> None:
    odd = [block.place for block in BLOCKS if block.info[:1] in {("py",), ("python3",), ("pycon",)}]
    extra = [b.place for b in BLOCKS if b.info[:1] == ("python",) and b.info[1:] not in {(), ("no-run",)}]
    assert odd + extra == []


@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: block.place)
def test_a_python_block_runs(block: Block, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(block.body, encoding="utf-8")
    done = run([sys.executable, str(script)], tmp_path)
    assert done.returncode == 0, f"{block.place} failed:\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("command", sorted(find_commands()))
def test_a_command_shown_exists(command: str, tmp_path: Path) -> None:
    words = ["-c", "from pilotage.cli import main; main()", *([command] if command else []), "--help"]
    done = run([sys.executable, *words], tmp_path)
    assert done.returncode == 0, f"{find_commands()[command]}: pilotage {command}\n{done.stdout}{done.stderr}"
