"""Message: the documented behaviour, and what bytes from a peer can't do to it."""

from __future__ import annotations

import copy
import datetime
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.protocol.arrays import MAX_NESTING, ArrayForm, encode_array
from pilotage.protocol.errors import ArrayRefused, InvalidMessage, MalformedArray, MalformedFrame
from pilotage.protocol.message import Flag, Message

CORE: dict[str, Any] = {"id": "rig_0", "to": "T", "sender": "rig", "key": "DATA", "value": {"n": 1}}
V03 = (
    b'{"flags": {}, "timestamp": "2026-11-22T04:56:42.093565", "ttl": 5, "sender": "n1", "to": "T", '
    b'"key": "K", "value": 1, "id": "n1_0"}'
)
V05 = (
    b'{"id":"n1_0","to":"T","sender":"n1","key":"K","value":1,"timestamp":"2026-11-22T04:56:42.093565",'
    b'"changed":false,"flags":{"NOREPEAT":true},"blosc":false,"ttl":2}'
)


def wire(message: Message) -> dict[str, Any]:
    found = json.loads(message.serialize())
    assert isinstance(found, dict)
    return found


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_the_documented_defaults() -> None:
    for name in ("id", "to", "sender", "key", "value", "timestamp", "serialized"):
        assert getattr(Message, name) is None
    assert Message.changed is False
    assert Message.flags == {}
    assert Message.ttl == 2
    assert Message().ttl == 2


def test_flags_are_not_shared() -> None:
    one, other = Message(), Message()
    one.flags[Flag.NOREPEAT] = True
    del other["flags"]
    other.flags[Flag.NOLOG] = True
    assert Message.flags == {}
    assert Message().flags == {}
    given_flags = {"NOREPEAT": True}
    assert Message(flags=given_flags).flags == given_flags
    assert Message(flags=given_flags).flags is not given_flags


def test_a_flag_is_its_name() -> None:
    message = Message(**CORE, flags={Flag.MINPRINT: True})
    assert "MINPRINT" in message.flags
    assert wire(message)["flags"] == {"MINPRINT": True}
    assert {*Flag} == {"NOREPEAT", "MINPRINT", "NOLOG"}


def test_it_is_indexed_like_a_dictionary() -> None:
    message = Message(**CORE, subject="mouse")
    assert message["key"] == message.key == "DATA"
    assert message["subject"] == message.subject == "mouse"
    message["subject"] = "rat"
    message["extra"] = [1]
    assert (message.subject, message.extra) == ("rat", [1])
    assert "extra" in message
    del message["extra"]
    assert "extra" not in message
    assert not hasattr(message, "extra")
    with pytest.raises(KeyError):
        message["extra"]
    with pytest.raises(KeyError):
        del message["extra"]
    with pytest.raises(AttributeError):
        del message.extra


def test_the_timestamp_is_local_iso_time() -> None:
    before = datetime.datetime.now()
    message = Message(**CORE)
    stamp = datetime.datetime.fromisoformat(str(message.timestamp))
    assert stamp.tzinfo is None
    assert before <= stamp <= datetime.datetime.now()
    assert datetime.datetime.fromisoformat(message.get_timestamp()) >= stamp
    assert Message(timestamp="2020-01-01T00:00:00").timestamp == "2020-01-01T00:00:00"


@pytest.mark.parametrize("missing", ["id", "to", "sender", "key"])
def test_validate_wants_the_four(missing: str) -> None:
    assert Message(**CORE).validate() is True
    assert Message(**{k: v for k, v in CORE.items() if k != missing}).validate() is False
    assert Message(**CORE | {missing: None}).validate() is False


def test_all_fields_are_serialized_but_its_own_bookkeeping() -> None:
    message = Message(**CORE, subject="mouse")
    assert wire(message) == CORE | {
        "subject": "mouse",
        "flags": {},
        "ttl": 2,
        "blosc": True,
        "timestamp": message.timestamp,
    }


