"""Peers of Autopilot 0.3, spoken by hand over raw sockets: envelopes of 8 fields, arrays of one key in blosc 1.

Their code no longer installs, so the frames follow what 0.3.5 was seen to send and to accept.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import zmq

from pilotage import Outcome
from pilotage.protocol.arrays import decode_array

from .harness import wait_until
from .original.arrays import describe
from .ours import Ours

pytestmark = [pytest.mark.interop, pytest.mark.timeout(60)]

FIELDS = ("flags", "timestamp", "ttl", "sender", "to", "key", "value", "id")
STAMP = "2026-11-22T04:56:42.093565"
# What python-blosc 1.11.4 packed of np.arange(12, dtype="<i2").reshape(3, 4) * 7.
PACKED = (
    "AgETApkAAACYAAAAqQAAAIAFlY4AAAAAAAAAjBNudW1weS5fY29yZS5udW1lcmljlIwLX2Zyb21idWZmZXKUk5QolhgAAAAAAAAAAAAHAA4AFQAc"
    "ACMAKgAxADgAPwBGAE0AlIwFbnVtcHmUjAVkdHlwZZSTlIwCaTKUiYiHlFKUKEsDjAE8lE5OTkr/////Sv////9LAHSUYksDSwSGlIwBQ5R0lFKU"
    "Lg=="
)
ARRAY = np.arange(12, dtype="<i2").reshape(3, 4) * 7
BLOSC_1 = b"\x02\x01"

Send = Callable[..., str]


class Peer03:
    """One socket that speaks as 0.3.5 does: a node's DEALER, or a station's ROUTER."""

    def __init__(self, socket: zmq.Socket[bytes], name: str) -> None:
        self.name = name
        self.socket = socket
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt_string(zmq.IDENTITY, name)
        self._sent = 0

    def document(self, to: str, key: str, value: Any, **fields: Any) -> dict[str, Any]:
        """Write an envelope with the next id."""
        head = {"flags": {}, "timestamp": STAMP, "ttl": 5, "sender": self.name, "to": to, "key": key}
        self._sent += 1
        return {**head, "value": value, "id": f"{self.name}_{self._sent - 1}", **fields}

    def say(self, frames: list[str], document: dict[str, Any]) -> str:
        """Send one message behind these frames, and return its id."""
        self.socket.send_multipart([*(frame.encode() for frame in frames), json.dumps(document).encode()])
        return str(document["id"])

    def hear(self, timeout_s: float = 5.0) -> tuple[list[bytes], dict[str, Any]]:
        """Return the frames before the JSON of the next message, and its content."""
        assert self.socket.poll(int(timeout_s * 1000)), f"{self.name} got nothing within {timeout_s} s"
        *frames, body = self.socket.recv_multipart()
        return frames, json.loads(body)

    def hear_key(self, key: str) -> tuple[list[bytes], dict[str, Any]]:
        """Do the same for the next message of `key`; others before it are dropped."""
        while True:
            frames, document = self.hear()
            if document["key"] == key:
                return frames, document

    def port(self) -> int:
        """Bind to a free port and return it."""
        return int(self.socket.bind_to_random_port("tcp://127.0.0.1"))


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer03]]:
    """Open peers by name, as nodes of the station at a port, or as stations; they close with the test."""
    with zmq.Context() as context, ExitStack() as stack:

        def make(name: str, port: int | None = None) -> Peer03:
            made = Peer03(context.socket(zmq.DEALER if port else zmq.ROUTER), name)
            stack.callback(made.socket.close)
            if port:
                made.socket.connect(f"tcp://127.0.0.1:{port}")
            return made

        yield make


# As a node, or a pilot's station, that dials us


def test_its_message_reaches_our_node_once_and_is_confirmed_each_time(
    ours: Ours, peer: Callable[..., Peer03]
) -> None:
    station = ours.station("S")
    _, got = ours.node("node", "S", station.listen_port, ["DATA"])
    raw = peer("n1", station.listen_port)
    document = raw.document("node", "DATA", {"x": {"NUMPY_ARRAY": PACKED}})
    for _ in range(2):
        raw.say(["S", "node"], document)
        frames, confirm = raw.hear()
        assert frames == []
        assert (confirm["key"], confirm["value"], confirm["to"]) == ("CONFIRM", "n1_0", "n1")
    assert got.values("DATA") == [{"x": describe(ARRAY)}]
    wait_until(lambda: station.statistics().duplicates == 1, 5, "the duplicate")


def test_after_a_restart_its_ids_count_anew(ours: Ours, peer: Callable[..., Peer03]) -> None:
    station = ours.station("S")
    _, got = ours.node("node", "S", station.listen_port, ["HELLO"])
    raw = peer("n1", station.listen_port)
    raw.say(["S", "node"], raw.document("node", "HELLO", 1))
    raw.hear_key("CONFIRM")
    raw.say(["S", "node"], raw.document("node", "HELLO", 2, id="n1_0", timestamp="2026-11-22T05:00:00.1"))
    raw.hear_key("CONFIRM")
    assert got.wait("HELLO", 2) == [1, 2]


@pytest.mark.parametrize("leading", [["S", "S"], ["S"], []])
def test_any_number_of_frames_will_do(ours: Ours, peer: Callable[..., Peer03], leading: list[str]) -> None:
    station = ours.station("S")
    _, got = ours.node("probe", "S", station.listen_port, ["SEEN"])
    raw = peer("n1", station.listen_port)
    raw.say(leading, raw.document("S", "DATA", 3))
    assert got.wait("SEEN", 1) == [{"key": "DATA", "value": 3, "sender": "n1"}]
    assert raw.hear_key("CONFIRM")[1]["value"] == "n1_0"


def test_our_node_sends_it_one_frame_and_its_kind_of_arrays(ours: Ours, peer: Callable[..., Peer03]) -> None:
    station = ours.station("S")
    node, _ = ours.node("node", "S", station.listen_port)
    raw = peer("n1", station.listen_port)
    raw.say(["S", "S"], raw.document("S", "CONFIRM", "hello"))
    receipt = node.send("n1", "DATA", {"x": ARRAY, "n": 1})
    frames, document = raw.hear()
    assert frames == []
    assert set(FIELDS) <= set(document)
    assert list(document["value"]["x"]) == ["NUMPY_ARRAY"]
    assert base64.b64decode(document["value"]["x"]["NUMPY_ARRAY"])[:2] == BLOSC_1
    assert np.array_equal(decode_array(document["value"]["x"]), ARRAY)
    raw.say(["S", "node"], raw.document("node", "CONFIRM", document["id"]))
    assert receipt.wait_settled(5).outcome is Outcome.DELIVERED


def test_two_generations_exchange_arrays_through_us(ours: Ours, peer: Callable[..., Peer03]) -> None:
    station = ours.station("S")
    old, new = peer("old", station.listen_port), peer("new", station.listen_port)
    old.say(["S", "S"], old.document("S", "CONFIRM", "hello"))
    new.say(["S", "S"], new.document("S", "CONFIRM", "hello", blosc=True, changed=False))
    old.say(["S", "new"], old.document("new", "DATA", {"NUMPY_ARRAY": PACKED}, flags={"NOREPEAT": True}))
    value = new.hear_key("DATA")[1]["value"]
    assert (value["DTYPE"], value["SHAPE"]) == ("int16", [3, 4])
    new.say(["S", "old"], new.document("old", "DATA", value, blosc=True, flags={"NOREPEAT": True}))
    answer = old.hear_key("DATA")[1]["value"]
    assert list(answer) == ["NUMPY_ARRAY"]
    assert np.array_equal(decode_array(answer), ARRAY)


def test_its_pilot_works_below_our_terminal(ours: Ours, peer: Callable[..., Peer03]) -> None:
    terminal = ours.terminal(["rig"])
    inner, got = ours.node("_T", "T", terminal.listen_port, ["DATA", "STATE", "HANDSHAKE"])
    rig = peer("rig", terminal.listen_port)
    behind = {"sender": "_rig", "id": "_rig_0"}
    rig.say(["T", "T"], rig.document("T", "HANDSHAKE", {"pilot": "rig", "ip": "", "state": "IDLE"}, **behind))
    assert got.wait("HANDSHAKE", 1) == [{"pilot": "rig", "ip": "", "state": "IDLE"}]
    # 0.3 passes its node's STATE on as it is: the sender is the node.
    rig.say(
        ["T", "T"], rig.document("T", "STATE", "RUNNING", sender="_rig", id="_rig_1", flags={"NOLOG": True})
    )
    assert got.wait("STATE", 1) == [{"state": "RUNNING", "pilot": "rig"}]
    rig.say(
        ["T", "T"], rig.document("T", "DATA", {"pilot": "rig", "trial_num": 1}, sender="_rig", id="_rig_2")
    )
    assert got.wait("DATA", 1) == [{"pilot": "rig", "trial_num": 1}]
    receipt = inner.send("rig", "START", {"task_type": "Free_Water"})
    frames, start = rig.hear_key("START")
    assert (frames, start["sender"], start["to"]) == ([], "_T", "rig")
    rig.say(["T", "_T"], rig.document("_T", "CONFIRM", start["id"]))
    assert receipt.wait_settled(5).outcome is Outcome.DELIVERED


def test_its_stream_reaches_our_node(ours: Ours, peer: Callable[..., Peer03]) -> None:
    station = ours.station("S")
    _, got = ours.node("sink", "S", station.listen_port, ["FRAME"])
    raw = peer("cam_eye", station.listen_port)
    headers = {"subject": "mouse", "pilot": "rig", "continuous": True}
    items = [{"n": n, "frame": {"NUMPY_ARRAY": PACKED}} for n in range(3)]
    value = {"inner_key": "FRAME", "headers": headers, "payload": items}
    flags = {"NOREPEAT": True, "MINPRINT": True}
    raw.say(["S", "sink"], raw.document("sink", "STREAM", value, flags=flags, id="eye_0"))
    expected = [{**headers, "n": n, "frame": describe(ARRAY)} for n in range(3)]
    assert got.wait("FRAME", 3) == expected


# As a station, or a node's router, that we dial


def test_our_node_talks_through_its_station(ours: Ours, peer: Callable[..., Peer03]) -> None:
    station = peer("S")
    node, got = ours.node("node", "S", station.port(), ["HELLO"])
    receipt = node.send("n2", "DATA", 1)
    frames, document = station.hear()
    assert frames == [b"node", b"S", b"n2"]
    # What it passes on comes in two frames: our name again, and the JSON.
    station.say(
        ["node", "node"], Peer03.document(station, "node", "CONFIRM", document["id"], sender="n2", id="n2_0")
    )
    assert receipt.wait_settled(5).outcome is Outcome.DELIVERED
    station.say(
        ["node", "node"], station.document("node", "HELLO", {"NUMPY_ARRAY": PACKED}, sender="n2", id="n2_1")
    )
    assert got.wait("HELLO", 1) == [describe(ARRAY)]
    frames, confirm = station.hear()
    assert (frames, confirm["value"]) == ([b"node", b"S", b"n2"], "n2_1")
    node.send("n2", "DATA", ARRAY, repeat=False)
    value = station.hear()[1]["value"]
    assert base64.b64decode(value["NUMPY_ARRAY"])[:2] == BLOSC_1  # by now we know its generation


def test_its_station_itself_talks_to_our_node(ours: Ours, peer: Callable[..., Peer03]) -> None:
    station = peer("S")
    node, got = ours.node("node", "S", station.port(), ["HELLO"])
    node.send(None, "DATA", 1, repeat=False)
    assert station.hear()[0] == [b"node", b"S", b"S"]
    message_id = station.say(["node"], station.document("node", "HELLO", 2))
    assert got.wait("HELLO", 1) == [2]
    frames, confirm = station.hear_key("CONFIRM")
    assert (frames, confirm["value"]) == ([b"node", b"S", b"S"], message_id)


def test_our_pilots_station_works_below_its_terminal(ours: Ours, peer: Callable[..., Peer03]) -> None:
    terminal = peer("T")
    pilot = ours.pilot("rig", terminal.port())
    node, got = ours.node("_rig", "rig", pilot.listen_port, ["START", "STOP"])
    node.send("T", "DATA", {"pilot": "rig", "x": ARRAY})
    frames, document = terminal.hear_key("DATA")
    assert (frames, document["sender"]) == ([b"rig", b"T", b"T"], "_rig")
    terminal.say(["rig"], terminal.document("rig", "START", {"task_type": "Free_Water"}))
    assert got.wait("START", 1) == [{"task_type": "Free_Water"}]
    assert terminal.hear_key("CONFIRM")[1]["value"] == "T_0"
    # What its own node sends us comes with our name in front.
    terminal.say(["rig", "rig"], terminal.document("rig", "STOP", None, sender="_T", id="_T_0"))
    assert got.wait("STOP", 1) == [None]
    frames, confirm = terminal.hear_key("CONFIRM")
    assert (frames, confirm["to"], confirm["value"]) == ([b"rig", b"T", b"_T"], "_T", "_T_0")
