"""Bombs: documents that are small on the wire and large in memory are refused before anything is built of them (B3)."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from tests.protocol.builders import envelope, parcel

from pilotage.net.files import MAX_FILE_BYTES
from pilotage.protocol.arrays import ArrayForm, encode_array
from pilotage.protocol.bodies import MAX_BODY_BYTES, decode_value, encode_value, read_content
from pilotage.protocol.bounds import MAX_CONTAINERS, MAX_ITEMS, check_msgpack
from pilotage.protocol.errors import InvalidMessage, MalformedFrame, PeerError
from pilotage.protocol.message import Message
from pilotage.protocol.original import MAX_FIELD_CHARS, read_envelope
from pilotage.protocol.records import (
    MAX_NAME_CHARS,
    MAX_NAMES,
    MAX_PACKET_PARCELS,
    WIRE_VERSION,
    Packet,
    decode_packet,
    encode_packet,
)

MIB = 2**20


def many(item: bytes, size: int) -> bytes:
    count = size // len(item)
    return b"\xdd" + count.to_bytes(4, "big") + item * count


def ext(content: bytes) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(1, content))


BOMBS = {
    "empty lists": many(b"\x90", 8 * MIB),
    "empty maps": many(b"\x80", 8 * MIB),
    "short texts": many(b"\xa2ab", 8 * MIB),
    "small numbers": many(b"\xcc\xff", 8 * MIB),
    "lists in lists": many(many(b"\x90", 1000), 4 * MIB),
    "a list that claims four billion": b"\xdd\xff\xff\xff\xff" + bytes(10),
    "a text that claims four billion": b"\xdb\xff\xff\xff\xff" + bytes(10),
    "an array described by empty lists": ext(many(b"\x90", 8 * MIB)),
    "an array of 90,000 dimensions": ext(msgspec.msgpack.encode(["<f8", [2**63] * 90_000, "C", b""])),
    "an array of 90,000 fields": ext(
        msgspec.msgpack.encode([[[f"f{n}", "<f8"] for n in range(45_000)], [], "C", b""])
    ),
    "endless small arrays": many(ext(b"\x90"), 2 * MIB),
}


def content(value: bytes) -> bytes:
    """Give a message's body that holds an encoded value."""
    return b"\x98" + b"\xa3n_0\xa1n\xa1S" + value + b"\xc0\x05\x80\x80"


def test_a_body_made_for_these_tests_is_one() -> None:
    assert read_content(content(b"\x93\x01\x02\x03")).value == [1, 2, 3]


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("read", [decode_value, lambda bomb: read_content(content(bomb))])
def test_a_body_that_would_grow_is_refused_at_once(name: str, read: Callable[[bytes], object]) -> None:
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(PeerError):
        read(BOMBS[name])
    took, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * MIB and took < 30, (peak, took)


@pytest.mark.parametrize("text", ["[],", "{},", "1,", "0.5,", '"ab",'])
def test_an_envelope_that_would_grow_is_refused_at_once(text: str) -> None:
    tracemalloc.start()
    with pytest.raises(MalformedFrame, match="send numbers as an array"):
        Message(f'{{"value": [{text * (12 * MIB // len(text))} 1]}}')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * MIB


def test_what_is_merely_large_is_read() -> None:
    numbers = [float(number) for number in range(300_000)]
    table = [[row, "text"] for row in range(40_000)]
    wave = np.random.default_rng(1).normal(size=300_000)
    for value in (numbers, table, "a" * 20 * MIB, bytes(5 * MIB), [wave[:400]] * 500):
        body, frames = encode_value(value)
        read = decode_value(body, frames.frames if frames else ())
        assert len(read) == len(value)
    document = Message(envelope(value={"wave": encode_array(wave, ArrayForm.RAW), "numbers": numbers}))
    document.expand()
    assert np.array_equal(document.value["wave"], wave)


