"""Wires in clear against ZeroMQ's own library and against bare sockets: what the contract doesn't say."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import zmq

from pilotage.net.loops import new_event_loop
from pilotage.protocol.conversation import Conversation
from pilotage.protocol.instructions import Card, Dialect
from pilotage.protocol.zmtp import COMMAND, GREETING, frame_head, metadata, ready_command
from pilotage.transport import clear_listener, connections
from pilotage.transport.clear_dialer import ClearDialer
from pilotage.transport.clear_listener import ClearListener
from pilotage.transport.connections import TRANSMISSIONS_AT_ONCE, Connection
from pilotage.transport.network import ZmqWires
from pilotage.transport.rules import PEER_ADDRESS, Gate, SocketRules
from tests.conftest import Eventually
from tests.transport.ends import End, Ends, ends_over

HURRIED = SocketRules(handshake_ms=200)


@pytest.fixture
def ends() -> Iterator[Ends]:
    with ends_over(lambda name: ZmqWires()) as made:
        yield made


def listener_of(end: End) -> ClearListener:
    listener = end.driver.listener
    assert isinstance(listener, ClearListener)
    return listener


@contextmanager
def original(port: int, identity: bytes = b"", **options: int) -> Iterator[zmq.Socket[bytes]]:
    """A DEALER of ZeroMQ's library, which tells no metadata."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        if identity:
            dealer.setsockopt(zmq.IDENTITY, identity)
        for name, value in options.items():
            dealer.setsockopt(getattr(zmq, name), value)
        dealer.connect(f"tcp://127.0.0.1:{port}")
        yield dealer


