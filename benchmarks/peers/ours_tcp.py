"""Pilotage by TCP, as between two machines.

    python -m benchmarks.peers.ours_tcp --mode frames --seconds 3
"""

from __future__ import annotations

from pilotage.transport import network

from . import ours
from .common import Peer, main, role_commands
from .ours import Receiver, Router, Sender

network.near_door = lambda name: ""
PEER = Peer(
    "ours_tcp",
    lambda: role_commands("ours_tcp", "router", "receiver", "sender"),
    modes=("frames", "chunks", "rtt", "acked"),
    promise=ours.PEER.promise,
)

if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
