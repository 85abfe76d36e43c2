"""The word that a message is over may be lost with a link: whoever sent it asks as soon as there is one again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pilotage import Net_Node, Outcome
from pilotage.protocol.settlement import Stage
from tests.conftest import Eventually
from tests.net.conftest import Gate, MakeNode
from tests.system.faults.proxy import Proxy

pytestmark = pytest.mark.only_on("linux", "darwin")


class Patient(Net_Node):
    """One that asks of itself, without an occasion, only after a minute."""

    repeat_interval = 60.0


@pytest.fixture
def rig(node: MakeNode, gate: Gate) -> Net_Node:
    return node("rig", router_port=0, listens={"HELD": gate})


@pytest.fixture
def proxy(rig: Net_Node) -> Iterator[Proxy]:
    proxy = Proxy(rig.router_port or 0)
    yield proxy
    proxy.close()


def test_an_end_that_found_no_way_is_asked_for_when_there_is_one(
    rig: Net_Node, proxy: Proxy, gate: Gate, eventually: Eventually
) -> None:
    counts = rig._messenger.exchange.counts
    with Patient("cam", "rig", proxy.port, upstream_ip="127.0.0.1") as cam:
        cam.wait_connected(5)
        receipt = cam.send("rig", "HELD", 1)
        eventually(lambda: receipt.stage is Stage.RECEIVED)
        proxy.refuse()
        proxy.cut()
        eventually(lambda: not rig._messenger.exchange.routing.peers)
        gate.opened.set()
        eventually(lambda: counts["acks without a way"])
        assert receipt.stage is Stage.RECEIVED
        proxy.refuse(False)
        assert receipt.wait_settled(20).outcome is Outcome.DELIVERED and gate.got == [1]
