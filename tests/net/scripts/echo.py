"""A node in a process of its own, with a router port: prints the port, answers, and calls back."""

from __future__ import annotations

import sys

from pilotage import Net_Node


def main() -> None:
    with Net_Node("far", "", 0, {}, router_port=0) as node:
        node.listens["ECHO"] = lambda value: value
        node.listens["CALL"] = lambda value: node.send("near", "BACK", value)
        print(node.router_port, flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main()
