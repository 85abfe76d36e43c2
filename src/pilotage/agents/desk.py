"""Desk: what operators ask of a Terminal, checked, and done by helpers in the name of whoever asked.

Law of this room: what can't work is told at once, and who asked for what is noted either way.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from pilotage.agents.acquaintances import Acquaintances
from pilotage.agents.deeds import Deeds
from pilotage.agents.roster import Roster
from pilotage.net.listens import Listen, Origin, takes_origin
from pilotage.net.pref_keys import TERMINAL_ID
from pilotage.protocol.errors import InvalidMessage, TaskError

REACHABLE = ("alive", "suspect")
MAX_CHARS = 200


class Controls(NamedTuple):
    """What a Terminal can be had to do: its methods of these names."""

    start: Callable[..., Any]
    stop: Callable[[str], Any]
    stop_all: Callable[[], Any]
    change: Callable[..., Any]
    end_session: Callable[[str], Any]
    status: Callable[[str], Any]


class Desk:
    """Answers operators.

    Args:
        controls: what they may have done.
        roster: what is known of the pilots.
        deeds: where it is noted who had what done.
        known: tells by which key and from where somebody came.
        helpers: threads for what takes its time.
    """

    def __init__(
        self,
        controls: Controls,
        roster: Roster,
        deeds: Deeds,
        known: Acquaintances,
        helpers: ThreadPoolExecutor,
    ) -> None:
        self._controls = controls
        self._roster = roster
        self._deeds = deeds
        self._known = known
        self._helpers = helpers

    def listens(self) -> dict[str, Listen]:
        """Give what listens to each key."""
        return {
            "PILOTS": self.l_pilots,
            "STATUS": self.l_status,
            "RUN": self.l_run,
            "HALT": self.l_halt,
            "SET": self.l_set,
            "END": self.l_end,
            "AUDIT": self.l_audit,
        }

    def l_pilots(self, value: Any) -> dict[str, Any]:
        """Answer with all pilots."""
        return self._roster.snapshot()

    def l_status(self, value: Any) -> Future[Any]:
        """Answer with what is open, or with a session's facts, such as its certificate."""
        wanted = str(value.get("session") or "") if isinstance(value, dict) else ""
        return self._helpers.submit(self._controls.status, wanted)

    @takes_origin
    def l_run(self, value: Any, origin: Origin | None = None) -> Future[Any]:
        """Start a task on a pilot."""
        with self._deeds.refusing("START", _pilot_in(value), origin):
            asked = _dictionary("RUN", value, "pilot", "task_type")
            self._check_reachable(asked["pilot"])
            self._check_reachable(asked.get("parent") or asked["pilot"])
        return self._submit(origin, self._controls.start, asked.pop("pilot"), asked.pop("task_type"), **asked)

    @takes_origin
    def l_halt(self, value: Any, origin: Origin | None = None) -> Future[Any]:
        """Stop a pilot's task, or all."""
        asked = value if isinstance(value, dict) else {}
        if not asked.get("pilot"):
            return self._submit(origin, self._controls.stop_all)
        with self._deeds.refusing("STOP", asked["pilot"], origin):
            self._check_reachable(asked["pilot"])
        return self._submit(origin, self._controls.stop, asked["pilot"])

    @takes_origin
    def l_set(self, value: Any, origin: Origin | None = None) -> Future[Any]:
        """Change parameters of a pilot's running task."""
        with self._deeds.refusing("CHANGE", _pilot_in(value), origin):
            asked = _dictionary("SET", value, "pilot", "params")
            if not isinstance(asked["params"], dict):
                raise InvalidMessage("SET needs its params as a dictionary of names and values")
            self._check_reachable(asked["pilot"])
        return self._submit(origin, self._controls.change, asked["pilot"], asked["params"])

    @takes_origin
    def l_end(self, value: Any, origin: Origin | None = None) -> Future[Any]:
        """End a session and answer with its certificate."""
        asked = value if isinstance(value, dict) else {}
        return self._submit(origin, self._controls.end_session, str(asked.get("session") or ""))

    def _submit(
        self, origin: Origin | None, work: Callable[..., Any], *given: Any, **named: Any
    ) -> Future[Any]:
        """Have a helper do something in the name of whoever asked."""
        return self._deeds.submit(self._helpers, origin, work, *given, **named)

    @takes_origin
    def l_audit(self, value: Any, origin: Origin | None = None) -> None:
        """Our station, or a pilot's, tells what somebody had it do, or was refused.

        Raises:
            InvalidMessage: it is nobody's to tell, or no such value.
        """
        trail = origin.trail if origin is not None else ()
        if not trail or trail[-1] != TERMINAL_ID:
            raise InvalidMessage("AUDIT is told by our own station, or comes through it")
        if not isinstance(value, dict) or not isinstance(value.get("verb"), str):
            raise InvalidMessage("AUDIT needs a dictionary with name, verb and outcome")
        told = {what: str(value.get(what) or "")[:MAX_CHARS] for what in ("name", "verb", "target")}
        told_by = () if trail == (TERMINAL_ID,) else (f"as {trail[0]} says", *trail[1:-1])
        who = self._known.who(trail, told["name"], told_by)
        if value.get("refused"):
            self._deeds.refused(who, told["verb"], str(value["refused"]), told["target"])
        else:
            self._deeds.told(who, told["verb"], told["target"], value.get("detail"))

    def _check_reachable(self, pilot: object) -> None:
        """Tell an operator at once what would only expire after a while.

        Raises:
            TaskError: no pilot of that name is known, or it isn't connected.
        """
        pilots = self._roster.snapshot()
        if not isinstance(pilot, str) or pilot not in pilots:
            raise TaskError(f"no pilot {pilot!r} is known here; there are: {', '.join(pilots) or 'none yet'}")
        if pilots[pilot]["link"] not in REACHABLE:
            raise TaskError(f"pilot {pilot!r} is not connected; start it, and it will come by itself")


def _pilot_in(value: Any) -> object:
    return value.get("pilot") if isinstance(value, dict) else ""


def _dictionary(key: str, value: Any, *needed: str) -> dict[str, Any]:
    if not isinstance(value, dict) or any(name not in value for name in needed):
        raise InvalidMessage(f"{key} needs a dictionary with {' and '.join(needed)}")
    return dict(value)
