"""Pilotage as it is with a Terminal on the same machine: streams go straight to it, everything else by its station.

    python -m benchmarks.peers.ours_direct --mode frames_direct --seconds 3

The stream is opened as any other; it finds the way by itself. All else is as in `ours`, whose receiver doesn't offer
that way.
"""

from __future__ import annotations

from . import ours
from .common import Peer, main, role_commands
from .ours import Router, Sender

PEER = Peer(
    "ours_direct",
    lambda: role_commands("ours_direct", "router", "receiver", "sender"),
    modes=("loaded", "chunks", "frames_direct"),
    promise=ours.PEER.promise,
)


class Receiver(ours.Receiver):
    """The same, with a door for streams of this machine."""

    direct = True


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
