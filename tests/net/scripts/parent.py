"""A parent of stations that waits to be killed. Prints the stations' process ids once all run."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from pathlib import Path

from pilotage import Net_Node
from tests.net.parts import ProbedStation


def main(method: str, folder: Path) -> None:
    multiprocessing.set_start_method(method)
    stations = [ProbedStation(f"S{number}") for number in range(3)]
    for station in stations:
        station.start()
    for key, station in zip(("HANG", "STUCK"), stations, strict=False):
        node = Net_Node(f"cam_{key}", station.id, station.listen_port, {})
        node.wait_connected(10)
        node.send(station.id, key, str(folder / key))
    print(*(station.pid for station in stations), flush=True)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
