"""What a process's lives leave on its disk: the journal of what it sent, and the record of what it was sent.

Law of this room: what was not synced when a process ends is not there for its next life.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from pilotage.protocol.sends import Kept, Part, Place, left_of
from pilotage.testing.recorder import Identity


@dataclass(slots=True)
class Disk:
    """One process's.

    Attributes:
        journal: what is kept of its sends, in the order of keeping; deadlines in the world's time.
        over: what of it is over, by its place.
        rows: the DATA that it has stored, in their order.
        seen: which messages these were.
    """

    journal: dict[Place, Kept] = field(default_factory=dict)
    over: dict[Place, list[tuple[int, int]]] = field(default_factory=dict)
    rows: list[Identity] = field(default_factory=list)
    seen: set[Hashable] = field(default_factory=set)

    def keep(self, sends: Iterable[Kept]) -> None:
        """Write sends into the journal."""
        self.journal.update((one.place, one) for one in sends)

    def drop(self, places: Iterable[Place], parts: Iterable[Part]) -> None:
        """Take sends out of the journal, or some of those at a place."""
        for place, first, end in parts:
            self.over.setdefault(place, []).append((first, end))
        for place in places:
            self.journal.pop(place, None)
            self.over.pop(place, None)

    def left(self) -> list[Kept]:
        """Give what a next life finds."""
        return [
            piece for kept in self.journal.values() for piece in left_of(kept, self.over.get(kept.place, ()))
        ]

    def store(self, message: Hashable, identity: Identity) -> None:
        """Commit a row with its message's id, unless that was committed before."""
        if message not in self.seen:
            self.seen.add(message)
            self.rows.append(identity)
