"""How the demo is shown: live where a person looks, in plain lines where they are piped, and its table at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pilotage.app.demo.script import Progress, Watchers
from pilotage.cli.show import STATE_STYLES, Column, console, make_table, print_certificate, styled

if TYPE_CHECKING:
    from rich.live import Live

    from pilotage.app.demo.findings import Finding, Report

LINE_EVERY_S = 2.5
WIDE, NARROW = 110, 78
NUMBERS = ("sent", "stored", "missing", "resends", "p50 ms", "p99 ms")


class View:
    """Shows nothing; the others add to it."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def step(self, text: str) -> None:
        """Tell of a thing that was done."""

    def progress(self, now: Progress) -> None:
        """Show how it stands."""

    def watchers(self) -> Watchers:
        """Give what the demo calls."""
        return Watchers(self.step, self.progress)

    def stamp(self) -> str:
        """Give the time since the begin."""
        return f"{time.monotonic() - self._began:5.1f} s"


class PlainView(View):
    """Lines, for pipes and logs."""

    _last = 0.0

    def step(self, text: str) -> None:
        """Tell of a thing that was done."""
        typer.echo(f"{self.stamp()}  {text}")

    def progress(self, now: Progress) -> None:
        """Show how it stands, now and then."""
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            counts = ", ".join(f"{pilot} {what} {count}" for (pilot, what), count in _shown(now).items())
            typer.echo(f"{self.stamp()}    stored so far: {counts}")


class LiveView(View):
    """A table that changes in place, below the steps."""

    def __init__(self, live: Live, seconds: float) -> None:
        super().__init__()
        self._live = live
        self._seconds = seconds

    def step(self, text: str) -> None:
        """Tell of a thing that was done."""
        self._live.console.print(f"{self.stamp()}  {text}")

    def progress(self, now: Progress) -> None:
        """Show how it stands."""
        columns = [Column("pilot"), Column("state"), Column("stored so far")]
        rows = []
        for name, known in sorted(now.pilots.items()):
            stored = [f"{what} {count}" for (_, what), count in _of(name, known, now).items()]
            rows.append([name, styled(known["state"], STATE_STYLES), ", ".join(stored)])
        title = f"{min(now.elapsed_s, self._seconds):4.1f} of {self._seconds:g} s"
        self._live.update(make_table(columns, rows, title))


@contextmanager
def make_view(quiet: bool, seconds: float) -> Iterator[View]:
    """Choose how to show the demo."""
    screen = console()
    if quiet:
        yield View()
    elif not screen.is_terminal:
        yield PlainView()
    else:
        from rich.live import Live

        with Live(console=screen, refresh_per_second=8, transient=True) as live:
            yield LiveView(live, seconds)


def _shown(now: Progress) -> dict[tuple[str, str], int]:
    """Leave out the streams of numbers beside other streams."""
    return {key: count for key, count in now.stored.items() if "." not in key[1]}


def _of(name: str, known: dict[str, Any], now: Progress) -> dict[tuple[str, str], int]:
    """Give a pilot's own: a child's streams are stored under its parent's name."""
    owner = known["parent"] or name
    mine = {key: count for key, count in _shown(now).items() if key[0] == owner}
    children = any(pilot["parent"] == name for pilot in now.pilots.values())
    if known["parent"]:
        return {key: count for key, count in mine.items() if key[1] != "trials"}
    return {key: count for key, count in mine.items() if key[1] == "trials"} if children else mine


# The table at the end


def print_report(report: Report, place: Path, elapsed_s: float) -> None:
    """Print what was compared, and what differs."""
    screen = console()
    screen.print()
    if screen.width < NARROW:
        for finding in report.findings:
            typer.echo(_line(finding))
    else:
        is_wide = screen.width >= WIDE
        titles = ["pilot", "from"] if is_wide else ["pilot"]
        columns = [Column(title, fold=False) for title in (*titles, "what")]
        columns += [Column(title, right=True, fold=False) for title in NUMBERS]
        columns += [Column("where")] * is_wide
        screen.print(make_table(columns, [_row(finding, is_wide) for finding in report.findings]))
    screen.print()
    for text in report.all_faults():
        typer.echo(f"NOT RIGHT: {text}")
    compared = "; ".join(f"{one.what} with {one.compared}" for one in report.findings)
    typer.echo(f"compared: {compared}.")
    typer.echo(f"the data lie in {place}: {', '.join(_places(report))}")
    if report.certificate:
        screen.print()
        print_certificate(report.certificate)
        screen.print()
    if report.complete:
        typer.echo(
            f"COMPLETE after {elapsed_s:.1f} s: every trial, sample and frame equals its source, bit for bit"
        )
    else:
        typer.echo(f"INCOMPLETE after {elapsed_s:.1f} s: {len(report.all_faults())} things are not right")


def _places(report: Report) -> list[str]:
    return list(dict.fromkeys(one.place for one in report.findings))


def _numbers(finding: Finding) -> list[str]:
    return [
        str(finding.sent),
        str(finding.stored),
        str(finding.missing),
        "" if finding.resent is None else str(finding.resent),
        _milliseconds(finding.latency_p50_s),
        _milliseconds(finding.latency_p99_s),
    ]


def _row(finding: Finding, is_wide: bool) -> list[Any]:
    sent, stored, missing, *rest = _numbers(finding)
    marked = styled(missing, {missing: "bold red"} if finding.missing else {})
    numbers = [finding.what, sent, stored, marked, *rest]
    if not is_wide:
        return [finding.pilot, *numbers]
    return [finding.pilot, finding.agent, *numbers, finding.place.rpartition("/")[2]]


def _line(finding: Finding) -> str:
    named = zip(NUMBERS, _numbers(finding), strict=True)
    return f"{finding.pilot} {finding.what}: " + ", ".join(f"{name} {text}" for name, text in named if text)


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.1f}"