def test_every_kind_of_item_is_stepped_over_rightly() -> None:
    item = [
        None, True, 0, -1, 127, 128, 2**16, 2**32, 2**63, -128, -(2**15), -(2**31), -(2**63), 0.5, "", "a" * 31,
        "a" * 32, "a" * 300, "a" * 70_000, b"", bytes(300), bytes(70_000), {}, {"a": 1}, {str(n): n for n in range(20)},
        list(range(20)), [0] * 70_000, msgspec.msgpack.Ext(5, b"a"), msgspec.msgpack.Ext(5, bytes(16)),
        msgspec.msgpack.Ext(5, bytes(300)), msgspec.msgpack.Ext(5, bytes(70_000)), msgspec.msgpack.Ext(5, bytes(3)),
    ]  # fmt: skip
    # Random bytes that look like containers make it count exactly.
    padding = np.random.default_rng(2).bytes(9 * MIB)
    check_msgpack(msgspec.msgpack.encode([item, padding]))
    with pytest.raises(MalformedFrame):
        check_msgpack(msgspec.msgpack.encode([[[]] * (MAX_CONTAINERS - 2), item, padding]))
    with pytest.raises(MalformedFrame):
        check_msgpack(msgspec.msgpack.encode([[0.5] * MAX_ITEMS, item]))


def test_no_list_of_a_head_is_longer_than_its_bound() -> None:
    def head(parcels: object = (), acks: object = (), greetings: object = ()) -> list[bytes]:
        return [bytes([WIRE_VERSION]) + msgspec.msgpack.encode([parcels, acks, greetings])]

    one = [["a"], [], 1, 1, 1, 1, "K", 0, [b""], 0]
    decode_packet(head([one] * MAX_PACKET_PARCELS))
    ack = [["a"], 1, 1, 1, 1, [], 1, []]
    too_long = {
        "parcels": head([one] * (MAX_PACKET_PARCELS + 1)),
        "path": head([[["a"] * (MAX_NAMES + 1), *one[1:]]]),
        "trail": head([[["a"], ["a"] * (MAX_NAMES + 1), *one[2:]]]),
        "a name": head([[["a" * (MAX_NAME_CHARS + 1)], *one[1:]]]),
        "a verb": head([[*one[:6], "K" * (MAX_NAME_CHARS + 1), *one[7:]]]),
        "acks": head(acks=[ack] * 65_537),
        "ranges": head(acks=[[*ack[:5], [1] * 131_073, *ack[6:]]]),
        "greetings": head(greetings=[["ping"]] * (MAX_PACKET_PARCELS + 1)),
    }
    for name, frames in too_long.items():
        with pytest.raises(MalformedFrame):
            pytest.fail(f"{name}: {decode_packet(frames)!r:.80}")


@pytest.mark.parametrize("field", ["id", "sender", "key", "timestamp"])
def test_no_field_that_is_remembered_is_long(field: str) -> None:
    read_envelope([envelope(**{field: "a" * MAX_FIELD_CHARS})], "S")
    with pytest.raises(MalformedFrame, match=str(MAX_FIELD_CHARS)):
        read_envelope([envelope(**{field: "a" * (MAX_FIELD_CHARS + 1)})], "S")


def test_no_original_names_more_than_so_many() -> None:
    for frames in ([b"a"] * 257, [b"a" * 1025]):
        with pytest.raises(MalformedFrame):
            read_envelope([*frames, envelope()], "S")
    with pytest.raises(MalformedFrame):
        read_envelope([envelope(to=["a"] * 257)], "S")


def test_what_nobody_would_read_is_not_sent() -> None:
    with pytest.raises(InvalidMessage, match="send numbers and bytes as arrays"):
        encode_value("a" * (MAX_BODY_BYTES + 1))
    body, _ = encode_value("a" * (MAX_BODY_BYTES - 10))
    frames = encode_packet(Packet([parcel(1, bodies=[body])], [], []))
    assert len(decode_packet(frames).parcels) == 1
    assert (
        len(encode_value({"path": "a" * 1024, "file": "a" * (MAX_FILE_BYTES * 4 // 3 + 4)})[0])
        <= MAX_BODY_BYTES
    )
