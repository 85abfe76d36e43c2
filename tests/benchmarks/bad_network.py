"""Raw pyzmq behind a router that loses, doubles and damages: what a benchmark must not fail to see."""

from __future__ import annotations

import threading
from typing import Any

import zmq
from benchmarks.peers.common import Peer, role_commands, serve
from benchmarks.peers.raw_pyzmq import LOOPBACK, Receiver, Sender, new_context
from benchmarks.peers.roles import Addresses

LOST, DOUBLED, DAMAGED = 50, 70, 90
"""One of so many."""


def commands() -> list[tuple[str, list[str]]]:
    roles = role_commands("raw_pyzmq", "router", "receiver", "sender")
    return [(role, [command[0], "-m", __name__, role]) for role, command in roles]


PEER = Peer("bad_network", commands, modes=("acked", "frames"))


class Router:
    def __init__(self, _addresses: Addresses) -> None:
        context = new_context()
        self._front, self._back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
        self.addresses: Addresses = {
            "front": self._front.bind_to_random_port(LOOPBACK),
            "back": self._back.bind_to_random_port(LOOPBACK),
        }
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        poller.register(self._back, zmq.POLLIN)
        count = 0
        while True:
            for socket, _ in poller.poll():
                parts = socket.recv_multipart()
                if socket is self._back:
                    self._front.send_multipart(parts)
                    continue
                count += 1
                if not count % DAMAGED and len(parts) == 3:
                    parts[2] = bytes(8) + parts[2][8:]
                for _ in range(0 if not count % LOST else 2 if not count % DOUBLED else 1):
                    self._back.send_multipart(parts)

    def request(self, what: str) -> Any:
        raise ValueError(what)

    def close(self) -> None:
        pass


if __name__ == "__main__":
    import sys

    serve({"router": Router, "receiver": Receiver, "sender": Sender}[sys.argv[1]])
