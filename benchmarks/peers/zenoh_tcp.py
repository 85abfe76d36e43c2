"""Zenoh without its shared memory, as between two machines.

    python -m benchmarks.peers.zenoh_tcp --mode frames --seconds 3

All else is as in `zenoh`.
"""

from __future__ import annotations

from . import zenoh
from .common import Peer, main, role_commands
from .zenoh import Receiver, Sender, what_is_missing

PEER = Peer(
    "zenoh_tcp",
    lambda: role_commands("zenoh_tcp", "router", "receiver", "sender"),
    modes=("chunks", "frames", "frames_direct"),
    promise=zenoh.PEER.promise,
    missing=what_is_missing,
)


class Router(zenoh.Router):
    """The same; the others learn from it that there is no shared memory."""

    shared_memory = False


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
