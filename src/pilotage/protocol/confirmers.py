"""Confirmers: to whom messages went on from here, for nobody else may say what has become of them (promise X2).

An acknowledgement names a flow and not its recipient, so that whoever has a good key and has once heard of a sender's
life could end somebody else's sends. Only what neighbours with a key confirm is looked at: the others are trusted.

Law of this room: what isn't known, as after a restart, is allowed; a refusal costs a resend, never a message.
"""

from __future__ import annotations

MAX_KNOWN = 65_536


class Confirmers:
    """The neighbour that each flow leads to, or we."""

    def __init__(self) -> None:
        self._by_flow: dict[tuple[int, int], str] = {}

    def __len__(self) -> int:
        return len(self._by_flow)

    def sent(self, boot: int, flow: int, name: str) -> None:
        """Note that a message of a flow goes to a neighbour; where there are too many, the oldest is forgotten."""
        known, key = self._by_flow, (boot, flow)
        if known.get(key) == name:
            return
        known.pop(key, None)
        if len(known) >= MAX_KNOWN:
            del known[next(iter(known))]
        known[key] = name

    def may_confirm(self, boot: int, flow: int, name: str) -> bool:
        """Tell whether a neighbour may acknowledge a flow's messages."""
        return self._by_flow.get((boot, flow), name) == name
