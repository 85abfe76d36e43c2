"""How the Terminal sees an agent's connection, and the only steps of that view (promise L2).

    state     next
    ""        joining                nothing was heard of it in this life of the Terminal
    joining   alive, gone
    alive     suspect, gone
    suspect   alive, gone
    gone      joining                a new connection begins anew

Pure. Three parties know something of it: the station beside it (the Terminal's, or its parent's), which sees its
station; its own station, which sees the agent's process; and whoever passes its words on, since what is behind a
station that has gone can't be reached. The worst of these is the view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

UNSEEN, JOINING, ALIVE, SUSPECT, GONE = "", "joining", "alive", "suspect", "gone"

STEPS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        UNSEEN: frozenset({JOINING}),
        JOINING: frozenset({ALIVE, GONE}),
        ALIVE: frozenset({SUSPECT, GONE}),
        SUSPECT: frozenset({ALIVE, GONE}),
        GONE: frozenset({JOINING}),
    }
)
_RANK = {UNSEEN: -1, JOINING: 1, ALIVE: 0, SUSPECT: 2, GONE: 3}


@dataclass(slots=True)
class View:
    """What the parties say of one agent; "" where one has said nothing.

    Attributes:
        station: what the station beside it says of its station.
        agent: what its own station says of the agent's process.
        heard: when the agent itself was heard, on the monotonic clock; None if it wasn't.
        link: the view that follows.
    """

    station: str = UNSEEN
    agent: str = UNSEEN
    heard: float | None = None
    link: str = UNSEEN

    def said(self, parent: str) -> str:
        """Tell what follows from all that is said.

        Args:
            parent: the view of the agent behind which it is; "" for none.
        """
        own = self.station or (ALIVE if self.heard is not None else UNSEEN)
        return max(own, self.agent, parent if parent in (SUSPECT, GONE) else UNSEEN, key=_RANK.__getitem__)


def steps_to(link: str, to: str) -> list[str]:
    """Give the steps of the table that lead from one view to another; none if it leads nowhere."""
    ways = [[link]]
    seen = {link}
    while ways:
        way = ways.pop(0)
        if way[-1] == to:
            return way[1:]
        ways += [[*way, step] for step in sorted(STEPS[way[-1]] - seen)]
        seen |= STEPS[way[-1]]
    return []
