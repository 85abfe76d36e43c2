"""Attacks on a Terminal's port, each a function of where it is; run in a process of its own, like any stranger's.

    python -m tests.system.hostile.attacks NAME HOST PORT MARKER COUNT

MARKER is a file that is there only if code of the attacker's ran. What is written here is what a stranger can do
without a key, and (where `needs` in `ATTACKS` says so) what somebody can who has got hold of the keys of others, which
lie in `loot` beside MARKER.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import pickle
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import blosc2
import msgspec
import zmq

from pilotage.net.keys import KeyFolder, make_pair
from pilotage.protocol.container import store
from pilotage.protocol.records import WIRE_VERSION, Ack, Greeting, Marks, Packet, Parcel, encode_packet
from pilotage.protocol.zmtp import GREETING
from pilotage.transport.curve import KeyPair, lock_dialler

VICTIM = "rig_a"
"""The good pilot, whose name is stolen and whose messages are forged."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an attack goes, and how much of it.

    Attributes:
        host: the Terminal's.
        port: its station's.
        marker: a file that code of the attacker's would make.
        count: how many frames or connections, where the attack has many.
    """

    host: str
    port: int
    marker: Path
    count: int


@contextlib.contextmanager
def wire(
    target: Target, name: str = "", identity: bytes = b"", lock: tuple[KeyPair, str] | None = None
) -> Iterator[Any]:
    """Connect a DEALER: as a peer of our wire under a name, or as an original under an identity; perhaps with a key."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 30_000)
        dealer.setsockopt(zmq.SNDTIMEO, 5000)
        if lock is not None:
            lock_dialler(dealer, *lock)
        dealer.setsockopt(zmq.SNDHWM, 0)
        if identity:
            dealer.setsockopt(zmq.IDENTITY, identity)
        if name:
            for told in (f"X-Pilotage:{WIRE_VERSION}", f"X-Name:{name}", f"X-Boot:{random.getrandbits(62)}"):
                dealer.setsockopt(zmq.METADATA, told.encode())
        dealer.connect(f"tcp://{target.host}:{target.port}")
        if name:
            dealer.send_multipart(encode_packet(Packet([], [], [Greeting("hello", "")])))
        yield dealer


def loot(target: Target) -> tuple[dict[str, KeyPair], str]:
    """Give the keys that the attacker has got hold of, by name, and the Terminal's public one."""
    folder = KeyFolder(target.marker.parent / "loot")
    return {pair.name: pair for pair in folder.own()}, folder.find("T").public


def letter(key: str, value: object = None, to: str = "T", sender: str = "mallory", **others: Any) -> bytes:
    """Write an original's message."""
    fields = {
        "id": f"{sender}_{random.getrandbits(40)}",
        "to": to,
        "sender": sender,
        "key": key,
        "value": value,
    }
    return json.dumps(
        {**fields, "flags": {}, "timestamp": "2026-01-01T00:00:00", "ttl": 2, **others}
    ).encode()


def parcel(key: str, value: object, path: list[str], sender: str = "mallory", **others: Any) -> Parcel:
    """Write a message of our wire."""
    body = msgspec.msgpack.encode([f"{sender}_1", sender, path[-1], value, "2026-01-01T00:00:00", 2, {}, {}])
    fields = {"path": path, "trail": [], "boot": random.getrandbits(62), "flow": 1, "seq": 1, "floor": 1}
    return Parcel(**{**fields, "verb": key, "marks": Marks.ORDERED, "bodies": [body], **others})


def send(dealer: Any, *parcels: Parcel) -> None:
    """Send messages of our wire."""
    dealer.send_multipart(encode_packet(Packet(list(parcels), [], [])))


