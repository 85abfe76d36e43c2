"""Rules taken out on purpose, so that one can see how many seeds it takes until the simulated world notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pilotage.protocol.inbox import Inbox
from pilotage.testing.process import Process


def _forget_each(inbox: Inbox, parcel: Any, now: float) -> Any:
    """Forget a flow before each of its parcels: nothing is known to have come before."""
    inbox._flows.pop((parcel.boot, parcel.flow), None)
    return _arrived(inbox, parcel, now)


def _hold_nothing(inbox: Inbox, flow: Any, parcel: Any, ready: list[Any]) -> None:
    """Hand out what comes before its elders at once."""
    flow.beyond[parcel.seq] = None
    ready.append(parcel)


def _say_kept_first(process: Process, sends: Any) -> None:
    """Say that sends are kept before the disk has synced them."""
    process._run(process.exchange.persisted([one.place for one in sends], process._now))
    _keep(process, sends)


_arrived, _keep = Inbox.arrived, Process._keep

RULES: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "dedup": (Inbox, "arrived", _forget_each),
    "order": (Inbox, "_hold", _hold_nothing),
    "sync": (Process, "_keep", _say_kept_first),
}
"""Which method stands for a rule, and what takes its place."""


@contextmanager
def without(rule: str | None) -> Iterator[None]:
    """Take a rule out for a while; None for none."""
    if rule is None:
        yield
        return
    owner, name, broken = RULES[rule]
    whole = getattr(owner, name)
    setattr(owner, name, broken)
    try:
        yield
    finally:
        setattr(owner, name, whole)