@contextmanager
def bare(port: int, name: str = "bare", said: bytes = b"") -> Iterator[socket.socket]:
    """A socket that has introduced itself as one of ours."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as one:
        one.sendall(GREETING + ready_command("DEALER", metadata(name, 7, 3)) + said)
        yield one


def test_heartbeats_of_zeromqs_library_are_answered(ends: Ends, eventually: Eventually) -> None:
    hub = ends.listening("hub")
    options = {"HEARTBEAT_IVL": 30, "HEARTBEAT_TIMEOUT": 300, "HEARTBEAT_TTL": 300, "RECONNECT_IVL": -1}
    with original(hub.port, b"rig", **options) as dealer:
        monitor = dealer.get_monitor_socket(int(zmq.EVENT_DISCONNECTED))
        dealer.send_multipart([b"hub", b"rubbish"])
        eventually(lambda: hub.exchange.counts["malformed"] > 0)
        is_over = bool(monitor.poll(1000))
        dealer.disable_monitor()
        monitor.close(0)
        assert not is_over, "it took our silence for death"


def test_a_second_original_of_one_name_is_heard_once_the_first_has_gone(
    ends: Ends, eventually: Eventually
) -> None:
    hub = ends.listening("hub")
    with original(hub.port, b"rig") as first:
        first.send_multipart([b"hub", b"1"])
        eventually(lambda: len(listener_of(hub)._connections) == 1)
        with original(hub.port, b"rig") as second:
            second.send_multipart([b"hub", b"2"])
            eventually(lambda: len(listener_of(hub)._waiting) == 1)
            known = hub.exchange.counts["malformed"]
            first.close()
            eventually(lambda: not listener_of(hub)._waiting and listener_of(hub)._connections)
            eventually(lambda: hub.exchange.counts["malformed"] > known)


def test_a_name_that_begins_like_one_of_ours_is_none(ends: Ends, eventually: Eventually) -> None:
    hub = ends.listening("hub")
    with socket.create_connection(("127.0.0.1", hub.port), timeout=5) as thief:
        thief.sendall(GREETING + ready_command("DEALER", (), "\0\0\0\0\1") + b"\x00\x01x")
        cam = ends.dialling("cam", hub.port)
        eventually(cam.is_alive("hub"))
        sent = hub.send("cam", b"to cam")
        eventually(lambda: sent.is_delivered)
    assert cam.bodies() == [b"to cam"]


def test_who_does_not_introduce_himself_in_time_is_seen_off(eventually: Eventually) -> None:
    with ends_over(lambda name: ZmqWires(HURRIED)) as ends:
        hub = ends.listening("hub")
        for said in (b"", GREETING[:20], GREETING):
            with socket.create_connection(("127.0.0.1", hub.port), timeout=5) as slow:
                slow.sendall(said)
                while slow.recv(4096):
                    pass
        with bare(hub.port):
            eventually(lambda: len(listener_of(hub)._connections) == 1)
            listener = listener_of(hub)
            eventually(lambda: listener._clock is None and not listener._strangers)
            assert len(listener._connections) == 1


def test_a_station_that_never_answers_is_given_up(eventually: Eventually) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, ends_over(lambda name: ZmqWires(HURRIED)) as ends:
        loop = ends.listening("hub").thread.loop.asyncio_loop  # type: ignore[attr-defined]
        card = Card(Dialect.OWN, "T", 1, dials=False)
        wire = ClearDialer("T", "127.0.0.1", mute.getsockname()[1], card, [], "me", HURRIED)
        changes: list[bool] = []
        loop.call_soon_threadsafe(
            wire.watch, loop, lambda: None, lambda: changes.extend(wire.changes()), lambda alone: False
        )
        eventually(lambda: changes == [False])
        loop.call_soon_threadsafe(wire.close)
        eventually(lambda: wire.closed)


def test_without_file_descriptors_nobody_is_let_in_for_a_moment(
    ends: Ends, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, tries = ends.listening("hub"), list[float]()
    accept = socket.socket.accept

    def refuse(one: socket.socket) -> tuple[socket.socket, object]:
        if one.getsockname()[1] == hub.port and len(tries) < 3:
            tries.append(time.monotonic())
            raise OSError(errno.EMFILE, "too many open files")
        return accept(one)

    monkeypatch.setattr(socket.socket, "accept", refuse)
    cam = ends.dialling("cam", hub.port)
    eventually(cam.is_alive("hub"))
    assert min(b - a for a, b in pairwise(tries)) > clear_listener.FULL_PAUSE_S / 2


def test_who_sends_without_a_pause_does_not_make_others_wait(eventually: Eventually) -> None:
    listener = ClearListener("127.0.0.1", 0, "hub", metadata("hub", 1, 3), SocketRules())
    try:
        with (
            bare(listener.port, "loud", b"\x00\x01x" * 10_000),
            bare(listener.port, "soft", b"\x00\x01y" * 2),
        ):
            eventually(lambda: _let_in(listener, 2))
            taken = [(card.name, bytes(frames[0])) for _, card, frames in listener.drain(8)]
            assert taken.count(("soft", b"y")) == 2 and len(taken) <= 8
            assert len(listener.drain(100)) == 100 and len(listener._row) == 1
    finally:
        listener.close()


def test_what_was_not_taken_does_not_keep_a_closed_wires_sockets(eventually: Eventually) -> None:
    listener = ClearListener("127.0.0.1", 0, "hub", metadata("hub", 1, 3), SocketRules())
    with bare(listener.port, "here", b"\x00\x01x"), bare(listener.port, "gone", b"\x00\x01y"):
        eventually(lambda: _let_in(listener, 2))
    known = [*listener._connections.values()]
    for one in known:
        one.read()
    assert [one.is_over for one in known] == [True, True] and len(listener._row) == 2
    listener.close()
    assert all(one.is_closed for one in known)
    assert [len(listener.drain(10)), listener.gone()] == [2, []]


def _let_in(listener: ClearListener, count: int) -> bool:
    """Do the loop's work: let newcomers in and read what they say, until so many have something to be taken."""
    listener._welcome(listener._ports[0])
    for one in (*listener._strangers, *listener._connections.values()):
        if one not in listener._row:
            listener._stir(one)
    return len(listener._row) == count


def test_who_comes_in_the_same_moment_as_another_is_served_at_once_after_him(
    ends: Ends, eventually: Eventually
) -> None:
    hub = ends.listening("hub")
    with bare(hub.port, "one") as one, bare(hub.port, "two") as two, bare(hub.port, "three") as three:
        eventually(lambda: len(listener_of(hub)._connections) == 3)
        for turn in range(5):
            go_on, waits = threading.Event(), threading.Event()
            hub.driver.call(lambda waits=waits, go_on=go_on: (waits.set(), go_on.wait(5)))  # type: ignore[misc]
            waits.wait(5)
            for each in (one, two, three):
                each.sendall(b"\x00\x01x")
            go_on.set()
            # Sooner than a heartbeat, which would wake the loop as well.
            eventually(lambda turn=turn: hub.exchange.counts["malformed"] == 3 * (turn + 1), timeout_s=0.5)


def test_what_was_not_taken_is_not_read_on(ends: Ends, eventually: Eventually) -> None:
    hub = ends.listening("hub")
    listener = listener_of(hub)
    listener.drain = lambda most: []  # type: ignore[method-assign]
    with bare(hub.port) as loud:
        loud.settimeout(1.0)
        with pytest.raises(TimeoutError):
            loud.sendall(b"\x00\x01x" * 30_000_000)
        eventually(lambda: len(listener._row) == 1)
        one = next(iter(listener._row))
        eventually(lambda: one.is_paused)
        assert len(one.come) <= TRANSMISSIONS_AT_ONCE


