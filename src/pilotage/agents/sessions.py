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
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from pilotage.agents.backlog import Backlog, Put
from pilotage.agents.ports import Archive, Archives
from pilotage.protocol.errors import Closed, StoreError, TaskError

log = logging.getLogger(__name__)

UNASKED = "unasked"
"""What the name of a session begins with that holds data nobody had asked for."""

STANDING = "standing"
"""The fact in a record that says whether it is open, and who takes part."""

MAX_ASIDES = 100
"""Sessions that aren't there and get a record each for what comes for them; the rest goes into the last one."""

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
        on_trouble: told once when a record that data came for can't be opened or stays full, and once when all that
            waited was handed to it: its name, why, and whether it is over. On a thread of its own.
    """

    def __init__(self, archives: Archives, facts: Mapping[str, Any]) -> None:
        self._archives = archives
        self._facts = dict(facts)
        self._lock = threading.RLock()
        self._backlog = Backlog(self.archive, self._tell)
        self._closing = threading.Event()
        self._open: dict[str, Archive] = {}
        self._standings: dict[str, Standing] = {}
        self._asides: dict[str, str] = {}
        self.current = ""
        self.on_trouble: Callable[[str, str, bool], object] = lambda session, text, is_over: None

    def _tell(self, session: str, text: str, is_over: bool) -> None:
        try:
            self.on_trouble(session, text, is_over)
        except Exception:
            log.exception("session %s: telling of its trouble failed", session)

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
            self._asides.pop(name, None)
            self._open_record(name, facts)
            if self.current != name:
                self._standings[name].current_since = time.time()
            self.current = name
        self._note(name)
        return name

    def archive(self, session: str) -> Archive:
        """Give the record for something that came in; without a session it belongs to the current one.

        Raises:
            StoreError: it can't be opened now (a full disk, another process that holds it).
            Closed: the Terminal ends.
        """
        with self._lock:
            if self._closing.is_set():
                raise Closed("the Terminal ends: nothing is put into a session's record any more")
            name = self._asides.get(session, session) or self.current
            if name in self._open:
                return self._open[name]
            if session and name == session and len(self._asides) >= MAX_ASIDES:
                last = next(reversed(self._asides.values()))
                if last in self._open and session not in self._archives.names():
                    return self._open[last]
            is_known = bool(name) and name in self._archives.names()
            name = name if is_known else f"{UNASKED}-{self._free_name()}"
            archive = self._open_record(name)
            if session and not is_known:
                self._asides[session] = name
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
        """Write a session's standing into its record, as it is when there is room."""

        def put(archive: Archive) -> object:
            with self._lock:
                standing = self._standings.get(session)
                return standing and archive.add_fact(STANDING, standing.to_fact())

        if session in self.opened():
            self.keep(session, put)

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

    def check_endable(self, session: str) -> None:
        """See that a session can be ended now.

        Raises:
            TaskError: it isn't open.
            StoreError: its disk refuses what came for it, which waits.
        """
        with self._lock:
            if session not in self._open:
                raise TaskError(
                    f"session {session!r} isn't open; open are: {', '.join(self._open) or 'none'}"
                )
            trouble, is_current = self._open[session].trouble, session == self.current
        if self._backlog.waits(session) or (is_current and self._backlog.waits("")):
            trouble = trouble or "too much waits for its disk"
        if trouble:
            raise StoreError(
                f"session {session!r} can't be ended while data wait for its disk ({trouble}): make room there, and "
                "end it when they are stored"
            )

    def end(self, session: str, timeout_s: float) -> str:
        """Close a session's record for good; tell where it lies.

        Raises:
            TaskError: it isn't open.
            StoreError: its disk refuses what came for it, and it stays open; or the disk doesn't take the last of it
                in time: the record is opened again for that when it can be.
        """
        self.check_endable(session)
        with self._lock:
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
        try:
            if is_kept:
                self.end(session, timeout_s)
            else:
                archive.discard(timeout_s)
        finally:
            if back_to in self.opened():
                self.begin(back_to)

    def _forget(self, session: str) -> Archive:
        """Take a session out of the open ones. With the lock held."""
        if self.current == session:
            self.current = ""
        self._standings.pop(session, None)
        return self._open.pop(session)

    def keep(self, session: str, put: Put) -> Future[Any]:
        """Put something into a session's record, at once or when that can be opened and has room; never wait for it.

        Returns:
            What ends as what `put` returns does. It never ends if the Terminal ends before: a message that it settles
            stays with its sender then.
        """
        return self._backlog.keep(session, put)

    def close(self, timeout_s: float) -> None:
        """Close all records; those that nobody has ended stay open for the next life.

        Raises:
            StoreError: the disk doesn't take the last of one in time; the others are closed all the same.
        """
        self._closing.set()
        self._backlog.close()
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
