"""Gates, keys and names over real sockets (promises X1, X2): who is let in, and as whom."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest
import zmq

from pilotage.protocol.authority import Original
from pilotage.protocol.errors import PortInUse
from pilotage.protocol.instructions import PeerState
from pilotage.protocol.records import Greeting, Marks, Packet, Parcel, encode_packet
from pilotage.protocol.settlement import Outcome, Reason
from pilotage.protocol.zmtp import GREETING
from pilotage.transport.curve import KeyPair, Keyring, check_clear, is_loopback, lock_dialler
from pilotage.transport.gates import bind_both
from pilotage.transport.lines import Places
from pilotage.transport.network import ZmqWires
from tests.conftest import Eventually
from tests.transport.conftest import ZmqWorld
from tests.transport.ends import CALM, End, Sent, ends_over
from tests.transport.locks import OUTSIDE, Locksmith, make_pair
from tests.transport.relay import Relay

pytestmark = pytest.mark.only_on("linux")


@contextmanager
def raw_dealer(
    port: int, host: str = OUTSIDE, pair: KeyPair | None = None, station: str = "", **options: bytes
) -> Iterator[zmq.Socket[bytes]]:
    """Dial without any of our code; options: `identity`, `name`."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        if pair is not None:
            lock_dialler(dealer, pair, station)
        if "identity" in options:
            dealer.setsockopt(zmq.IDENTITY, options["identity"])
        if "name" in options:
            for told in (b"X-Pilotage:2", b"X-Name:" + options["name"], b"X-Boot:77"):
                dealer.setsockopt(zmq.METADATA, told)
        dealer.connect(f"tcp://{host}:{port}")
        yield dealer


def forged(trail: list[str], verb: str = "STOLEN", to: str = "hub") -> list[bytes]:
    parcel = Parcel([to], trail, 5, 1, 1, 1, verb, Marks.ORDERED, [b"x"])
    return [bytes(frame) for frame in encode_packet(Packet([parcel], [], [Greeting("hello")]))]


def letter(sender: str, key: str, message_id: str = "m_1") -> bytes:
    fields = {"id": message_id, "to": "hub", "sender": sender, "key": key, "value": 1, "flags": {}, "ttl": 2}
    return json.dumps({**fields, "timestamp": "2026-11-25T00:00:00"}).encode()


def meet(locked: ZmqWorld, eventually: Eventually, *names: str) -> tuple[End, ...]:
    hub = locked.ends.listening("hub")
    others = [locked.ends.dialling(name, hub.port) for name in names]
    for name in names:
        eventually(hub.is_alive(name))
    return (hub, *others)


def settles(sent: object, eventually: Eventually) -> tuple[Outcome, Reason | None, str]:
    settlement = eventually(lambda: sent.settlement)  # type: ignore[attr-defined]
    return settlement.outcome, settlement.reason, settlement.text  # type: ignore[attr-defined]


def see_served_soon(send: Callable[[], Iterable[Sent]], eventually: Eventually) -> None:
    """See that what is sent is there before a heartbeat would have it noticed; now and then a machine is busy."""
    late = 0
    for _ in range(300):
        began, sent = time.monotonic(), send()
        eventually(lambda sent=sent: all(one.is_delivered for one in sent))  # type: ignore[misc]
        late += time.monotonic() - began > 0.3
    assert late <= 2


# Gates


def test_one_port_lets_this_machine_in_by_one_gate_and_keys_by_the_other(
    locked: ZmqWorld, locksmith: Locksmith, eventually: Eventually
) -> None:
    hub, cam = meet(locked, eventually, "cam")
    near = locked.ends.dialling("near", hub.port, host="127.0.0.1")
    eventually(hub.is_alive("near"))
    cards = {peer.name: (peer.link[0], peer.card.key) for peer in hub.exchange.routing}
    assert cards == {"cam": ("outward", locksmith.pair("cam").public), "near": ("listener", "")}
    sends = [hub.send("cam", b"1"), hub.send("near", b"2"), cam.send("near", b"3"), near.send("cam", b"4")]
    eventually(lambda: all(sent.is_delivered for sent in sends))
    assert (sorted(cam.bodies()), sorted(near.bodies())) == ([b"1", b"4"], [b"2", b"3"])


def test_what_comes_with_a_key_is_noticed_while_others_are_served_in_clear(
    locked: ZmqWorld, eventually: Eventually
) -> None:
    hub, cam = meet(locked, eventually, "cam")
    near = locked.ends.dialling("near", hub.port, host="127.0.0.1")
    eventually(hub.is_alive("near"))
    see_served_soon(lambda: (near.send("cam"), cam.send("near"), near.send("hub")), eventually)