def test_what_comes_by_itself_is_served_without_a_wait_but_not_before_what_waits(
    ends: Ends, eventually: Eventually
) -> None:
    hub = ends.listening("hub")
    listener, counts = listener_of(hub), hub.exchange.counts
    with bare(hub.port, "one") as one, bare(hub.port, "two") as two:
        eventually(lambda: len(listener._connections) == 2)
        drain, listener.drain = listener.drain, lambda most: []  # type: ignore[method-assign]
        one.sendall(b"\x00\x01x")
        eventually(lambda: counts["malformed"] == 1)
        assert not listener._row
        one.sendall(b"\x00\x01x" * 2)
        eventually(lambda: len(listener._row) == 1)
        two.sendall(b"\x00\x01x")
        eventually(lambda: len(listener._row) == 2)
        assert counts["malformed"] == 1, "it went before what had come earlier"
        listener.drain = drain  # type: ignore[method-assign]
        eventually(lambda: counts["malformed"] == 4)


def test_who_brings_something_while_others_gather_waits_with_them() -> None:
    told: list[object] = []
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        wire = ClearListener("127.0.0.1", 0, "hub", (), SocketRules())
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        one = Connection(near, Conversation(b"", (b"DEALER",), 1000))
        one.conversation.feed(GREETING + ready_command("DEALER", metadata("bare", 7, 3)))
        one.conversation.cut(1)
        one.conversation.take_replies()
        one.card, one.link = Card(Dialect.OWN, "bare"), ("hub", b"1")
        wire._on_alone = lambda alone: bool(told.append(alone))
        wire._on_ready = lambda: told.append(None)
        with far:
            far.sendall(b"\x00\x01x")
            near.setblocking(True)
            assert near.recv(3, socket.MSG_PEEK | socket.MSG_WAITALL) == b"\x00\x01x"
            near.setblocking(False)
            wire._stir(one)
        assert told == [(one.link, one.card, [b"x"]), None], "it was offered, and is to be drained"
        assert wire.drain(10) == [(one.link, one.card, [b"x"])]
        one.close()
        wire.close()


def test_answers_are_not_heaped_up_for_one_who_does_not_read() -> None:
    near, far = socket.socketpair()
    with far:
        talk = Conversation(b"", (b"DEALER",), 1000)
        one = Connection(near, talk, 4608)
        ping = b"\x04PING\0\0"
        hello = GREETING + ready_command("DEALER", ())
        far.setblocking(False)
        far.send(hello)
        one.read()
        one.card = Card(Dialect.JSON, "rig")
        for _ in range(2000):
            far.send((frame_head(len(ping), COMMAND) + ping) * 100)
            one.read()
        assert one.unsent and sum(map(len, one.unsent)) < 10_000
        one.close()


@pytest.mark.parametrize("gathers", [True, False], ids=["in pieces", "one by one"])
def test_what_there_is_no_room_for_is_sent_later(
    eventually: Eventually, monkeypatch: pytest.MonkeyPatch, gathers: bool
) -> None:
    monkeypatch.setattr(connections, "GATHERS", gathers)
    rules = SocketRules(send_buffer_bytes=100_000)
    with ends_over(lambda name: ZmqWires(rules)) as ends:
        hub = ends.listening("hub")
        cam = ends.dialling("cam", hub.port)
        frames = [bytes([number]) * 50_000 for number in range(250)] * 3
        sent = cam.send("hub", b"many", frames=frames)
        eventually(lambda: sent.is_delivered, timeout_s=15)
        assert hub.got == [("KEY", b"many", frames)]
        assert not cam.driver._lines.waiting


def test_a_door_has_a_port_of_its_own_where_there_are_no_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilotage.transport.clear_listener.door_path", lambda name: "")
    given = socket.create_server(("127.0.0.1", 0))
    gate = Gate(fd=given.detach())
    listener = ClearListener(
        "127.0.0.1", 0, "hub", metadata("hub", 1, 3), SocketRules(), "door", gate, needs_door=True
    )
    try:
        assert listener.door[0] == "127.0.0.1" and listener.door[1] not in (0, listener.port)
    finally:
        listener.close()