def test_serializing_is_cached_until_a_field_is_assigned() -> None:
    message = Message(**CORE)
    text = message.serialize()
    assert message.serialized is text
    assert message.serialize() is text
    message["value"] = 2
    assert message.changed
    assert wire(message)["value"] == 2
    assert not message.changed
    message.key = "STATE"
    assert wire(message)["key"] == "STATE"
    message.subject = "mouse"
    assert wire(message)["subject"] == "mouse"
    del message["subject"]
    assert "subject" not in wire(message)
    message.flags["NOREPEAT"] = True
    assert wire(message)["flags"] == {"NOREPEAT": True}
    message.flags = None  # type: ignore[assignment]
    assert wire(message)["flags"] == {}


def test_a_failed_serialization_is_not_covered_by_the_last_good_one() -> None:
    message = Message(**CORE)
    message.serialize()
    message.value = {1, 2}
    for _ in range(2):
        with pytest.raises(InvalidMessage):
            message.serialize()


def test_not_a_number_passes_both_ways() -> None:
    message = Message(**CORE | {"value": [math.nan, math.inf]})
    assert "NaN" in message.serialize()
    found = Message(message.serialize()).value
    assert math.isnan(found[0])
    assert found[1] == math.inf


@pytest.mark.parametrize("raw", [V03, V05, V03.decode(), bytearray(V05), memoryview(V03), json.loads(V05)])
def test_every_dialect_is_read(raw: Any) -> None:
    message = Message(raw)
    assert message.validate()
    assert (message.id, message.to, message.sender, message.key, message.value) == ("n1_0", "T", "n1", "K", 1)
    assert message.timestamp == "2026-11-22T04:56:42.093565"
    assert message.ttl in (2, 5)


def test_fields_that_are_missing_have_their_defaults() -> None:
    message = Message(
        b'{"id": "a_0", "to": ["S", "b"], "sender": "a", "key": "K", "ttl": null, "flags": null}'
    )
    assert message.validate()
    assert (message.to, message.ttl, message.flags, message.changed, message.blosc) == (
        ["S", "b"],
        2,
        {},
        False,
        True,
    )
    assert message.timestamp is None
    assert not Message(b"{}").validate()


def test_keywords_stand_over_the_message_given() -> None:
    message = Message(V03, to="P", subject="mouse")
    assert (message.to, message.subject, message.key) == ("P", "mouse", "K")


def test_extra_fields_become_attributes_and_go_out_again() -> None:
    message = Message(
        b'{"id": "s_0", "key": "C", "subject": "mouse", "pilot": "rig", "continuous": true, "a b": 1}'
    )
    assert (message.subject, message.pilot, message.continuous, message["a b"]) == ("mouse", "rig", True, 1)
    assert {"subject", "pilot", "continuous", "a b"} <= wire(message).keys()


