"""A node in a process of its own that sends DATA, durably, and prints the number of each that its journal has."""

from __future__ import annotations

import sys

from pilotage import Net_Node


def main() -> None:
    folder, port, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    node = Net_Node("cam", "rig", port, journal=folder)
    for number in range(first, first + 1_000_000):
        node.send("rig", "DATA", {"n": number}).wait_accepted(30)
        print(number, flush=True)


if __name__ == "__main__":
    main()
