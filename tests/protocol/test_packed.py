"""Packed arrays: what real writers wrote is read, and nothing that hostile bytes name ever runs."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.protocol import packed
from pilotage.protocol.errors import MalformedArray
from pilotage.protocol.packed import unpack

PROTOCOLS = [2, 3, 4, 5]
F8 = b"cnumpy\ndtype\nX\x02\0\0\0f8\x89\x88\x87R(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
START = b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R(K\x01"


def array_of(shape: bytes, dtype: bytes, content: bytes) -> bytes:
    """Write an array by hand: what stands in each place may be a lie."""
    return START + shape + dtype + b"\x89" + b"B" + struct.pack("<I", len(content)) + content + b"tb."


class Runs:
    """Pickles into a call of `os.mkdir`: whoever unpickles it leaves a folder behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def text(word: str) -> bytes:
    raw = word.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def running(path: Path) -> dict[str, bytes]:
    """Ways to make a real unpickler call `os.mkdir(path)`."""
    name, module = text(str(path)), os.mkdir.__module__.encode()
    ways = {f"REDUCE protocol {p}": pickle.dumps(Runs(path), p) for p in PROTOCOLS}
    inside = pickle.dumps([np.zeros(2), Runs(path)], 3)
    return ways | {
        "GLOBAL": b"\x80\x02c" + module + b"\nmkdir\n" + name + b"\x85R.",
        "STACK_GLOBAL": b"\x80\x04" + text(module.decode()) + text("mkdir") + b"\x93" + name + b"\x85R.",
        "INST": b"\x80\x02(" + name + b"i" + module + b"\nmkdir\n.",
        "OBJ": b"\x80\x02(c" + module + b"\nmkdir\n" + name + b"o.",
        "BUILD after": b"\x80\x02c" + module + b"\nmkdir\n" + name + b"\x85R}b.",
        "an object array": pickle.dumps(np.array([Runs(path)], dtype=object), 5),
        "beside an array": inside,
    }


WAYS = list(running(Path("x")))


@pytest.mark.parametrize("way", WAYS)
def test_a_hostile_pickle_runs_nothing(way: str, tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    data = running(canary)[way]
    with pytest.raises(MalformedArray):
        unpack(data)
    assert not canary.exists()
    with contextlib.suppress(AttributeError):
        pickle.loads(data)
    assert canary.exists(), "these bytes were meant to be dangerous to a real unpickler"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\x80\x02(ios\nsystem\n.", "INST"),
        (b"\x80\x02(o.", "OBJ"),
        (b"\x80\x02))\x81.", "NEWOBJ"),
        (b"\x80\x04)))\x92.", "NEWOBJ_EX"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02\x83\x01\0.", "EXT2"),
        (b"\x80\x02\x84\x01\0\0\0.", "EXT4"),
        (b"\x80\x02Pid\n.", "PERSID"),
        (b"\x80\x02NQ.", "BINPERSID"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x02]N a.", "EMPTY_LIST"),
        (b"\x80\x02N2.", "DUP"),
        (b"\x80\x02cos\nsystem\n.", "'os' 'system'"),
        (b"\x80\x02cnumpy\nload\n.", "'numpy' 'load'"),
        (b"\x80\x02cnumpy.core.multiarray\nfromfile\n.", "fromfile"),
        (b"\x80\x02c_codecs\ndecode\n.", "decode"),
        (b"\x80\x02cbuiltins\ngetattr\n.", "getattr"),
        (b"\x80\x02\xff.", "0xff"),
    ],
)
def test_a_refusal_names_the_opcode_or_symbol(data: bytes, named: str) -> None:
    with pytest.raises(MalformedArray, match=named):
        unpack(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\x80\x01N.",
        b"\x80\x06N.",
        b"N.",
        b"\x80\x02N",
        b"\x80\x02.",
        b"\x80\x02N.",
        b"\x80\x02NN.",
        b"\x80\x02(N.",
        b"\x80\x02t.",
        b"\x80\x02R.",
        b"\x80\x02b.",
        b"\x80\x02(\x85.",
        b"\x80\x02h\x00.",
        b"\x80\x02q\x00.",
        b"\x80\x02NNs.",
        b"\x80\x02}(Nu.",
        b"\x80\x02}(NNu.",
        b"\x80\x02cnumpy",
        b"\x80\x02c\xff\n\xff\n.",
        b"\x80\x02X\xff\xff\xff\xffa.",
        b"\x80\x02X\x01\0\0\0\xff.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x05\x95\xff\xff\xff\xff\xff\xff\xff\xffN.",
        b"\x80\x02\x8a\xff.",
        b"\x80\x02cnumpy\nndarray\n)R.",
        b"\x80\x02cnumpy\ndtype\n.",
        b"\x80\x02c_codecs\nencode\nX\x03\0\0\0\xe2\x82\xacX\x06\0\0\0latin1\x86R.",
        b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x05\0\0\0utf-7\x86R.",
        START[:-3] + b".",
        F8.join([b"\x80\x03", b"."]),
    ],
)
def test_bytes_that_are_no_array_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedArray):
        unpack(data)