@pytest.mark.parametrize(
    ("listens", "dials", "below", "dials_from_below"),
    [("127.0.0.1", OUTSIDE, "_middle", "127.0.0.1"), ("*", "127.0.0.1", "far", OUTSIDE)],
    ids=["with a key above", "with a key below"],
)
def test_who_is_between_a_key_and_others_in_clear_notices_both(
    listens: str, dials: str, below: str, dials_from_below: str, locked: ZmqWorld, eventually: Eventually
) -> None:
    hub = locked.ends.listening("hub")
    middle = locked.ends._make("middle", Places(listens, 0, dials, hub.port, "hub"), CALM)
    low = locked.ends.dialling(below, middle.port, upstream="middle", host=dials_from_below)
    eventually(hub.is_alive("middle"))
    eventually(middle.is_alive(below))
    known = low.send("hub")
    eventually(lambda: known.is_delivered)
    others = ("middle", below)
    see_served_soon(lambda: [low.send("hub"), low.send("middle"), *map(hub.send, others)], eventually)


def test_the_outward_gate_refuses_who_has_no_key_or_an_unknown_one(
    locked: ZmqWorld, locksmith: Locksmith, eventually: Eventually
) -> None:
    hub, cam = meet(locked, eventually, "cam")
    station = locksmith.pair("hub").public
    with (
        raw_dealer(hub.port, name=b"clear") as clear,
        raw_dealer(hub.port, pair=make_pair("x"), station=station, name=b"cam") as stranger,
        raw_dealer(hub.port, pair=locksmith.pair("cam"), station=make_pair("y").public) as lost,
    ):
        for dealer in (clear, stranger, lost):
            # Whoever has failed the handshake already is given no queue, and would wait for one for ever.
            with contextlib.suppress(zmq.Again):
                for number in range(20):
                    dealer.send_multipart(forged([], f"BAD {number}"), zmq.NOBLOCK)
        sends = [cam.send("hub", str(number).encode()) for number in range(100)]
        eventually(lambda: all(sent.is_delivered for sent in sends))
        assert [dealer.poll(100) for dealer in (clear, stranger, lost)] == [0, 0, 0]
    assert {verb for verb, _, _ in hub.got} == {"KEY"}
    assert [peer.name for peer in hub.exchange.routing] == ["cam"]


@contextmanager
def listening(keyring: Keyring) -> Iterator[int]:
    """Have a station listen, and give its port; whoever connects is taken by the system, though nobody speaks."""
    wires = ZmqWires(keyring=keyring)
    listener = wires.listen("*", 0, "hub", 1)
    try:
        yield listener.port
    finally:
        listener.close()
        wires.close()


def test_a_station_without_keys_is_open_to_this_machine_only() -> None:
    with listening(Keyring()) as port:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((OUTSIDE, port), timeout=5)


def test_told_insecure_it_is_open_to_all_in_clear(eventually: Eventually) -> None:
    wires = ZmqWires(keyring=Keyring(own=make_pair("hub"), insecure=True))
    with ends_over(lambda name: wires, "*", OUTSIDE) as ends, socket.socket() as far:
        far.settimeout(5)
        far.connect((OUTSIDE, ends.listening("hub").port))
        assert far.recv(64)[:32] == GREETING[:32]


def test_a_port_that_is_taken_on_either_side_says_so(locked: ZmqWorld) -> None:
    hub = locked.ends.listening("hub")
    with pytest.raises(PortInUse, match=str(hub.port)):
        locked.ends.listening("other", hub.port)
    with pytest.raises(PortInUse, match="other can't listen"):
        bind_both(hub.port, "other")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "::1", "[::1]"])
def test_loopback_is_known_by_how_it_is_written(host: str) -> None:
    assert is_loopback(host)
    check_clear(Keyring(), host, "T")


@pytest.mark.parametrize(
    "host", ["10.0.0.5", "127.0.0.1.example.org", "localhost.evil", "rig", "0.0.0.0", ""]
)
def test_anything_else_is_another_machine(host: str) -> None:
    assert not is_loopback(host)


