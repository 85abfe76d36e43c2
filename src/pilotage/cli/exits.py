"""How a command ends: its exit code, and one line for an error.

Law: an error is one line on stderr that names what, where and what to do; a traceback is for LOGLEVEL=DEBUG.
"""

from __future__ import annotations

import logging
from enum import IntEnum

import typer

from pilotage.protocol.errors import Expired, MachineError, MisuseError, PilotageError

log = logging.getLogger(__name__)


class Exit(IntEnum):
    """What the exit codes mean."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_ANSWER = 3
    MACHINE = 4
    INTERRUPTED = 130


def exit_of(error: BaseException) -> Exit:
    """Tell the exit code that an error stands for."""
    if isinstance(error, KeyboardInterrupt):
        return Exit.INTERRUPTED
    if isinstance(error, Expired):
        return Exit.NO_ANSWER
    if isinstance(error, MisuseError):
        return Exit.USAGE
    if isinstance(error, MachineError):
        return Exit.MACHINE
    return Exit.FAILED


def say_error(error: BaseException) -> Exit:
    """Put an error into one line on stderr, and tell the exit code that it stands for."""
    log.debug("this is where it came from", exc_info=error)
    # Where a listen failed at the end of several hops, each hop has said so.
    text = " ".join(str(error).replace("listen failed: ", "").split())
    if isinstance(error, KeyboardInterrupt):
        text = "interrupted"
    elif not isinstance(error, PilotageError | TimeoutError) or not text:
        text = f"{type(error).__name__}: {text} (set LOGLEVEL=DEBUG to see where)"
    typer.echo(f"pilotage: {text}", err=True)
    return exit_of(error)
