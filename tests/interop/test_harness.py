"""The harness itself: real originals talk to each other, and to raw sockets, as their wire is described.

What these tests say about the original is what the interoperation of Pilotage may count on.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import zmq

from .conftest import Originals
from .harness import OriginalPeer, PeerFailed, free_port, wait_until
from .original.arrays import array_seen, array_spec

pytestmark = [pytest.mark.interop, pytest.mark.timeout(90)]

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
TRIAL = {"pilot": "rig", "subject": "mouse", "trial_num": 3, "TRIAL_END": True}


class RawDealer:
    """A bare DEALER that speaks the original's frames by hand."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], name: str, port: int) -> None:
        self.name = name
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt_string(zmq.IDENTITY, name)
        self.socket.connect(f"tcp://127.0.0.1:{port}")
        self._sent = 0

    def send(self, to: str, key: str, value: Any, flags: dict[str, Any] | None = None) -> str:
        """Send one message in the frames of 0.5.1 and return its id."""
        message_id = f"{self.name}_{self._sent}"
        self._sent += 1
        head = {"id": message_id, "to": to, "sender": self.name, "key": key}
        document = {**head, "value": value, "flags": flags or {}}
        self.socket.send_multipart([to.encode(), to.encode(), json.dumps(document).encode()])
        return message_id

    def frames(self, timeout_s: float = 5.0) -> list[bytes]:
        """Return the frames of the next message."""
        assert self.socket.poll(int(timeout_s * 1000)), f"{self.name} got nothing within {timeout_s} s"
        return self.socket.recv_multipart()


@pytest.fixture
def dealer() -> Iterator[Callable[[str, int], RawDealer]]:
    """Open bare DEALERs by name and port; they close with the test."""
    with zmq.Context() as context, ExitStack() as stack:

        def connect(name: str, port: int) -> RawDealer:
            made = RawDealer(context, name, port)
            stack.callback(made.socket.close)
            return made

        yield connect


def peek_ready(port: int) -> dict[str, bytes]:
    """Exchange greetings with the socket at `port`, read its READY command, and go away."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        raw.sendall(GREETING)
        stream = raw.makefile("rb")
        greeting = stream.read(64)
        assert (greeting[0], greeting[10]) == (0xFF, 3)
        flags = stream.read(1)[0]
        assert flags in (0x04, 0x06)
        size = stream.read(1)[0] if flags == 0x04 else struct.unpack(">Q", stream.read(8))[0]
        return parse_ready(stream.read(size))


def parse_ready(command: bytes) -> dict[str, bytes]:
    """Return the metadata of a READY command's body."""
    assert command[:6] == b"\x05READY"
    metadata, rest = {}, command[6:]
    while rest:
        name, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
        (size,) = struct.unpack(">I", rest[:4])
        metadata[name.decode()], rest = rest[4 : 4 + size], rest[4 + size :]
    return metadata


def test_node_reaches_node_through_a_station_and_is_confirmed(originals: Originals) -> None:
    station = originals.station("S", free_port())
    a = originals.node("a", "S", station.port)
    b = originals.node("b", "S", station.port, listens=["DATA"])
    a.meet(station)
    b.meet(station)
    a.send("b", "DATA", {"n": 1}, {"n": 2}, repeat=True)
    assert sorted(value["n"] for value in b.wait_values("DATA", 2)) == [1, 2]
    wait_until(lambda: sorted(a.confirms()) == ["a_1", "a_2"], 5, "both confirms")
    wait_until(lambda: a.state()["outbox"] == [], 5, "an empty outbox")
    assert a.state()["msgs_received"] == 2
    assert station.state()["msgs_received"] == 2 + 2 + 2


@pytest.mark.parametrize("blosc", [True, False])
def test_arrays_arrive_equal(originals: Originals, blosc: bool) -> None:
    station = originals.station("S", free_port())
    a = originals.node("a", "S", station.port)
    b = originals.node("b", "S", station.port, listens=["DATA"])
    a.meet(station)
    b.meet(station)
    names: list[tuple[str, list[int], int]] = [
        ("<f8", [40, 3], 1), ("|u1", [48, 64, 3], 2), ("<i2", [200], 3), ("<c16", [9], 4)
    ]  # fmt: skip
    a.send("b", "DATA", [array_spec(*name) for name in names], blosc=blosc)
    assert b.wait_values("DATA", 1) == [[array_seen(*name) for name in names]]


