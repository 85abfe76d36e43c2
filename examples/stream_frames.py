"""Stream images from one node to another, in batches; each arrives once and in order."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from pilotage import Net_Node

FRAMES = 60
SHAPE = (120, 160)


def main() -> None:
    received: list[Any] = []
    complete = threading.Event()

    def keep(item: dict[str, Any]) -> None:
        received.append(item)
        if len(received) == FRAMES:
            complete.set()

    with (
        Net_Node("viewer", "", 0, {"CONTINUOUS": keep}, router_port=0) as viewer,
        Net_Node("cam", "viewer", viewer.router_port or 0) as cam,
    ):
        stream = cam.get_stream("frames", "CONTINUOUS", min_size=5, subject="mouse_1", pilot="rig_a")
        for number in range(FRAMES):
            frame = np.full(SHAPE, number, np.uint8)
            stream.put({"timestamp": number / 30, "frame": frame})
        stream.put("END")
        assert complete.wait(20), f"only {len(received)} of {FRAMES} frames came"
        stream.join()
        batches = stream.statistics().settled["delivered"]
    assert [int(item["frame"][0, 0]) for item in received] == list(range(FRAMES))
    print(f"{FRAMES} frames in {batches} messages, in order, with", sorted(received[0]))


if __name__ == "__main__":
    main()
