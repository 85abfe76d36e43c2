"""Two networks: one in memory, and ZeroMQ's with a relay in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pilotage.protocol.liveness import LivenessRules
from pilotage.testing.memory import MemoryNetwork, MemoryWires
from pilotage.transport.links import SocketRules, ZmqWires
from tests.transport.ends import CALM, End, Ends, ends_over
from tests.transport.relay import Relay


class MemoryWorld:
    """Ends that meet in memory."""

    def __init__(self, ends: Ends, network: MemoryNetwork) -> None:
        self.ends = ends
        self._network = network

    def dial_through_something(self, name: str, hub: End, liveness: LivenessRules = CALM) -> End:
        """Dial by a way that can be frozen or cut."""
        return self.ends.dialling(name, hub.port, liveness=liveness)

    def cut(self, name: str) -> None:
        self._network.cut(name)

    def freeze(self, name: str) -> None:
        self._network.freeze(name)


class ZmqWorld:
    """Ends that meet over TCP."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends
        self.relays: dict[str, Relay] = {}

    def dial_through_something(self, name: str, hub: End, liveness: LivenessRules = CALM) -> End:
        """Dial by a way that can be frozen or cut."""
        self.relays[name] = Relay(hub.port)
        return self.ends.dialling(name, self.relays[name].port, liveness=liveness)

    def cut(self, name: str) -> None:
        self.relays[name].cut()

    def freeze(self, name: str) -> None:
        self.relays[name].freeze()


World = MemoryWorld | ZmqWorld


@pytest.fixture(params=["memory", "zmq"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with _Chosen(request.param, 10_000) as made:
        yield made


@pytest.fixture(params=["memory", "zmq"])
def narrow_world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A network whose queues hold few transmissions."""
    with _Chosen(request.param, 4) as made:
        yield made


class _Chosen:
    def __init__(self, kind: str, max_queued: int) -> None:
        network = MemoryNetwork(max_queued)
        make: Callable[[], MemoryWires | ZmqWires] = lambda: MemoryWires(network)  # noqa: E731
        if kind == "zmq":
            make = lambda: ZmqWires(SocketRules(max_queued=max_queued))  # noqa: E731
        self._context = ends_over(make)
        self._kind, self._network = kind, network

    def __enter__(self) -> World:
        ends = self._context.__enter__()
        self._made: World = MemoryWorld(ends, self._network) if self._kind == "memory" else ZmqWorld(ends)
        return self._made

    def __exit__(self, *error: object) -> None:
        if isinstance(self._made, ZmqWorld):
            for relay in self._made.relays.values():
                relay.close()
        self._context.__exit__(None, None, None)