def test_a_wrong_array_is_seen_as_wrong() -> None:
    assert array_seen("<f8", [4], 1) != array_seen("<f8", [4], 2)
    assert array_seen("<f8", [4], 1) != array_seen("<f8", [2, 2], 1)


def test_data_reaches_the_terminals_node_and_the_plot(originals: Originals) -> None:
    terminal = originals.terminal(free_port(), pilots=["rig"])
    inner = originals.node("_T", "T", terminal.port, listens=["DATA"])
    plot = originals.node("P_rig", "T", terminal.port, listens=["DATA"])
    inner.meet(terminal)
    plot.meet(terminal)
    rig = originals.node("rig_node", "T", terminal.port)
    rig.send("T", "DATA", TRIAL, repeat=True)
    assert inner.wait_values("DATA", 1) == [TRIAL]
    assert plot.wait_values("DATA", 1) == [TRIAL]
    rig.wait_for(lambda entries: any(e["value"] == "rig_node_0" for e in entries))
    assert terminal.received("DATA")[0]["message"]["sender"] == "rig_node"


def test_start_and_stop_reach_the_pilots_node_and_data_comes_back(originals: Originals) -> None:
    terminal = originals.terminal(free_port(), pilots=["rig"])
    pilot = originals.pilot("rig", free_port(), terminal.port)
    inner = originals.node("_T", "T", terminal.port, listens=["DATA", "STATE"])
    rig = originals.node("_rig", "rig", pilot.port, listens=["START", "STOP"])
    inner.meet(terminal)
    rig.meet(pilot)
    rig.send("rig", "STATE", "IDLE")
    inner.wait_for(lambda entries: {"state": "IDLE", "pilot": "rig"} in [e["value"] for e in entries])
    inner.send("rig", "START", {"subject": "mouse", "task_type": "Free_Water"}, repeat=True)
    assert rig.wait_values("START", 1) == [{"subject": "mouse", "task_type": "Free_Water"}]
    wait_until(lambda: len(inner.confirms()) == 1, 5, "the pilot's confirm, relayed")
    rig.send("T", "DATA", TRIAL)
    assert inner.wait_values("DATA", 1) == [TRIAL]
    inner.send("rig", "STOP", None)
    assert rig.wait_values("STOP", 1) == [None]


def test_a_stream_of_arrays_reaches_a_node_directly(originals: Originals) -> None:
    port = free_port()
    sink = originals.node("sink", "nobody", free_port(), listens=["FRAME"], router_port=port)
    sink.wait_started()
    source = originals.node("source", "sink", port, prefs={"NAME": "rig"})
    source.open_stream("cam", "FRAME", min_size=3, subject="mouse")
    # The original strands a batch that fills while its socket sends, so wait before the next.
    seen: list[Any] = []
    for first in (0, 3):
        items = [{"n": n, "frame": array_spec("|u1", [24, 32], n)} for n in range(first, first + 3)]
        source.put_stream("cam", *items)
        seen = sink.wait_values("FRAME", first + 3)
    expected = [{"n": n, "frame": array_seen("|u1", [24, 32], n)} for n in range(6)]
    assert sorted(seen, key=lambda item: item["n"]) == expected


def test_a_stream_at_a_station_carries_its_headers(originals: Originals) -> None:
    station = originals.station("S", free_port(), listens=["FRAME"])
    source = originals.node("source", "S", station.port, prefs={"NAME": "rig"})
    source.open_stream("cam", "FRAME", min_size=2, subject="mouse")
    source.put_stream("cam", {"n": 0}, {"n": 1})
    values = station.wait_values("FRAME", 2)
    headers = {"subject": "mouse", "pilot": "rig", "continuous": True}
    assert [{**headers, "n": 0}, {**headers, "n": 1}] == sorted(values, key=lambda item: item["n"])
    assert station.received("STREAM")[0]["message"]["sender"] == "source_cam"


def test_a_message_takes_several_hops(originals: Originals) -> None:
    ports = [free_port() for _ in range(3)]
    s3 = originals.station("S3", ports[2])
    s2 = originals.station("S2", ports[1], upstream=("S3", ports[2]))
    s1 = originals.station("S1", ports[0], upstream=("S2", ports[1]))
    first = originals.node("first", "S1", ports[0])
    last = originals.node("last", "S3", ports[2], listens=["DATA"])
    last.meet(s3)
    s1.wait_started()
    s2.wait_started()
    first.send(["S1", "S2", "S3", "last"], "DATA", {"frame": array_spec("<f4", [5, 5], 9)})
    assert last.wait_values("DATA", 1) == [{"frame": array_seen("<f4", [5, 5], 9)}]
    assert [s.state()["msgs_received"] for s in (s1, s2, s3)] == [1, 1, 2]


