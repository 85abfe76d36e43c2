"""Messages for recipients that aren't connected yet. They wait, bounded in number, bytes and time.

Law of this room: what leaves it, leaves by the door: claimed by a neighbour that came, or given back to be refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pilotage.protocol.records import Parcel
from pilotage.protocol.sends import FOREVER

MAX_MESSAGES = 10_000
MAX_BYTES = 64 * 2**20
OVER_AT_ONCE = 64
"""How many are given back in one go: whoever has sent thousands to nobody must not make all others wait."""


class WaitingRoom:
    """Parcels without a way on.

    Args:
        holds_s: how long each may wait.
        max_messages: how many may wait.
        max_bytes: how much they may weigh.

    Attributes:
        messages: how many wait.
    """

    def __init__(self, holds_s: float, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self._holds_s = holds_s
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._bytes = 0
        self.messages = 0
        self._parcels: deque[tuple[float, Parcel]] = deque()
        self._known: set[tuple[int, int, int]] = set()

    def __len__(self) -> int:
        return self.messages

    def hold(self, parcel: Parcel, now: float) -> list[Parcel]:
        """Let a parcel wait; give back those for which there is no room. A second copy adds nothing."""
        place = parcel.place
        if place in self._known:
            return []
        if (
            self.messages + len(parcel.bodies) > self._max_messages
            or self._bytes + parcel.size > self._max_bytes
        ):
            return [parcel]
        self._known.add(place)
        self.messages += len(parcel.bodies)
        self._bytes += parcel.size
        self._parcels.append((now + self._holds_s, parcel))
        return []

    def claim(self, wanted: Callable[[Parcel], bool]) -> list[Parcel]:
        """Give out those that can go on now, oldest first."""
        if not self._parcels:
            return []
        claimed = [entry for entry in self._parcels if wanted(entry[1])]
        if claimed:
            going = {id(entry[1]) for entry in claimed}
            self._parcels = deque(entry for entry in self._parcels if id(entry[1]) not in going)
        return [self._leave(entry[1]) for entry in claimed]

    def time_passed(self, now: float) -> list[tuple[Parcel, str]]:
        """Give out those that have waited long enough, with the name that never came; of many only the first."""
        over: list[tuple[Parcel, str]] = []
        while self._parcels and self._parcels[0][0] <= now and len(over) < OVER_AT_ONCE:
            parcel = self._leave(self._parcels.popleft()[1])
            over.append((parcel, parcel.path[0]))
        return over

    def next_due(self) -> float:
        """Tell when `time_passed` has something to do."""
        return self._parcels[0][0] if self._parcels else FOREVER

    def _leave(self, parcel: Parcel) -> Parcel:
        self._known.discard(parcel.place)
        self.messages -= len(parcel.bodies)
        self._bytes -= parcel.size
        return parcel
