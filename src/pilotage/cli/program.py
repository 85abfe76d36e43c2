"""The commands together, and the one place where they are run and their errors end."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pilotage.cli import keys, operate, preferences, rehearse, serve
from pilotage.cli.audit import audit
from pilotage.cli.exits import Exit, say_error

EPILOG = "Exit codes: 0 done; 1 it failed, or data are missing; 2 wrong usage; 3 no answer; 4 this machine refuses."

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""Typer's own copy of Click keeps this name private."""

app = typer.Typer(
    name="pilotage",
    help="Run experiments on many small computers: a Terminal, its pilots, their tasks and data.",
    epilog=EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(rehearse.demo)
app.command()(serve.terminal)
app.command()(serve.pilot)
app.command()(operate.ls)
app.command()(operate.status)
app.command()(operate.start)
app.command()(operate.stop)
app.command(name="set")(operate.set_parameters)
app.command()(operate.end)
app.command()(audit)
app.command()(preferences.prefs)
app.command()(keys.join)
app.add_typer(keys.app, name="keys")


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    prefs: Annotated[
        Path | None, typer.Option(help="Read this file of preferences instead of the user's.")
    ] = None,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Log more; twice: everything.")
    ] = 0,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Speak in clear with other machines, too (INSECURE).")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and end.")] = False,
) -> None:
    """Do what all commands share."""
    from pilotage.net.prefs import prefs as all_prefs

    if version:
        from importlib.metadata import version as version_of

        typer.echo(version_of("pilotage"))
        raise typer.Exit
    if prefs is not None:
        all_prefs.load(prefs)
    if insecure:
        all_prefs.set("INSECURE", True)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit
    level = {0: "", 1: "INFO"}.get(verbose, "DEBUG") or str(all_prefs.get("LOGLEVEL"))
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: without the program's name.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A console or pipe of an older code page must cost a character, not the command.
            stream.reconfigure(errors="replace")
    try:
        code = app(args=list(arguments), prog_name="pilotage", standalone_mode=False)
    except UsageError as error:
        return _say_usage(error)
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.close()
        return Exit.FAILED
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it is, it ends as one line
        return say_error(error)
    if code == Exit.INTERRUPTED:
        return say_error(KeyboardInterrupt())
    return int(code or Exit.OK)


def _say_usage(error: Exception) -> Exit:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "pilotage"
    text = error.format_message() if hasattr(error, "format_message") else str(error)
    typer.echo(f"pilotage: {' '.join(text.split())} (see {command} --help)", err=True)
    return Exit.USAGE
