"""What a message of ours holds before it is one."""

from __future__ import annotations

from datetime import datetime

import pytest

from pilotage.net.drafting import Drafting

SECOND_NS = 1_000_000_000


def test_timestamps_tell_microseconds_over_the_edge_of_a_second_and_when_the_clock_is_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drafting = Drafting("rig")
    for at_ns in (7 * SECOND_NS - 1, 7 * SECOND_NS, 7 * SECOND_NS + 1_999, 8 * SECOND_NS - 1, 5 * SECOND_NS):
        monkeypatch.setattr("pilotage.net.drafting.time.time_ns", lambda at_ns=at_ns: at_ns)
        told = drafting.draft("T", "KEY", None, repeat=True, flags=None).timestamp
        seconds, micros = divmod(at_ns // 1000, 1_000_000)
        assert told == f"{datetime.fromtimestamp(seconds).isoformat()}.{micros:06d}"
