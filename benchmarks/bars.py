"""What Pilotage must reach: ratios of its figures to others' in one run, and a few figures of its own."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .modes import (
    JETSTREAM,
    ORIGINAL,
    OURS,
    OURS_DIRECT,
    OURS_DURABLE,
    OURS_ON_LOOP,
    OURS_TCP,
    REFERENCE,
    STREAM_MB_PER_S,
)
from .peers.common import Measurement

NAN = float("nan")
Rounds = Mapping[str, list[Measurement]]
NEAR = 0.95
"""Of the stream's rate that must have been reached, for round trips beside it to count."""


@dataclass(frozen=True)
class Bar:
    """One thing to reach, over enough rounds.

    Attributes:
        mode: where it is measured.
        figure: what of it.
        peer: to whose figure the ratio is; with an empty name the figure itself is judged.
        at_least: the least value that will do.
        at_most: the greatest.
        aim: what would be better still; told, not judged.
        rounds: how many rounds are needed.
        mine: which of our own peers.
        their_mode: the mode of the other's figure, if it is another.
    """

    mode: str
    figure: str
    peer: str = ""
    at_least: float = 0.0
    at_most: float = float("inf")
    aim: float = 0.0
    rounds: int = 1
    mine: str = OURS
    their_mode: str = ""

    def value(self, measured: Mapping[str, Rounds]) -> tuple[float, int] | None:
        """Return what is judged, and over how many rounds; None if it wasn't measured."""
        mine = measured.get(self.mode, {}).get(self.mine, [])
        theirs = measured.get(self.their_mode or self.mode, {}).get(self.peer, [])
        if not mine or (self.peer and not theirs):
            return None
        if not self.peer:
            return median(mine, self.figure), len(mine)
        if self.their_mode:
            # Measured one after the other, not in turns: there are no pairs.
            first, second = median(mine, self.figure), median(theirs, self.figure)
            return first / second, min(len(mine), len(theirs))
        return median_ratio(mine, theirs, self.figure), len(mine)

    def judge(self, measured: Mapping[str, Rounds]) -> Verdict:
        """Tell whether it is met."""
        found = self.value(measured)
        if found is None:
            return Verdict(self, None, 0, True)
        value, rounds = found
        is_met = self.at_least <= value <= self.at_most and rounds >= self.rounds
        return Verdict(self, value, rounds, is_met)

    @property
    def wanted(self) -> str:
        """What will do, in words."""
        text = f"≥ {self.at_least:g}" if self.at_least else f"≤ {self.at_most:g}"
        return text + (f" (aim {self.aim:g})" if self.aim else "")

    def __str__(self) -> str:
        """Say what is judged."""
        if not self.peer:
            return f"{self.mode}: {self.mine} {self.figure}"
        where = f" in {self.their_mode}" if self.their_mode else ""
        return f"{self.mode}: {self.mine} {self.figure} / {self.peer}{where}"


@dataclass(frozen=True)
class Verdict:
    """How a bar was met; without a value it wasn't measured."""

    bar: Bar
    value: float | None
    rounds: int
    is_met: bool

    @property
    def text(self) -> str:
        """Say so in a word or two."""
        if self.value is None:
            return "not measured"
        if self.rounds < self.bar.rounds:
            return f"too few rounds ({self.bar.rounds} needed)"
        return "met" if self.is_met else "MISSED"


def median(slices: Sequence[Measurement], figure: str) -> float:
    """Return the median of a figure over rounds; NaN if one of them has none."""
    return _median([one.figures.get(figure, NAN) for one in slices])


def median_ratio(mine: Sequence[Measurement], reference: Sequence[Measurement], figure: str) -> float:
    """Return the median over rounds of one figure's ratio to the reference's; NaN if one of them has none."""
    pairs = zip(mine, reference, strict=True)
    figures = ((a.figures.get(figure, NAN), b.figures.get(figure, NAN)) for a, b in pairs)
    return _median([a / b if b else NAN for a, b in figures])


def _median(values: list[float]) -> float:
    return NAN if any(map(math.isnan, values)) else float(statistics.median(values))


BARS = (
    Bar("acked", "rate_per_s", REFERENCE, at_least=3.0, aim=5.0),
    Bar("acked", "rate_per_s", "nats_core", at_least=2.0),
    Bar("acked", "rate_per_s", "zenoh", at_least=2.0),
    Bar("acked", "rate_per_s", ORIGINAL, at_least=80.0),
    Bar("durable", "rate_per_s", JETSTREAM, at_least=1.5, mine=OURS_DURABLE),
    Bar("fanin", "delivered_pct", at_least=100.0),
    Bar("fanin", "cpu_s_per_10k", REFERENCE, at_most=1.2),
    Bar("fanin", "delivered_pct", at_least=100.0, mine=OURS_ON_LOOP),
    Bar("fanin", "cpu_s_per_10k", REFERENCE, at_most=1.2, mine=OURS_ON_LOOP),
    Bar("rtt", "rtt_p50_us", REFERENCE, at_most=1.1, rounds=20, mine=OURS_ON_LOOP),
    Bar("rtt", "rtt_p50_us", REFERENCE, at_most=1.5, rounds=20),
    Bar("rtt", "rtt_p99_us", REFERENCE, at_most=2.0, rounds=20, mine=OURS_ON_LOOP),
    Bar("rtt", "rtt_p99_us", REFERENCE, at_most=2.0, rounds=20),
    Bar("loaded", "p99_x_idle", at_most=3.0, mine=OURS_DIRECT),
    Bar("loaded", "stream_mb_per_s", at_least=NEAR * STREAM_MB_PER_S, mine=OURS_DIRECT),
    Bar("chunks", "rate_per_s", REFERENCE, at_least=1.5, aim=2.5),
    Bar("chunks", "rate_per_s", "zenoh", at_least=1.0),
    Bar("frames", "rate_per_s", REFERENCE, at_least=1.25, mine=OURS_TCP),
    Bar(
        "frames_direct", "rate_per_s", REFERENCE, at_least=2.5, aim=5.0, mine=OURS_DIRECT, their_mode="frames"
    ),
    Bar("frames_direct", "rate_per_s", "zenoh", at_least=1.0, mine=OURS_DIRECT),
    Bar("scale", "delivered_pct", at_least=100.0),
    Bar("scale", "cpu_s_per_10k", OURS, at_most=1.3, their_mode="scale_fast"),
    Bar("idle_pilot", "sender_cpu_pct", at_most=0.5, mine="ours_idle"),
    Bar("idle_station", "station_cpu_pct", at_most=2.0),
    Bar("idle_station", "station_mb", at_most=150.0),
    Bar("import", "import_cpu_s", at_most=0.25, mine="ours_import"),
    Bar("store", "of_wanted", at_least=1.0, mine="ours_store"),
    Bar("recorded", "of_wanted", at_least=1.0, mine="ours_store"),
)
