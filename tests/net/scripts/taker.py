"""A node in a process of its own, which can be stopped: it counts the items of streams, and what it may not be given.

python -m tests.net.scripts.taker NAME UPSTREAM PORT KEY [direct]
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pilotage import Net_Node, takes_batches


class Taker:
    """Keeps the numbers of items, and tells them when it is asked."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    @takes_batches
    def take(self, items: Any) -> None:
        """Take a batch, or one item."""
        self.numbers += [item["n"] for item in (items if isinstance(items, list) else [items])]


def main(name: str, upstream: str, port: int, key: str, *, direct: bool) -> None:
    """Take until standard input ends; each line there asks for what came."""
    taker = Taker()
    with Net_Node(name, upstream, port, {key: taker.take}, journal=None, direct=direct) as node:
        node.wait_connected(20)
        print("ready", flush=True)
        for _ in sys.stdin:
            numbers = taker.numbers
            in_order = numbers == list(range(len(numbers)))
            print(json.dumps({"count": len(numbers), "in order": in_order}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], direct="direct" in sys.argv[5:])