@pytest.mark.parametrize("junk", [b"N", b".", b"\0"])
def test_nothing_may_follow_the_end(junk: bytes) -> None:
    with pytest.raises(MalformedArray):
        unpack(pickle.dumps(np.zeros(2)) + junk)


def test_an_array_written_by_hand_is_read() -> None:
    found = unpack(array_of(b"K\x02\x85", F8, np.array([1.5, -2]).tobytes()))
    assert found.tolist() == [1.5, -2]


@pytest.mark.parametrize(
    ("shape", "content"),
    [
        (b"K\x03\x85", bytes(16)),
        (b"K\x01\x85", bytes(16)),
        (b")", b""),
        (b"J\xff\xff\xff\xff\x85", bytes(8)),
        (b"\x8a\x08" + b"\xff" * 7 + b"\x7f\x85", bytes(8)),
        (b"\x8a\x08" + b"\xff" * 7 + b"\x7fK\0\x86", b""),
        (b"\x88\x85", bytes(8)),
        (b"X\x01\0\0\0a\x85", bytes(8)),
        (b"N", bytes(8)),
        (b"(" + b"K\x01" * 33 + b"t", bytes(8)),
    ],
)
def test_a_shape_that_lies_is_refused(shape: bytes, content: bytes) -> None:
    with pytest.raises(MalformedArray):
        unpack(array_of(shape, F8, content))


def test_a_size_above_the_callers_limit_is_refused() -> None:
    data = pickle.dumps(np.zeros(100))
    assert unpack(data, max_bytes=800).nbytes == 800
    with pytest.raises(MalformedArray, match="limit"):
        unpack(data, max_bytes=799)


def dtype(code: str, state: bytes) -> bytes:
    return b"cnumpy\ndtype\n" + text(code) + b"\x89\x88\x87R(" + state + b"tb"


PLAIN = b"K\x03X\x01\0\0\0<NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\0"


@pytest.mark.parametrize(
    "lie",
    [
        dtype("O8", PLAIN),
        dtype("O", PLAIN),
        dtype("V8", PLAIN),
        dtype("f3", PLAIN),
        dtype("i8,O", PLAIN),
        dtype("f8", b"K\x02" + PLAIN[2:]),
        dtype("f8", PLAIN.replace(b"<", b"!")),
        dtype("f8", PLAIN + b"}"),
        dtype("f8", PLAIN.replace(b"J\xff\xff\xff\xff", b"K\x04", 1)),
        dtype("M8", PLAIN),
        dtype("M8", PLAIN + b"NC\x02ns\x86"),
        dtype("M8", PLAIN + b"N(C\x02xxK\x01K\x01K\x01t\x86"),
        dtype("M8", PLAIN + b"}X\x01\0\0\0aNsN\x86"),
        F8 + b"(" + PLAIN + b"tb",
        F8[: F8.index(b"(")],
        b"N",
        b"cnumpy\ndtype\n",
    ],
)
def test_a_dtype_that_lies_is_refused(lie: bytes) -> None:
    with pytest.raises(MalformedArray):
        unpack(array_of(b"K\x01\x85", lie, bytes(8)))


def record(code: str, names: bytes, fields: bytes, size: bytes = b"K\x08") -> bytes:
    return dtype(code, b"K\x03X\x01\0\0\0|N" + names + fields + size + b"K\x01K\0")


@pytest.mark.parametrize(
    "lie",
    [
        record("V8", text("a") + b"\x85", b"}"),
        record("V8", text("a") + b"\x85", b"}" + text("a") + F8 + b"K\x01\x86s"),
        record("V8", text("a") + b"\x85", b"}" + text("a") + F8 + b"J\xff\xff\xff\xff\x86s"),
        record("V8", text("a") + b"\x85", b"}" + text("a") + b"NK\0\x86s"),
        record("V9", text("a") + b"\x85", b"}" + text("a") + F8 + b"K\0\x86s"),
        record("V8", text("a") + text("a") + b"\x86", b"}" + text("a") + F8 + b"K\0\x86s"),
        record("V8", b"N", b"N"),
        record("V8", text("a") + b"\x85", b"}" + text("a") + F8 + b"K\0N\x87s", b"N"),
        record("V8", text("a") + b"\x85", b"}" + text("a") + F8 + b"K\0K\x07\x87s"),
        dtype("V8", b"K\x03X\x01\0\0\0|" + F8 + b"\x8a\x05\0\0\0\0\x01\x85\x86NNK\x08K\x01K\0"),
        dtype("V8", b"K\x03X\x01\0\0\0|N\x85NNK\x08K\x01K\0"),
    ],
)
def test_a_record_that_lies_is_refused(lie: bytes) -> None:
    with pytest.raises(MalformedArray):
        unpack(array_of(b"K\x01\x85", lie, bytes(8)))


