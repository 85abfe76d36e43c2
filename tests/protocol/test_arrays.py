"""Arrays as JSON documents: every form comes back equal, every lie is refused."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pilotage.protocol.arrays import (
    MAX_NESTING,
    ArrayForm,
    collapse_arrays,
    decode_array,
    encode_array,
    expand_arrays,
    is_array_document,
    serialize_array,
)
from pilotage.protocol.container import store
from pilotage.protocol.errors import ArrayRefused, InvalidMessage, MalformedArray

FORMS = list(ArrayForm)
GOLDEN = [
    golden
    for path in sorted((Path(__file__).parent / "golden").glob("arrays-*.json"))
    for golden in json.loads(path.read_text())
]


def same(found: np.ndarray[Any, Any], sent: np.ndarray[Any, Any]) -> bool:
    """Compare dtype, shape and bytes, which not-a-number doesn't disturb."""
    return found.dtype == sent.dtype and found.shape == sent.shape and found.tobytes() == sent.tobytes()


def over_the_wire(array: Any, form: ArrayForm) -> np.ndarray[Any, Any]:
    return decode_array(json.loads(json.dumps(encode_array(array, form))))


def dtype_of(descr: Any) -> np.dtype[Any]:
    def field(row: list[Any]) -> tuple[Any, ...]:
        kind = [field(r) for r in row[1]] if isinstance(row[1], list) else row[1]
        return (row[0], kind, tuple(row[2])) if len(row) > 2 else (row[0], kind)

    return np.dtype([field(row) for row in descr] if isinstance(descr, list) else descr)


@pytest.mark.parametrize(
    "golden", GOLDEN, ids=lambda g: f"{g['writer']}-numpy{g['numpy']}-{g['protocol']}-{g['case']}"
)
def test_what_real_writers_wrote_is_read(golden: dict[str, Any]) -> None:
    if golden["case"] == "empty" and golden["protocol"] == 2:
        with pytest.raises(MalformedArray, match="__builtin__"):
            decode_array(golden["document"])
        return
    found = decode_array(golden["document"])
    assert list(found.shape) == golden["shape"]
    assert found.tobytes().hex() == golden["bytes"]
    assert found.flags.writeable
    if golden["aligned"]:
        assert found.dtype == np.dtype([("a", "u1"), ("b", "<f8")], align=True)
    else:
        assert found.dtype == dtype_of(golden["descr"])


def test_there_are_golden_arrays_of_each_writer() -> None:
    assert {g["writer"].split()[0] for g in GOLDEN} == {"blosc", "blosc2"}
    assert {g["protocol"] for g in GOLDEN} == {2, 3, 4, 5}
    assert {g["numpy"][0] for g in GOLDEN} == {"1", "2"}


