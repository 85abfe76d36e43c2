"""Virtual time: what is to happen, and when. Law of this room: nothing happens but by its order."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

MAX_EVENTS = 2_000_000


class Runaway(Exception):
    """Far more happened than any scene needs: something keeps itself busy."""


class Agenda:
    """A clock that moves only when the next thing is due."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._entries: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0

    def after(self, delay_s: float, action: Callable[..., None], *args: Any) -> None:
        """Have something done later; what is due at the same time is done in the order of asking."""
        self.at(self.now + max(0.0, delay_s), action, *args)

    def at(self, time_s: float, action: Callable[..., None], *args: Any) -> None:
        """Have something done at a time: the same for all who name it, which a sum of now and a delay need not be."""
        self._order += 1
        heappush(self._entries, (time_s, self._order, action, args))

    def run(self, for_s: float) -> None:
        """Let time pass.

        Raises:
            Runaway: it never came to an end.
        """
        until = self.now + for_s
        while self._entries and self._entries[0][0] <= until:
            self.now, _, action, args = heappop(self._entries)
            self.events += 1
            if self.events > MAX_EVENTS:
                raise Runaway(f"{self.events} events in {self.now:.0f} s of virtual time")
            action(*args)
        self.now = until