def _hang_up_hard(one: socket.socket) -> None:
    """End a connection so that the other side is told of an error, together with what came before."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


def test_an_end_that_comes_together_with_the_last_message_is_noticed(
    ends: Ends, eventually: Eventually
) -> None:
    hub = ends.listening("hub")
    for _ in range(40):
        one = socket.create_connection(("127.0.0.1", hub.port), timeout=5)
        one.sendall(GREETING + ready_command("DEALER", (), "rig") + b"\x00\x01x")
        _hang_up_hard(one)
    eventually(lambda: not listener_of(hub)._connections and not listener_of(hub)._waiting)
    assert not hub.driver.counts["turns failed"]


def test_one_who_has_gone_already_is_still_marked_with_where_he_came_from(eventually: Eventually) -> None:
    gate = Gate(mark=PEER_ADDRESS)
    listener = ClearListener("127.0.0.1", 0, "hub", metadata("hub", 1, 3), SocketRules(), gate=gate)
    try:
        one = socket.create_connection(("127.0.0.1", listener.port), timeout=5)
        one.sendall(GREETING + ready_command("DEALER", (), "rig") + b"\x00\x01x")
        _hang_up_hard(one)
        eventually(lambda: _let_in(listener, 1))
        [(_, card, _)] = listener.drain(1)
        assert (card.name, card.address) == ("rig", "127.0.0.1")
    finally:
        listener.close()


def _is_hung_up(one: socket.socket) -> bool:
    """Tell whether the other side has ended a connection, by reading all that came before."""
    one.setblocking(False)
    try:
        while one.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


def test_only_so_many_originals_wait_for_one_name(ends: Ends, eventually: Eventually) -> None:
    hub = ends.listening("hub")
    opening = GREETING + ready_command("DEALER", (), "rig") + b"\x00\x01x"
    with contextlib.ExitStack() as stack:
        dialled: list[socket.socket] = []
        for _ in range(clear_listener.MAX_WAITING + 5):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", hub.port), timeout=5))
            one.sendall(opening)
            dialled.append(one)
        listener = listener_of(hub)
        eventually(lambda: sum(map(_is_hung_up, dialled)) == 4)
        assert not listener._strangers and len(listener._connections) == 1
        assert [len(waiting) for waiting in listener._waiting.values()] == [clear_listener.MAX_WAITING]
    eventually(lambda: not listener._connections and not listener._waiting)


def test_who_can_not_be_written_to_any_more_is_over() -> None:
    near, far = socket.socketpair()
    with far:
        one = Connection(near, Conversation(b"", (b"DEALER",), 1000))
        far.shutdown(socket.SHUT_RD)
        with pytest.raises(ConnectionError):
            one.write([b"x"])
        one.read()
        assert one.is_over and not one.unsent
        one.close()


def test_of_no_frames_nothing_is_written() -> None:
    near, far = socket.socketpair()
    with far:
        one = Connection(near, Conversation(b"", (b"DEALER",), 1000))
        one.write([])
        one.write([b"x"])
        assert not one.unsent and far.recv(100) == b"\x00\x01x"
        one.close()


def test_what_comes_by_itself_is_taken_though_something_that_was_put_off_fails(
    ends: Ends, eventually: Eventually
) -> None:
    hub = ends.listening("hub")
    carry_out, put_off = hub.driver.carry_out, ["fails"]

    def fail_or_carry_out(instructions: Any) -> None:
        if instructions is put_off:
            raise ValueError
        carry_out(instructions)

    hub.driver.carry_out = fail_or_carry_out  # type: ignore[method-assign]
    with bare(hub.port) as one:
        eventually(lambda: len(listener_of(hub)._connections) == 1)
        hub.driver._put_off = put_off  # type: ignore[assignment]
        one.sendall(b"\x00\x01x")
        eventually(lambda: hub.exchange.counts["malformed"] == 1)
    assert hub.driver.counts["turns failed"] == 1 and hub.driver._put_off == []


def test_a_close_waits_no_longer_than_it_may_however_much_is_unsent() -> None:
    near, far = socket.socketpair()
    with far:
        one = Connection(near, Conversation(b"", (b"DEALER",), 1000), 4608)
        one.write([bytes(5000)] * 100)
        assert len(one.unsent) > 50
        began = time.monotonic()
        one.close(0.1)
        assert time.monotonic() - began < 3.0, "it waited for each piece"


def test_what_waits_for_room_leaves_before_the_end(eventually: Eventually) -> None:
    with ends_over(lambda name: ZmqWires(SocketRules(linger_ms=15_000))) as ends:
        hub = ends.listening("hub")
        cam = ends.dialling("cam", hub.port)
        eventually(hub.is_alive("cam"))
        gate, held = threading.Event(), threading.Event()
        cam.driver.call(lambda: (held.set(), gate.wait(20)))  # type: ignore[arg-type,func-returns-value]
        held.wait(5)
        for number in range(30):
            hub.send("cam", str(number).encode(), frames=[bytes(1_000_000)])
        eventually(lambda: len(hub.driver._lines.waiting.get(("listener", b"\0\0\0\0\1"), ())) > 5)
        threading.Timer(0.2, gate.set).start()
        ends.stop(hub)
        eventually(lambda: len(cam.bodies()) == 30)


def test_a_ping_behind_many_transmissions_is_answered() -> None:
    near, far = socket.socketpair()
    with far:
        one = Connection(near, Conversation(b"", (b"DEALER",), 1000))
        ping = b"\x04PING\0\0"
        far.sendall(GREETING + ready_command("DEALER", ()) + b"\x00\x01x" * 300)
        far.sendall(frame_head(len(ping), COMMAND) + ping)
        one.read()
        assert len(one.take(1000)) == TRANSMISSIONS_AT_ONCE
        assert far.recv(4096).endswith(b"PONG")
        assert len(one.take(1000)) == 44 and not one.has_come()
        one.close()


def test_a_dialled_wire_that_is_closed_at_once_lets_go_of_its_socket(
    ends: Ends, eventually: Eventually
) -> None:
    hub = ends.listening("hub")
    loop = hub.thread.loop.asyncio_loop  # type: ignore[attr-defined]
    wire = ClearDialer("T", "127.0.0.1", hub.port, Card(Dialect.OWN, "T", 1, dials=False), [], "me", HURRIED)

    def open_and_close() -> None:
        wire.watch(loop, lambda: None, lambda: None, lambda alone: False)
        wire.close()

    loop.call_soon_threadsafe(open_and_close)
    eventually(lambda: wire._one.is_closed)


@pytest.mark.only_on("linux", "darwin")
def test_a_dialled_wire_that_is_closed_once_it_is_connected_lets_go_of_its_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = new_event_loop()
    path, said = str(tmp_path / "hub"), list[Connection]()
    with socket.socket(socket.AF_UNIX) as hub:
        hub.bind(path)
        hub.listen()
        wire = ClearDialer("T", path, 0, Card(Dialect.OWN, "T", 1, dials=False), [], "me", HURRIED)
        monkeypatch.setattr(wire, "_greet", said.append)
        wire.watch(loop, lambda: None, lambda: None, lambda alone: False)
        assert wire._opening is not None
        # The loop calls in the order in which it was asked to: the connection is made then, and not told of yet.
        loop.call_soon(wire.close)
        loop.run_until_complete(wire._opening)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert wire._one.is_closed and not said


def test_what_is_no_bytes_is_refused_before_anything_of_it_leaves(ends: Ends, eventually: Eventually) -> None:
    hub = ends.listening("hub")
    with original(hub.port, b"rig") as dealer:
        dealer.send_multipart([b"hub", b"hello"])
        eventually(lambda: b"rig" in listener_of(hub)._connections)
        said: list[str] = []

        def send() -> None:
            try:
                listener_of(hub).send_multipart([b"rig", b"a", "text"])  # type: ignore[list-item]
            except TypeError as error:
                said.append(str(error))
            listener_of(hub).send_multipart([b"rig", b"bytes"])

        hub.driver.call(send)
        eventually(lambda: dealer.poll(100))
        while dealer.poll(100):
            last = dealer.recv_multipart()
        assert said and last == [b"bytes"]


def test_nothing_is_written_to_one_who_has_gone(ends: Ends, eventually: Eventually) -> None:
    hub = ends.listening("hub")
    listener = listener_of(hub)
    with pytest.raises(ConnectionError):
        listener.send(("listener", b"\0none"), [b"x"])
    with bare(hub.port):
        eventually(lambda: len(listener._connections) == 1)
        link = next(iter(listener._connections.values())).link
        assert listener.leave(link)
    eventually(lambda: not listener.leave(link))
    with pytest.raises(ConnectionError):
        listener.send(link, [b"x"])


def test_sockets_of_ours_say_what_they_are_and_send_frames_as_they_are(
    ends: Ends, eventually: Eventually
) -> None:
    hub = ends.listening("hub")
    socket_ = listener_of(hub).socket
    assert (socket_.type, socket_.closed) == (zmq.ROUTER, False)
    with original(hub.port, b"rig") as dealer:
        dealer.send_multipart([b"hub", b"hello"])
        eventually(lambda: b"rig" in listener_of(hub)._connections)
        hub.driver.call(lambda: listener_of(hub).send_multipart([b"rig", b"", b"as it is"]))
        eventually(lambda: dealer.poll(100))
        assert dealer.recv_multipart()[-2:] == [b"", b"as it is"]
    ends.stop(hub)
    assert socket_.closed
