"""Four networks: one in memory, and ZeroMQ's with a relay in it: in clear by TCP and by paths, and encrypted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pilotage.protocol.liveness import LivenessRules
from pilotage.testing.memory import MemoryNetwork, MemoryWires
from pilotage.transport.network import ZmqWires
from pilotage.transport.rules import SocketRules
from tests.transport.ends import CALM, End, Ends, ends_over
from tests.transport.locks import OUTSIDE, Locksmith
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
    """Ends that meet by sockets."""

    def __init__(self, ends: Ends, host: str = "127.0.0.1") -> None:
        self.ends = ends
        self.host = host
        self.relays: dict[str, Relay] = {}

    def dial_through_something(self, name: str, hub: End, liveness: LivenessRules = CALM) -> End:
        """Dial by a way that can be frozen or cut."""
        self.relays[name] = Relay(hub.port, self.host)
        return self.ends.dialling(name, self.relays[name].port, liveness=liveness, host="127.0.0.1")

    def cut(self, name: str) -> None:
        self.relays[name].cut()

    def freeze(self, name: str) -> None:
        self.relays[name].freeze()


World = MemoryWorld | ZmqWorld
CLEAR = ["memory", "zmq", pytest.param("path", marks=pytest.mark.only_on("linux"))]
# The encrypted gate is met by another address of the loopback interface, which only Linux has.
ALL = [*CLEAR, pytest.param("curve", marks=pytest.mark.only_on("linux"))]


@pytest.fixture(params=ALL)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with _Chosen(request.param, 10_000) as made:
        yield made


@pytest.fixture(params=CLEAR)
def keyless_world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A network where two ends of one name have nothing in common but that."""
    with _Chosen(request.param, 10_000) as made:
        yield made


@pytest.fixture(params=ALL)
def narrow_world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A network whose queues hold few transmissions."""
    with _Chosen(request.param, 4) as made:
        yield made


@pytest.fixture
def locksmith() -> Locksmith:
    return Locksmith(SocketRules(uses_paths=False))


@pytest.fixture
def locked(locksmith: Locksmith) -> Iterator[ZmqWorld]:
    """An encrypted network whose keys a test may change."""
    with ends_over(locksmith.wires, "*", OUTSIDE) as ends:
        world = ZmqWorld(ends, OUTSIDE)
        yield world
        for relay in world.relays.values():
            relay.close()


class _Chosen:
    def __init__(self, kind: str, max_queued: int) -> None:
        send_buffer_bytes = 100_000 if max_queued < 10 else 0
        rules = SocketRules(
            max_queued=max_queued, send_buffer_bytes=send_buffer_bytes, uses_paths=kind == "path"
        )
        network = MemoryNetwork(max_queued)
        locksmith = Locksmith(rules)
        self._network = network
        self._host = OUTSIDE if kind == "curve" else "127.0.0.1"
        if kind == "memory":
            self._context = ends_over(lambda name: MemoryWires(network))
        elif kind in ("zmq", "path"):
            self._context = ends_over(lambda name: ZmqWires(rules))
        else:
            self._context = ends_over(locksmith.wires, "*", OUTSIDE)
        self._kind = kind

    def __enter__(self) -> World:
        ends = self._context.__enter__()
        in_memory = self._kind == "memory"
        self._made: World = MemoryWorld(ends, self._network) if in_memory else ZmqWorld(ends, self._host)
        return self._made

    def __exit__(self, *error: object) -> None:
        if isinstance(self._made, ZmqWorld):
            for relay in self._made.relays.values():
                relay.close()
        self._context.__exit__(None, None, None)
