"""A message comes back as it was sent; what isn't one ends in a documented error."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from pilotage.protocol.bodies import (
    BESIDE_FROM_BYTES,
    OWN_FRAME_FROM_BYTES,
    SHARED_FRAME_BYTES,
    decode_body,
    decode_value,
    encode_body,
    encode_value,
)
from pilotage.protocol.errors import ArrayRefused, InvalidMessage, MalformedArray, MalformedFrame
from pilotage.protocol.message import Message


def test_a_message_comes_back_with_its_extra_fields_and_without_its_key():
    message = Message(
        id="a_1",
        to=["S", "b"],
        sender="a",
        key="K",
        value={"x": [1, None, "µ"]},
        flags={"NOLOG": True},
        note=3,
    )
    body, frames = encode_body(message)
    assert frames == 0 and b"K" not in body
    back = decode_body("K", body)
    for name in ("id", "to", "sender", "key", "value", "flags", "timestamp", "ttl", "note"):
        assert back[name] == message[name], name


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="<i2").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(20)[::3],
        np.zeros((0, 4), "f4"),
        np.array(2.5),
        np.array(["a", "µµ"]),
        np.array(["2026-11-22", "NaT"], "M8[D]"),
        np.zeros(3, [("x", "<f4"), ("at", "<i8", (2,)), ("in", [("y", "u1")])]),
        np.arange(OWN_FRAME_FROM_BYTES, dtype=">u2"),
        np.asfortranarray(np.random.default_rng(1).random((40, 50))),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
@pytest.mark.parametrize("hand_over", [False, True])
def test_arrays_come_back_equal_and_read_only(array, hand_over):
    body, attached = encode_value({"array": array}, hand_over=hand_over)
    frames = [bytes(frame) for frame in attached.frames] if attached else []
    assert bool(frames) == (array.nbytes >= BESIDE_FROM_BYTES)
    back = decode_value(body, frames)["array"]
    assert back.dtype == array.dtype and back.shape == array.shape
    np.testing.assert_array_equal(back, array)
    if array.nbytes:
        assert not back.flags.writeable


def test_arrays_of_a_few_kilobytes_share_a_frame():
    arrays = [np.full(size, number, "u1") for number, size in enumerate((5000, 4096, 30_001, 100, 40_000))]
    body, attached = encode_value(arrays, hand_over=True)
    assert [len(frame) for frame in attached.frames] == [5008 + 4096 + 30_016, 40_000]
    for array, back in zip(arrays, decode_value(body, attached.frames), strict=True):
        np.testing.assert_array_equal(back, array)
        assert not back.flags.writeable
    arrays[0][0] = 9
    assert decode_value(body, attached.frames)[0][0] == 0


def test_a_shared_frame_is_not_filled_without_end():
    arrays = [np.zeros(30_000, "u1") for _ in range(80)]
    body, attached = encode_value(arrays)
    assert len(attached.frames) == 3
    assert max(len(frame) for frame in attached.frames) < SHARED_FRAME_BYTES + OWN_FRAME_FROM_BYTES
    assert len(decode_value(body, attached.frames)) == 80


@pytest.mark.parametrize(
    "place", [[0], [0, -1], [0, 93], [1, 0], [-1, 0], [True, 0], [0, 0, 0], [0, None], [0, 2**63]]
)
def test_a_place_outside_the_shared_frame_is_refused(place):
    description = msgspec.msgpack.encode(["|u1", [8], "C", place])
    with pytest.raises(MalformedArray):
        decode_value(msgspec.msgpack.encode(msgspec.msgpack.Ext(1, description)), [bytes(100)])


def test_a_copy_is_taken_unless_the_array_was_handed_over():
    array = np.zeros(OWN_FRAME_FROM_BYTES, "u1")
    _, kept = encode_value(array)
    _, shared = encode_value(array, hand_over=True)
    array[0] = 9
    assert (kept.frames[0][0], shared.frames[0][0]) == (0, 9)


def test_numpy_scalars_keep_their_type():
    back = decode_value(encode_value(np.float32(1.5))[0])
    assert type(back) is np.float32 and back == 1.5


@pytest.mark.parametrize("value", [object(), {1, 2}.__iter__(), 2**70, "\ud800", lambda: 0])
def test_what_no_wire_carries_is_invalid(value):
    with pytest.raises(InvalidMessage):
        encode_value({"x": value})


def test_arrays_of_objects_are_refused():
    with pytest.raises(ArrayRefused):
        encode_value(np.array([object()]))


def ext(*description: object, code: int = 1) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(code, msgspec.msgpack.encode(list(description))))


@pytest.mark.parametrize(
    "body",
    [
        ext("<f8", [2], "C", b"short"),
        ext("<f8", [2**40, 2**40], "C", b""),
        ext("<f8", [0, 2**62, 2**62], "C", b""),
        ext("|V0", [2**40], "C", b""),
        ext("|O", [1], "C", b"12345678"),
        ext([["x", "|O"]], [1], "C", b"12345678"),
        ext("<f8", [-1], "C", b""),
        ext("<f8", [float("inf")], "C", b""),
        ext("<f8", [float("nan")], "C", b""),
        ext("<f8", [1] * 40, "C", b"12345678"),
        ext("<f8", [1], "C", 3),
        ext("<f8", [1], "C", -1),
        ext("<f8", "1", "C", b"12345678"),
        ext("no dtype", [1], "C", b"1"),
        ext("(", [1], "C", b"1"),
        ext(["x"], [1], "C", b"1"),
        ext([["x"]], [1], "C", b"1"),
        ext("<f8" * 2000, [1], "C", b"1"),
        ext(None, [1], "C", b"1"),
        ext("<f8", [1], "C"),
        ext("<f8", [1], "C", b"12345678", code=7),
    ],
)
def test_a_broken_array_is_malformed(body):
    with pytest.raises(MalformedArray):
        decode_value(body)


FIELDS = ["a_1", "a", "b", 1, "now", 2, {}, {}]


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        FIELDS[:7],
        [*FIELDS, 0],
        [*FIELDS[:6], [], {}],
        [*FIELDS[:7], 5],
        [1, *FIELDS[1:]],
        ["a_1", None, *FIELDS[2:]],
        [*FIELDS[:7], {"extra": 1, 3: 4}],
    ],
)
def test_what_is_no_message_is_malformed(content):
    with pytest.raises(MalformedFrame):
        decode_body("K", msgspec.msgpack.encode(content))


def test_an_extra_field_shadows_no_method():
    back = decode_body("K", msgspec.msgpack.encode([*FIELDS[:7], {"validate": 1, "serialize": 2}]))
    assert back.validate() and back["serialize"] == 2


def test_equal_units_of_time_are_told_apart():
    units = ("M8[s]", "M8[1000ms]", "m8[60s]", "m8[m]")
    for unit, size in [(unit, 3) for unit in units] + [(unit, 4) for unit in units[::-1]]:
        array = np.zeros(size, unit)
        assert decode_value(encode_value(array)[0]).dtype.str == array.dtype.str


def test_a_description_means_the_same_each_time_it_comes():
    frames = [bytes(range(256)) * 256, bytes(65_536)]
    arrays = [np.frombuffer(frames[0], "<u2"), np.zeros((4, 8192), "<u2")]
    body, attached = encode_value(arrays, hand_over=True)
    for _ in range(2):
        for array, back in zip(arrays, decode_value(body, attached.frames), strict=True):
            np.testing.assert_array_equal(back, array)
    other, _ = decode_value(body, [b"\1" * 65_536, frames[1]])
    assert (other == 0x0101).all()
    with pytest.raises(MalformedArray, match="fit"):
        decode_value(body, [frames[0][:-1], frames[1]])


def test_text_that_is_none_is_malformed():
    description = msgspec.msgpack.encode(["<U1", [], "C", b"\xff\xff\xff\xff"])
    with pytest.raises(MalformedArray, match="can't be read"):
        decode_value(msgspec.msgpack.encode(msgspec.msgpack.Ext(2, description)))
