"""Good inputs for each target: what a fuzzer bends. Kept findings lie beside, in `corpus/`."""

from __future__ import annotations

import base64
import json
import pickle
import sqlite3
import tempfile
import zlib
from pathlib import Path

import msgspec
import numpy as np

from pilotage.protocol.arrays import ArrayForm, encode_array
from pilotage.protocol.bodies import encode_body
from pilotage.protocol.container import compress, store
from pilotage.protocol.message import Message
from pilotage.protocol.records import Ack, Greeting, Marks, Packet, Verdict, encode_packet
from pilotage.protocol.settlement import Outcome, Reason
from pilotage.protocol.zmtp import GREETING
from pilotage.transport.journal_entries import encode_row
from pilotage.transport.journal_file import JournalFile
from tests.protocol.builders import envelope, packet, parcel
from tests.transport.journals import make_entries

FRAME_END = b"\xfe\xed"
TURN_END = b"\xfa\xce"
"""What parts the frames of a transmission, and transmissions, in a target's one run of bytes."""

ARRAYS = (
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=">i2").reshape(3, 2)),
    np.array(["a", "bcd"]),
    np.array([("x", 1.5)], dtype=[("name", "U3"), ("at", "<f8")]),
    np.array(["2026-01-01"], dtype="M8[D]"),
    np.zeros((0, 3), "u1"),
    np.bool_(True),
)


def joined(frames: list[bytes]) -> bytes:
    """Put frames into one run of bytes."""
    return FRAME_END.join(bytes(frame) for frame in frames)


def _message(value: object) -> Message:
    return Message(id="rig_1", to="S", sender="rig", key="DATA", value=value, timestamp="2026-01-01T00:00:00")


def bodies() -> list[bytes]:
    """Give bodies of our wire, each with the frames of its arrays."""
    values: list[object] = [None, {"trial_num": 3, "rt": 0.5, "who": "é"}, [1, [2, [3]]], *ARRAYS]
    values.append(np.arange(5000, dtype="u1"))
    made = [encode_body(_message(value)) for value in values]
    return [joined([body, *(frames.frames if frames else [])]) for body, frames in made]


def packets() -> list[bytes]:
    """Give transmissions of our wire."""
    body = encode_body(_message({"trial_num": 1}))[0]
    ranges = [5, 6, 9, 9]
    verdict = Verdict(3, Outcome.REFUSED, Reason.INVALID, "no", b"\xc0")
    ack = Ack(["a", "S"], 7, 1, 9, 3, ranges, 2, ranges, 1, [verdict])
    many = [parcel(seq, body=body, trail=[]) for seq in (1, 2, 4, 3, 3)]
    run = parcel(2, bodies=[body] * 4, trail=[])
    probe = parcel(9, floor=8, marks=Marks.ORDERED | Marks.PROBE, body=b"")
    return [
        joined(packet(*many)),
        joined(packet(parcel(1, path=["far", "b"], trail=["x", "y"], body=body))),
        joined(packet(parcel(1, path=["o1"], body=body), probe)),
        joined(packet(run, parcel(1, body=body, trail=[]), run)),
        joined(packet(parcel(1, path=["o1"], marks=Marks.ORDERED | Marks.JSON, body=envelope(to="o1")))),
        joined(encode_packet(Packet([], [ack], []))),
        *(joined(encode_packet(Packet([], [], [Greeting(word, "")]))) for word in ("hello", "ping", "pong", "bye")),
    ]  # fmt: skip


def envelopes() -> list[bytes]:
    """Give transmissions of originals."""
    documents = [encode_array(array, form) for form in ArrayForm for array in ARRAYS]
    many = [envelope(value={"wave": document, "pilot": "o1"}) for document in documents]
    headers = {"inner_key": "K", "headers": {"pilot": "o1"}, "payload": [{"timestamp": 1, "x": 2}]}
    return [
        *(joined([b"S", b"S", body]) for body in many),
        joined([b"S", b"far", b"b", envelope(to="b")]),
        joined([envelope(key="CONFIRM", value="x_1")]),
        joined([b"S", b"S", envelope(key="STREAM", value=headers, flags={"NOREPEAT": True})]),
        joined([envelope(to=["S", "b", "c"], blosc=True, validate=1, ttl=10**6)]),
        joined([b"S", b"CLOSING"]),
        joined([b"S", b""]),
    ]


def exchanges() -> list[bytes]:
    """Give conversations: each transmission begins with a byte that says from whom."""
    ours = [b"\x00" + one for one in packets()]
    theirs = [b"\x01" + one for one in envelopes()[-6:]]
    return [*ours, *theirs, TURN_END.join(ours), TURN_END.join(theirs), TURN_END.join(ours[:3] + theirs[:3])]


