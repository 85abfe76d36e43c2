"""Intake: what pilots send, checked, and kept in its session. Each message settles when it is stored.

Law of this room: whoever sends data, states or events in a name speaks for that name (see `speakers`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from pilotage.agents.account import number_of, values_of
from pilotage.agents.backlog import all_of
from pilotage.agents.continuous import sender_of, split_items
from pilotage.agents.ports import Archive, TrialRow
from pilotage.agents.roster import Roster
from pilotage.agents.sessions import Sessions
from pilotage.agents.speakers import Speakers
from pilotage.net.listens import (
    Ends,
    Listen,
    Origin,
    failed,
    join_results,
    takes_batches,
    takes_many,
    takes_origin,
)
from pilotage.net.notes import shown
from pilotage.net.plots import Plots
from pilotage.protocol.errors import InvalidMessage, PilotageError

log = logging.getLogger(__name__)

MAX_NAME_CHARS = 200


class Intake:
    """What a Terminal does with what pilots send.

    Args:
        sessions: where it is kept.
        roster: what is known of the pilots.
        plots: who wants to see continuous data.
        speakers: who may speak for whom.
    """

    def __init__(self, sessions: Sessions, roster: Roster, plots: Plots, speakers: Speakers) -> None:
        self._sessions = sessions
        self._roster = roster
        self._plots = plots
        self._speakers = speakers
        self._kept_states: dict[str, tuple[str, str]] = {}

    def listens(self) -> dict[str, Listen]:
        """Give what listens to each key."""
        return {
            "DATA": self.l_data,
            "CONTINUOUS": self.l_continuous,
            "STATE": self.l_state,
            "HANDSHAKE": self.l_handshake,
            "EVENT": self.l_event,
        }

    @takes_many
    def l_data(self, many: Sequence[tuple[Any, Origin]]) -> Future[list[BaseException | None]]:
        """Keep trials' data; or continuous data that an original's child sent as DATA."""
        ends = Ends(len(many))
        rows: dict[str, tuple[list[int], list[TrialRow]]] = {}
        for at, (value, origin) in enumerate(many):
            try:
                if isinstance(value, dict) and value.get("continuous"):
                    ends.follow([at], self._keep_items([value], origin))
                else:
                    places, found = rows.setdefault(_session_of(value), ([], []))
                    found.append(self._row(value, origin))
                    places.append(at)
            except PilotageError as error:
                ends.put(at, error)
        for session, (places, found) in rows.items():
            ends.follow(places, self._sessions.keep(session, partial(_add_trials, rows=found)))
        return ends.future

    @takes_batches
    @takes_origin
    def l_continuous(self, items: Any, origin: Origin) -> object:
        """Keep a batch of continuous data."""
        items = items if isinstance(items, list) else [items]
        if (
            len(origin.trail) == 1
            and items
            and isinstance(items[-1], dict)
            and self._plots.want(origin.trail[0])
        ):
            # It came straight from its stream: the station, which gives plots what passes there, hasn't seen it.
            self._plots.draw_newest(items[-1].get("pilot"), items)
        return self._keep_items(items, origin)

    def _keep_items(self, items: Sequence[Mapping[str, Any]], origin: Origin) -> object:
        good = [item for item in items if isinstance(item, dict) and "timestamp" in item]
        head = good[0] if good else {}
        pilot, subject, _ = self._owner(head, origin, "CONTINUOUS")
        series, source = split_items(good, head.get("stream")), sender_of(head)
        last = len(series) - 1
        # The part numbered 0 is stored last: once it is there, all of the message is.
        kept = self._sessions.keep(
            str(head.get("session") or ""),
            lambda archive: all_of(
                [
                    archive.add_items(
                        *(pilot, subject, one.stream, one.timestamps, one.data, origin, last - at),
                        *(source if one.first is not None else "", one.first),
                    )
                    for at, one in enumerate(series)
                ]
            ),
        )
        if len(good) < len(items):
            text = f"{len(items) - len(good)} of {len(items)} items of {pilot} have no timestamp; the others are kept"
            return join_results([kept, failed(InvalidMessage(text))])
        return kept

    @takes_origin
    def l_state(self, value: Any, origin: Origin) -> object:
        """Keep a pilot's new state; one that only repeats what is kept adds nothing."""
        if not isinstance(value, dict) or not isinstance(value.get("pilot"), str):
            raise InvalidMessage("STATE needs the pilot's name and its state")
        state, pilot = str(value.get("state")), value["pilot"]
        self._speakers.check(pilot, "STATE", origin)
        self._roster.update(pilot, state=state, reason=str(value.get("reason") or ""))
        current = self._sessions.current
        is_new = self._kept_states.get(pilot) != (current, state)
        if current and is_new and pilot in self._sessions.agents(current):
            self._kept_states[pilot] = current, state
            return self._sessions.keep(current, lambda archive: archive.add_state(pilot, state, origin))
        return None

    @takes_origin
    def l_handshake(self, value: Any, origin: Origin | None = None) -> None:
        """Take note of a pilot that has come."""
        if not isinstance(value, dict) or not isinstance(value.get("pilot"), str):
            raise InvalidMessage("HANDSHAKE needs a dictionary with the pilot's name")
        if not 0 < len(value["pilot"]) <= MAX_NAME_CHARS or not value["pilot"].isprintable():
            raise InvalidMessage(
                f"HANDSHAKE: a pilot's name has 1 to {MAX_NAME_CHARS} letters that can be seen"
            )
        self._speakers.check(value["pilot"], "HANDSHAKE", origin)
        known = {"ip": str(value.get("ip") or ""), "parent": str(value.get("parent") or "")}
        now = {"state": str(value.get("state") or ""), "reason": str(value.get("reason") or "")}
        self._roster.update(value["pilot"], **now, **known)

    @takes_origin
    def l_event(self, value: Any, origin: Origin) -> object:
        """Keep something that a pilot reports, such as an error of its task."""
        if not isinstance(value, dict) or not isinstance(value.get("pilot"), str):
            raise InvalidMessage("EVENT needs the pilot's name, and what happened")
        self._speakers.check(value["pilot"], "EVENT", origin)
        name = str(value.get("name") or "event")
        log.warning("%s", shown(f"{value['pilot']}: {name}: {value.get('text', '')}"))
        if name == "disk":
            self._roster.update(
                value["pilot"], trouble="" if value.get("is_over") else str(value.get("text"))
            )
        told = {what: item for what, item in value.items() if what not in ("pilot", "name", "session")}
        session = str(value.get("session") or "")
        if not self._sessions.knows(session):
            return None  # it belongs to no session that there is: the log has it
        return self._sessions.keep(
            session, lambda archive: archive.add_event(value["pilot"], name, told, origin)
        )

    def _row(self, value: Mapping[str, Any], origin: Origin) -> TrialRow:
        return TrialRow(*self._owner(value, origin), values_of(value), origin, *number_of(value))

    def _owner(
        self, value: Mapping[str, Any], origin: Origin, verb: str = "DATA"
    ) -> tuple[str, str | None, int | None]:
        """Read whose data these are.

        Raises:
            InvalidMessage: they don't say it well.
            Refused: whoever sent them may not speak for that pilot.
        """
        owner = _owner(value, origin)
        self._speakers.check(owner[0], verb, origin)
        return owner


