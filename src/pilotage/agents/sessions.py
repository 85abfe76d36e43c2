"""Sessions: which are open, and how what comes in finds its record.

A session is one record (a folder): everything that all pilots send under its name, from its first START until it is
ended. It keeps its own standing as a fact, so that whoever opens the folder later, here or on another machine, goes on
with it. What comes for a session that was ended opens its record again.

Law: data are never refused because a record can't be opened just now. They wait until it can.
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pilotage.agents.ports import Archive, Archives
from pilotage.protocol.errors import Closed, StoreError, TaskError

log = logging.getLogger(__name__)

UNASKED = "unasked"
"""What the name of a session begins with that holds data nobody had asked for."""

STANDING = "standing"
"""The fact in a record that says whether it is open, and who takes part."""

RETRY_S = 1.0
MAX_RESUMED = 1_000
"""How many of the latest sessions are looked at for ones that were left open."""


@dataclass(slots=True)
class Standing:
    """How a session stands.

    Attributes:
        is_open: nobody has ended it.
        current_since: when it became the current one, seconds since 1970; 0 if it isn't.
        agents: who takes part.
    """

    is_open: bool = True
    current_since: float = 0.0
    agents: set[str] = field(default_factory=set)

    def to_fact(self) -> dict[str, Any]:
        """Give it as plain data."""
        return {
            "is_open": self.is_open,
            "current_since": self.current_since,
            "agents": sorted(self.agents),
        }

    @classmethod
    def from_fact(cls, fact: object) -> Standing:
        """Read it; a record that says nothing of itself counts as ended, by nobody."""
        known: dict[str, Any] = fact if isinstance(fact, dict) else {"is_open": False}
        return cls(
            bool(known.get("is_open")),
            float(known.get("current_since") or 0.0),
            {str(agent) for agent in known.get("agents") or []},
        )


class Sessions:
    """The Terminal's sessions. Any thread.

    Args:
        archives: where they are kept.
        facts: what is written into each new record.

    Attributes:
        on_trouble: told when a record that data came for can't be opened, and when it can: its name, why, and
            whether it is over. On the thread of who waits.
    """

    def __init__(self, archives: Archives, facts: Mapping[str, Any]) -> None:
        self._archives = archives
        self._facts = dict(facts)
        self._lock = threading.RLock()
        self._noting = threading.Lock()
        self._closing = threading.Event()
        self._open: dict[str, Archive] = {}
        self._standings: dict[str, Standing] = {}
        self.current = ""
        self.on_trouble: Callable[[str, str, bool], object] = lambda session, text, is_over: None

    def resume(self) -> list[str]:
        """Open what an earlier life, or another machine, left open; its current session is the current one again.

        Returns:
            The names of those that are open now. One that can't be opened is told in the log, and opened when
            something comes for it.
        """
        with self._lock:
            for name in self._archives.names()[-MAX_RESUMED:]:
                try:
                    standing = Standing.from_fact(self._archives.look(name)[1].get(STANDING))
                    if standing.is_open:
                        self._open_record(name)
                except StoreError as error:
                    log.warning("session %s was left open and can't be opened again yet: %s", name, error)
            since = {name: self._standings[name].current_since for name in self._open}
            latest = max(since, key=lambda name: since[name], default="")
            self.current = latest if since.get(latest) else ""
            return list(self._open)

    def begin(self, name: str = "", facts: Mapping[str, Any] | None = None) -> str:
        """Begin a session, or go on with one of that name; it becomes the current one.

        Args:
            name: its name; made of date and time if not given.
            facts: what else is to be written into it.

        Raises:
            StoreError: it can't be made.
        """
        with self._lock:
            name = name or self._free_name()
            self._open_record(name, facts)
            if self.current != name:
                self._standings[name].current_since = time.time()
            self.current = name
        self._note(name)
        return name

    def archive(self, session: str) -> Archive:
        """Give the record for something that came in; without a session it belongs to the current one.

        Waits while the record can't be opened (a full disk, another process that holds it), and tells so.

        Raises:
            StoreError: it can't be opened, and the Terminal ends.
        """
        told = False
        while True:
            try:
                found = self._find(session)
            except StoreError as error:
                if not told:
                    told = True
                    self.on_trouble(session, str(error), False)
                if self._closing.wait(RETRY_S):
                    raise
            else:
                if told:
                    self.on_trouble(session, "its record could be opened again", True)
                return found

    def _find(self, session: str) -> Archive:
        with self._lock:
            name = session or self.current
            if name in self._open:
                return self._open[name]
            is_known = bool(name) and name in self._archives.names()
            name = name if is_known else f"{UNASKED}-{self._free_name()}"
            archive = self._open_record(name)
            # Late data make nothing of an ended session but its record's rest: the next START isn't meant for it.
            if not is_known and not self.current:
                self.current = name
                self._standings[name].current_since = time.time()
        self._note(name)
        return archive

    def _open_record(self, name: str, facts: Mapping[str, Any] | None = None) -> Archive:
        """Open or make a record, and take up its standing. With the lock held."""
        archive = self._open.get(name)
        if archive is None:
            if name in self._archives.names():
                archive = self._archives.open(name)
                standing = Standing.from_fact(archive.facts().get(STANDING))
                if not standing.is_open:
                    standing.is_open, standing.current_since = True, 0.0
            else:
                archive, standing = self._archives.create(name, {**self._facts, **(facts or {})}), Standing()
            self._open[name], self._standings[name] = archive, standing
        return archive

    def _note(self, session: str) -> None:
        """Write a session's standing into its record. Without the lock: a full queue waits for the disk."""
        with self._noting:
            with self._lock:
                archive, standing = self._open.get(session), self._standings.get(session)
                fact = standing.to_fact() if standing is not None else {}
            if archive is not None:
                archive.add_fact(STANDING, fact)

    def look(self, session: str) -> tuple[str, dict[str, Any]]:
        """Tell where a session's record lies, open or ended, and the facts that it holds.

        Raises:
            TaskError: there is no such session.
            StoreError: it can't be read.
        """
        names = self._archives.names()
        if session not in names:
            known = ", ".join(names[-5:]) or "none"
            raise TaskError(f"there is no session {session!r}; the latest are: {known}")
        return self._archives.look(session)

    def knows(self, session: str) -> bool:
        """Tell whether there is a record of that name, open or ended; for "", whether there is a current one."""
        with self._lock:
            return (session or self.current) in self._open or session in self._archives.names()

    def join(self, session: str, agent: str) -> None:
        """Note that an agent takes part in an open session."""
        with self._lock:
            self._standings[session].agents.add(agent)
        self._note(session)

    def agents(self, session: str) -> list[str]:
        """Give the agents that take part in a session."""
        with self._lock:
            standing = self._standings.get(session)
            return sorted(standing.agents) if standing else []

    def opened(self) -> list[str]:
        """Give the names of the open sessions."""
        with self._lock:
            return list(self._open)

    def names(self) -> list[str]:
        """Give the names of all sessions, oldest first."""
        return self._archives.names()

    def end(self, session: str, timeout_s: float) -> str:
        """Close a session's record for good; tell where it lies.

        Raises:
            TaskError: it isn't open.
            StoreError: the disk doesn't take the last of it in time.
        """
        with self._lock:
            if session not in self._open:
                raise TaskError(
                    f"session {session!r} isn't open; open are: {', '.join(self._open) or 'none'}"
                )
            was_current = self.current == session
            self._standings[session].is_open = False
            others = [name for name in self._open if name != session] if was_current else []
            for name in others:
                self._standings[name].current_since = 0.0
        for name in (session, *others):
            self._note(name)
        with self._lock:
            archive = self._forget(session)
        archive.close(timeout_s)
        return archive.place

    def discard(self, session: str, back_to: str, timeout_s: float) -> None:
        """Remove a session that was begun for nothing; one that holds data is ended instead.

        Args:
            session: an open session.
            back_to: the session that was the current one before.
            timeout_s: how long its record may take to close.

        Raises:
            StoreError: its record can't be closed or removed.
        """
        with self._lock:
            archive = self._open[session]
            if not (is_kept := archive.holds_data()):
                self._forget(session)
        if is_kept:
            self.end(session, timeout_s)
        else:
            archive.discard(timeout_s)
        if back_to in self.opened():
            self.begin(back_to)

    def _forget(self, session: str) -> Archive:
        """Take a session out of the open ones. With the lock held."""
        if self.current == session:
            self.current = ""
        self._standings.pop(session, None)
        return self._open.pop(session)

    def keep(self, session: str, put: Callable[[Archive], Any]) -> Any:
        """Put something into a session's record, which is opened again if it is ended at this moment.

        Raises:
            StoreError: the record can't be opened, and the Terminal ends.
            Closed: the Terminal ends.
        """
        while True:
            archive = self.archive(session)
            try:
                return put(archive)
            except Closed:
                if self._closing.is_set():
                    raise

    def close(self, timeout_s: float) -> None:
        """Close all records; those that nobody has ended stay open for the next life.

        Raises:
            StoreError: the disk doesn't take the last of one in time; the others are closed all the same.
        """
        self._closing.set()
        failed: list[StoreError] = []
        for session in self.opened():
            with self._lock:
                archive = self._forget(session)
            try:
                archive.close(timeout_s)
            except StoreError as error:
                failed.append(error)
        if failed:
            raise failed[0]

    def _free_name(self) -> str:
        stem = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        taken = {*self._archives.names(), *self._open}
        return next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, 1000))) if name not in taken)
