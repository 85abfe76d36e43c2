"""A process may have many nodes: they share its loop's thread and ZeroMQ's."""

from __future__ import annotations

import psutil

from pilotage.net.node import Net_Node

NODES = 40


def test_many_nodes_of_a_process_have_few_threads_and_each_is_heard_to_the_end():
    got: list[int] = []
    with Net_Node("rig", "", 0, {"N": got.append}, router_port=0, journal=None) as rig:
        before = psutil.Process().num_threads()
        nodes = [Net_Node(f"n{i}", "rig", rig.router_port, journal=None) for i in range(NODES)]
        for node in nodes:
            node.wait_connected(20)
        assert psutil.Process().num_threads() - before < NODES / 2
        assert nodes[0].context is nodes[-1].context is not rig.context
        receipts = []
        for i, node in enumerate(nodes):
            receipts.append(node.send("rig", "N", i))
            assert receipts[-1].wait_settled(20).outcome.value == "delivered"
            node.release()
    assert sorted(got) == list(range(NODES))