HOSTILE = [
    "serialize",
    "validate",
    "expand",
    "get_timestamp",
    "from_parts",
    "serialized",
    "_hidden",
    "_serialize_numpy",
]
HOSTILE += ["__class__", "__dict__", "__getitem__", "_sent_flags", "__init__", "_", "__weakref__"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_field_from_the_wire_never_shadows(name: str) -> None:
    before = getattr(Message, name, None)
    message = Message(json.dumps({"id": "a_0", "to": "T", "sender": "a", "key": "K", name: "evil"}))
    assert type(message) is Message
    assert message[name] == "evil"
    assert name in message
    assert name not in vars(message)
    assert getattr(message, name, None) != "evil"
    assert getattr(Message, name, None) == before
    assert message.validate()
    assert name not in wire(message)
    del message[name]
    assert name not in message or name in dir(Message)


@pytest.mark.parametrize("name", ["serialize", "_private", "__class__", "from_parts"])
def test_nobody_here_shadows_either(name: str) -> None:
    with pytest.raises(InvalidMessage, match=name):
        Message(**CORE, **{name: 1})
    message = Message(**CORE)
    with pytest.raises(InvalidMessage, match=name):
        message[name] = 1
    with pytest.raises(InvalidMessage, match=name):
        setattr(message, name, 1)


BAD_FIELDS: list[dict[str, Any]] = [
    {"id": 1},
    {"to": 5},
    {"to": {}},
    {"to": ["a", 1]},
    {"to": [None]},
    {"sender": ["a"]},
    {"key": True},
    {"key": "\ud800"},
    {"to": "\udc80"},
    {"flags": ["NOREPEAT"]},
    {"flags": "NOREPEAT"},
    {"ttl": "5"},
    {"ttl": 2.5},
    {"ttl": True},
    {"timestamp": 12.5},
    {"blosc": 1},
    {"changed": "yes"},
]


@pytest.mark.parametrize("bad", BAD_FIELDS, ids=str)
def test_wrong_types_are_the_peers_fault_or_ours(bad: dict[str, Any]) -> None:
    (name,) = bad
    with pytest.raises(MalformedFrame, match=name):
        Message(json.dumps(CORE | bad))
    with pytest.raises(MalformedFrame, match=name):
        Message(CORE | bad)
    with pytest.raises(InvalidMessage, match=name):
        Message(**CORE | bad)
    if name != "changed":
        with pytest.raises(InvalidMessage, match=name):
            Message(**CORE)[name] = bad[name]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        b'"text"',
        b"\xff\xfe",
        '{"id": "é"}'.encode("latin-1"),
        json.dumps(CORE).encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"id": "a"} x',
        b'{"value": ' + b"9" * 5000 + b"}",
        b'{"value": ' + b"[" * 100_000,
        b'{"value": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"value": ' + b'{"a":' * 200 + b"1" + b"}" * 201,
        {1: 2},
        {"value": nested(MAX_NESTING + 1)},
    ],
    ids=lambda raw: str(raw)[:30],
)
def test_what_is_no_message_is_malformed(raw: Any) -> None:
    with pytest.raises(MalformedFrame):
        Message(raw)


def test_many_brackets_are_not_deep() -> None:
    value = [[n] for n in range(1000)]
    assert Message(Message(**CORE | {"value": value}).serialize()).value == value


def test_something_that_can_be_no_message_is_misuse() -> None:
    with pytest.raises(InvalidMessage, match="int"):
        Message(5)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [0, 1, 2, b"x"]}, r"value\['a'\]\[3\]: bytes can't be sent as JSON"),
        ({"when": datetime.datetime(2020, 1, 1)}, r"value\['when'\]: datetime can't"),
        ({1, 2}, "value: set can't"),
        ([{"a": {(1, 2): 3}}], r"value\[0\]\['a'\] has a tuple as key"),
        ([1j], r"value\[0\]: complex"),
        (10**5000, "value: .*digits"),
    ],
    ids=["bytes", "datetime", "set", "key", "complex", "huge number"],
)
def test_what_cannot_be_sent_is_named_with_its_place(value: Any, where: str) -> None:
    with pytest.raises(InvalidMessage, match=where):
        Message(**CORE | {"value": value}).serialize()


def test_an_extra_field_that_cannot_be_sent_is_named() -> None:
    with pytest.raises(InvalidMessage, match=r"payload\[1\]: bytes"):
        Message(**CORE, payload=[1, b""]).serialize()


def test_an_object_array_is_refused_with_its_place() -> None:
    with pytest.raises(ArrayRefused, match=r"value\['a'\]\[0\]: an array of dtype object"):
        Message(**CORE | {"value": {"a": [np.array([None])]}}).serialize()


def test_a_loop_or_a_deep_value_is_refused_before_it_is_sent() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = [loop]
    for value in (loop, nested(MAX_NESTING + 1), nested(100_000)):
        with pytest.raises(InvalidMessage, match="deeper"):
            Message(**CORE | {"value": value}).serialize()


