"""Pilotage with listens declared `@on_loop`: quick ones that save the step to a worker thread.

    python -m benchmarks.peers.ours_on_loop --mode acked --seconds 3
    python -m benchmarks.peers.ours_on_loop --mode rtt --seconds 3

All else is as in `ours`.
"""

from __future__ import annotations

from typing import Any

from pilotage import on_loop

from . import ours
from .common import Peer, main, role_commands
from .ours import Listen, Router
from .roles import Addresses

PEER = Peer(
    "ours_on_loop",
    lambda: role_commands("ours_on_loop", "router", "receiver", "sender"),
    modes=("acked", "rtt", "fanin"),
    promise=ours.PEER.promise,
)


def on_the_loop(listen: Listen) -> Listen:
    """Declare a bound method: the declaration is kept on a function of its own."""

    @on_loop
    def declared(value: Any) -> Any:
        return listen(value)

    return declared


class Receiver(ours.Receiver):
    """The same, its listens on the loop."""

    def __init__(self, addresses: Addresses) -> None:
        super().__init__(addresses, on_the_loop)


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": ours.Sender})
