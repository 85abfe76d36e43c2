"""How commands print: tables that fit the width there is, and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STATE_STYLES = {
    "RUNNING": "green",
    "PREPARING": "cyan",
    "STOPPING": "cyan",
    "ERROR": "bold red",
    "INTERRUPTED": "yellow",
    "PAUSED": "yellow",
}
LINK_STYLES = {"suspect": "yellow", "gone": "red"}


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column; numbers go to the right, and what may not fold keeps its width."""

    title: str
    right: bool = False
    fold: bool = True


def console() -> Console:
    """Give stdout for rich; colours only where a person looks."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def make_table(columns: Sequence[Column], rows: Sequence[Sequence[Any]], title: str = "") -> Table:
    """Make a table of texts, or of rich's Text."""
    from rich import box
    from rich.table import Table

    safe = box.SIMPLE_HEAD if _speaks_utf8() else box.ASCII2
    table = Table(box=safe, title=title or None, title_justify="left", pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=not column.fold,
        )
    for row in rows:
        table.add_row(*row)
    return table


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table."""
    console().print(make_table(columns, rows))


def print_json(value: object) -> None:
    """Print a value as JSON, indented."""
    typer.echo(json.dumps(value, indent=2, default=plain, ensure_ascii=False))


def plain(value: object) -> object:
    """Give what JSON can say instead of a value that it can't."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def styled(text: str, styles: dict[str, str]) -> Any:
    """Give a word in the colour that stands for it."""
    from rich.text import Text

    return Text(text, style=styles.get(text, ""))


def _speaks_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