def test_nothing_is_said_in_clear_to_another_machine(
    monkeypatch: pytest.MonkeyPatch, eventually: Eventually, locked: ZmqWorld
) -> None:
    monkeypatch.setattr("pilotage.transport.curve.is_loopback", lambda host: False)
    with ends_over(lambda name: ZmqWires(keyring=Keyring(insecure=True))) as others:
        relay = locked.relays["far"] = Relay(others.listening("other").port)
        far = locked.ends.dialling("far", relay.port, host="127.0.0.1")
        far.send("hub", b"a secret")
        eventually(lambda: any("speaks in clear" in note for note in far.notes))
        assert "INSECURE" in far.driver.locked_out
        eventually(lambda: relay.seen.count(b"READY") > 1)
        assert b"a secret" not in relay.seen and b"far" not in relay.seen


# Names


def test_a_thief_with_a_valid_key_is_refused_by_name(
    locked: ZmqWorld, locksmith: Locksmith, eventually: Eventually
) -> None:
    hub, cam, _ = meet(locked, eventually, "cam", "rig")
    locksmith.given["cam"] = locksmith.pair("rig")
    thief = locked.ends.dialling("cam", hub.port)
    outcome, reason, text = settles(thief.send("hub", b"theft", durable=False), eventually)
    assert (outcome, reason) == (Outcome.REFUSED, Reason.NAME_TAKEN)
    assert "the key of rig can't speak for 'cam'" in text
    kept = hub.send("cam", b"to the holder")
    eventually(lambda: kept.is_delivered)
    assert (cam.bodies(), thief.bodies()) == ([b"to the holder"], [])


@pytest.mark.parametrize("name", ["_cam", "cam_stream", "_cam_VIDEO"])
def test_a_key_speaks_for_what_belongs_to_its_name(
    locked: ZmqWorld, locksmith: Locksmith, eventually: Eventually, name: str
) -> None:
    locksmith.given[name] = locksmith.pair("cam")
    _, other = meet(locked, eventually, name)
    sent = other.send("hub", b"mine")
    eventually(lambda: sent.is_delivered)


def test_a_reboot_with_the_same_key_takes_over_at_once_and_the_old_life_does_not_come_back(
    locked: ZmqWorld, eventually: Eventually
) -> None:
    hub, before = meet(locked, eventually, "cam")
    began = time.monotonic()
    after = locked.ends.dialling("cam", hub.port)
    eventually(after.is_alive("hub"))
    assert time.monotonic() - began < 0.4, "it took a probe's time"
    eventually(lambda: before.exchange.admission.refusal)
    assert "a later life" in before.exchange.admission.refusal
    eventually(lambda: "held by a live peer" in before.exchange.admission.refusal)
    sends = [hub.send("cam", str(number).encode()) for number in range(50)]
    eventually(lambda: all(sent.is_delivered for sent in sends))
    assert (len(after.bodies()), before.bodies()) == (50, [])
    takeovers = [one.state for one in hub.changes if one.name == "cam"]
    assert takeovers == [PeerState.ALIVE, PeerState.GONE, PeerState.ALIVE]


def test_the_old_life_may_come_back_when_the_new_one_has_gone(
    locked: ZmqWorld, eventually: Eventually
) -> None:
    hub, before = meet(locked, eventually, "cam")
    after = locked.ends.dialling("cam", hub.port)
    eventually(after.is_alive("hub"))
    locked.ends.stop(after)
    waiting = hub.send("cam", b"to whoever it is")
    eventually(lambda: waiting.is_delivered, timeout_s=8)
    assert before.bodies() == [b"to whoever it is"]


def test_messages_of_others_are_not_brought_in(
    locked: ZmqWorld, locksmith: Locksmith, eventually: Eventually
) -> None:
    hub, _, _ = meet(locked, eventually, "cam", "rig")
    station, pair = locksmith.pair("hub").public, locksmith.pair("rig")
    before = hub.exchange.counts["names refused"]
    with raw_dealer(hub.port, pair=pair, station=station, name=b"rig_tool") as thief:
        for trail in (["cam"], ["_cam", "cam"], ["x", "cam_stream"], ["hub"], ["_hub"], ["rig_x", "cam"]):
            thief.send_multipart(forged(trail))
        eventually(lambda: hub.exchange.counts["names refused"] == before + 6)
        thief.send_multipart(forged(["child"], "HONEST"))
        eventually(lambda: any(verb == "HONEST" for verb, _, _ in hub.got))
    assert all(verb != "STOLEN" for verb, _, _ in hub.got)
    assert sorted(hub.exchange.routing.through()) == ["child", "rig_x", "x"]


# Keys that change


