"""A packet reads as it was written; what doesn't add up is malformed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pilotage.protocol.errors import MalformedFrame
from pilotage.protocol.records import (
    MAX_NAMES,
    MAX_RUN_READ,
    Ack,
    Attached,
    Greeting,
    Marks,
    Packet,
    Parcel,
    Verdict,
    as_ranges,
    decode_packet,
    encode_packet,
)
from pilotage.protocol.settlement import Outcome, Reason

GOLDEN = Path(__file__).parent / "golden_packet.hex"


def full_packet() -> Packet:
    marks = int(Marks.ORDERED | Marks.DURABLE)
    parcel = Parcel(
        ["T", "_T"],
        ["rig"],
        2**62 + 5,
        3,
        41,
        40,
        "DATA",
        marks,
        [b"\x93\x01\x02\x03"],
        Attached([b"one", b"two"]),
    )
    run = Parcel(["T"], [], 1, 1, 1, 1, "PING", 0, [b"", b"\xc0"])
    probe = Parcel(["T"], [], 1, 1, 2, 1, "PING", Marks.PROBE, [])
    verdict = Verdict(7, Outcome.REFUSED, Reason.LISTEN_FAILED, "ValueError: no such trial")
    ack = Ack(["S", "rig"], 9, 2, 77, 10, [12, 13], 6, [8, 8], 2, [verdict])
    return Packet([parcel, run, probe], [ack], [Greeting("hello")])


def test_the_bytes_of_a_packet_stay_what_they_are():
    frames = encode_packet(full_packet())
    assert [frame.hex() for frame in frames] == GOLDEN.read_text().split()


def test_golden_bytes_read_back_to_the_packet():
    packet = decode_packet([bytes.fromhex(line) for line in GOLDEN.read_text().split()])
    expected = full_packet()
    assert packet.acks == expected.acks and packet.greetings == expected.greetings
    assert packet.parcels[0].frames == [b"one", b"two"] and packet.parcels[1].frames == ()
    for got, wanted in zip(packet.parcels, expected.parcels, strict=True):
        got.attached = wanted.attached = 0
        assert got == wanted


def test_size_counts_the_body_and_its_frames():
    assert full_packet().parcels[0].size == 4 + 6


def head(packet: object) -> bytes:
    return b"\x03" + msgspec.msgpack.encode(packet)


PARCEL = [["T"], [], 1, 1, 1, 1, "K", 0, [b""], 0]


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"\x03"],
        [b"\x02" + head([[], [], []])[1:]],
        [b"\x03\xc1"],
        [head({"parcels": []})],
        [head([[PARCEL]]), b"nobody's frame"],
        [head([[[*PARCEL[:9], 2]]]), b"only one"],
        [head([[[*PARCEL[:9], -1]]])],
        [head([[[*PARCEL[:9], -1], [*PARCEL[:9], 1]]])],
        [head([[[*PARCEL[:8], b"body", 0]]])],
        [head([[[*PARCEL[:8], [], 0]]])],
        [head([[[*PARCEL[:7], Marks.PROBE, [b""], 0]]])],
        [head([[[*PARCEL[:8], [b""] * (MAX_RUN_READ + 1), 0]]])],
        [head([[[*PARCEL[:8], [b"", b""], 1]]]), b"whose?"],
        [head([[[*PARCEL[:9], "1"]]]), b"x"],
        [head([[[[], *PARCEL[1:]]]])],
        [head([[[["a"] * (MAX_NAMES + 1), *PARCEL[1:]]]])],
        [head([[[["T"], ["a"] * (MAX_NAMES + 1), *PARCEL[2:]]]])],
        [head([[], [[["a"] * (MAX_NAMES + 1), 1, 1, 1, 0, [], 0, []]]])],
        [head([[], [[["a"], 1, 1, 1, 0, [], 0, [], 0, [[1, "vanished"]]]]])],
        [b"\x03" + b"\x91" * 100_000],
    ],
)
def test_what_is_no_packet_is_malformed(frames):
    with pytest.raises(MalformedFrame):
        decode_packet(frames)


def test_the_messages_of_a_run_have_places_of_their_own():
    run = full_packet().parcels[1]
    assert [(one.place, one.bodies) for one in run.singles()] == [((1, 1, 1), [b""]), ((1, 1, 2), [b"\xc0"])]


def test_ranges_hold_exactly_their_places():
    places = [1, 2, 3, 7, 9, 10]
    ranges = as_ranges(places)
    assert ranges == [1, 3, 7, 7, 9, 10]
    told = zip(ranges[::2], ranges[1::2], strict=True)
    assert [place for first, last in told for place in range(first, last + 1)] == places