SCALARS = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="?")
    | hnp.unsigned_integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?")
    | hnp.complex_number_dtypes(endianness="?")
    | hnp.byte_string_dtypes(min_len=1, max_len=9)
    | hnp.unicode_string_dtypes(endianness="?", min_len=1, max_len=9)
    | hnp.datetime64_dtypes(endianness="?")
    | hnp.timedelta64_dtypes(endianness="?")
)
RECORDS = hnp.array_dtypes(SCALARS, allow_subarrays=True, max_size=4)
NESTED = hnp.nested_dtypes(SCALARS, max_leaves=6)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Draw an array of any travelling dtype, shape and layout, with any bits in it."""
    dtype = draw(SCALARS | RECORDS | NESTED)
    while dtype.subdtype is not None:
        dtype = dtype.subdtype[0]
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    size = int(np.prod(shape)) * dtype.itemsize
    bits = draw(st.binary(min_size=size, max_size=size)) if dtype.kind in "biufcmMS" else bytes(size)
    flat = np.ndarray(shape, dtype, buffer=bytearray(bits) or None)
    return draw(
        st.sampled_from(
            [flat, np.asfortranarray(flat) if shape else flat, flat.T, flat[::-2] if shape else flat]
        )
    )


@given(arrays(), st.sampled_from(FORMS))
def test_every_array_comes_back_equal(array: np.ndarray[Any, Any], form: ArrayForm) -> None:
    found = over_the_wire(array, form)
    assert same(found, array)
    assert found.flags.writeable or form is ArrayForm.RAW


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "array",
    [
        np.array(["été", "", "\U0001f42d"]),
        np.array([b"a\0b", b""]),
        np.array([np.nan, -np.inf, -0.0]),
        np.array(["NaT", "2022-11-22"], "M8[D]"),
        np.array([1], "m8"),
        np.array([1.5], np.longdouble),
        np.zeros((), "U3"),
        np.zeros((3, 0), "S2"),
        np.zeros(2, [("a", "f8"), (("the title", "b"), "i4", (2, 2))]),
        np.zeros(
            2, np.dtype({"names": ["b", "a"], "formats": ["u1", "f8"], "offsets": [9, 1], "itemsize": 20})
        ),
        np.zeros(0, [("a", "?")]),
        np.rec.array([(1, "a")], dtype=[("n", "i4"), ("s", "U1")]),
        np.zeros(2, np.dtype("f8", metadata={"unit": "mV"})),
        np.zeros(300_000, "f4"),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}"[:40],
)
def test_particular_arrays_come_back_equal(array: np.ndarray[Any, Any], form: ArrayForm) -> None:
    assert same(over_the_wire(array, form), np.asarray(array))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "scalar", [np.float32(1.5), np.int64(-3), np.complex64(1j), np.datetime64("2020", "ms")]
)
def test_a_numpy_scalar_travels_as_an_array_without_axes(scalar: np.generic, form: ArrayForm) -> None:
    found = over_the_wire(scalar, form)
    assert (found.shape, found.dtype) == ((), scalar.dtype)
    assert found == scalar


def test_the_documented_form_has_one_key_and_blosc_reads_it() -> None:
    array = np.linspace(0, 1, 50)
    document = serialize_array(array)
    assert list(document) == ["NUMPY_ARRAY"]
    packed = base64.b64decode(document["NUMPY_ARRAY"])
    assert packed[:2] == b"\x02\x01"
    np.testing.assert_array_equal(blosc2.unpack_array(packed), array)


def test_the_packed_form_of_three_keys_is_compressed_and_blosc2_reads_it() -> None:
    array = np.zeros((100, 100), "i2")
    document = encode_array(array, ArrayForm.AUTOPILOT_05)
    assert list(document) == ["NUMPY_ARRAY", "DTYPE", "SHAPE"]
    assert (document["DTYPE"], document["SHAPE"]) == ("int16", [100, 100])
    packed = base64.b64decode(document["NUMPY_ARRAY"])
    assert len(packed) < array.nbytes / 10
    np.testing.assert_array_equal(blosc2.unpack_array(packed), array)


def test_the_raw_form_is_what_numpy_writes() -> None:
    array = np.asfortranarray(np.arange(6, dtype=">u2").reshape(2, 3))
    document = encode_array(array, ArrayForm.RAW)
    assert document == {
        "NUMPY_ARRAY": base64.b64encode(array.tobytes()).decode(),
        "DTYPE": ">u2",
        "SHAPE": [2, 3],
    }


@pytest.mark.parametrize("form", FORMS)
def test_without_blosc2_each_form_is_written_and_read(
    form: ArrayForm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "blosc2", None)
    array = np.arange(100, dtype="c8").reshape(10, 10).T
    assert same(over_the_wire(array, form), array)


def test_the_names_that_are_written_are_those_of_the_oldest_numpy() -> None:
    for array in (np.zeros(3), np.float32(1)):
        content = base64.b64decode(serialize_array(array)["NUMPY_ARRAY"])
        assert b"numpy._core" not in content
        assert b"numpy.core.multiarray" in content


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "array",
    [
        np.array([None, {}], dtype=object),
        np.zeros(2, [("a", "f8"), ("b", "O")]),
        np.zeros(2, [("a", [("b", "O", (2,))])]),
        np.zeros(2, "V5"),
        np.zeros(1, [(f"f{n}", "u1") for n in range(2000)]),
        np.ma.masked_array([1, 2], [True, False]),
    ],
    ids=["object", "object field", "nested object field", "bare bytes", "many fields", "masked"],
)
def test_what_is_no_plain_array_is_refused(array: np.ndarray[Any, Any], form: ArrayForm) -> None:
    with pytest.raises(ArrayRefused, match=r"(sent|mask|fields)"):
        encode_array(array, form)


def test_an_array_above_the_limit_is_refused_on_both_sides() -> None:
    array = np.zeros(100, "u1")
    for form in FORMS:
        with pytest.raises(ArrayRefused, match="limit"):
            encode_array(array, form, max_bytes=99)
        document = encode_array(array, form)
        assert decode_array(document, max_bytes=100).nbytes == 100
        with pytest.raises(MalformedArray, match="limit"):
            decode_array(document, max_bytes=99)


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ({"NUMPY_ARRAY": ""}, True),
        ({"DTYPE": "f8", "SHAPE": [1], "NUMPY_ARRAY": ""}, True),
        ({"NUMPY_ARRAY": "", "DTYPE": "f8"}, False),
        ({"NUMPY_ARRAY": "", "a": 1, "b": 2, "c": 3}, False),
        ({"a": 1}, False),
        ({}, False),
        (["NUMPY_ARRAY"], False),
        (None, False),
    ],
)
def test_a_document_is_told_by_its_keys(value: object, answer: bool) -> None:
    assert is_array_document(value) is answer


PACKED = encode_array(np.arange(3.0), ArrayForm.AUTOPILOT_05)
RAW = encode_array(np.arange(3.0), ArrayForm.RAW)
LIES: list[dict[str, Any]] = [
    {},
    {"NUMPY_ARRAY": None},
    {"NUMPY_ARRAY": 7},
    {"NUMPY_ARRAY": ["x"]},
    {"NUMPY_ARRAY": "not base64!"},
    {"NUMPY_ARRAY": "é"},
    {"NUMPY_ARRAY": "AAA"},
    {"NUMPY_ARRAY": ""},
    {"NUMPY_ARRAY": RAW["NUMPY_ARRAY"]},
    {"NUMPY_ARRAY": base64.b64encode(store(b"cos\nsystem\n.", 1)).decode()},
    {"NUMPY_ARRAY": "", "a": 1, "b": 2},
    PACKED | {"SHAPE": [4]},
    PACKED | {"SHAPE": [3, 1]},
    PACKED | {"SHAPE": 3},
    PACKED | {"DTYPE": "int64"},
    PACKED | {"DTYPE": "[('a', '<f8')]"},
    PACKED | {"DTYPE": None},
    RAW | {"SHAPE": [4]},
    RAW | {"SHAPE": [-3]},
    RAW | {"SHAPE": [True, 3]},
    RAW | {"SHAPE": [3.0]},
    RAW | {"SHAPE": "3"},
    RAW | {"SHAPE": [2**62, 2**62]},
    RAW | {"SHAPE": [0, 2**62]},
    RAW | {"SHAPE": [1] * 33},
    RAW | {"DTYPE": "object"},
    RAW | {"DTYPE": "O"},
    RAW | {"DTYPE": "|O8"},
    RAW | {"DTYPE": "i4,i4"},
    RAW | {"DTYPE": "(3,)f8"},
    RAW | {"DTYPE": "V8"},
    RAW | {"DTYPE": "U99999999999"},
    RAW | {"DTYPE": "U9999999999"},
    RAW | {"DTYPE": "datetime64[parsec]"},
    RAW | {"DTYPE": "float64\n"},
    RAW | {"DTYPE": ""},
    RAW | {"DTYPE": {"names": []}},
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: json.dumps(lie)[-50:])
def test_a_document_that_lies_is_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(MalformedArray):
        decode_array(lie)


def test_bytes_that_only_look_packed_are_taken_as_the_raw_array_they_are() -> None:
    inside = base64.b64decode(serialize_array(np.arange(3.0))["NUMPY_ARRAY"])
    for content in (store(b"a clip", 1), inside):
        sent = np.frombuffer(content, "u1")
        assert same(over_the_wire(sent, ArrayForm.RAW), sent)


def test_arrays_are_expanded_wherever_they_are() -> None:
    value = {"a": [1, (np.arange(3), {"b": np.zeros((2, 2), bool)})], "c": "text", "d": None}
    for form in FORMS:
        found = expand_arrays(collapse_arrays(value, form))
        assert found["a"][0] == 1 and found["c"] == "text" and found["d"] is None
        assert same(found["a"][1][0], np.arange(3))
        assert same(found["a"][1][1]["b"], np.zeros((2, 2), bool))


def test_a_value_is_not_changed_in_place() -> None:
    array = np.arange(3)
    value = {"a": [array]}
    collapsed = collapse_arrays(value, ArrayForm.RAW)
    expand_arrays(collapsed)
    assert value["a"][0] is array
    assert is_array_document(collapsed["a"][0])


def test_numbers_that_json_knows_become_plain() -> None:
    value = [np.float64(1.5), np.bool_(True), np.str_("a"), 3]
    found = collapse_arrays(value, ArrayForm.AUTOPILOT_05)
    assert json.loads(json.dumps(found)) == [1.5, True, "a", 3]
    assert is_array_document(collapse_arrays(np.int64(3), ArrayForm.AUTOPILOT_05))


def test_all_arrays_of_a_value_share_one_limit() -> None:
    document = encode_array(np.zeros(1000, "u1"), ArrayForm.AUTOPILOT_05)
    assert len(expand_arrays([document] * 3, max_bytes=3000)) == 3
    with pytest.raises(MalformedArray, match="limit"):
        expand_arrays([document] * 4, max_bytes=3000)


def test_deep_nesting_is_refused_both_ways() -> None:
    deep: Any = 1
    for _ in range(MAX_NESTING + 5):
        deep = [deep]
    with pytest.raises(MalformedArray, match="deeper"):
        expand_arrays(deep)
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidMessage, match="deeper"):
        collapse_arrays(loop, ArrayForm.RAW)


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\x02\x01\x02\x01", b"\x05\x01\x05\x08"]), st.booleans()
)
def test_any_bytes_give_an_array_or_the_one_error(data: bytes, start: bytes, three: bool) -> None:
    content = bytearray(start + data)
    if len(content) >= 16:
        content[12:16] = len(content).to_bytes(4, "little")
    document: dict[str, Any] = {"NUMPY_ARRAY": base64.b64encode(content).decode()}
    if three:
        document |= {"DTYPE": "uint8", "SHAPE": [len(data)]}
    try:
        found = decode_array(document, max_bytes=2**20)
    except MalformedArray:
        return
    assert isinstance(found, np.ndarray)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
)


@given(JSON, st.text(max_size=12) | JSON, JSON)
def test_any_document_gives_an_array_or_the_one_error(text: Any, dtype: Any, shape: Any) -> None:
    try:
        found = decode_array({"NUMPY_ARRAY": text, "DTYPE": dtype, "SHAPE": shape}, max_bytes=2**20)
    except MalformedArray:
        return
    assert isinstance(found, np.ndarray)
