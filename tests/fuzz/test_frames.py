"""Any frames and any bodies: a message or one documented error, and a count; never another exception (B1)."""

from __future__ import annotations

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotage.protocol.bodies import decode_body
from pilotage.protocol.errors import MalformedArray, MalformedFrame
from pilotage.protocol.message import Message
from pilotage.protocol.records import WIRE_VERSION, Marks
from tests.protocol.builders import LISTENER, envelope, exchange, handed_over, original, own, packet, parcel

FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))

NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.integers(-2, 10)
NAMES = st.sampled_from(["S", "a", "_S", "", "o1", "far"]) | st.text(max_size=5)
SCALARS = st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=8) | st.binary(max_size=8)
EXTENSIONS = st.builds(
    lambda code, content: msgspec.msgpack.Ext(code, msgspec.msgpack.encode(content)),
    st.sampled_from([1, 2, 3, -5]),
    st.tuples(
        st.sampled_from(["<f8", "|u1", "|V0", "<U3", "M8", "|O", "(2,)f4", "f4,(", "", "a" * 5000]) | st.recursive(
            st.text(max_size=4) | st.integers(-2, 5), lambda inner: st.lists(inner, max_size=3), max_leaves=6
        ),
        st.lists(st.integers(-2, 5) | st.just(2**62), max_size=4) | SCALARS,
        st.sampled_from(["C", "F", "X"]) | SCALARS,
        st.binary(max_size=16) | st.integers(-3, 3),
    ),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS | EXTENSIONS,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4) | NUMBERS, inner, max_size=4)
    ),
    max_leaves=10,
)
VERSION = bytes([WIRE_VERSION])
HEADS = st.builds(lambda value: VERSION + msgspec.msgpack.encode(value), st.lists(VALUES, max_size=3))
PARCELS = st.builds(
    lambda path, trail, boot, flow, seq, floor, verb, marks, bodies: packet(
        parcel(seq, floor, marks, path=path, trail=trail, boot=boot, flow=flow, verb=verb, bodies=bodies)
    ),
    st.lists(NAMES, min_size=1, max_size=5), st.lists(NAMES, max_size=5), NUMBERS, NUMBERS, NUMBERS, NUMBERS,
    NAMES, st.integers(0, 20), st.lists(st.binary(max_size=30) | st.just(envelope()), max_size=4),
)  # fmt: skip
OUTCOMES = st.sampled_from(["delivered", "refused"])
ACKS = st.builds(
    lambda *fields: [VERSION + msgspec.msgpack.encode([[], [list(fields)], []])],
    st.lists(NAMES, max_size=4), st.sampled_from([1, 2, 5]), NUMBERS, NUMBERS, NUMBERS, st.lists(NUMBERS, max_size=5),
    NUMBERS, st.lists(NUMBERS, max_size=5), NUMBERS,
    st.lists(st.tuples(NUMBERS, OUTCOMES, st.none(), st.text(max_size=3), st.binary(max_size=3)), max_size=3),
)  # fmt: skip
WORDS = st.sampled_from(["hello", "welcome", "refused", "ping", "pong", "bye"]) | st.text(max_size=5)
GREETINGS = st.builds(lambda word: [VERSION + msgspec.msgpack.encode([[], [], [[word]]])], WORDS)
RAW = st.lists(st.binary(max_size=40), max_size=5)
OWN_FRAMES = RAW | PARCELS | ACKS | GREETINGS | st.builds(lambda head, rest: [head, *rest], HEADS, RAW)

JSON_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "id": NAMES | st.just("CONFIRM"), "to": NAMES | st.lists(NAMES, max_size=4), "sender": NAMES,
        "key": st.sampled_from(["K", "DATA", "CONFIRM", "STREAM"]) | st.text(max_size=3),
        "value": st.text(max_size=4),
        "timestamp": st.text(max_size=3) | st.none(),
        "flags": st.just({"NOREPEAT": 1}) | st.lists(st.integers(), max_size=1),
        "ttl": st.integers(-5, 10**30), "blosc": st.booleans() | st.integers(), "validate": st.integers(),
    },
)  # fmt: skip
ENVELOPES = st.builds(lambda fields: json.dumps(fields).encode(), JSON_FIELDS) | st.builds(
    lambda fields: json.dumps({**json.loads(envelope()), **fields}).encode(), JSON_FIELDS
)
JSON_FRAMES = RAW | st.builds(
    lambda names, body: [*names, body], st.lists(st.binary(max_size=4), max_size=6), ENVELOPES
)


def joined():
    """Give a station with a neighbour of ours, an original and sends of its own under way."""
    from tests.protocol.builders import request

    station = exchange()
    station.frames_arrived([(LISTENER, own("a", 2), packet())], 0.0)
    station.frames_arrived([(*original("o1"), [b"S", b""])], 0.0)
    station.send([request(name, (name,)) for name in ("a", "S", "far")], 0.0)
    return station


@FUZZ
@given(st.lists(OWN_FRAMES, min_size=1, max_size=5))
def test_any_frames_of_our_wire_are_used_or_counted(transmissions):
    station = joined()
    for at, frames in enumerate(transmissions):
        station.frames_arrived([(LISTENER, own("a", 2), frames)], at / 10)
    station.time_passed(3.0)
    again = parcel(1, trail=[], boot=12345, flow=54321)
    assert handed_over(station.frames_arrived([(LISTENER, own("a", 2), packet(again))], 4.0)), (
        "a good one still comes through"
    )


@FUZZ
@given(st.lists(JSON_FRAMES, min_size=1, max_size=5))
def test_any_frames_of_an_original_are_used_or_counted(transmissions):
    station = joined()
    for at, frames in enumerate(transmissions):
        station.frames_arrived([(*original("o1"), frames)], at / 10)
    station.time_passed(3.0)
    good = envelope(sender="o1", id="a good one")
    assert handed_over(station.frames_arrived([(*original("o1"), [b"S", b"S", good])], 4.0))


@pytest.mark.parametrize("card", [own("a", 2), original("o1")[1]], ids=["ours", "original's"])
def test_garbage_is_counted_one_by_one(card):
    station = joined()
    link = LISTENER if card.name == "a" else original("o1")[0]
    station.frames_arrived([(link, card, [b"garbage %d" % n]) for n in range(10_000)], 0.0)
    assert station.counts["malformed"] + station.counts["muted"] == 10_000


@FUZZ
@given(VALUES.map(msgspec.msgpack.encode) | st.binary(max_size=60), RAW)
def test_any_body_is_a_message_or_malformed(body, frames):
    with suppress(MalformedFrame, MalformedArray):
        assert isinstance(decode_body("K", body, frames), Message)


@FUZZ
@given(
    st.tuples(
        *[VALUES] * 5, NUMBERS, st.just({}) | VALUES, st.dictionaries(st.text(max_size=9), VALUES, max_size=3)
    ),
    RAW,
)
def test_any_eight_fields_are_a_message_or_malformed(fields, frames):
    with suppress(MalformedFrame, MalformedArray):
        assert decode_body("K", msgspec.msgpack.encode(fields), frames).key == "K"


@FUZZ
@given(VALUES.map(msgspec.msgpack.encode), st.sampled_from([0, Marks.JSON]))
def test_any_body_for_an_original_is_posted_or_refused(body, mark):
    station = joined()
    one = parcel(1, marks=Marks.ORDERED | mark, path=["o1"], trail=[], boot=9, body=body)
    station.frames_arrived([(LISTENER, own("a", 2), packet(one))], 0.0)
    assert len(station.waiting) == 0
