"""What an operator asks of a running Terminal: `ls`, `status`, `start`, `stop`, `set`, `end`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pilotage.cli.exits import Exit
from pilotage.cli.options import (
    AsJson,
    Assignments,
    At,
    PilotName,
    complete_pilots,
    complete_tasks,
    connect,
    read_parameters,
)
from pilotage.cli.show import (
    LINK_STYLES,
    STATE_STYLES,
    Column,
    print_certificate,
    print_json,
    print_table,
    styled,
)
from pilotage.protocol.errors import MisuseError, TaskError

MAX_SESSIONS = 10


def ls(at: At = None, as_json: AsJson = False) -> None:
    """List the pilots with their states, and the sessions."""
    with connect(at) as operator:
        known = operator.status()
    if as_json:
        shown = ("pilots", "sessions", "open", "current", "troubles", "openness")
        print_json({name: known[name] for name in shown})
        return
    _warn(known)
    if known["pilots"]:
        columns = [
            Column(title) for title in ("pilot", "state", "link", "heard", "parent", "subject", "reason")
        ]
        print_table(columns, [_pilot_row(name, pilot) for name, pilot in known["pilots"].items()])
    else:
        typer.echo("no pilot has come yet; start one with `pilotage pilot --name NAME`")
    latest = known["sessions"][-MAX_SESSIONS:]
    texts = [f"{name} (open)" if name in known["open"] else name for name in latest]
    more = f"  … and {len(known['sessions']) - len(latest)} older" * (len(latest) < len(known["sessions"]))
    typer.echo(f"\nsessions: {', '.join(texts) or 'none yet'}{more}")


def _pilot_row(name: str, pilot: dict[str, Any]) -> list[Any]:
    return [
        name,
        styled(pilot["state"] or "not seen", STATE_STYLES),
        styled(pilot["link"], LINK_STYLES),
        "" if pilot["age_s"] is None else f"{_short(pilot['age_s'])} ago",
        pilot["parent"],
        pilot["subject"],
        "; ".join(filter(None, (pilot["reason"], pilot["trouble"]))),
    ]


def _short(duration_s: float) -> str:
    """Write a duration in its largest unit."""
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if duration_s >= 2 * length_s:
            return f"{duration_s // length_s:.0f} {unit}"
    return f"{duration_s:.1f} s"


def _warn(known: dict[str, Any]) -> None:
    """Say what is wrong with the Terminal, above all else."""
    if known["openness"].startswith("INSECURE"):
        typer.echo(f"the Terminal is {known['openness']}", err=True)
    for place, text in known["troubles"].items():
        typer.echo(f"the disk refuses what comes for {place}: {text}", err=True)


def status(
    session: Annotated[
        str,
        typer.Argument(metavar="[SESSION]", help="A session's name or folder; the open one if not given."),
    ] = "",
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Show what a session holds, and whether it is complete. A folder is read without any Terminal."""
    from pilotage.app.sessions import find_session, read_session

    folder = find_session(session) if session else None
    if folder is None:
        with connect(at) as operator:
            known = operator.status()
            _warn(known)
            folder = _ask_where(known, operator, session)
    found = read_session(folder)
    if as_json:
        print_json(found)
    else:
        _print_session(found)
    if found["certificate"] is not None and not found["certificate"]["complete"]:
        raise typer.Exit(Exit.FAILED)


def _ask_where(known: dict[str, Any], operator: Any, session: str) -> Path:
    wanted = session or known["current"]
    if not wanted:
        latest = ", ".join(known["sessions"][-MAX_SESSIONS:]) or "none yet"
        raise TaskError(f"no session is open; name one: {latest}")
    place = Path(operator.status(wanted)["session"]["place"])
    if not place.is_dir():
        raise TaskError(f"session {wanted!r} lies in {place} on the Terminal's computer; read it there")
    return place


def _print_session(found: dict[str, Any]) -> None:
    typer.echo(f"session {found['session']}  in {found['place']}")
    trials = f"{found['complete_trials']} of {found['trials']} trials complete"
    typer.echo(
        f"{trials}; {found['events']} events, {found['states']} states, {found['parameters']} parameters"
    )
    if found["streams"]:
        columns = [
            Column("pilot"),
            Column("stream"),
            Column("items", right=True),
            Column("form"),
            Column("subject"),
        ]
        rows = [[s["pilot"], s["name"], str(s["length"]), s["form"], s["subject"]] for s in found["streams"]]
        print_table(columns, rows)
    if found["certificate"] is None:
        typer.echo("no certificate: the session has not been ended (pilotage end)")
    else:
        print_certificate(found["certificate"])


def start(
    pilot: PilotName,
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="The task's name.", autocompletion=complete_tasks)
    ],
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter (JSON); repeatable."),
    ] = None,
    params: Annotated[Path | None, typer.Option(metavar="FILE", help="A JSON file of parameters.")] = None,
    subject: Annotated[str, typer.Option(help="Who is run.")] = "",
    session: Annotated[str, typer.Option(help="The session; the open one, or a new one, if not given.")] = "",
    parent: Annotated[
        str, typer.Option(help="Start it as this pilot's child: data come under that name.")
    ] = "",
    trial: Annotated[
        int | None, typer.Option(min=0, help="The first trial's number; counts on if not given.")
    ] = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Start a task on a pilot."""
    values = read_parameters(param or [], params)
    with connect(at) as operator:
        started = operator.start(pilot, task, values, subject, session, parent, trial)
    if as_json:
        print_json(started)
        return
    typer.echo(f"{pilot} runs {task}; session {started['session']}, in {started['place']}")


def stop(
    pilot: Annotated[
        str, typer.Argument(metavar="[PILOT]", help="A pilot's name.", autocompletion=complete_pilots)
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="Stop all pilots.")] = False,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Stop a pilot's task, or all, and wait until outputs are safe and data stored."""
    if bool(pilot) == every:
        raise MisuseError("name the pilot to stop, or give --all")
    with connect(at) as operator:
        if every:
            operator.stop_all()
        else:
            operator.stop(pilot)
        states = {name: known["state"] for name, known in operator.pilots().items() if every or name == pilot}
    if as_json:
        print_json(states)
        return
    for name, state in states.items():
        typer.echo(f"{name}  {state or 'not seen'}")


def set_parameters(pilot: PilotName, values: Assignments, at: At = None, as_json: AsJson = False) -> None:
    """Change parameters of a running task: all of them, or none."""
    changes = read_parameters(values)
    with connect(at) as operator:
        now = operator.change(pilot, changes)
    if as_json:
        print_json(now)
        return
    for name, value in now.items():
        typer.echo(f"{pilot}  {name} = {value!r}")


def end(
    session: Annotated[str, typer.Argument(metavar="[SESSION]", help="The open one, if not given.")] = "",
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """End a session: compare what the pilots sent with what is stored, and close its record."""
    with connect(at) as operator:
        certificate = operator.end(session)
    if as_json:
        print_json(certificate)
    else:
        typer.echo(f"session {certificate['session']}  in {certificate['place']}")
        print_certificate(certificate)
    if not certificate["complete"]:
        raise typer.Exit(Exit.FAILED)
