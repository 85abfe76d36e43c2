"""Summaries of what was measured, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from .bars import NAN, Rounds, Verdict, median, median_ratio
from .modes import Mode

WIDTH = 160
FAULTS = ("lost", "duplicates", "unreceived", "corrupt", "out_of_order")
BAD = ("lost", "duplicates", "unreceived", "corrupt")
UNITS = {
    "rate_per_s": "rate /s",
    "handled_per_s": "handled /s",
    "mb_per_s": "MB/s",
    "cpu_s_per_10k": "CPU s/10k",
    "rtt_p50_us": "p50 µs",
    "rtt_p99_us": "p99 µs",
    "loaded_p99_us": "p99 µs",
    "loaded_p50_us": "p50 µs",
    "idle_p99_us": "p99 idle µs",
    "p99_x_idle": "× idle",
    "stream_mb_per_s": "stream MB/s",
    "delivered_pct": "delivered %",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "station_mb": "station MB",
    "station_cpu_pct": "station CPU %",
    "sender_cpu_pct": "peer CPU %",
    "import_cpu_s": "CPU s",
    "dependencies_cpu_s": "of that, others' CPU s",
    "first_node_cpu_s": "with the first node, CPU s",
    "import_s": "import s",
    "plain_import_s": "`import` alone s",
    "bare_python_s": "Python itself s",
    "stored_mb_per_s": "stored MB/s",
    "disk_mb_per_s": "disk MB/s",
    "of_wanted": "of wanted",
}

Summary = dict[str, dict[str, Any]]


def summarize(measured: Rounds, mode: Mode, promises: Mapping[str, str]) -> Summary:
    """Return for each peer the medians, the range and ratios of the first figure, and the summed counts."""
    first = mode.figures[0]
    references = [name for name in mode.references if name in measured and len(measured) > 1]
    summary = {}
    for name, slices in measured.items():
        values = [one.figures.get(first, NAN) for one in slices]
        counts = {
            count: sum(getattr(one, count) for one in slices) for count in ("sent", *FAULTS[:2], *FAULTS[3:])
        }
        summary[name] = {
            **{figure: median(slices, figure) for figure in mode.figures},
            "range": [min(values), max(values)],
            **{f"/ {other}": median_ratio(slices, measured[other], first) for other in references},
            "rounds": len(slices),
            **counts,
            "unreceived": sum(max(0, one.sent - one.received) for one in slices),
            "promise": promises.get(name, ""),
        }
    return summary


def faults(summaries: Mapping[str, Summary]) -> list[tuple[str, str]]:
    """Return the name and a sentence for each peer and mode that lost, doubled or damaged messages."""
    return [
        (name, f"{name}, {mode}: " + ", ".join(f"{row[count]} {count}" for count in BAD))
        for mode, summary in summaries.items()
        for name, row in summary.items()
        if any(row[count] for count in BAD)
    ]


def wide_console() -> Console:
    """Return a console that leaves a table its width where no terminal bounds it, as in a log."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def show(console: Console, title: str, summary: Summary) -> None:
    """Print one summary as a table; what a good run has none of stands in one column."""
    table = Table(title=title)
    rows = {name: _row(row) for name, row in summary.items()}
    for number, column in enumerate(["peer", *next(iter(rows.values()))]):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for name, row in rows.items():
        table.add_row(name, *row.values())
    console.print(table, soft_wrap=True)


def show_bars(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Print what was to be reached, and what was."""
    table = Table(title="bars: ratios within this run")
    for column in ("bar", "value", "wanted", "rounds", ""):
        table.add_column(column, justify="left" if column in {"bar", ""} else "right")
    for verdict in verdicts:
        value = "–" if verdict.value is None else f"{verdict.value:.3g}"
        style = "" if verdict.value is None else "green" if verdict.is_met else "bold red"
        table.add_row(
            str(verdict.bar), value, verdict.bar.wanted, str(verdict.rounds), verdict.text, style=style
        )
    console.print(table, soft_wrap=True)


def _row(row: Mapping[str, Any]) -> dict[str, str]:
    cells = {UNITS.get(name, name): _cell(value) for name, value in row.items() if name not in FAULTS}
    bad = [f"{row[name]} {name}" for name in FAULTS if row[name]]
    return {**cells, "faults": ", ".join(bad) or "none"}


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "–".join(_cell(inner) for inner in value)
    return f"{value:,.3f}" if isinstance(value, float) and abs(value) < 100 else f"{value:,.0f}"
