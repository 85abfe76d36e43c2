"""Pilotage with its sender on another machine, as far as the station can tell: the way there is encrypted (CURVE).

    python -m benchmarks.peers.ours_curve --mode acked --seconds 3
    python -m benchmarks.peers.ours_curve --mode rtt --seconds 3

As in a lab: the sender has a key and comes in by the station's outward gate, the receiver is the Terminal's own node
and reaches it on loopback, in clear. All else is as in `ours`; the column "/ ours" is what encryption costs.
"""

from __future__ import annotations

import sys

from pilotage import prefs
from pilotage.net.keys import KeyFolder, make_pair

from . import ours
from .common import Peer, main, role_commands
from .roles import Addresses


def _missing() -> str:
    """Say what this machine lacks: a second address of the loopback interface, which stands for another machine."""
    return "" if sys.platform.startswith("linux") else "only Linux has the address 127.0.0.2"


PEER = Peer(
    "ours_curve",
    lambda: role_commands("ours_curve", "router", "receiver", "sender"),
    promise="handled, in memory",
    missing=_missing,
)
OUTSIDE = "127.0.0.2"


class Router(ours.Router):
    """The same, with keys: its own and the sender's."""

    def __init__(self, addresses: Addresses) -> None:
        folder = KeyFolder(prefs.get("KEYDIR"))
        for name in (ours.STATION, ours.SENDER):
            folder.keep(make_pair(name))
        super().__init__(addresses)


class Sender(ours.Sender):
    """The same, from outside."""

    def __init__(self, addresses: Addresses) -> None:
        super().__init__(addresses, OUTSIDE)


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": ours.Receiver, "sender": Sender})
