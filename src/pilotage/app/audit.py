"""The audit log as the agents' port, and as people read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.app.sessions import find_session
from pilotage.protocol.errors import StoreError, TaskError
from pilotage.services.audit import AuditLog, Link, Verdict, read_log, verify
from pilotage.services.store import SessionReader

FILE = "audit.sqlite"
ANCHOR = "audit"
"""The fact in a session's record that holds the newest entry's number and digest as they were when it ended."""

FLUSH_S = 2.0


class FileAudit:
    """The log in a Terminal's DATADIR, as `agents.ports.Audit`.

    Args:
        datadir: that folder.

    Raises:
        StoreError: it can't be opened.
    """

    def __init__(self, datadir: Path) -> None:
        self._log = AuditLog(datadir / FILE)

    def note(self, fields: Mapping[str, Any]) -> None:
        """Add an entry."""
        self._log.note(fields)

    def anchor(self) -> dict[str, Any] | None:
        """Give the newest entry's number and digest; None if not all is written in time."""
        if not self._log.flush(FLUSH_S):
            return None
        try:
            number, digest = self._log.newest()
        except StoreError:
            return None
        return {"number": number, "digest": digest}

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """Write what waits, and let go."""
        self._log.close(timeout_s)


@dataclass(frozen=True, slots=True)
class Account:
    """A log as it was read.

    Attributes:
        entries: those that were asked for.
        verdict: whether the whole chain holds.
        anchors: how many digests in sessions' records it was compared with.
    """

    entries: list[Link]
    verdict: Verdict
    anchors: int


def read_audit(datadir: Path, session: str = "") -> Account:
    """Read and verify the audit log of a folder.

    Args:
        datadir: a Terminal's DATADIR.
        session: to give only what concerns it.

    Raises:
        StoreError: there is no log, or it can't be read.
        TaskError: nothing is known of that session.
    """
    links, fault = read_log(datadir / FILE)
    anchors = _anchors(datadir)
    verdict = verify(links, anchors)
    if verdict.is_whole and fault:
        verdict = Verdict(verdict.entries, verdict.newest, verdict.entries + 1, fault)
    if not session:
        return Account(links, verdict, len(anchors))
    folder = find_session(session)
    name = folder.name if folder is not None else session
    entries = [link for link in links if link.fields.get("session") == name]
    if not entries and folder is None:
        raise TaskError(
            f"the audit log in {datadir} knows no session {session!r}, and there is none of that name"
        )
    return Account(entries, verdict, len(anchors))


def _anchors(datadir: Path) -> dict[int, str]:
    """Give the digests that ended sessions hold; one that can't be read has none."""
    found: dict[int, str] = {}
    for database in sorted(datadir.glob("*/session.sqlite")):
        try:
            with SessionReader(database.parent) as reader:
                fact = reader.provenance().get(ANCHOR)
        except StoreError:
            continue
        if isinstance(fact, dict) and isinstance(fact.get("number"), int) and fact["number"]:
            found[fact["number"]] = str(fact.get("digest"))
    return found
