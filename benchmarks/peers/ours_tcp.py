"""Pilotage by TCP, as between two machines: on one, its ends go by paths and share memory.

    python -m benchmarks.peers.ours_tcp --mode frames --seconds 3

Each process has a folder for temporary files of its own, where it finds no path of another. All else is as in `ours`.
"""

from __future__ import annotations

import tempfile

from . import ours
from .common import Peer, main, role_commands
from .ours import Receiver, Router, Sender

PEER = Peer(
    "ours_tcp",
    lambda: role_commands("ours_tcp", "router", "receiver", "sender"),
    modes=("acked", "rtt", "chunks", "frames"),
    promise=ours.PEER.promise,
)

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as alone:
        tempfile.tempdir = alone
        main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
