"""The unfilled end of a stream: how much memory many small commits take, and that joining changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pilotage.services.store.chunks import Layout
from pilotage.services.store.forms import Form, TimestampForm
from pilotage.services.store.streams import JOINED_BYTES, Segment


def segment(folder: Path, dtype: np.dtype, *shape: int) -> Segment:
    form = Form("m", dtype, shape, TimestampForm.FLOAT, np.dtype("<f8"))
    return Segment(1, 0, Layout(folder, "rig/eye", form, 65_536, "none", {}), 0, 0)


@pytest.mark.parametrize(
    "dtype", ["<i2", ">i2", "?", "<U3", "S2", "<c8", "<M8[us]", [("x", "<i2"), ("y", ">f8")]], ids=str
)
@pytest.mark.parametrize("shape", [(), (3,), (0,)], ids=str)
def test_small_pieces_are_joined_and_stay_what_they_were(
    tmp_path: Path, dtype: object, shape: tuple[int, ...]
) -> None:
    kind = np.dtype(dtype)  # type: ignore[call-overload]
    found = segment(tmp_path, kind, *shape)
    numbers = np.random.default_rng(3)
    pieces = []
    for number in range(1000):
        count = int(numbers.integers(1, 4))
        raw = numbers.integers(0, 2 if dtype == "?" else 60, size=count * int(np.prod(shape)) * kind.itemsize)
        data = np.frombuffer(raw.astype("u1").tobytes(), kind) if raw.size else np.empty(0, kind)
        pieces.append((np.full(count, float(number)), data.reshape(count, *shape)))
        found.append(pieces[-1])
    assert len(found.tail) < 20
    assert found.tail_rows == sum(len(stamps) for stamps, _ in pieces)
    for at in (0, 1):
        got = [piece[at] for piece in found.tail]
        assert {array.dtype for array in got} == {pieces[0][at].dtype}
        assert b"".join(array.tobytes() for array in got) == b"".join(piece[at].tobytes() for piece in pieces)


def test_large_pieces_are_not_copied(tmp_path: Path) -> None:
    found = segment(tmp_path, np.dtype("u1"), JOINED_BYTES)
    pieces = [(np.zeros(1), np.zeros((1, JOINED_BYTES), "u1")) for _ in range(5)]
    for piece in pieces:
        found.append(piece)
    assert all(kept is given for (_, kept), (_, given) in zip(found.tail, pieces, strict=True))
