"""Sessions: which are open, and how what comes in finds its record.

A session is one record (a folder): everything that all pilots send under its name, from its first START until it is
ended. What comes for a session that was ended, or of an earlier life of the Terminal, opens its record again.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Mapping
from typing import Any

from pilotage.agents.ports import Archive, Archives
from pilotage.protocol.errors import TaskError

UNASKED = "unasked"
"""What the name of a session begins with that holds data nobody had asked for."""


class Sessions:
    """The Terminal's sessions. Any thread.

    Args:
        archives: where they are kept.
        facts: what is written into each new record.
    """

    def __init__(self, archives: Archives, facts: Mapping[str, Any]) -> None:
        self._archives = archives
        self._facts = dict(facts)
        self._lock = threading.RLock()
        self._open: dict[str, Archive] = {}
        self._pilots: dict[str, set[str]] = {}
        self.current = ""

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
            if name not in self._open:
                if name in self._archives.names():
                    self._open[name] = self._archives.open(name)
                else:
                    self._open[name] = self._archives.create(name, {**self._facts, **(facts or {})})
            self._pilots.setdefault(name, set())
            self.current = name
            return name

    def archive(self, session: str) -> Archive:
        """Give the record for something that came in; without a session it belongs to the current one.

        Raises:
            StoreError: it can't be opened.
        """
        with self._lock:
            name = session or self.current
            if name in self._open:
                return self._open[name]
            known = name and name in self._archives.names()
            current = self.current
            opened = self.begin(name if known else f"{UNASKED}-{self._free_name()}")
            self.current = current or opened
            return self._open[opened]

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

    def join(self, session: str, agent: str) -> None:
        """Note that an agent takes part in a session."""
        with self._lock:
            self._pilots.setdefault(session, set()).add(agent)

    def agents(self, session: str) -> list[str]:
        """Give the agents that took part in a session."""
        with self._lock:
            return sorted(self._pilots.get(session, ()))

    def opened(self) -> list[str]:
        """Give the names of the open sessions."""
        with self._lock:
            return list(self._open)

    def names(self) -> list[str]:
        """Give the names of all sessions, oldest first."""
        return self._archives.names()

    def end(self, session: str, timeout_s: float) -> str:
        """Close a session's record; tell where it lies.

        Raises:
            TaskError: it isn't open.
        """
        with self._lock:
            archive = self._open.pop(session, None)
            if archive is None:
                raise TaskError(
                    f"session {session!r} isn't open; open are: {', '.join(self._open) or 'none'}"
                )
            if self.current == session:
                self.current = ""
        archive.close(timeout_s)
        return archive.place

    def close(self, timeout_s: float) -> None:
        """Close all records."""
        for session in self.opened():
            self.end(session, timeout_s)

    def _free_name(self) -> str:
        stem = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        taken = {*self._archives.names(), *self._open}
        return next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, 1000))) if name not in taken)