class Runs:
    """What runs a command where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._marker}",)


def pickles(target: Target) -> None:
    """§4.1.1: a crafted NUMPY_ARRAY, in each form and container, to everybody who might unpack it."""
    with wire(target, identity=b"mallory") as original, wire(target, name="mallory_2") as ours:
        for protocol in range(6):
            packed = pickle.dumps(Runs(target.marker), protocol=protocol)
            for content in (
                packed,
                store(packed, 1),
                bytes(blosc2.compress2(packed)),
            ):
                text = base64.b64encode(content).decode()
                for document in (
                    {"NUMPY_ARRAY": text},
                    {"NUMPY_ARRAY": text, "DTYPE": "float64", "SHAPE": [1]},
                    {"NUMPY_ARRAY": text, "DTYPE": "object", "SHAPE": []},
                ):
                    for to in ("T", "_T"):
                        original.send_multipart([b"T", to.encode(), letter("DATA", {"pilot": document}, to)])
            for code in (1, 2, 3):
                ext = msgspec.msgpack.Ext(code, packed)
                send(ours, parcel("DATA", {"x": ext}, ["_T"]))
                described = msgspec.msgpack.encode(["|O", [1], "C", packed])
                send(ours, parcel("DATA", {"x": msgspec.msgpack.Ext(code, described)}, ["_T"]))


def killing(target: Target) -> None:
    """§4.1.2: KILL and CLOSING from anybody."""
    with wire(target, identity=b"mallory") as original, wire(target, name="mallory_2") as ours:
        for to in ("T", "_T", VICTIM):
            for key in ("KILL", "WATCH", "CLOSING"):
                original.send_multipart([b"T", to.encode(), letter(key, None, to)])
                original.send_multipart([b"T", to.encode(), letter(key, None, to, sender="_T")])
                send(ours, parcel(key, None, [to]), parcel(key, None, ["T", to], trail=["_T"]))
        for frames in ([b"CLOSING"], [b"T", b"CLOSING"], [b"T", b"T", b"CLOSING"]):
            original.send_multipart(frames)
            ours.send_multipart(frames)


def paths(target: Target) -> None:
    """§4.1.3: files from elsewhere, and to elsewhere."""
    hostile = [
        "../../etc/passwd",
        "/../../../etc/passwd",
        "..\\x",
        "C:\\x",
        "a\0b",
        "nul",
        "．．/x",
        "\ud800",
        "a/" * 5000,
    ]
    with wire(target, name="mallory") as ours, wire(target, identity=b"mallory_2") as original:
        for path in (*hostile, str(target.marker)):
            original.send_multipart([b"T", b"T", letter("FILE", path)])
            value = {"path": path, "file": base64.b64encode(b"mine").decode()}
            original.send_multipart([b"T", b"T", letter("FILE", value)])
            with contextlib.suppress(UnicodeEncodeError):
                send(ours, parcel("FILE", path, ["T"]), parcel("FILE", value, ["T"]))


def names(target: Target) -> None:
    """§4.1.4: names that are somebody else's, by the connection and by what is said."""
    with contextlib.ExitStack() as stack:
        for name in (VICTIM, f"_{VICTIM}", "_T", "T"):
            thief = stack.enter_context(wire(target, name=name))
            send(thief, parcel("DATA", {"pilot": VICTIM, "stolen": 1}, ["_T"]))
            original = stack.enter_context(wire(target, identity=name.encode()))
            original.send_multipart(
                [b"T", b"_T", letter("DATA", {"pilot": VICTIM, "stolen": 1}, "_T", sender=name)]
            )
        liar = stack.enter_context(wire(target, name="liar"))
        send(
            liar,
            parcel("STATE", "STOLEN", ["T"], trail=["_" + VICTIM]),
            parcel("PEER", {"name": VICTIM}, ["T"]),
        )
        time.sleep(1.0)  # the holder is asked meanwhile; this is the attacker's own patience


