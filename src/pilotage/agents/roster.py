"""Roster: the Terminal's list of its pilots, kept in PILOT_DB, with what is known of each at the moment."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pilotage.agents.views import GONE, STEPS, View, steps_to
from pilotage.net.notes import shown
from pilotage.protocol.errors import InvalidMessage, StoreError

log = logging.getLogger(__name__)

MAX_PILOTS = 10_000


@dataclass(slots=True)
class PilotRecord:
    """What a Terminal knows of a pilot.

    Attributes:
        subjects: who was run there.
        subject: who was run there last.
        ip: where it is.
        parent: whose child it is; "" for none.
        state: the state that it told last.
        reason: why it is in that state.
        link: how its connection is: joining, alive, suspect, gone; "" before it was seen.
        heard: when it was heard, seconds since 1970.
        trouble: what is wrong with its disk; "" for nothing.
    """

    subjects: list[str] = field(default_factory=list)
    subject: str = ""
    ip: str = ""
    parent: str = ""
    state: str = ""
    reason: str = ""
    link: str = ""
    heard: float = 0.0
    trouble: str = ""


class Roster:
    """The pilots. Any thread.

    Args:
        path: the JSON file; an original's is read too.

    Raises:
        StoreError: it is there and can't be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._changes = 0
        self._closed = False
        self._views: dict[str, View] = {}
        self._unwritten = False
        self._pilots: dict[str, PilotRecord] = {name: _record(found) for name, found in _read(path).items()}

    def names(self) -> list[str]:
        """Give the pilots' names."""
        with self._lock:
            return list(self._pilots)

    def update(self, name: str, **known: Any) -> None:
        """Note what was heard from a pilot; adds it if it is new.

        A list that can't be written is told in the log, and written when something changes next.

        Raises:
            InvalidMessage: there are too many.
        """
        with self._changed:
            record = self._pilots.get(name)
            kept = None if record is None else (record.ip, record.parent)
            if record is None:
                if len(self._pilots) >= MAX_PILOTS:
                    raise InvalidMessage(f"{name} is one pilot too many: a Terminal keeps {MAX_PILOTS}")
                record = self._pilots[name] = PilotRecord()
            for what, value in known.items():
                setattr(record, what, shown(value) if isinstance(value, str) else value)
            record.heard = time.time()
            self._view(name).heard = time.monotonic()
            self._see(name)
            if (record.ip, record.parent) != kept or self._unwritten:
                self._write()
            self._tell()

    def note_link(self, name: str, link: str, via: str = "") -> None:
        """Note what a station says of a pilot's connection; of one that isn't in the list yet, in case it will be.

        Args:
            name: the pilot.
            link: joining, alive, suspect or gone.
            via: whose station says so: the pilot's own, of the pilot's process, or its parent's; "" for the
                Terminal's own.

        Raises:
            InvalidMessage: no such state, or it says so that is neither of these.
        """
        if link not in STEPS or not link:
            raise InvalidMessage(f"PEER: {link!r:.40} is no state of a connection")
        with self._changed:
            record = self._pilots.get(name)
            if record is None:
                self._note_stranger(name, link, via)
                return
            if via not in ("", name, record.parent):
                raise InvalidMessage(f"PEER: {via!r:.60} has no say in how {name} is connected")
            view = self._view(name)
            if via == name:
                view.agent = link
            else:
                view.station = link
            self._see(name)
            self._tell()

    def _note_stranger(self, name: str, link: str, via: str) -> None:
        """Keep how somebody is connected who has not told yet what it is. With the lock held."""
        if link == GONE:
            self._views.pop(name, None)
        elif name in self._views or len(self._views) < MAX_PILOTS:
            if via == name:
                self._view(name).agent = link
            else:
                self._view(name).station = link

    def lose_all(self) -> None:
        """Note that the Terminal's station was started anew, so that nobody is connected for now."""
        with self._changed:
            self._views = {name: view for name, view in self._views.items() if name in self._pilots}
            for name, view in self._views.items():
                if view.station:
                    view.station = GONE
                    self._see(name)
            self._tell()

    def _view(self, name: str) -> View:
        return self._views.setdefault(name, View())

    def _see(self, name: str, behind: frozenset[str] = frozenset()) -> None:
        """Move a pilot's view, and those of who is behind it, along the table. With the lock held."""
        record, view = self._pilots[name], self._view(name)
        parent = self._pilots.get(record.parent)
        for step in steps_to(view.link, view.said(parent.link if parent else "")):
            view.link = record.link = step
        for child, other in self._pilots.items():
            if other.parent == name and child in self._views and child not in behind:
                self._see(child, behind | {name, child})

    def _tell(self) -> None:
        self._changes += 1
        self._changed.notify_all()

    def note_subject(self, name: str, subject: str) -> None:
        """Note that a subject is run on a pilot."""
        with self._changed:
            record = self._pilots.setdefault(name, PilotRecord())
            record.subject = subject
            if subject and subject not in record.subjects:
                record.subjects.append(subject)
                self._write()
            self._tell()

    def wait_state(self, name: str, states: Iterable[str], timeout_s: float) -> str:
        """Wait until a pilot is in one of these states.

        Raises:
            TimeoutError: it is not, by then, or the Terminal ends.
        """
        wanted = frozenset(states)
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                state = self._pilots[name].state if name in self._pilots else ""
                if state in wanted:
                    return state
                left = 0.0 if self._closed else deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(
                        f"{name} is {state or 'not connected'} after {timeout_s:g} s, not {' or '.join(sorted(wanted))}"
                    )
                self._changed.wait(left)

    def wait_change(self, since: int, timeout_s: float) -> int:
        """Wait until something was noted after the change numbered `since`; give the number of the last one."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes > since, timeout_s)
            return self._changes

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def children(self, name: str) -> list[str]:
        """Give the pilots that are children of this one."""
        with self._lock:
            return [child for child, record in self._pilots.items() if record.parent == name]

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """Give everything as plain data, with `age_s`: how many seconds ago each was heard; None if it wasn't."""
        with self._lock:
            return {
                name: {**asdict(record), "age_s": self._age_s(name)} for name, record in self._pilots.items()
            }

    def _age_s(self, name: str) -> float | None:
        heard = self._views[name].heard if name in self._views else None
        return None if heard is None else round(time.monotonic() - heard, 3)

    def _write(self) -> None:
        document = {
            name: {"subjects": record.subjects, "ip": record.ip, "parent": record.parent}
            for name, record in self._pilots.items()
        }
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps(document, indent=2))
            part.replace(self._path)
            self._unwritten = False
        except OSError as error:
            if not self._unwritten:
                log.error("the list of pilots can't be written to %s: %s", self._path, error)
            self._unwritten = True


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(
            f"the list of pilots {path} can't be read ({error}); mend it or move it away"
        ) from error
    if not isinstance(found, dict):
        raise StoreError(
            f"the list of pilots {path} must be a JSON object of pilots; mend it or move it away"
        )
    return found


def _record(found: Any) -> PilotRecord:
    known = found if isinstance(found, dict) else {}
    subjects = known.get("subjects")
    return PilotRecord(
        subjects=[str(name) for name in subjects] if isinstance(subjects, list) else [],
        ip=str(known.get("ip") or ""),
        parent=str(known.get("parent") or ""),
    )
