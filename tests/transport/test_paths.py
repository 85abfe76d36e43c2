"""Paths: who meets on one machine leaves TCP for them, and large frames lie in memory that both ends see."""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pilotage.protocol.conversation import Conversation
from pilotage.protocol.errors import MalformedFrame
from pilotage.protocol.instructions import Card, Dialect
from pilotage.protocol.records import Frame
from pilotage.protocol.zmtp import GREETING, MORE, SHARED, metadata, ready_command
from pilotage.transport import paths
from pilotage.transport.clear_dialer import ClearDialer
from pilotage.transport.clear_listener import ClearListener
from pilotage.transport.connections import Connection
from pilotage.transport.network import HOLDS_S, ZmqWires
from pilotage.transport.paths import PathConnection, make_connection, shelf_told
from pilotage.transport.rules import SocketRules
from pilotage.transport.shelves import SHARED_FROM_BYTES, SLOT_BYTES, SLOTS, LentShelf, Shelf
from tests.conftest import Eventually
from tests.transport.ends import End, Ends, ends_over
from tests.transport.relay import Relay

pytestmark = pytest.mark.only_on("linux")

TOLD = metadata("rig", 7, 3)


@pytest.fixture
def ends() -> Iterator[Ends]:
    with ends_over(lambda name: ZmqWires()) as made:
        yield made


def way_of(end: End) -> Connection:
    assert isinstance(end.driver.dialer, ClearDialer)
    return end.driver.dialer._one


def test_who_dials_a_station_of_this_machine_goes_by_its_path(ends: Ends, eventually: Eventually) -> None:
    hub = ends.listening("hub")
    cam = ends.dialling("cam", hub.port, host="localhost")
    eventually(cam.is_alive("hub"))
    assert isinstance(way_of(cam), PathConnection)
    listener = hub.driver.listener
    assert isinstance(listener, ClearListener)
    assert [one.host for one in listener._connections.values()] == ["127.0.0.1"]


def test_a_port_that_is_not_the_stations_own_is_dialled_as_it_is(ends: Ends, eventually: Eventually) -> None:
    hub = ends.listening("hub")
    relay = Relay(hub.port)
    cam = ends.dialling("cam", relay.port)
    eventually(cam.is_alive("hub"))
    assert way_of(cam).socket.family == socket.AF_INET
    relay.close()