def doubled(levels: int) -> bytes:
    """A record of two equal fields at one place, each again such a record, and so on."""
    layer = F8
    for _ in range(levels):
        fields = b"}(" + text("a") + layer + b"q\x07K\0\x86" + text("b") + b"h\x07K\0\x86u"
        layer = record("V8", text("a") + text("b") + b"\x86", fields)
    return layer


def test_nested_records_are_read_up_to_the_bound() -> None:
    assert unpack(array_of(b"K\x01\x85", doubled(3), bytes(8))).dtype.itemsize == 8
    for levels in (8, 30):
        with pytest.raises(MalformedArray, match="fields"):
            unpack(array_of(b"K\x01\x85", doubled(levels), bytes(8)))


BOMBS = {
    "opcodes": b"\x80\x02" + b"N" * packed.MAX_STACK + b"(t" * packed.MAX_OPCODES,
    "endless marks": b"\x80\x02" + b"(" * 10**6,
    "stack": b"\x80\x02" + b"N" * (packed.MAX_STACK + 2) + b".",
    "memo": b"\x80\x02N" + b"\x94" * (packed.MAX_MEMO + 2) + b".",
    "doubling tuples": b"\x80\x02N" + b"q\x00h\x00\x86" * 5000 + b".",
    "doubling text": b"\x80\x02c_codecs\nencode\nq\x00"
    + text("a" * 10**6)
    + b"X\x06\0\0\0latin1\x86q\x01R"
    + b"h\x00h\x01R" * 4000
    + b".",
    "one long text": b"\x80\x02X\xff\xff\xff\x7f" + b"a" * 100,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_in_little_memory(bomb: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MalformedArray):
            unpack(BOMBS[bomb], max_bytes=2**22)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.parametrize(
    ("data", "bound"),
    [
        (b"\x80\x02" + b"N" * (packed.MAX_STACK + 1), "stack or the memo"),
        (b"\x80\x02N" + b"\x94" * (packed.MAX_MEMO + 1), "stack or the memo"),
        (b"\x80\x02" + b"N" + b"q\x00" * packed.MAX_OPCODES, "opcodes"),
    ],
    ids=["stack", "memo", "opcodes"],
)
def test_each_bound_stops_by_its_name(data: bytes, bound: str) -> None:
    with pytest.raises(MalformedArray, match=bound):
        unpack(data)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_layout_survives(protocol: int, order: str) -> None:
    array = np.asarray(np.arange(24, dtype="i2").reshape(2, 3, 4), order=order)
    found = unpack(pickle.dumps(array, protocol))
    np.testing.assert_array_equal(found, array)
    assert found.flags.writeable
    assert found.flags.f_contiguous is array.flags.f_contiguous


def test_the_result_shares_nothing_with_the_bytes() -> None:
    data = bytearray(pickle.dumps(np.zeros(3)))
    found = unpack(data)
    data[:] = b"\xff" * len(data)
    assert found.tolist() == [0, 0, 0]


SEEDS = [
    pickle.dumps(a, p)
    for p in PROTOCOLS
    for a in (
        np.arange(5.0),
        np.array(["a"]),
        np.zeros(2, "M8[ns]"),
        np.zeros(2, [("a", "i2"), ("b", "U2")]),
        np.int8(3),
    )
]


@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=5))
def test_damaged_bytes_give_an_array_or_the_one_error(seed: bytes, damage: list[tuple[int, int]]) -> None:
    data = bytearray(seed)
    for place, byte in damage:
        data[place % len(data)] = byte
    try:
        found = unpack(data, max_bytes=2**20)
    except MalformedArray:
        return
    assert found.nbytes <= 2**20
    assert not found.dtype.hasobject


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x80\x02", b"\x80\x05", START]))
def test_any_bytes_give_an_array_or_the_one_error(data: bytes, start: bytes) -> None:
    with contextlib.suppress(MalformedArray):
        assert isinstance(unpack(start + data), np.ndarray)
