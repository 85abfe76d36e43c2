"""Garbage on real sockets while a good client works (promise B1)."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from pilotage.protocol.conversation import MAX_FRAMES
from pilotage.protocol.exchange import Arrival
from pilotage.protocol.instructions import Instruction, PeerState
from pilotage.protocol.records import WIRE_VERSION, Greeting, Packet, encode_packet
from pilotage.protocol.sends import FOREVER
from pilotage.transport.clear_listener import WELCOMED_A_TURN, ClearListener
from pilotage.transport.connections import Connection
from pilotage.transport.driver import BUSY_RETRY_S, FEW_ARRIVALS, UNREAD_A_TURN, UNREAD_PAUSE_S, Driver
from pilotage.transport.lines import Places
from pilotage.transport.network import ZmqWires
from tests.conftest import Eventually
from tests.transport.ends import Ends, ends_over

FRAMES = 10_000


@pytest.fixture
def ends() -> Iterator[Ends]:
    with ends_over(lambda name: ZmqWires()) as made:
        yield made


def garbage(seed: int) -> Iterator[list[bytes]]:
    chance = random.Random(seed)
    forms = [
        lambda: [chance.randbytes(chance.randrange(1, 200))],
        lambda: [b"{}"],
        lambda: [b"\xff\xfe", b"[1, 2"],
        lambda: [b'{"id": 1, "to": {}, "sender": [], "key": 3}'],
        lambda: [b"hub", b"hub", b'{"id":"a","to":"hub","sender":"a","key":"K","value":' + b"[" * 3000],
        lambda: [chance.randbytes(3) for _ in range(20)],
        lambda: [bytes([WIRE_VERSION]) + chance.randbytes(30)],
        lambda: [b"hub", b'{"id":"x_1","sender":"x","key":"K"}'],
        lambda: [b"CLOSING"],
    ]
    for _ in range(FRAMES):
        yield chance.choice(forms)()


@pytest.mark.parametrize("claims", [False, True], ids=["without metadata", "as a peer of our wire"])
def test_ten_thousand_garbage_frames_harm_nobody(ends: Ends, eventually: Eventually, claims: bool) -> None:
    hub = ends.listening("hub")
    good = ends.dialling("good", hub.port)
    with zmq.Context() as context, context.socket(zmq.DEALER) as bad:
        bad.setsockopt(zmq.LINGER, 0)
        bad.setsockopt(zmq.SNDHWM, 0)
        if claims:
            for told in (b"X-Pilotage:3", b"X-Name:bad", b"X-Boot:77"):
                bad.setsockopt(zmq.METADATA, told)
        bad.connect(f"tcp://127.0.0.1:{hub.port}")
        sends = []
        for number, frames in enumerate(garbage(1)):
            bad.send_multipart(frames)
            if number % 10 == 0:
                sends.append(good.send("hub", str(number).encode(), key="GOOD"))
        eventually(lambda: all(sent.is_delivered for sent in sends), timeout_s=20)
        counts = hub.exchange.counts
        unread = ("malformed", "from strangers", "muted")
        eventually(lambda: sum(counts[what] for what in unread) > FRAMES * 0.5, timeout_s=20)
    assert hub.bodies("GOOD") == [str(number).encode() for number in range(0, FRAMES, 10)]
    assert {key for key, _, _ in hub.got} == {"GOOD"}
    assert hub.peer("good") is PeerState.ALIVE
    assert all(change.state is PeerState.ALIVE for change in good.changes)


def test_who_floods_us_is_made_to_wait_while_others_are_served(ends: Ends, eventually: Eventually) -> None:
    hub = ends.listening("hub")
    good = ends.dialling("good", hub.port)
    assert hub.driver.listener is not None
    drain, taken = hub.driver.listener.drain, list[tuple[int, int]]()

    def drain_and_note(most: int) -> list[Arrival]:
        arrivals = drain(most)
        taken.append((hub.exchange.counts["muted"], len(arrivals)))
        return arrivals

    hub.driver.listener.drain = drain_and_note  # type: ignore[method-assign]
    with zmq.Context() as context, context.socket(zmq.DEALER) as bad:
        bad.setsockopt(zmq.LINGER, 0)
        bad.setsockopt(zmq.SNDHWM, 0)
        bad.connect(f"tcp://127.0.0.1:{hub.port}")
        for number in range(FRAMES):
            bad.send_multipart([b"rubbish"])
            if number % 500 == 0:
                good.send("hub", str(number).encode(), key="GOOD")
        eventually(lambda: hub.exchange.counts["muted"] > FRAMES * 0.9, timeout_s=20)
    eventually(lambda: len(hub.bodies("GOOD")) == FRAMES / 500)
    unread = [count for muted, count in taken if muted]
    # Where the good one alone was heard for a turn, the next one looks for more again.
    assert sum(count > UNREAD_A_TURN for count in unread) <= FRAMES / 500
    assert len(unread) > FRAMES * 0.8 / UNREAD_A_TURN / 2


def test_what_is_no_zeromq_peer_is_not_even_met(ends: Ends, eventually: Eventually) -> None:
    hub = ends.listening("hub")
    good = ends.dialling("good", hub.port)
    old_greeting, old_message = b"\x01\x00", b"\x06\x00hello"  # ZMTP 1.0: length, flags, body
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", hub.port), timeout=5) as stranger:
            stranger.sendall(old_greeting + old_message)
    eventually(lambda: hub.exchange.counts["from no peer"] == 50)
    sent = good.send("hub", b"1", key="GOOD")
    eventually(lambda: sent.is_delivered)
    assert [change.name for change in hub.changes] == ["good"]
    assert hub.exchange.counts["malformed"] == 0
    assert len([note for note in hub.notes if "no ZeroMQ peer" in note]) == 1


def test_crowds_that_come_and_go_are_let_in_a_few_at_a_time(ends: Ends, eventually: Eventually) -> None:
    hub = ends.listening("hub")
    listener = hub.driver.listener
    assert isinstance(listener, ClearListener)
    watch, wind_clock, let_in = listener._watch, listener._wind_clock, [0]

    def count(one: Connection) -> None:
        let_in[-1] += 1
        watch(one)

    def next_batch() -> None:
        let_in.append(0)
        wind_clock()

    listener._watch, listener._wind_clock = count, next_batch  # type: ignore[method-assign]
    go_on = threading.Event()
    hub.driver.call(go_on.wait)  # so that all of them have come and gone before the next turn
    for _ in range(100):
        socket.create_connection(("127.0.0.1", hub.port), timeout=5).close()
    go_on.set()
    eventually(lambda: sum(let_in) == 100)
    assert max(let_in) <= WELCOMED_A_TURN
    eventually(lambda: not listener._strangers)
    sent = ends.dialling("good", hub.port).send("hub", b"1")
    eventually(lambda: sent.is_delivered)


@pytest.mark.parametrize(("turn_s", "is_short"), [(0.0, True), (60.0, False)], ids=["long", "quick"])
def test_after_a_long_turn_less_is_taken_in(
    ends: Ends, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, turn_s: float, is_short: bool
) -> None:
    monkeypatch.setattr("pilotage.transport.driver.TURN_S", turn_s)
    hub = ends.listening("hub")
    assert hub.driver.listener is not None
    turn, taken = hub.exchange.turn, list[int]()

    def turn_and_note(arrivals: Sequence[Arrival], *others: Any) -> list[Instruction]:
        taken.append(len(arrivals))
        return turn(arrivals, *others)

    hub.exchange.turn = turn_and_note  # type: ignore[method-assign]
    hello = encode_packet(Packet([], [], [Greeting("hello", "")]))
    with zmq.Context() as context, context.socket(zmq.DEALER) as busy:
        busy.setsockopt(zmq.LINGER, 0)
        busy.setsockopt(zmq.SNDHWM, 0)
        for told in (f"X-Pilotage:{WIRE_VERSION}", "X-Name:busy", "X-Boot:77"):
            busy.setsockopt(zmq.METADATA, told.encode())
        busy.connect(f"tcp://127.0.0.1:{hub.port}")
        for _ in range(FRAMES):
            busy.send_multipart(hello)
        eventually(lambda: sum(taken) >= FRAMES, timeout_s=20)
    assert (max(taken) <= FEW_ARRIVALS) is is_short


def test_what_is_thrown_away_unread_is_looked_at_again_after_a_pause() -> None:
    driver: Any = SimpleNamespace(
        _lines=SimpleNamespace(readable=lambda: True),
        _is_flooded=True,
        _most=64,
        _most_after=lambda took_s: 128,
    )
    now = time.monotonic()
    assert Driver._look(driver, now, FOREVER) >= now + UNREAD_PAUSE_S and driver._most == UNREAD_A_TURN
    assert Driver._look(driver, now, now) == now, "what else is due doesn't wait"
    driver._is_flooded = False
    assert Driver._look(driver, now, FOREVER) == now and driver._most == 128
    driver._lines.readable = lambda: False
    assert Driver._look(driver, now, FOREVER) == FOREVER and driver._most == FEW_ARRIVALS


def test_an_alarm_that_is_about_to_ring_is_not_put_off_by_what_comes_by_itself() -> None:
    """While something waits for room, each turn would set it anew: time would not pass while others send."""
    set_to: list[float] = []
    now = time.monotonic()
    exchange: Any = SimpleNamespace(turn=lambda *given: [], wake_at=lambda: FOREVER)
    exchange.config = SimpleNamespace(me="hub")
    waits = SimpleNamespace(is_plain=True, waiting={"link": ["frame"]})
    loop: Any = SimpleNamespace(
        asyncio_loop=SimpleNamespace(
            call_later=lambda due_s, call: set_to.append(due_s), call_soon_threadsafe=None
        )
    )
    shell: Any = SimpleNamespace(note=None)
    wires: Any = None
    driver: Any = Driver(exchange, shell, wires, Places(), loop)
    driver._lines, driver._look, driver._turn_over = waits, lambda now, due: due, lambda: None
    driver._alarm = SimpleNamespace(cancel=lambda: set_to.append(0.0))
    driver._alarm_at = now - 0.0005
    assert driver.turn_for((("", b""), None, []))
    assert set_to == [] and driver._alarm_at == now - 0.0005
    driver._rest(now)
    assert set_to == [0.0, pytest.approx(BUSY_RETRY_S)]
    driver._alarm, driver._alarm_at = None, now + 1.0
    assert driver.turn_for((("", b""), None, []))
    assert now < driver._alarm_at <= time.monotonic() + BUSY_RETRY_S, "what is due sooner is"


HOSTILE_METADATA = {
    "no UTF-8": [b"X-Pilotage:2", b"X-Name:\xff\xfe", b"X-Boot:7"],
    "a dialect that is no UTF-8": [b"X-Pilotage:\xff", b"X-Name:bad", b"X-Boot:7"],
    "a life of 5,000 digits": [b"X-Pilotage:2", b"X-Name:bad", b"X-Boot:" + b"7" * 5000],
    "a life in other digits": [b"X-Pilotage:2", b"X-Name:bad", "X-Boot:٣".encode()],
    "a name without end": [b"X-Pilotage:2", b"X-Name:" + b"a" * 60_000, b"X-Boot:7"],
    "a name of two lines": [b"X-Pilotage:2", b"X-Name:bad\nCRITICAL", b"X-Boot:7"],
    "no name": [b"X-Pilotage:2", b"X-Boot:7"],
    "our own name": [b"X-Pilotage:2", b"X-Name:hub", b"X-Boot:7"],
}


@pytest.mark.parametrize("told", HOSTILE_METADATA.values(), ids=HOSTILE_METADATA.keys())
def test_what_a_connection_tells_of_itself_harms_nobody(
    ends: Ends, eventually: Eventually, told: list[bytes]
) -> None:
    hub = ends.listening("hub")
    good = ends.dialling("good", hub.port)
    with zmq.Context() as context, context.socket(zmq.DEALER) as bad:
        bad.setsockopt(zmq.LINGER, 0)
        for one in told:
            bad.setsockopt(zmq.METADATA, one)
        bad.connect(f"tcp://127.0.0.1:{hub.port}")
        sends = []
        for number in range(300):
            bad.send_multipart([bytes([WIRE_VERSION]) + b"\x93\x90\x90\x91\x91\xa5hello"])
            sends.append(good.send("hub", str(number).encode()))
        eventually(lambda: all(sent.is_delivered for sent in sends), timeout_s=20)
        eventually(lambda: hub.exchange.counts["turned away"] > 0, timeout_s=20)
    assert not hub.driver.counts["turns failed"]
    assert hub.bodies() == [str(number).encode() for number in range(300)]
    assert {change.name for change in hub.changes} == {"good"}


def test_a_transmission_of_endless_frames_is_thrown_away(ends: Ends, eventually: Eventually) -> None:
    hub = ends.listening("hub")
    good = ends.dialling("good", hub.port)
    with zmq.Context() as context, context.socket(zmq.DEALER) as bad:
        bad.setsockopt(zmq.LINGER, 0)
        bad.connect(f"tcp://127.0.0.1:{hub.port}")
        bad.send_multipart([b"x"] * (3 * MAX_FRAMES + 10))
        eventually(lambda: hub.exchange.counts["malformed"] == 1, timeout_s=20)
    sent = good.send("hub", b"good")
    eventually(lambda: sent.is_delivered)
    assert hub.bodies() == [b"good"]


def test_random_bytes_on_the_port_harm_nobody(ends: Ends, eventually: Eventually) -> None:
    hub = ends.listening("hub")
    good = ends.dialling("good", hub.port)
    chance = random.Random(2)
    sends = []
    for turn in range(60):
        with socket.create_connection(("127.0.0.1", hub.port)) as bad:
            greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" if turn % 2 else b""
            bad.sendall(greeting + chance.randbytes(4096))
        sends.append(good.send("hub", str(turn).encode()))
    eventually(lambda: all(sent.is_delivered for sent in sends))
    assert hub.bodies() == [str(turn).encode() for turn in range(60)]
    assert {change.name for change in hub.changes} == {"good"}
    late = ends.dialling("late", hub.port)
    eventually(late.is_alive("hub"))


def test_a_port_where_no_station_listens_is_told_and_left_alone(ends: Ends, eventually: Eventually) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        node = ends.dialling("node", other.getsockname()[1])
        connection, _ = other.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            eventually(lambda: any("does not speak ZeroMQ" in note for note in node.notes))


def test_a_new_connection_with_an_old_ones_descriptor_is_not_taken_for_it(
    ends: Ends, eventually: Eventually
) -> None:
    hub = ends.listening("hub")
    for turn in range(30):
        # Each life ends without a goodbye just before the next one dials, whose socket gets the free descriptor.
        cam = ends.dialling("cam", hub.port)
        eventually(cam.is_alive("hub"))
        sent = cam.send("hub", str(turn).encode())
        eventually(lambda sent=sent: sent.is_delivered)
        ends.stop(cam, silently=True)
    last = ends.dialling("cam", hub.port)
    eventually(last.is_alive("hub"))
    down = hub.send("cam", b"still here")
    eventually(lambda: down.is_delivered)
    assert len(hub.exchange.routing.peers) == 1