@pytest.mark.parametrize(("blosc", "form"), [(True, ArrayForm.AUTOPILOT_05), (False, ArrayForm.RAW)])
def test_the_blosc_flag_chooses_the_arrays_form(blosc: bool, form: ArrayForm) -> None:
    array = np.arange(10)
    message = Message(**CORE | {"value": {"frame": array}}, blosc=blosc)
    assert wire(message)["value"]["frame"] == encode_array(array, form)
    assert wire(message)["blosc"] is blosc
    assert message._serialize_numpy(array) == encode_array(array, form)
    message.blosc = not blosc
    assert wire(message)["value"]["frame"] != encode_array(array, form)


def test_numpy_numbers_travel() -> None:
    value = [np.float64(0.5), np.bool_(True), np.float32(0.5), np.int64(7)]
    found = Message(Message(**CORE | {"value": value}).serialize(), expand_arrays=True).value
    assert found[:2] == [0.5, True]
    assert [v.dtype.name for v in found[2:]] == ["float32", "int64"]
    assert found[2:] == value[2:]


def test_arrays_are_expanded_only_when_asked() -> None:
    array = np.arange(6.0).reshape(2, 3)
    text = Message(**CORE | {"value": {"deep": [{"frame": array}]}}).serialize()
    lazy = Message(text)
    assert set(lazy.value["deep"][0]["frame"]) == {"NUMPY_ARRAY", "DTYPE", "SHAPE"}
    lazy.expand()
    eager = Message(text, expand_arrays=True)
    for message in (lazy, eager):
        np.testing.assert_array_equal(message.value["deep"][0]["frame"], array)
        np.testing.assert_array_equal(Message(message.serialize(), True).value["deep"][0]["frame"], array)


def test_a_broken_array_breaks_only_expanding() -> None:
    message = Message(json.dumps(CORE | {"value": [{"NUMPY_ARRAY": "?"}]}))
    with pytest.raises(MalformedArray):
        message.expand()
    assert message.value == [{"NUMPY_ARRAY": "?"}]


def test_parts_are_taken_as_they_are() -> None:
    flags = {"NOREPEAT": True}
    message = Message.from_parts(**CORE, flags=flags, timestamp="t", ttl=1)
    assert message.flags is flags
    assert message.validate()
    assert Message.from_parts(**CORE).flags is not Message.flags
    assert wire(message)["ttl"] == 1


def test_its_text_is_short_and_without_the_value() -> None:
    message = Message(**CORE | {"value": "x" * 10_000})
    assert repr(message) == "<Message rig_0 DATA: rig -> T>"


def test_it_can_be_copied_and_sent_to_another_process() -> None:
    message = Message(json.dumps(CORE | {"serialize": "evil"}))
    message.serialize()
    for twin in (copy.copy(message), copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert twin.serialize() == message.serialize()
        assert twin["serialize"] == "evil"
        twin.key = "OTHER"
        assert message.key == "DATA"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=8), inside, max_size=4),
    max_leaves=20,
)
FIELDS = st.dictionaries(
    st.sampled_from([*CORE, "flags", "ttl", "blosc", "changed", "timestamp", *HOSTILE]), JSON
)


@given(JSON)
def test_every_json_value_comes_back_equal(value: Any) -> None:
    assert Message(Message(**CORE | {"value": value}).serialize()).value == value


@given(
    st.binary(max_size=300)
    | st.tuples(st.sampled_from([V03, V05]), st.integers(0, 180), st.binary(max_size=5))
)
def test_any_bytes_give_a_message_or_the_one_error(raw: Any) -> None:
    if isinstance(raw, tuple):
        good, place, damage = raw
        raw = good[:place] + damage + good[place + len(damage) :]
    try:
        message = Message(raw)
    except MalformedFrame:
        return
    message.validate()
    message.serialize()


@given(FIELDS)
def test_any_fields_give_a_message_or_the_one_error(fields: dict[str, Any]) -> None:
    try:
        message = Message(json.dumps(fields))
    except MalformedFrame:
        return
    for name, item in fields.items():
        assert name in message or item is None
    for name in ("id", "sender", "key", "to"):
        assert getattr(message, name) is None or json.dumps(getattr(message, name)).encode()
    Message(message.serialize())
