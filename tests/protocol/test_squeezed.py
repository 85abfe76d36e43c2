"""Compressed arrays come back as they were; a claim to more ends in one error, before memory is taken."""

from __future__ import annotations

import tracemalloc

import msgspec
import numpy as np
import pytest

from pilotage.protocol import squeezed
from pilotage.protocol.bodies import decode_value, encode_value
from pilotage.protocol.errors import MalformedArray
from pilotage.protocol.squeezed import squeeze

pytest.importorskip("blosc2")


def ramp(size: int) -> np.ndarray:
    return np.resize(np.arange(256, dtype=np.uint8), size)


@pytest.mark.parametrize(
    "array",
    [
        ramp(480 * 640).reshape(480, 640),
        np.arange(50_000, dtype="<i8").reshape(100, 500),
        np.asfortranarray(np.arange(60_000.0).reshape(200, 300)),
        np.arange(100_000, dtype="<i4")[::2],
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_an_array_comes_back_equal_and_read_only(array: np.ndarray) -> None:
    small = squeeze(array)
    body, attached = encode_value({"array": small})
    size = len(body) + (sum(map(len, attached.frames)) if attached else 0)
    back = decode_value(body, attached.frames if attached else ())["array"]
    assert size < array.nbytes / 2
    assert back.dtype == array.dtype and back.shape == array.shape and not back.flags.writeable
    np.testing.assert_array_equal(back, array)


def test_what_does_not_shrink_is_left() -> None:
    assert squeeze(np.random.default_rng(1).integers(0, 255, 100_000, np.uint8)) is None
    assert squeeze(np.zeros(0)) is None
    assert squeeze(np.zeros(100_000)) is None, "blosc2 says *all zeros* in a way that we don't read"


def claim(shape: list[int], content: bytes) -> bytes:
    """Give a body with one compressed array."""
    return msgspec.msgpack.encode(
        msgspec.msgpack.Ext(3, msgspec.msgpack.encode(["|u1", shape, "C", content, len(content)]))
    )


def test_a_claim_is_checked_before_memory_is_taken() -> None:
    content = bytes(squeeze(ramp(200_000_000)).content)
    tracemalloc.start()
    for shape in ([100], [2**40], [199_999_999], [0]):
        with pytest.raises(MalformedArray):
            decode_value(claim(shape, content))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert decode_value(claim([200_000_000], content)).nbytes == 200_000_000


def test_many_small_claims_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squeezed, "MAX_INFLATED_BYTES", 250_000)
    body, attached = encode_value([squeeze(ramp(100_000))] * 2)
    assert len(decode_value(body, attached.frames if attached else ())) == 2
    body, attached = encode_value([squeeze(ramp(100_000))] * 3)
    with pytest.raises(MalformedArray, match="exceed"):
        decode_value(body, attached.frames if attached else ())


@pytest.mark.parametrize("content", [b"", bytes(100), b"\x05\x01" + bytes(40)])
def test_what_is_no_container_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedArray):
        decode_value(claim([100], content))
