"""What an idle pilot costs: a Pilot_Station, a node and a stream that nobody uses, at the default heartbeat.

    python -m benchmarks.peers.ours_idle --mode idle_pilot --seconds 10

They are joined to a Terminal_Station, whose cost isn't counted here; `ours` measures it with 1,000 peers. The figure
is the share of one core that the pilot's processes take together.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from pilotage import Net_Node, Pilot_Station, prefs

from .common import Peer, main, role_commands
from .ours import MEETING_TIMEOUT_S, Router
from .roles import Addresses

PEER = Peer(
    "ours_idle",
    lambda: role_commands("ours_idle", "router", "sender"),
    modes=("idle_pilot",),
)
PILOT = "rig_a"
SETTLING_S = 2.0


class Pilot:
    """What a pilot brings with it, doing nothing."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        settings = replace(prefs.snapshot(), name=PILOT, pushport=addresses["port"], msgport=0)
        self._station = Pilot_Station(settings=settings)
        self._station.start()
        self._node = Net_Node(f"_{PILOT}", PILOT, self._station.listen_port)
        self._node.wait_connected(MEETING_TIMEOUT_S)
        self._stream = self._node.get_stream("camera", "CONTINUOUS")
        time.sleep(SETTLING_S)

    def request(self, what: str, seconds: float, **_how: Any) -> dict[str, Any]:
        """Do nothing for so long; the only thing it is asked (`idle`)."""
        if what != "idle":
            raise ValueError(f"the idle pilot can't {what}")
        time.sleep(seconds)
        return {"sent": 0, "confirmed": 0}

    def close(self) -> None:
        """End the station's process."""
        self._node.release()
        self._station.release()


if __name__ == "__main__":
    main(PEER, {"router": Router, "sender": Pilot})