def test_who_has_no_path_for_us_is_dialled_by_his_port(
    ends: Ends, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = ends.listening("hub")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cam = ends.dialling("cam", hub.port)
    eventually(cam.is_alive("hub"))
    assert way_of(cam).socket.family == socket.AF_INET


def test_large_frames_come_in_shared_memory_and_stay_as_they_were(ends: Ends, eventually: Eventually) -> None:
    hub = ends.listening("hub")
    cam = ends.dialling("cam", hub.port)
    frames = [bytes([number % 251]) * (SHARED_FROM_BYTES + number) for number in range(SLOTS * 2)]
    for number, frame in enumerate(frames):
        cam.send("hub", str(number).encode(), frames=[b"small", frame, b"last"])
    eventually(lambda: len(hub.got) == len(frames), timeout_s=20)
    assert [got for _, _, got in hub.got] == [[b"small", frame, b"last"] for frame in frames]
    shelf = way_of(cam)._shelf  # type: ignore[attr-defined]
    assert isinstance(shelf, Shelf) and shelf.is_lent
    assert hub.driver.exchange.counts["malformed"] == 0
    answer = hub.send("cam", b"answer", frames=frames[:3])
    eventually(lambda: answer.is_delivered)
    assert cam.got == [("KEY", b"answer", frames[:3])]


Pair = Callable[[list[bytes]], tuple[PathConnection, socket.socket]]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Give a connection that one has dialled who tells that of himself, and his end of it."""
    with contextlib.ExitStack() as ends:

        def make(told: list[bytes]) -> tuple[PathConnection, socket.socket]:
            near, far = socket.socketpair()
            one = make_connection(near, Conversation(b"", (b"DEALER",), 2**24))
            assert isinstance(one, PathConnection)
            ends.callback(lambda: one.is_closed or one.close())
            ends.enter_context(far)
            far.sendall(GREETING + ready_command("DEALER", told))
            one.read()
            far.recv(4096)
            return one, far

        yield make


def read_all(far: socket.socket, at_least: int) -> bytes:
    """Read until there are more bytes than that, and no descriptor with them."""
    received = b""
    while len(received) <= at_least:
        data, given, _, _ = far.recvmsg(2**20, socket.CMSG_SPACE(4))
        assert data and not given
        received += data
    return received


def test_who_does_not_look_at_shared_memory_is_sent_everything(pair: Pair) -> None:
    one, far = pair(TOLD)
    frame = bytes(SHARED_FROM_BYTES)
    one.write([b"head", frame])
    assert frame in read_all(far, len(frame))


def test_the_head_of_a_transmission_is_sent_whatever_its_size(pair: Pair) -> None:
    one, far = pair([*TOLD, *shelf_told()])
    head = bytes(SHARED_FROM_BYTES)
    one.write([head, b"small"])
    assert read_all(far, len(head)).count(head) == 1


def test_where_the_system_has_no_memory_to_share_frames_are_sent(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Shelf:
        raise OSError("no memory")

    monkeypatch.setattr(paths, "Shelf", refuse)
    one, far = pair([*TOLD, *shelf_told()])
    frame = bytes(SHARED_FROM_BYTES)
    one.write([b"head", frame])
    assert frame in read_all(far, len(frame))


def test_what_is_larger_than_a_slot_is_sent_and_makes_no_shelf(pair: Pair) -> None:
    one, _ = pair([*TOLD, *shelf_told()])
    frame = bytes(SLOT_BYTES + 1)
    one.write([b"head", frame])
    assert one._shelf is None and one.unsent


def test_one_that_is_closed_is_written_to_in_vain_and_makes_nothing(pair: Pair) -> None:
    one, _ = pair([*TOLD, *shelf_told()])
    one.write([b"head", bytes(SHARED_FROM_BYTES)])
    fds = Path("/proc/self/fd")
    one.close()
    before = len(list(fds.iterdir()))
    for _ in range(3):
        with pytest.raises(ConnectionError):
            one.write([b"head", bytes(SHARED_FROM_BYTES)])
    assert len(list(fds.iterdir())) == before


def test_what_cant_go_by_the_path_goes_by_the_port(
    ends: Ends, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the recipient has no addresses left for the memory, or no descriptor."""

    def refuse(fd: int) -> LentShelf:
        os.close(fd)
        raise OSError("no memory")

    monkeypatch.setattr(paths, "LentShelf", refuse)
    hub = ends.listening("hub")
    cam = ends.dialling("cam", hub.port)
    eventually(cam.is_alive("hub"))
    frame = bytes(SHARED_FROM_BYTES)
    sent = cam.send("hub", b"large", frames=[frame])
    eventually(lambda: sent.is_delivered, timeout_s=20)
    assert way_of(cam).socket.family == socket.AF_INET


def test_a_path_where_nobody_answers_is_left_for_the_port(
    ends: Ends, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        monkeypatch.setattr("pilotage.transport.network.near_door", lambda name: str(tmp_path / "deaf"))
        hub = ends.listening("hub")
        cam = ends.dialling("cam", hub.port)
        eventually(cam.is_alive("hub"))
    assert way_of(cam).socket.family == socket.AF_INET


def test_descriptors_that_nobody_asked_for_are_closed(pair: Pair) -> None:
    one, far = pair(TOLD)
    shelf, fds = Shelf(), Path("/proc/self/fd")
    before = len(list(fds.iterdir()))
    for _ in range(3):
        given = array.array("i", [shelf.fd])
        far.sendmsg([b"\x00\x01x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)])
        assert one.read() == [b"x"]
    with Path(os.devnull).open("rb") as other:
        given = array.array("i", [other.fileno(), other.fileno()])
        far.sendmsg([b"\x00\x01x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)])
        assert one.read() == [b"x"]
    # From Python 3.13 on, what looks at a shelf needs no descriptor.
    assert len(list(fds.iterdir())) <= before + 1, "one shelf is looked at"
    one.close()
    shelf.close()


def test_a_shelf_that_has_not_left_yet_leaves_with_the_close(pair: Pair) -> None:
    one, far = pair([*TOLD, *shelf_told()])
    frame = bytes(SHARED_FROM_BYTES)
    one.write_last([b"head", frame])
    one.close(5.0)
    _, given, _, _ = far.recvmsg(4096, socket.CMSG_SPACE(4))
    assert len(given) == 1
    os.close(array.array("i", given[0][2])[0])


class Fetching:
    """A conversation past its opening, in which notes tell of frames by their number."""

    def __init__(self, frames: list[bytes]) -> None:
        self.talk = Conversation(b"", (b"DEALER",), 1000)
        self.talk.feed(GREETING + ready_command("DEALER", ()))
        self.talk.cut(1)

        def fetch(note: Frame) -> Frame:
            if note[0] >= len(frames):
                raise MalformedFrame("no such frame")
            return frames[note[0]]

        self.talk.fetch = fetch

    def hear(self, data: bytes) -> list[list[Frame]]:
        self.talk.feed(data)
        return self.talk.cut(10)


def test_a_note_stands_for_the_frame_that_it_tells_of() -> None:
    said = b"\x01\x01a" + bytes((SHARED | MORE, 1, 1)) + bytes((SHARED, 1, 0))
    assert Fetching([b"first", b"second"]).hear(said) == [[b"a", b"second", b"first"]]


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (bytes((SHARED, 1, 0)), "head"),
        (b"\x01\x01a" + bytes((SHARED, 1, 9)), "no such frame"),
        (b"\x01\x01a" + bytes((SHARED, 1, 1)), "allowed"),
        (b"\x01\x01a" + bytes((SHARED | 4, 1, 0)), "flags"),
        (b"\x01\x01a" + bytes((SHARED | 2, 0, 0, 0, 0, 0, 0, 0, 1, 0)), "flags"),
    ],
)
def test_a_note_that_is_none_is_the_end(said: bytes, fault: str) -> None:
    one = Fetching([b"first", bytes(1001)])
    assert one.hear(said) == [] and fault in one.talk.fault


def test_a_note_where_no_memory_is_shared_is_the_end() -> None:
    one = Fetching([])
    one.talk.fetch = None
    assert one.hear(b"\x01\x01a" + bytes((SHARED, 1, 0))) == [] and "flags" in one.talk.fault


@pytest.mark.parametrize("host", ["192.168.7.7", "rig.lab.org"])
def test_by_an_address_of_the_network_nobody_is_dialled_by_a_path(ends: Ends, host: str) -> None:
    hub, wires = ends.listening("hub"), ZmqWires()
    card = Card(Dialect.OWN, "hub", hub.exchange.config.boot, dials=False)
    assert wires._near("127.0.0.1", hub.port, card) and not wires._near(host, hub.port, card)
    original = Card(Dialect.JSON, "hub", hub.exchange.config.boot, dials=False)
    assert not wires._near("127.0.0.1", hub.port, original)
    wires.close()


def test_a_path_that_did_not_hold_is_left_for_good(ends: Ends) -> None:
    hub, wires = ends.listening("hub"), ZmqWires()
    card = Card(Dialect.OWN, "hub", hub.exchange.config.boot, dials=False)
    assert wires._near("127.0.0.1", hub.port, card)
    wires._dialled = (wires._dialled[0], wires._dialled[1] - 2 * HOLDS_S)
    assert wires._near("127.0.0.1", hub.port, card), "it has held for long enough"
    assert not wires._near("127.0.0.1", hub.port, card)
    wires._dialled = ("", 0.0)
    assert not wires._near("127.0.0.1", hub.port, card)
    wires.close()


def test_what_nobody_looks_at_is_given_back_when_the_connection_ends(pair: Pair) -> None:
    one, far = pair(TOLD)
    shelf = Shelf()
    far.sendmsg([b"\x01\x01h"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [shelf.fd]))])
    for flags in (MORE, 0):
        far.sendall(shelf.put(bytes(SHARED_FROM_BYTES), flags) or b"")
    while not one.come:
        one.read()
    frame = one.take(1)[0][1]
    before = os.fstat(shelf.fd).st_blocks
    one.close()
    assert os.fstat(shelf.fd).st_blocks == before - SHARED_FROM_BYTES // 512
    assert frame == bytes(SHARED_FROM_BYTES)
    shelf.close()


def test_rules_may_say_no_to_paths(eventually: Eventually) -> None:
    with ends_over(lambda name: ZmqWires(SocketRules(uses_paths=False))) as ends:
        hub = ends.listening("hub")
        cam = ends.dialling("cam", hub.port)
        eventually(cam.is_alive("hub"))
        assert way_of(cam).socket.family == socket.AF_INET