def test_a_push_goes_up_and_is_confirmed_down(originals: Originals) -> None:
    upper = originals.station("U", free_port(), listens=["DATA"])
    lower = originals.station("L", free_port(), upstream=("U", upper.port))
    lower.push("U", "DATA", {"n": 1})
    assert upper.wait_values("DATA", 1) == [{"n": 1}]
    wait_until(lambda: lower.confirms() == ["L_0"], 5, "the confirm")
    wait_until(lambda: lower.state()["push_outbox"] == [], 5, "an empty outbox")


def test_raw_frames_are_confirmed_in_one_frame(
    originals: Originals, dealer: Callable[[str, int], RawDealer]
) -> None:
    station = originals.station("S", free_port(), listens=["DATA"])
    raw = dealer("raw", station.wait_started().port)
    message_id = raw.send("S", "DATA", 5)
    (document,) = raw.frames()
    confirm = json.loads(document)
    assert (confirm["key"], confirm["value"], confirm["to"]) == ("CONFIRM", message_id, "raw")
    assert station.wait_values("DATA", 1) == [5]


def test_a_blank_ping_is_echoed_and_counted(
    originals: Originals, dealer: Callable[[str, int], RawDealer]
) -> None:
    station = originals.station("S", free_port())
    raw = dealer("raw", station.wait_started().port)
    raw.socket.send_multipart([b"S", b""])
    assert raw.frames() == [b"S", b""]
    assert station.state()["msgs_received"] == 1
    assert "raw" in station.state()["senders"]


def peek_and_leave(port: int) -> None:
    assert peek_ready(port) == {"Socket-Type": b"ROUTER", "Identity": b"S"}


def connect_and_leave(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=5).close()


def half_greet_and_leave(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        raw.sendall(GREETING[:11])


@pytest.mark.parametrize("visit", [peek_and_leave, connect_and_leave, half_greet_and_leave])
def test_a_hundred_peeks_at_its_greeting_leave_a_station_undisturbed(
    originals: Originals, dealer: Callable[[str, int], RawDealer], visit: Any
) -> None:
    station = originals.station("S", free_port(), listens=["DATA"])
    raw = dealer("raw", station.wait_started().port)
    for n in range(100):
        visit(station.port)
        if n % 10 == 0:
            raw.send("S", "DATA", n)
            assert json.loads(raw.frames()[-1])["key"] == "CONFIRM"
    assert sorted(station.wait_values("DATA", 10)) == list(range(0, 100, 10))
    state = station.state()
    assert state["msgs_received"] == 10
    assert state["senders"] == ["_raw", "raw"]
    assert station.log_errors() == []


def test_an_error_in_a_peer_shows_in_its_log(
    originals: Originals, dealer: Callable[[str, int], RawDealer]
) -> None:
    station = originals.station("S", free_port())
    raw = dealer("raw", station.wait_started().port)
    raw.send("S", "NO_SUCH_KEY", None)
    assert json.loads(raw.frames()[-1])["key"] == "CONFIRM"
    wait_until(lambda: station.log_errors() != [], 5, "an error in the log")


def test_a_peer_whose_port_is_in_use_fails_by_name(originals: Originals) -> None:
    station = originals.station("S", free_port()).wait_started()
    second = originals.station("S2", station.port)
    with pytest.raises(PeerFailed, match=r"original station S2: .*process has ended(?s:.*)in use"):
        second.wait_started()


def test_a_killed_peer_is_gone_and_said_to_be(originals: Originals) -> None:
    station = originals.station("S", free_port()).wait_started()
    station.kill()
    with pytest.raises(PeerFailed, match="ended"):
        station.state()
    with pytest.raises(ConnectionRefusedError):
        connect_and_leave(station.port)


def test_a_wait_in_vain_says_what_came(originals: Originals) -> None:
    peer: OriginalPeer = originals.station("S", free_port(), listens=["DATA"])
    with pytest.raises(PeerFailed, match="got only"):
        peer.wait_values("DATA", 1, timeout_s=0.1)
