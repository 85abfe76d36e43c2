"""Pilotage's DATA: it counts once the recipient's store has committed it and the sender knows so.

    python -m benchmarks.peers.ours_durable --mode durable --seconds 3

Net_Node to Station to a Net_Node that does what a Terminal does with DATA: its listen hands each row to the session's
store and settles with the commit (SQLite, `synchronous=FULL`, many rows in one commit). The sender's node keeps its
journal, as it does for all DATA; what is settled before the journal wrote it is never written there, and a row counts
when it is settled, whether or not it was. Both lie in a temporary folder on the disk on which the other peers store.
Both processes have their collector eased, as `pilotage terminal` and `pilotage pilot` do.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from pilotage import Net_Node
from pilotage.agents.ports import TrialRow
from pilotage.app.archive import FolderArchives
from pilotage.net.easing import ease_process
from pilotage.net.listens import Origin, takes_many

from . import ours
from .common import Peer, main, role_commands
from .ours import MEETING_TIMEOUT_S, RECEIVER, STATION, Router
from .roles import Addresses, Arrivals, Counting, payload

PEER = Peer(
    "ours_durable",
    lambda: role_commands("ours_durable", "router", "receiver", "sender"),
    modes=("durable",),
    promise="committed at receiver, journaled at sender until then",
)
SETTLE_TIMEOUT_S = 10.0
OWNERS = frozenset(("pilot", "subject", "trial_num", "session"))


class Receiver(Counting):
    """Store DATA as the Terminal does, and count each row once it is committed."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._lock = threading.Lock()
        self._arrivals = Arrivals()
        self._archive = FolderArchives(Path.home() / "sessions").create("bench", {})
        listens = {"DATA": self._data, "ECHO": self._echo}
        self._node = Net_Node(RECEIVER, STATION, addresses["port"], listens)
        self._node.wait_connected(MEETING_TIMEOUT_S)
        ease_process()

    @takes_many
    def _data(self, many: Sequence[tuple[dict[str, Any], Origin]]) -> Future[Any]:
        rows = []
        for value, origin in many:
            values = {name: item for name, item in value.items() if name not in OWNERS}
            rows.append(TrialRow(value["pilot"], value["subject"], value["trial_num"], values, origin))
        stored = self._archive.add_trials(rows)
        stored.add_done_callback(lambda future: self._stored([value["n"] for value, _ in many], future))
        return stored

    def _stored(self, numbers: Sequence[int], future: Future[Any]) -> None:
        with self._lock:
            for n, error in zip(numbers, future.result(), strict=True):
                if error is None:
                    self._arrivals.note(n)

    def _echo(self, value: Any) -> int:
        return int(value["n"])

    def close(self) -> None:
        """Release the node and close the store."""
        self._node.release()
        self._archive.close(SETTLE_TIMEOUT_S)


class Sender(ours.Sender):
    """The same as in `ours`, with the key that makes it durable."""

    def _send(self, n: int) -> None:
        self._open.append(self._node.send(RECEIVER, "DATA", payload(n)))


if __name__ == "__main__":
    main(PEER, {"router": Router, "receiver": Receiver, "sender": Sender})
