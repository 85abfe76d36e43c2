"""A silent or original-like peer on a raw socket: what we transmit, how often, and what we answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from pilotage import Message, Net_Node, Outcome, Receipt
from pilotage.protocol.records import Greeting, Packet, decode_packet, encode_packet
from pilotage.protocol.zmtp import metadata
from tests.conftest import Eventually
from tests.net.conftest import MakeNode, StartStation
from tests.net.parts import ProbedStation


class QuickNode(Net_Node):
    """Repeats soon."""

    repeat_interval = 0.1


class QuickStation(ProbedStation):
    """Repeats soon."""

    repeat_interval = 0.1


class RawSockets:
    """Sockets that are closed with the test."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self.open: list[zmq.Socket[Any]] = []
        self._context = context

    def socket(self, kind: int) -> zmq.Socket[Any]:
        self.open.append(self._context.socket(kind))
        return self.open[-1]


class Original:
    """A DEALER that knows its name and JSON, and says only what a test has it say."""

    def __init__(self, context: RawSockets, name: str, station: str, port: int) -> None:
        self.name, self.station = name, station
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.IDENTITY, name.encode())
        self.socket.connect(f"tcp://127.0.0.1:{port}")
        self.sent = 0

    def say(self, key: str, value: Any = None, to: str = "", **more: Any) -> bytes:
        fields = {"id": f"{self.name}_{self.sent}", "to": to or self.station, "sender": self.name, "key": key}
        message = json.dumps(
            {**fields, "value": value, "flags": {}, "ttl": 5, "timestamp": "2026-01-01", **more}
        )
        self.sent += 1
        self.repeat(message.encode())
        return message.encode()

    def repeat(self, message: bytes) -> None:
        to = json.loads(message)["to"]
        self.socket.send_multipart([self.station.encode(), to.encode(), message])

    def hear(self, timeout_s: float = 5.0) -> list[bytes] | None:
        return self.socket.recv_multipart() if self.socket.poll(int(timeout_s * 1000)) else None

    def heard(self) -> dict[str, Any]:
        frames = self.hear()
        assert frames is not None, "nothing came"
        told: dict[str, Any] = json.loads(frames[-1])
        return told

    def greet(self) -> None:
        """Be known, and take the confirmation of it."""
        message = self.say("ECHO", "hello")
        assert self.heard()["value"] == json.loads(message)["id"]


@pytest.fixture
def context() -> Iterator[RawSockets]:
    with zmq.Context() as inner:
        sockets = RawSockets(inner)
        yield sockets
        for socket in sockets.open:
            socket.close(linger=0)


@pytest.fixture
def rig(node: MakeNode) -> Net_Node:
    made: Net_Node = node("rig", router_port=0, kind=QuickNode, listens={"ECHO": lambda value: value})
    return made


@pytest.fixture
def old(context: RawSockets, rig: Net_Node) -> Original:
    assert rig.router_port
    original = Original(context, "old", "rig", rig.router_port)
    original.greet()
    return original


def until_settled(original: Original, receipt: Receipt) -> list[list[bytes]]:
    """Collect all transmissions until the send has ended, and whatever comes soon after."""
    came = []
    while (frames := original.hear(0.3)) is not None or not receipt.is_settled:
        if frames is not None:
            came.append(frames)
    return came


def test_a_silent_original_gets_each_message_ttl_times_byte_for_byte(rig: Net_Node, old: Original) -> None:
    receipt = rig.send("old", "K", {"a": [1, 2]})
    came = until_settled(old, receipt)
    assert len(came) == 2 == receipt.message.ttl
    assert came[0] == came[1]
    told = json.loads(came[0][-1])
    assert {name: told[name] for name in ("id", "to", "sender", "key", "value")} == {
        "id": receipt.message.id,
        "to": "old",
        "sender": "rig",
        "key": "K",
        "value": {"a": [1, 2]},
    }
    assert receipt.wait_settled(1).outcome is Outcome.EXPIRED
    assert "unconfirmed" in receipt.wait_settled(1).text


def test_what_asks_for_no_repetition_is_sent_once(rig: Net_Node, old: Original) -> None:
    receipt = rig.send("old", "K", 1, repeat=False)
    came = until_settled(old, receipt)
    assert len(came) == 1
    assert json.loads(came[0][-1])["flags"] == {"NOREPEAT": True}
    assert receipt.wait_settled(1).outcome is Outcome.EXPIRED


def test_an_originals_confirmation_settles(rig: Net_Node, old: Original) -> None:
    receipt = rig.send("old", "K", 1)
    frames = old.hear()
    assert frames is not None and not receipt.is_settled
    old.say("CONFIRM", json.loads(frames[-1])["id"])
    assert receipt.wait_settled(5).outcome is Outcome.DELIVERED
    assert old.hear(0.3) is None


