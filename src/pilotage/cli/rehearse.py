"""`pilotage demo`: the whole of it on one computer, shown while it runs, checked when it has ended.

Law: the exit code is 0 only if everything that was sent was found again, bit for bit.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from pilotage.cli.exits import Exit
from pilotage.cli.options import AsJson
from pilotage.cli.show import print_json

if TYPE_CHECKING:
    from pilotage.app.demo.findings import Report
    from pilotage.app.demo.layout import Plan

MIN_SECONDS = 6.0
NEEDED = ("av", "pandas", "xarray")


def demo(
    folder: Annotated[
        Path | None,
        typer.Option(help="Where everything goes, an empty folder; a new temporary one if not given."),
    ] = None,
    video: Annotated[Path | None, typer.Option(help="A video file for the camera.")] = None,
    signal_file: Annotated[
        Path | None, typer.Option("--signal", help="A CSV or .npy file to replay.")
    ] = None,
    sounds: Annotated[Path | None, typer.Option(help="A folder with WAV files as stimuli.")] = None,
    column: Annotated[str | None, typer.Option(help="The signal's column, if it has several.")] = None,
    rate_hz: Annotated[float, typer.Option(min=0.1, help="The signal's sampling rate in Hz.")] = 100.0,
    seconds: Annotated[float, typer.Option(min=MIN_SECONDS, help="How long the tasks run.")] = 15.0,
    check: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Only check an earlier demo's folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a whole experiment on this computer, and check what it stored, bit for bit."""
    from pilotage.app.demo.layout import prepare

    _check_packages()
    if check is not None:
        _conclude(check.resolve(), time.monotonic(), as_json)
        return
    check_interrupts = heed_signals()
    began = time.monotonic()
    place = (folder or Path(tempfile.mkdtemp(prefix="pilotage-demo-"))).resolve()
    plan = prepare(place, video, signal_file, sounds, _column(column), rate_hz)
    _run(place, plan, seconds, as_json, check_interrupts)
    _conclude(place, began, as_json)


def _run(
    place: Path, plan: Plan, seconds: float, as_json: bool, check_interrupts: Callable[[], None]
) -> None:
    from pilotage.app.demo.script import Demo, Progress, Watchers
    from pilotage.cli.rehearsal_view import make_view

    with make_view(quiet=as_json, seconds=seconds) as view:
        view.step(f"everything lies in {place}")
        told = view.watchers()

        def step(text: str) -> None:
            check_interrupts()
            told.step(text)

        def progress(now: Progress) -> None:
            check_interrupts()
            told.progress(now)

        Demo(place, plan, seconds, Watchers(step, progress)).run()
        view.step("now everything that is stored is compared with its source")


def _conclude(place: Path, began: float, as_json: bool) -> None:
    from pilotage.app.demo.check import check as check_folder
    from pilotage.cli.rehearsal_view import print_report

    report: Report = check_folder(place)
    elapsed_s = time.monotonic() - began
    if as_json:
        print_json({**report.as_plain(), "folder": str(place), "elapsed_s": round(elapsed_s, 3)})
    else:
        print_report(report, place, elapsed_s)
    if not report.complete:
        raise typer.Exit(Exit.FAILED)


def _column(text: str | None) -> str | int | None:
    return int(text) if text is not None and text.isdecimal() else text


def _check_packages() -> None:
    from importlib.util import find_spec

    from pilotage.protocol.errors import MachineError

    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise MachineError(f"the demo needs {', '.join(missing)}: pip install 'pilotage[demo]'")


def heed_signals() -> Callable[[], None]:
    """Have a signal end the demo, and with it the processes that it started; the next one changes nothing.

    Returns:
        What raises KeyboardInterrupt if a signal has come: Python throws away what is raised while it collects garbage
        or calls a weak reference's callback, and the demo would go on.
    """
    came: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        came.append(number)
        raise KeyboardInterrupt

    def check() -> None:
        if came:
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        # Also SIGINT: a shell starts what runs in its background without it.
        signal.signal(number, interrupt)
    return check
