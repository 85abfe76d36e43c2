"""The soak in small: it ends well, and it can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.faults.rig import quiet
from tests.system.soak import MAX_GROWTH, Growth, Sample, _growth, soak

pytestmark = pytest.mark.only_on("linux", "darwin")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [7])
def test_a_short_soak(seed: int, tmp_path: Path) -> None:
    with quiet():
        result = soak(tmp_path, 1.2, 4, seed, print)
    assert result.faults == []
    assert result.rows > 0 and result.items > 0 and result.struck.total() >= 8
    assert {one.what for one in result.growths} == set(MAX_GROWTH)


def test_what_grows_is_seen() -> None:
    steps = range(30)
    flat = _growth("one", "handles", [Sample(at, 0, 40 + at % 3, 0) for at in steps])
    grown = _growth("one", "handles", [Sample(at, 0, 40 + at, 0) for at in steps])
    assert flat.is_flat and not grown.is_flat
    assert not Growth("one", "memory", 50e6, 50e6 + MAX_GROWTH["memory"] + 1).is_flat
