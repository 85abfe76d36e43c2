"""Roster: the Terminal's list of its pilots, kept in PILOT_DB, with what is known of each at the moment."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pilotage.protocol.errors import InvalidMessage, StoreError

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
        link: how its connection is: alive, suspect, gone; "" before it was seen.
        heard: when something was heard of it, seconds since 1970.
    """

    subjects: list[str] = field(default_factory=list)
    subject: str = ""
    ip: str = ""
    parent: str = ""
    state: str = ""
    reason: str = ""
    link: str = ""
    heard: float = 0.0


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
        self._pilots: dict[str, PilotRecord] = {name: _record(found) for name, found in _read(path).items()}

    def names(self) -> list[str]:
        """Give the pilots' names."""
        with self._lock:
            return list(self._pilots)

    def update(self, name: str, **known: Any) -> None:
        """Note what was heard of a pilot; adds it if it is new.

        Raises:
            InvalidMessage: there are too many.
            StoreError: the list can't be written.
        """
        with self._changed:
            record = self._pilots.get(name)
            kept = None if record is None else (record.ip, record.parent)
            if record is None:
                if len(self._pilots) >= MAX_PILOTS:
                    raise InvalidMessage(f"{name} is one pilot too many: a Terminal keeps {MAX_PILOTS}")
                record = self._pilots[name] = PilotRecord()
            for what, value in known.items():
                setattr(record, what, value)
            record.heard = time.time()
            if (record.ip, record.parent) != kept:
                self._write()
            self._changes += 1
            self._changed.notify_all()

    def note_subject(self, name: str, subject: str) -> None:
        """Note that a subject is run on a pilot."""
        with self._lock:
            record = self._pilots.setdefault(name, PilotRecord())
            record.subject = subject
            if subject and subject not in record.subjects:
                record.subjects.append(subject)
                self._write()

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
        """Give everything as plain data."""
        with self._lock:
            return {name: asdict(record) for name, record in self._pilots.items()}

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
        except OSError as error:
            raise StoreError(
                f"the list of pilots can't be written to {self._path}: {error.strerror}"
            ) from error


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
