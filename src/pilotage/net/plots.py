"""Plots: what `P_{pilot}` is given to draw, a preview of what is recorded.

Law of this room: a plot gets the newest, no more often than it draws and no more than it takes; what it misses is
counted, and nobody waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pilotage.net.receipt import Receipt

PREFIX = "P_"
MAX_DRAWING = {"CONTINUOUS": 4, "DATA": 256}
"""Updates of each kind under way to one plot; beyond it they are dropped, and counted."""

MAX_LOOKED = 10_000
"""Senders of which it is known when they were last drawn; beyond it all are drawn anew."""

Send = Callable[[str, str, Any], Receipt]
"""Sends to a plot, with a key, a value."""


class Plots:
    """The plots that are connected, and what each was given. Any thread, for nothing here must be exact.

    Args:
        send: sends to a plot.
        dropped: is told when one misses something.
        every_s: seconds between two updates of a plot with continuous data.
    """

    def __init__(self, send: Send, dropped: Callable[[], None], every_s: float = 0.0) -> None:
        self.every_s = every_s
        self.sent: dict[str, float] = {}
        self._send = send
        self._dropped = dropped
        self._there: set[str] = set()
        self._looked: dict[str, float] = {}
        self._room: dict[tuple[str, str], _Room] = {}

    def __bool__(self) -> bool:
        return bool(self._there)

    def note(self, name: str, *, is_there: bool) -> None:
        """Somebody is connected now, or isn't any more."""
        if not name.startswith(PREFIX):
            return
        if is_there:
            self._there.add(name)
            return
        self._there.discard(name)
        for key in MAX_DRAWING:
            self._room.pop((name, key), None)

    def lose_all(self) -> None:
        """Nobody is connected any more."""
        for name in list(self._there):
            self.note(name, is_there=False)

    def want(self, sender: str) -> bool:
        """Tell whether a plot may want continuous data of a sender now; no more often than it draws."""
        now = time.monotonic()
        if not self._there or now - self._looked.get(sender, 0.0) < self.every_s:
            return False
        if len(self._looked) >= MAX_LOOKED:
            self._looked.clear()
        self._looked[sender] = now
        return True

    def draw(self, pilot: object, key: str, value: object) -> None:
        """Give a pilot's plot something to draw, unless it hasn't drawn yet what it was given: it may be stalled."""
        name = f"{PREFIX}{pilot}"
        if not isinstance(pilot, str) or name not in self._there:
            return
        room = self._room.setdefault((name, key), _Room(MAX_DRAWING[key]))
        if room.left <= 0:
            self._dropped()
            return
        room.left -= 1
        self._send(name, key, value).add_callback(room.freed)

    def draw_newest(self, pilot: object, items: object, headers: dict[str, Any] | None = None) -> None:
        """Give a pilot's plot the newest item of a batch, if it is time to draw."""
        now = time.monotonic()
        newest = items[-1:] if isinstance(items, list) else []
        if not newest or not isinstance(pilot, str) or PREFIX + pilot not in self._there:
            return
        if now - self.sent.get(pilot, 0.0) >= self.every_s:
            self.sent[pilot] = now
            item = newest[0]
            self.draw(pilot, "CONTINUOUS", {**(headers or {}), **item} if isinstance(item, dict) else item)


class _Room:
    """How many updates of one kind a plot may still be given before it has drawn some."""

    def __init__(self, left: int) -> None:
        self.left = left

    def freed(self, receipt: Receipt) -> None:
        self.left += 1