def test_a_revoked_key_is_refused_each_further_frame_and_the_next_handshake(
    locked: ZmqWorld, locksmith: Locksmith, eventually: Eventually
) -> None:
    hub, cam, rig = meet(locked, eventually, "cam", "rig")
    station = locksmith.pair("hub").public
    with raw_dealer(hub.port, pair=locksmith.pair("cam"), station=station, name=b"cam_tool") as tool:
        tool.send_multipart(forged([], "BEFORE"))
        eventually(lambda: any(verb == "BEFORE" for verb, _, _ in hub.got))
        del locksmith.grants[locksmith.pair("cam").public]
        locksmith.authorities["hub"].change(locksmith.grants)
        hub.driver.call(lambda: hub.driver.judge_anew(redials=False))
        eventually(hub.is_gone("cam"))
        for number in range(50):
            tool.send_multipart(forged([], f"AFTER {number}"))
        eventually(lambda: hub.exchange.counts["from strangers"] >= 50)
    assert [verb for verb, _, _ in hub.got if verb != "KEY"] == ["BEFORE"]
    eventually(lambda: "is not known there" in cam.driver.locked_out)
    sent = rig.send("hub", b"others go on")
    eventually(lambda: sent.is_delivered)


# The JSON wire


def test_the_json_wire_runs_inside_with_names_that_belong_to_the_key(
    locked: ZmqWorld, locksmith: Locksmith, eventually: Eventually
) -> None:
    hub, _ = meet(locked, eventually, "cam")
    pair, station = locksmith.pair("old"), locksmith.pair("hub").public
    with raw_dealer(hub.port, pair=pair, station=station, identity=b"old") as old:
        old.send_multipart([b"hub", b"hub", letter("old", "GOOD")])
        assert old.poll(5000)
        assert json.loads(old.recv_multipart()[-1])["key"] == "CONFIRM"
        old.send_multipart([b"hub", b"hub", letter("cam", "STOLEN", "m_2")])
        old.send_multipart([b"hub", b"hub", letter("old", "ALSO", "m_3")])
        eventually(lambda: any(verb == "ALSO" for verb, _, _ in hub.got))
    with raw_dealer(hub.port, pair=pair, station=station, identity=b"cam_x") as thief:
        thief.send_multipart([b"hub", b"hub", letter("cam_x", "STOLEN", "m_4")])
        eventually(lambda: any("can't speak for 'cam_x'" in note for note in hub.notes))
    assert [verb for verb, _, _ in hub.got] == ["GOOD", "ALSO"]


def test_originals_come_in_by_their_own_gate_by_name_and_address(
    locked: ZmqWorld, locksmith: Locksmith, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    locksmith.original = frozenset({Original("old", "127.0.0.1")})
    hub = locked.ends.listening("hub")
    gate = hub.driver.listener._gates["originals"].port  # type: ignore[union-attr]
    with (
        raw_dealer(gate, "127.0.0.1", identity=b"old") as old,
        raw_dealer(gate, "127.0.0.1", identity=b"stranger") as stranger,
        raw_dealer(gate, "127.0.0.1", name=b"cam") as ours,
    ):
        stranger.send_multipart([b"hub", b"hub", letter("stranger", "BAD")])
        ours.send_multipart(forged([], "BAD"))
        old.send_multipart([b"hub", b"hub", letter("cam", "GOOD")])
        eventually(lambda: any(verb == "GOOD" for verb, _, _ in hub.got))
        eventually(lambda: hub.exchange.counts["turned away"] >= 2)
    assert [verb for verb, _, _ in hub.got] == ["GOOD"]


# What can be overheard


@pytest.mark.parametrize("is_locked", [True, False])
def test_who_listens_in_reads_nothing(
    locked: ZmqWorld, eventually: Eventually, locksmith: Locksmith, is_locked: bool
) -> None:
    hub = locked.ends.listening("hub")
    relay = locked.relays["cam"] = Relay(hub.port, OUTSIDE if is_locked else "127.0.0.1")
    cam = locked.ends.dialling("cam", relay.port, host="127.0.0.1")
    secret = b"the animal is called Mousse"
    sends = [
        cam.send("hub", secret, key="LEVER", frames=[secret * 5000]),
        hub.send("cam", secret, key="START"),
    ]
    eventually(lambda: all(sent.is_delivered for sent in sends))
    overheard = [word in relay.seen for word in (secret, b"LEVER", b"START", b"X-Name", b"Identity")]
    assert len(relay.seen) > 100_000
    assert overheard == [not is_locked] * 5