def _owner(value: Mapping[str, Any], origin: Origin) -> tuple[str, str | None, int | None]:
    """Read whose data these are: pilot, subject and trial.

    Raises:
        InvalidMessage: one of them has the wrong type.
    """
    pilot, subject, trial = (
        value.get("pilot") or _sender(origin),
        value.get("subject"),
        value.get("trial_num"),
    )
    if not isinstance(pilot, str) or len(pilot) > MAX_NAME_CHARS:
        raise InvalidMessage(f"DATA: pilot must be a name, not {pilot!r:.60}")
    if not isinstance(subject, str | None):
        raise InvalidMessage(f"DATA of {pilot}: subject must be text, not {subject!r:.60}")
    if not isinstance(trial, int | None) or isinstance(trial, bool):
        raise InvalidMessage(f"DATA of {pilot}: trial_num must be a whole number, not {trial!r:.60}")
    return pilot, subject, trial


def _session_of(value: Any) -> str:
    if not isinstance(value, dict):
        raise InvalidMessage(f"DATA needs a dictionary of columns, not {type(value).__name__}")
    return str(value.get("session") or "")


def _add_trials(archive: Archive, rows: Sequence[TrialRow]) -> object:
    return archive.add_trials(rows) if rows else None


def _sender(origin: Origin) -> str:
    return origin.trail[0].lstrip("_") if origin.trail else "unknown"
