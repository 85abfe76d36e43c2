"""Acquaintances: by which key and from where those came who are connected, as their stations say.

Law of this room: what a station says counts for messages that came in through that station, and for no others.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from pilotage.agents.ports import Who

HERE = Who("", "this process", "", ())
MAX_KNOWN = 10_000
MAX_CHARS = 100


class Acquaintances:
    """Who is connected where. Any thread.

    Args:
        station: the name of our own station.
    """

    def __init__(self, station: str) -> None:
        self._station = station
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[str, str]] = {}

    def note(self, value: Mapping[str, Any]) -> None:
        """Take what a PEER says of how somebody came."""
        at = str(value.get("name")), str(value.get("via") or self._station)
        key, address = (str(value.get(what) or "")[:MAX_CHARS] for what in ("key", "address"))
        with self._lock:
            if value.get("link") == "gone":
                self._known.pop(at, None)
            elif (key or address) and (at in self._known or len(self._known) < MAX_KNOWN):
                self._known[at] = key, address

    def lose_all(self) -> None:
        """Our station was started anew: nobody is connected."""
        with self._lock:
            self._known.clear()

    def who(self, trail: Sequence[str], name: str = "", via: tuple[str, ...] | None = None) -> Who:
        """Tell who is at the far end of a message's way.

        Args:
            trail: the names of the peers that the message came through.
            name: who it is about, if that isn't who sent it.
            via: what to tell of the way, if not that.

        Returns:
            With the key by which it, or the nearest station that vouches for it, came in, and from where.
        """
        if not trail:
            return HERE._replace(name=name or HERE.name)
        way = (name, *trail) if name else tuple(trail)
        with self._lock:
            found = [self._known.get(pair, ("", "")) for pair in pairwise(way)]
        key, address = next((one for one in found if one[0]), found[0] if found else ("", ""))
        return Who(key, way[0], address, way[1:] if via is None else via)
