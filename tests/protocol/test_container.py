"""The blosc container: its header is checked before its content is touched."""

from __future__ import annotations

import struct
import sys

import blosc2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.protocol.container import compress, decompress, is_chunk, read_header, store
from pilotage.protocol.errors import MachineError, MalformedArray

CONTENT = bytes(range(256)) * 40


def changed(data: bytes, place: int, value: int, form: str = "<B") -> bytes:
    return data[:place] + struct.pack(form, value) + data[place + struct.calcsize(form) :]


@pytest.mark.parametrize("typesize", [1, 8, 255, 256, 0, 4096])
def test_what_is_stored_comes_back_and_blosc2_reads_it(typesize: int) -> None:
    data = store(CONTENT, typesize)
    assert bytes(decompress(data, len(CONTENT))) == CONTENT
    assert blosc2.decompress(data) == CONTENT
    assert len(data) == len(CONTENT) + 16


@pytest.mark.parametrize("codec", [*blosc2.compressor_list()])
@pytest.mark.parametrize("filters", [blosc2.Filter.NOFILTER, blosc2.Filter.SHUFFLE, blosc2.Filter.BITSHUFFLE])
def test_every_codec_of_a_writer_is_read(codec: blosc2.Codec, filters: blosc2.Filter) -> None:
    data = blosc2.compress(CONTENT, typesize=4, clevel=5, filter=filters, codec=codec)
    assert bytes(decompress(data, len(CONTENT))) == CONTENT


def test_compressing_makes_it_smaller() -> None:
    data = compress(CONTENT, 1)
    assert len(data) < len(CONTENT) / 4
    assert blosc2.decompress(data) == CONTENT


def test_the_limit_is_checked_before_decompressing() -> None:
    data = compress(CONTENT, 1)
    with pytest.raises(MalformedArray, match=f"declares {len(CONTENT)} bytes, the limit"):
        decompress(data, len(CONTENT) - 1)
    bomb = changed(changed(data, 4, 2**31, "<I"), 8, 2**20, "<I")
    with pytest.raises(MalformedArray, match="limit"):
        decompress(bomb, 2**28)


@pytest.mark.parametrize(
    ("place", "value", "form"),
    [
        (0, 3, "<B"),
        (0, 2, "<B"),
        (1, 2, "<B"),
        (2, 0xC5, "<B"),
        (2, 0x07, "<B"),
        (3, 0, "<B"),
        (4, 0, "<I"),
        (8, 0, "<I"),
        (8, 2**31, "<I"),
        (12, 17, "<I"),
        (16, 160, "<B"),
        (21, 35, "<B"),
        (22, 161, "<B"),
        (31, 0x08, "<B"),
        (31, 0x10, "<B"),
    ],
)
def test_a_header_that_lies_is_refused(place: int, value: int, form: str) -> None:
    good = compress(CONTENT, 1)
    assert not read_header(good).stored
    with pytest.raises(MalformedArray):
        read_header(changed(good, place, value, form))


def test_a_stored_chunk_of_another_length_is_refused() -> None:
    with pytest.raises(MalformedArray, match="stored"):
        read_header(changed(changed(store(CONTENT, 1), 4, 7, "<I"), 8, 7, "<I"))


@pytest.mark.parametrize("data", [b"", b"\x02\x01", b"\x02\x01\x02\x01" + b"\0" * 11, b"\0" * 40])
def test_bytes_without_a_header_are_no_chunk(data: bytes) -> None:
    assert not is_chunk(data)
    with pytest.raises(MalformedArray):
        read_header(data)


def test_a_compressed_chunk_needs_blosc2_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    data = compress(CONTENT, 1)
    monkeypatch.setitem(sys.modules, "blosc2", None)
    with pytest.raises(MachineError, match=r"pip install \"pilotage\[blosc\]\""):
        decompress(data, len(CONTENT))
    assert compress(CONTENT, 1) == store(CONTENT, 1)
    assert bytes(decompress(store(CONTENT, 1), len(CONTENT))) == CONTENT


@given(st.lists(st.tuples(st.integers(16, 400), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_chunk_is_read_or_refused(damage: list[tuple[int, int]]) -> None:
    data = bytearray(compress(CONTENT, 4))
    for place, byte in damage:
        data[place % len(data)] = byte
    try:
        assert len(decompress(bytes(data), len(CONTENT))) == len(CONTENT)
    except MalformedArray:
        return