def malformed(target: Target) -> None:
    """§4.1.5: one bad message, in every way that stopped an original's station, and some more."""
    with wire(target, identity=b"mallory") as original, wire(target, name="mallory_2") as ours:
        for frames in (
            [b"T", b"T", b"no json"], [b"T", b"\xff\xfe", letter("K")], [b"T", b"T", b"{}"], [b"T", b"T", b"[]"],
            [b"T", b"T", b'{"id":1,"to":{},"sender":[],"key":3}'], [b"T", b"T", b"[" * 100_000], [b"T", b""], [b""],
            [b"T"] * 300, [b"T", b"T", b'{"value":' + b"[" * 5000], [b"T", b"T", b"\xff" * 100], [bytes(10**6)],
            [b"T", b"T", letter("K", "\ud800")], [b"T", b"T", letter("serialize", 1, validate=1, serialize=2)],
            [b"T", b"T", b"[" + b"[]," * 10**6 + b"1]"], [b"T", b"T", letter("K", ttl=10**40)],
            [b"T", b"T", letter("DATA", [[[]] * 10**5])], [b"T", b"T", letter("DATA", "a" * 10**6)],
        ):  # fmt: skip
            original.send_multipart(frames)
            ours.send_multipart(frames)
        head = bytes([WIRE_VERSION])
        for content in (
            b"\x93\xdd\xff\xff\xff\xff\x90\x90", b"\x93\x90\xdd\x7f\xff\xff\xff\x90", b"\x94", b"\xc1",
            b"\x93\x91\xc0\x90\x90", b"\x93" + b"\x91" * 5000, b"\x93\x90\x90\x91\x91\xdb\xff\xff\xff\xff",
            b"\x93\x90\x90\xdd\x00\x10\x00\x00" + b"\x90" * 2**20,
        ):  # fmt: skip
            ours.send_multipart([head + content])
            ours.send_multipart([head + content, *[b""] * 1000])
        ours.send_multipart([bytes([WIRE_VERSION + 1]) + b"\x93\x90\x90\x90"])


def unknown(target: Target) -> None:
    """§4.2.5: messages for names that aren't there, until the waiting room is full."""
    with wire(target, name="mallory") as ours, wire(target, identity=b"mallory_2") as original:
        for number in range(min(target.count, 15_000)):
            send(ours, parcel("K", number, [f"nobody_{number}"], flow=number + 1))
            if number % 50 == 0:
                original.send_multipart([b"T", b"nobody", letter("K", number, "nobody")])


def replays(target: Target) -> None:
    """The same message again and again, on both wires, and from two connections."""
    with contextlib.ExitStack() as stack:
        # Under names that no attack before has used, so that nobody's end is waited for.
        ours = [stack.enter_context(wire(target, name=name)) for name in ("echo", "echo_2")]
        original = stack.enter_context(wire(target, identity=b"mallory_3"))
        once = parcel("DATA", {"pilot": "mallory", "replayed": "own"}, ["_T"])
        said = letter("DATA", {"pilot": "mallory", "replayed": "json"}, "_T", sender="mallory_3")
        for _ in range(min(target.count, 300)):
            for dealer in ours:
                send(dealer, once)
            original.send_multipart([b"T", b"_T", said])


def forged_acks(target: Target) -> None:
    """Acknowledgements for messages that were never received, to settle what the victim has open."""
    with wire(target, name="mallory") as ours:
        for flow in range(min(target.count, 2000)):
            ack = Ack([VICTIM], random.getrandbits(62), flow % 20, 7, 2**40, [], 2**40, [], 1, [])
            ours.send_multipart(encode_packet(Packet([], [ack], [])))


