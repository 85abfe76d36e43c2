"""Deeds: what somebody has had a Terminal do, told to the audit log before it is done and when it is over.

Law: whether a deed can be noted never decides whether it is done: a valve must shut though the disk is full.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import Any

from pilotage.agents.acquaintances import HERE, Acquaintances
from pilotage.agents.ports import Audit, Who
from pilotage.net.listens import Origin
from pilotage.protocol.patience import Buckets

MAX_DETAIL_CHARS = 2_000
REFUSALS_AT_ONCE, REFUSALS_A_SECOND = 50.0, 2.0

_who: ContextVar[Who] = ContextVar("who", default=HERE)


class Deeds:
    """What is told to an audit log. Any thread.

    Args:
        audit: the log; None to keep none.
        known: tells who is at the far end of a message's way.
    """

    def __init__(self, audit: Audit | None, known: Acquaintances) -> None:
        self._audit = audit
        self._known = known
        self._lock = threading.Lock()
        self._refusals: Buckets[str] = Buckets(REFUSALS_AT_ONCE, REFUSALS_A_SECOND)
        self._untold = 0

    @contextlib.contextmanager
    def doing(self, verb: str, target: str = "", session: str = "", detail: object = None) -> Iterator[None]:
        """Note that something is asked for, and how it ended, by whoever asks in this context."""
        self.note(_who.get(), verb, target, session, "asked", detail)
        try:
            yield
        except BaseException as error:
            self.note(_who.get(), verb, target, session, f"failed: {error}")
            raise
        self.note(_who.get(), verb, target, session, "done")

    def submit(
        self,
        pool: ThreadPoolExecutor,
        origin: Origin | None,
        work: Callable[..., Any],
        *given: Any,
        **named: Any,
    ) -> Future[Any]:
        """Have a pool do something in somebody's name."""
        context = copy_context()
        context.run(_who.set, self._who_of(origin))
        return pool.submit(context.run, work, *given, **named)

    @contextlib.contextmanager
    def refusing(self, verb: str, target: object, origin: Origin | None) -> Iterator[None]:
        """Note what is refused before it begins."""
        try:
            yield
        except Exception as error:
            self.refused(self._who_of(origin), verb, str(error), str(target or ""))
            raise

    def _who_of(self, origin: Origin | None) -> Who:
        return self._known.who(origin.trail if origin is not None else ())

    def refused(self, who: Who, verb: str, text: str, target: str = "") -> None:
        """Note that somebody was refused something; a flood of refusals is counted instead."""
        with self._lock:
            if not self._refusals.take("", 1.0, time.monotonic()):
                self._untold += 1
                return
            untold, self._untold = self._untold, 0
        detail = {"more_refusals_before": untold} if untold else None
        self.note(who, verb, target, "", f"refused: {text}", detail)

    def told(self, who: Who, verb: str, target: str, detail: object) -> None:
        """Note what a station says that it was had to do; a flood of it is counted like one of refusals."""
        with self._lock:
            if not self._refusals.take("told", 1.0, time.monotonic()):
                self._untold += 1
                return
        self.note(who, verb, target, "", "obeyed", detail)

    def note(
        self, who: Who, verb: str, target: str, session: str, outcome: str, detail: object = None
    ) -> None:
        """Add an entry."""
        if self._audit is None:
            return
        fields: dict[str, Any] = {
            "name": who.name,
            "key": who.key,
            "address": who.address,
            "via": list(who.via),
        }
        fields |= {"verb": verb, "target": target, "session": session, "outcome": outcome[:MAX_DETAIL_CHARS]}
        if detail is not None:
            fields["detail"] = _shortened(detail)
        self._audit.note(fields)

    def anchor(self) -> dict[str, Any] | None:
        """Give what binds the log as it is now: the newest entry's number and digest; None where there is no log."""
        return None if self._audit is None else self._audit.anchor()


def _shortened(detail: object) -> Any:
    """Give what an entry tells of a deed's content: as it is, or the beginning of its text where it is long."""
    text = json.dumps(detail, default=repr)
    return (
        detail if len(text) <= MAX_DETAIL_CHARS and isinstance(detail, Mapping) else text[:MAX_DETAIL_CHARS]
    )
