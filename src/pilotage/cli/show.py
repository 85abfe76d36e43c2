"""How commands print: tables that fit the width there is, and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
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


VERDICT_STYLES = {"missing": "bold red", "different": "bold red", "unjudged": "yellow", "complete": "green"}


def print_certificate(certificate: Mapping[str, Any]) -> None:
    """Print a session's certificate: a line for each table and stream of each sender, and a sentence for each fault."""
    from pilotage.agents.coherence import unsaid

    lines = certificate.get("lines", [])
    if lines:
        columns = [Column("what")]
        columns += [Column(title, right=True) for title in ("sent", "stored", "missing", "fetched")]
        print_table(
            [*columns, Column("digest"), Column("verdict", fold=False)], [_certified(line) for line in lines]
        )
    for text in certificate.get("fetched", []):
        typer.echo(f"fetched: {text}")
    for text in unsaid(certificate):
        typer.echo(f"not complete: {text}")
    word = "complete; both sides hold the same" if certificate["complete"] else "INCOMPLETE"
    typer.echo(f"certificate: {word}")


def _certified(line: Mapping[str, Any]) -> list[Any]:
    what = f"{line['pilot']} {line['name']}" + f" ({line['agent']})" * (
        line["agent"] not in ("", line["pilot"])
    )
    sent = (
        "?" if line["sent"] is None else str(line["sent"]) if line["is_exact"] else f"{line['sent']} or more"
    )
    missing, fetched = str(line["missing_count"]), str(line["fetched_count"])
    counts = [
        sent,
        str(line["stored"]),
        styled(missing, {missing: "bold red"} if line["missing"] else {}),
        fetched,
    ]
    return [what, *counts, line["digest"], styled(line["verdict"], VERDICT_STYLES)]


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