def garbage(target: Target, lock: tuple[KeyPair, str] | None = None, name: str = "mallory") -> None:
    """A flood of frames that mean nothing."""
    chance = random.Random(1)
    forms: list[Callable[[], list[bytes]]] = [
        lambda: [chance.randbytes(chance.randrange(1, 200))],
        lambda: [b"{}"],
        lambda: [b"T", b"T", b'{"id":"a","to":"T","sender":"a","key":"K","value":' + b"[" * 300],
        lambda: [chance.randbytes(3) for _ in range(20)],
        lambda: [bytes([WIRE_VERSION]) + chance.randbytes(30)],
    ]
    with (
        wire(target, identity=name.encode(), lock=lock) as original,
        wire(target, name=f"{name}_2", lock=lock) as ours,
    ):
        for number in range(target.count // 2):
            frames = forms[number % len(forms)]()
            original.send_multipart(frames)
            ours.send_multipart(frames)


def garbage_on_many(target: Target) -> None:
    """The same flood from a new connection every 50 frames, so that no link's patience is worn out."""
    for _ in range(max(1, target.count // 100)):
        garbage(Target(target.host, target.port, target.marker, 100))


def half_open(target: Target) -> None:
    """Connections that say nothing, or a byte now and then, or a greeting and no more; held until we are ended."""
    kept: list[socket.socket] = []
    for number in range(target.count):
        try:
            one = socket.create_connection((target.host, target.port), timeout=5)
            one.sendall((b"", GREETING[:1], GREETING[:20], GREETING, b"GET / HTTP/1.1\r\n")[number % 5])
        except OSError:
            continue
        kept.append(one)
    print("held", len(kept), flush=True)
    at = 0
    while True:  # slow loris: a byte of a greeting each second on each
        at += 1
        time.sleep(1.0)
        for one in kept:
            with contextlib.suppress(OSError):
                one.send(GREETING[at % 64 : at % 64 + 1])


def comings_and_goings(target: Target) -> None:
    """Connections that are made and dropped at once, with and without bytes."""
    for number in range(target.count):
        with (
            contextlib.suppress(OSError),
            socket.create_connection((target.host, target.port), timeout=5) as one,
        ):
            if number % 2:
                one.sendall(random.randbytes(500))


def strange_keys(target: Target) -> None:
    """Keys that nobody knows, a station's key that isn't its own, and none at all, with a name that is somebody's."""
    keys, station = loot(target)
    strangers = [
        (make_pair(VICTIM), station),
        (keys["rig_b"], make_pair("T").public),
        (replace(keys["rig_b"], secret=make_pair("x").secret), station),
        None,
    ]
    with contextlib.ExitStack() as stack:
        for number in range(target.count):
            dealer = stack.enter_context(wire(target, name=VICTIM, lock=strangers[number % 4]))
            dealer.setsockopt(zmq.LINGER, 0)
            send(dealer, parcel("DATA", {"pilot": VICTIM, "stolen": 1}, ["_T"]))
            send(dealer, parcel("KILL", None, ["T"]))
        time.sleep(1.0)  # in which all of them try; this is the attacker's own patience


def thieves(target: Target) -> None:
    """A good key, and a name that isn't its own: by the connection, on the trail, in an original's message."""
    keys, station = loot(target)
    lock, stolen = (keys["rig_b"], station), {"pilot": VICTIM, "stolen": 1}
    with contextlib.ExitStack() as stack:
        for name in (VICTIM, f"_{VICTIM}", f"{VICTIM}_x", "_T", "T", "T_cli", "cam", ""):
            thief = stack.enter_context(wire(target, name=name, lock=lock))
            send(thief, parcel("DATA", stolen, ["_T"], name))
            original = stack.enter_context(wire(target, identity=name.encode() or b"x", lock=lock))
            original.send_multipart([b"T", b"_T", letter("DATA", stolen, "_T", sender=name)])
        honest = stack.enter_context(wire(target, name="rig_b", lock=lock))
        send(honest, parcel("DATA", {"pilot": "rig_b", "own": 1}, ["_T"], "rig_b"))
        for flow, name in enumerate((VICTIM, f"_{VICTIM}", "_T", "cam"), 2):
            told = letter("STATE", "STOLEN", "T", sender=name)
            send(
                honest,
                parcel("DATA", stolen, ["_T"], name, trail=[name], flow=flow),
                parcel("STATE", "STOLEN", ["T"], marks=Marks.JSON, bodies=[told], flow=10 + flow),
            )
        original = stack.enter_context(wire(target, identity=b"rig_b_old", lock=lock))
        for name in (VICTIM, "cam", "T"):
            original.send_multipart([b"T", b"T", letter("STATE", "STOLEN", "T", sender=name)])
        for flow in range(50):
            ack = Ack([VICTIM], random.getrandbits(62), flow, 7, 2**40, [], 2**40, [], 1, [])
            honest.send_multipart(encode_packet(Packet([], [ack], [])))


def garbage_with_a_key(target: Target) -> None:
    """The flood of nonsense from a peer that was let in."""
    keys, station = loot(target)
    garbage(target, (keys["rig_b"], station), "rig_b")


ORDERS = ("START", "STOP", "PARAM", "KILL", "FILE", "CHILD", "CALIBRATE_PORT", "FETCH")
ASKED = ("RUN", "HALT", "SET", "END", "STOPALL", "CHANGE", "INIT", "WATCH")


def abuses(target: Target) -> None:
    """Good keys under their own names, which send what their roles may not, in every disguise."""
    keys, station = loot(target)
    with contextlib.ExitStack() as stack:
        for name in ("office", "rig_b", "cam"):
            peer = stack.enter_context(wire(target, name=name, lock=(keys[name], station)))
            flows = itertools.count(1)
            for verb, to in itertools.product(ORDERS, (VICTIM, f"_{VICTIM}")):
                for path in ([to], ["T", to], [to, ""], ["", to], ["T", "", to, ""]):
                    send(peer, parcel(verb, {"pilot": VICTIM}, path, name, flow=next(flows)))
                send(
                    peer,
                    parcel(verb, None, [to], name, marks=Marks.DURABLE | Marks.ORDERED, flow=next(flows)),
                )
                hidden = {"inner_key": verb, "headers": {}, "payload": [{"pilot": VICTIM}]}
                send(peer, parcel("STREAM", hidden, [to], name, flow=next(flows)))
                forged = letter(verb, {"pilot": VICTIM}, to, sender=name)
                send(peer, parcel("DATA", None, [to], marks=Marks.JSON, bodies=[forged], flow=next(flows)))
            for verb, to in itertools.product(ASKED, ("T", "_T")):
                send(peer, parcel(verb, {"pilot": VICTIM}, [to], name, flow=next(flows)))
            original = stack.enter_context(
                wire(target, identity=f"{name}_old".encode(), lock=(keys[name], station))
            )
            for verb in (*ORDERS, *ASKED):
                for to in (b"T", VICTIM.encode()):
                    original.send_multipart([b"T", to, letter(verb, {}, to.decode(), sender=f"{name}_old")])
        viewer = stack.enter_context(wire(target, name="office_x", lock=(keys["office"], station)))
        for verb in ("DATA", "CONTINUOUS", "STREAM", "STATE", "HANDSHAKE", "EVENT", "AUDIT", "PEER", "ANY"):
            stolen = parcel(verb, {"pilot": VICTIM, "stolen": 1}, ["_T"], "office_x")
            send(viewer, stolen, parcel(verb, "STOLEN", ["T"], "office_x"))


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack, and what it takes.

    Attributes:
        run: carries it out.
        count: how much of it the fast test does, and how much the heavy one.
        needs: what the attacker must have: "" for nothing, else what a later suite provides ("a key", "a role").
    """

    run: Callable[[Target], None]
    count: tuple[int, int] = (1, 1)
    needs: str = ""


ATTACKS: dict[str, Attack] = {
    "pickles": Attack(pickles),
    "killing": Attack(killing),
    "paths": Attack(paths),
    "names": Attack(names),
    "malformed": Attack(malformed),
    "unknown": Attack(unknown, (1_000, 15_000)),
    "replays": Attack(replays, (50, 300)),
    "forged_acks": Attack(forged_acks, (500, 2_000)),
    "garbage": Attack(garbage, (4_000, 100_000)),
    "garbage_on_many": Attack(garbage_on_many, (500, 5_000)),
    "half_open": Attack(half_open, (100, 1_000)),
    "comings_and_goings": Attack(comings_and_goings, (200, 3_000)),
    "strange_keys": Attack(strange_keys, (12, 100), needs="a key"),
    "thieves": Attack(thieves, needs="a key"),
    "garbage_with_a_key": Attack(garbage_with_a_key, (4_000, 100_000), needs="a key"),
    "abuses": Attack(abuses, needs="a role"),
}


if __name__ == "__main__":
    name, host, port, marker, count = sys.argv[1:]
    # Locked out: ZeroMQ takes nothing more for whoever failed the handshake.
    with contextlib.suppress(zmq.Again):
        ATTACKS[name].run(Target(host, int(port), Path(marker), int(count)))
