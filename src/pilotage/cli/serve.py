"""`pilotage terminal` and `pilotage pilot`: agents that run until somebody ends them.

Law: Ctrl-C, SIGTERM or the end of standard input (where asked for) end them cleanly; after two seconds they end
anyway, and say so.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotage.cli.exits import Exit
from pilotage.cli.options import AsJson

if TYPE_CHECKING:
    from pilotage.agents.pilot import Pilot
    from pilotage.agents.terminal import Terminal
    from pilotage.net.pref_keys import Prefs

LOOK_S = 0.25
CLOSE_S = 0.6
GIVE_UP_S = 1.8
SHOWN = ("state", "reason", "link", "parent", "subject", "ip")

UntilEof = Annotated[
    bool, typer.Option("--until-eof", help="End when standard input ends; for programs that start this one.")
]


Insecure = Annotated[
    bool, typer.Option("--insecure", help="Speak in clear with other machines, too (INSECURE).")
]


def terminal(json_lines: AsJson = False, until_eof: UntilEof = False, insecure: Insecure = False) -> None:
    """Run a Terminal: pilots come to it, and it keeps their data."""
    from pilotage.agents.terminal import Terminal
    from pilotage.app.archive import FolderArchives
    from pilotage.app.audit import FileAudit
    from pilotage.net.easing import ease_process
    from pilotage.net.prefs import prefs

    if insecure:
        prefs.set("INSECURE", True)
    settings = prefs.snapshot()
    with _until_ended(until_eof) as ended:
        kept = FileAudit(settings.datadir)
        agent = Terminal(FolderArchives(settings.datadir), settings, kept)
        ease_process()
        agent.on_trouble = lambda place, text, is_over: _say_trouble(json_lines, place, text, is_over)
        for session in agent.sessions.opened():
            _say(json_lines, f"session {session} was left open and goes on", event="session", name=session)
        _say(json_lines, f"Terminal listens on port {agent.port}; it keeps data in {settings.datadir}",
             event="listening", port=agent.port, datadir=str(settings.datadir), pid=os.getpid(),
             openness=agent.openness)  # fmt: skip
        if not json_lines:
            _say(json_lines, f"Terminal is {agent.openness}")
        try:
            _watch_pilots(agent, ended, json_lines)
        finally:
            _say(json_lines, "Terminal ends", event="ending")
            ended.give_up_later("a session is still being written; what was confirmed is safe")
            agent.close(CLOSE_S)
            kept.close(CLOSE_S)
        _say(json_lines, "Terminal has ended", event="ended")


def pilot(
    name: Annotated[str | None, typer.Option(help="Its name, if not NAME of the preferences.")] = None,
    json_lines: AsJson = False,
    until_eof: UntilEof = False,
    insecure: Insecure = False,
) -> None:
    """Run a pilot: it connects to the Terminal (or its parent), and runs the tasks that it is sent."""
    from pilotage.agents.pilot import Pilot
    from pilotage.net.easing import ease_process
    from pilotage.net.prefs import prefs

    if name is not None:
        prefs.set("NAME", name)
    if insecure:
        prefs.set("INSECURE", True)
    settings = prefs.snapshot()
    with _until_ended(until_eof) as ended:
        agent = Pilot(settings)
        ease_process()
        agent.on_state = lambda state, reason: _say_state(json_lines, agent.name, str(state), reason)
        _say(json_lines, f"Pilot {agent.name} listens on port {agent.port}; it connects to {_upstream(settings)}",
             event="listening", name=agent.name, port=agent.port, pid=os.getpid(),
             openness=agent.openness)  # fmt: skip
        if not json_lines:
            _say(json_lines, f"Pilot {agent.name} is {agent.openness}")
        try:
            _watch_link(agent, ended, json_lines)
        finally:
            _say(json_lines, f"Pilot {agent.name} ends", event="ending", name=agent.name)
            ended.give_up_later(f"{agent.name}'s task still ran, or had not sent all of its data")
            agent.close(CLOSE_S)
        _say(json_lines, f"Pilot {agent.name} has ended", event="ended", name=agent.name)


def _watch_pilots(agent: Terminal, ended: _Ending, json_lines: bool) -> None:
    """Say what changes, until it is time to end."""
    known: dict[str, dict[str, Any]] = {}
    change = -1
    while not ended.is_set():
        change = agent.roster.wait_change(change, LOOK_S)
        for name, record in agent.roster.snapshot().items():
            now = {what: record[what] for what in SHOWN}
            if now != known.get(name) and (now["state"] or now["link"]):
                known[name] = now
                text = f"{name}  {now['state'] or '?'}  {now['link']}  {now['reason']}"
                _say(json_lines, text.rstrip(), event="pilot", name=name, **now)


def _watch_link(agent: Pilot, ended: _Ending, json_lines: bool) -> None:
    link = ""
    while not ended.wait(LOOK_S):
        if agent.link != link:
            link = agent.link
            _say(json_lines, f"connection: {link}", event="link", name=agent.name, link=link)


def _say_state(json_lines: bool, name: str, state: str, reason: str) -> None:
    _say(
        json_lines,
        f"{name}  {state}  {reason}".rstrip(),
        event="state",
        name=name,
        state=state,
        reason=reason,
    )


def _say_trouble(json_lines: bool, place: str, text: str, is_over: bool) -> None:
    said = f"{place}: {'the disk takes data again: ' * is_over}{text}"
    _say(json_lines, said, event="disk", place=place, reason=text, is_over=is_over)


def _upstream(settings: Prefs) -> str:
    name, host, port = settings.upstream()
    return f"{name} at {host}:{port}"


def _say(json_lines: bool, text: str, **event: Any) -> None:
    """Say one thing, at once: as text with the time, or as one JSON object a line."""
    line = json.dumps({"at": time.time(), **event}) if json_lines else f"{time.strftime('%H:%M:%S')} {text}"
    try:
        typer.echo(line)
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        # Whoever read this has gone; the experiment goes on without.
        return


class _Ending(threading.Event):
    """Set when it is time to end."""

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Take a signal; the next one ends the process as it always does."""
        signal.signal(number, signal.SIG_DFL)
        self.set()

    def give_up_later(self, left: str) -> None:
        """End the process in a while, come what may; `left` says what was not done then."""
        timer = threading.Timer(GIVE_UP_S, self._give_up, (left,))
        timer.daemon = True
        timer.start()

    def _give_up(self, left: str) -> None:
        typer.echo(f"pilotage: ended after {GIVE_UP_S:g} s, though {left}", err=True)
        os._exit(Exit.FAILED)


@contextmanager
def _until_ended(until_eof: bool) -> Iterator[_Ending]:
    """Have signals, and if wanted the end of standard input, set an event."""
    ended = _Ending()
    for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), ended.ask)
    if until_eof:
        threading.Thread(target=_read_to_end, args=(ended,), name="stdin", daemon=True).start()
    yield ended


def _read_to_end(ended: threading.Event) -> None:
    """Wait for the end of standard input, unbuffered: a buffer's lock would be held when the process ends."""
    with suppress(OSError):
        while os.read(0, 4096):
            continue
    ended.set()