def test_an_originals_duplicate_is_confirmed_again_and_handled_once(
    rig: Net_Node, old: Original, eventually: Eventually
) -> None:
    got: list[Any] = []
    rig.listens["K"] = got.append
    message = old.say("K", "once")
    confirmations = [old.heard()]
    for _ in range(3):
        old.repeat(message)
        confirmations.append(old.heard())
    assert {(one["key"], one["value"]) for one in confirmations} == {("CONFIRM", json.loads(message)["id"])}
    eventually(lambda: got == ["once"])
    assert rig.statistics().duplicates == 3
    old.sent -= 1
    old.say("K", "a new life", timestamp="2026-01-02")
    old.heard()
    eventually(lambda: got == ["once", "a new life"])


def test_blank_pings_are_echoed(rig: Net_Node, old: Original, context: RawSockets) -> None:
    for frames in ([b"rig", b""], [b""], [b"rig", b"rig", b""]):
        old.socket.send_multipart(frames)
        assert old.hear() == frames
    stranger = context.socket(zmq.DEALER)
    stranger.connect(f"tcp://127.0.0.1:{rig.router_port}")
    stranger.send(b"")
    assert stranger.poll(5000) and stranger.recv_multipart() == [b""]
    assert rig.msgs_received == 1


def test_a_station_does_the_same(start: StartStation, context: RawSockets) -> None:
    station = start(QuickStation("S"))
    old = Original(context, "old", "S", station.listen_port)
    old.greet()
    assert station.senders == {"old": ""}
    old.socket.send_multipart([b"S", b""])
    assert old.hear() == [b"S", b""]
    receipt = station.send("old", "K", 1)
    came = until_settled(old, receipt)
    assert len(came) == 2 and came[0] == came[1] and len(came[0]) == 1
    assert receipt.wait_settled(1).outcome is Outcome.EXPIRED


def test_originals_reach_each_other_and_ours_through_a_station(
    start: StartStation, node: MakeNode, context: RawSockets, eventually: Eventually
) -> None:
    got: list[Any] = []
    station = start(QuickStation("S"))
    node("new", station, {"K": got.append})
    old, other = (Original(context, name, "S", station.listen_port) for name in ("old", "other"))
    old.greet()
    other.greet()
    message = old.say("K", "to one of ours", to="new")
    assert old.heard()["value"] == json.loads(message)["id"]
    eventually(lambda: got == ["to one of ours"])
    message = old.say("K", "to another original", to="other")
    frames = other.hear()
    assert frames is not None and frames[-1] == message, "what is passed on must not change a byte"
    other.say("CONFIRM", json.loads(message)["id"])
    told = old.heard()
    assert (told["key"], told["value"]) == ("CONFIRM", json.loads(message)["id"])


class Silent:
    """A ROUTER of our own wire that welcomes, and confirms nothing."""

    def __init__(self, context: RawSockets) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        for told in metadata("silent", 77, 2):
            self.socket.setsockopt(zmq.METADATA, told)
        self.port = self.socket.bind_to_random_port("tcp://127.0.0.1")

    def welcome(self) -> None:
        assert self.socket.poll(5000)
        self.guest = self.socket.recv_multipart()[0]
        self.socket.send_multipart([self.guest, *encode_packet(Packet([], [], [Greeting("welcome")]))])

    def parcels(self, receipt: Receipt) -> list[Any]:
        came: list[Any] = []
        while self.socket.poll(300) or not receipt.is_settled:
            if self.socket.poll(0):
                came += decode_packet(self.socket.recv_multipart()[1:]).parcels
        return [parcel for parcel in came if parcel.bodies]


@pytest.mark.parametrize("ttl", [1, 2, 4])
def test_a_silent_peer_of_our_wire_gets_each_message_ttl_times(context: RawSockets, ttl: int) -> None:
    silent = Silent(context)
    with QuickNode("cam", "silent", silent.port, {}) as cam:
        silent.welcome()
        cam.wait_connected(5)
        message = cam.prepare_message("silent", "K", "value")
        message.ttl = ttl
        receipt = cam.send(msg=message)
        came = silent.parcels(receipt)
        assert len(came) == ttl
        assert len({(*parcel.bodies, parcel.seq, parcel.flow, parcel.boot) for parcel in came}) == 1
        assert receipt.wait_settled(1).outcome is Outcome.EXPIRED
        assert cam.statistics().resent == ttl - 1


def test_repeat_looks_at_what_is_due_now(context: RawSockets) -> None:
    silent = Silent(context)
    with Net_Node("cam", "silent", silent.port, {}) as cam:
        silent.welcome()
        cam.wait_connected(5)
        receipt = cam.send(key="K")
        cam.repeat()
        assert not receipt.is_settled and cam.statistics().resent == 0, "nothing is due for five seconds"
        assert list(cam.outbox.values()) == [receipt.message]
        assert isinstance(receipt.message, Message)
