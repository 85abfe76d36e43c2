"""Options that several commands have, and how parameters are written on a command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotage.protocol.errors import MisuseError, PilotageError

if TYPE_CHECKING:
    from pilotage.app.operator import Operator

LOOK_S = 0.5
"""What completion may take to ask a Terminal."""


def complete_pilots(incomplete: str) -> list[str]:
    """Offer the pilots that the Terminal knows; none, if it doesn't answer."""
    try:
        with connect(None, LOOK_S) as operator:
            return [name for name in operator.pilots() if name.startswith(incomplete)]
    except (PilotageError, TimeoutError):
        return []


def complete_tasks(incomplete: str) -> list[str]:
    """Offer the tasks that are installed here."""
    from pilotage.agents.registry import known_tasks

    return [name for name in known_tasks() if name.startswith(incomplete)]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
At = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="HOST[:PORT]", help="Where the Terminal is, if not at TERMINALIP and PUSHPORT."
    ),
]
PilotName = Annotated[
    str, typer.Argument(metavar="PILOT", help="A pilot's name.", autocompletion=complete_pilots)
]
Assignments = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME=VALUE…", help="Parameters; a value is JSON, or text if it doesn't look like JSON."
    ),
]


def connect(at: str | None, timeout_s: float | None = None) -> Operator:
    """Connect to the Terminal.

    Args:
        at: HOST or HOST:PORT; from the preferences if not given.
        timeout_s: how long it may take.

    Raises:
        InvalidPref: that can't be an address.
        Expired: no Terminal answers there.
    """
    from pilotage.app.operator import ANSWER_TIMEOUT_S, Operator
    from pilotage.net.prefs import prefs

    if at:
        host, _, port = at.partition(":") if not at.startswith("[") else (at, "", "")
        prefs.set("TERMINALIP", host)
        if port:
            prefs.set("PUSHPORT", port)
            prefs.set("TERMINALPORT", None)
    return Operator(prefs.snapshot(), ANSWER_TIMEOUT_S if timeout_s is None else timeout_s)


def read_parameters(assignments: Sequence[str], file: Path | None = None) -> dict[str, Any]:
    """Read NAME=VALUE, over what a JSON file says.

    Raises:
        MisuseError: one isn't written like that, a name comes twice, or JSON is broken; the text names it.
    """
    given: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not name.strip() or not equals:
            raise MisuseError(f"{text!r} is no parameter: write NAME=VALUE, such as reward_ms=30")
        if name in given:
            raise MisuseError(f"parameter {name!r} is given twice")
        given[name] = _read_value(name, value)
    return {**(_read_file(file) if file else {}), **given}


def _read_value(name: str, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        if text.lstrip()[:1] in ("{", "[", '"'):
            raise MisuseError(f"parameter {name!r}: {text!r:.80} is broken JSON: {error}") from error
        return text


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _read_file(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MisuseError(f"the parameters' file {file} can't be read: {error}") from error
    if not isinstance(found, dict):
        raise MisuseError(f"the parameters' file {file} must hold one JSON object of names and values")
    return found