def arrays() -> list[bytes]:
    """Give array documents as JSON."""
    return [json.dumps(encode_array(array, form)).encode() for form in ArrayForm for array in ARRAYS]


def packed() -> list[bytes]:
    """Give what packed arrays hold, as every protocol writes it."""
    return [pickle.dumps(array, protocol=protocol) for protocol in (2, 3, 4, 5) for array in ARRAYS]


def containers() -> list[bytes]:
    """Give blosc containers of both versions."""
    contents = [bytes(300), bytes(range(256)) * 4]
    return [make(content, size) for make in (compress, store) for content in contents for size in (1, 8)]


def paths() -> list[bytes]:
    """Give paths that hosts have fallen for."""
    known = [
        "tones/a.wav", "/tones/a.wav", "../../etc/passwd", "..", "a/../../b", "C:\\x", "C:x", "\\\\host\\share", "a\0b",
        "CON", "nul.txt", "COM1", "a:stream", "．．/x", "a／b", "a\u2215b", "x\u202egpj.exe", "a/./b", "a//b", "~/x",
        "a.", "a ", "link/x", "a" * 300, ".arriving-x", "\ud800", "LPT¹", "file:///etc/passwd", "%2e%2e/x", "a\nb",
    ]  # fmt: skip
    return [path.encode("utf-8", "surrogatepass") for path in known]


def files() -> list[bytes]:
    """Give values of FILE as JSON."""
    brought = {"path": "tones/a.wav", "file": base64.b64encode(b"RIFF").decode()}
    wanted = {"stim": {"sounds": {"L": [{"type": "File", "path": "a.wav"}]}, "groups": [{"sounds": {}}]}}
    return [json.dumps(value).encode() for value in (brought, {**brought, "file": "?"}, wanted, "a.wav", [])]


def openings() -> list[bytes]:
    """Give what a ROUTER says first: ours, an original's, one that is cut."""
    told = {"Socket-Type": "ROUTER", "Identity": "", "X-Pilotage": "2", "X-Name": "T", "X-Boot": "42"}
    ours = _ready(told)
    return [ours, _ready({"Socket-Type": "ROUTER", "Identity": "T"}), ours[:70], _ready(told, is_long=True)]


def _ready(told: dict[str, str], *, is_long: bool = False) -> bytes:
    command = b"\x05READY"
    for name, value in told.items():
        command += bytes([len(name)]) + name.encode() + len(value).to_bytes(4, "big") + value.encode()
    size = b"\x06" + len(command).to_bytes(8, "big") if is_long else b"\x04" + bytes([len(command)])
    return GREETING + size + command


def connections() -> list[bytes]:
    """Give what a dialler says, each behind a byte for the portions in which it comes."""
    opening = _ready({"Socket-Type": "DEALER", "X-Pilotage": "3", "X-Name": "cam", "X-Boot": "42"})
    ping = b"\x04\x09\x04PING\0\x0ahi"
    large = b"\x02" + (40_000).to_bytes(8, "big") + b"x" * 3000
    note = b"\x01\x01a\x09\x0c" + bytes(12) + b"\x08\x0c" + bytes(12)
    said = [b"\x01\x02ab\x00\x01c" * 9, ping + b"\x00\x01x", large, b"\x04\x0a\x05ERROR\x03bad", note]
    return [b"\xff" + opening] + [bytes([30 * at]) + one for at, one in enumerate(said)]


def rows() -> list[bytes]:
    """Give entries of a journal, without their checksums."""
    return [encode_row(number, entry)[2] for number, entry in enumerate(make_entries(1, 6))]


def journals() -> list[bytes]:
    """Give whole journals: one with entries, one of another program."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "j.sqlite"
        journal = JournalFile(file)
        journal.write([encode_row(number, entry) for number, entry in enumerate(make_entries(1, 6), 1)], ())
        journal.close()
        other = Path(folder) / "other.sqlite"
        with sqlite3.connect(other) as connection:
            connection.execute("CREATE TABLE t (x)")
        connection.close()
        return [file.read_bytes(), other.read_bytes(), b"SQLite format 3\0"]


def items() -> list[bytes]:
    """Give batches of continuous data, and rows, as MessagePack."""
    values: list[object] = [
        [{"timestamp": 1.0, "x": 1, "pilot": "a"}, {"timestamp": 2.0, "x": [1, 2]}],
        {"inner_key": "CONTINUOUS", "headers": {"pilot": "a"}, "payload": [{"timestamp": 1, "x": 2}]},
        {"pilot": "a", "subject": "s", "trial_num": 1, "TRIAL_END": True, "row_num": 3, "wave": [1.0, None]},
    ]
    return [msgspec.msgpack.encode(value) for value in values]


def checksum(content: bytes) -> int:
    """Give a row's checksum as the journal computes it."""
    return zlib.crc32(content)
