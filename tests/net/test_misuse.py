"""What callers and strangers may get wrong, and what they are told."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from pilotage import Message, Net_Node, Outcome, Station
from pilotage.protocol.errors import InvalidMessage, MisuseError


@pytest.mark.parametrize("port", [-1, 65536, "abc"])
def test_a_port_that_is_none_is_refused(port: Any) -> None:
    with pytest.raises(MisuseError, match="port"):
        Net_Node("n", "", 0, router_port=port)
    with pytest.raises(MisuseError, match="listen_port"):
        Station(id="S", listen_port=port)


def test_a_name_or_listen_that_is_none_is_refused() -> None:
    for name in (3, "", "x" * 300):
        with pytest.raises(InvalidMessage, match="name"):
            Net_Node(name, "", 0)  # type: ignore[arg-type]
    with pytest.raises(MisuseError, match="'KEY' can't be called"):
        Net_Node("n", "", 0, {"KEY": 3})  # type: ignore[dict-item]


def test_a_send_that_makes_no_sense_is_refused() -> None:
    with Net_Node("n", "", 0, router_port=0) as node:
        node.send("x", "K")  # what is asked for alike would go with it
        for arguments in (
            {"to": 3, "key": "K"},
            {"to": np.array(["x", "y"]), "key": "K"},
            {"msg": "text"},
            {"to": "x", "msg": "text"},
            {"to": "x", "key": "K", "flags": []},
            {"to": "x", "key": "K", "flags": ["NOREPEAT"]},
        ):
            with pytest.raises(InvalidMessage):
                node.send(**arguments)  # type: ignore[arg-type]


def test_only_the_recipient_confirms() -> None:
    let_go = threading.Event()
    with (
        Net_Node("slow", "", 0, {"KEY": lambda _: let_go.wait(20) and None}, router_port=0) as slow,
        Net_Node("sender", "slow", slow.router_port or 0) as sender,
        Net_Node("stranger", "slow", slow.router_port or 0) as stranger,
    ):
        receipt = sender.send("slow", "KEY", 1)
        sender.wait_connected(5)
        assert (
            stranger.send("sender", "CONFIRM", receipt.message.id).wait_settled(10).outcome
            is Outcome.DELIVERED
        )
        assert not receipt.is_settled
        let_go.set()
        assert receipt.wait_settled(10).outcome is Outcome.DELIVERED


def test_a_stream_counts_what_was_refused_and_goes_on() -> None:
    got: list[int] = []

    def picky(item: int) -> None:
        if item == 2:
            raise ValueError("two is refused")
        got.append(item)

    with (
        Net_Node("sink", "", 0, {"ITEM": picky}, router_port=0) as sink,
        Net_Node("source", "sink", sink.router_port or 0) as source,
    ):
        stream = source.get_stream("s", "ITEM", min_size=5)
        for item in range(5):
            stream.put(item)
        stream.join()
        assert got == [0, 1, 3, 4]
        assert stream.failed == 5, "the batch that held it is told as refused"
        stream.put(object())
        stream.flush()
        stream.join()
        assert stream.failed == 6


def test_an_item_that_travels_alone_has_its_headers() -> None:
    got: list[dict[str, Any]] = []
    with (
        Net_Node("sink", "", 0, {"ITEM": got.append}, router_port=0) as sink,
        Net_Node("source", "sink", sink.router_port or 0) as source,
    ):
        stream = source.get_stream("s", "ITEM", min_size=1, subject="mouse", pilot="rig")
        stream.put({"timestamp": 0.5})
        stream.join()
    assert got == [{"subject": "mouse", "pilot": "rig", "continuous": True, "timestamp": 0.5}]


def test_waiting_on_the_loops_own_thread_is_refused() -> None:
    told: list[BaseException] = []
    with Net_Node("n", "", 0, {"KEY": lambda value: value}, router_port=0) as node:
        receipt = node.send("nobody", "KEY", 1)

        def wait() -> None:
            try:
                receipt.wait_settled(1)
            except MisuseError as error:
                told.append(error)

        node._messenger.ask(wait)
    assert "await" in str(told[0])


def test_a_message_without_an_id_is_refused() -> None:
    with (
        Net_Node("n", "", 0, router_port=0) as node,
        pytest.raises(InvalidMessage),
    ):
        node.send(msg=Message(to="x", sender="n", key="K"))
