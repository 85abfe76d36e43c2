"""The picture of a run: each peer's first figure in each mode, as a ratio to raw pyzmq's or to the first reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .bars import Rounds, Verdict, median_ratio
from .modes import MODES

DRAWN = ("acked", "durable", "fanin", "rtt", "loaded", "chunks", "frames", "frames_direct")
LESS_IS_BETTER = {"cpu_s_per_10k", "rtt_p50_us", "loaded_p99_us"}
OURS, THEIRS, BAR = "#1b6ca8", "#b8b8b8", "#c0392b"
COLUMNS = 2


def draw(
    path: Path, measured: Mapping[str, Rounds], verdicts: Sequence[Verdict], where: Mapping[str, Any]
) -> None:
    """Write it as a PNG.

    Args:
        path: where to.
        measured: what each peer gave in each mode.
        verdicts: bars to draw as lines, where they are ratios to the panel's reference.
        where: the machine.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    modes = [mode for mode in DRAWN if len(measured.get(mode, {})) > 1]
    rows = max(1, math.ceil(len(modes) / COLUMNS))
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(11, 0.4 + 2.5 * rows), squeeze=False)
    for axis in axes.flat[len(modes) :]:
        axis.set_visible(False)
    for axis, mode in zip(axes.flat, modes, strict=False):
        _panel(axis, mode, measured[mode], verdicts)
    load = f"load {where['load_1_min']:.1f} at the start"
    figure.suptitle(
        f"Ratios in one run: {where['cpus']} cores, loopback, Python {where['python']}, {load}", fontsize=10
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axis: Any, mode: str, rounds: Rounds, verdicts: Sequence[Verdict]) -> None:
    figure = MODES[mode].figures[0]
    reference = next((name for name in MODES[mode].references if name in rounds), next(iter(rounds)))
    ratios = {name: median_ratio(slices, rounds[reference], figure) for name, slices in rounds.items()}
    ordered = sorted(ratios.items(), key=lambda item: item[1], reverse=figure in LESS_IS_BETTER)
    names, values = zip(*ordered, strict=True)
    drawn = axis.barh(names, values, color=[OURS if name.startswith("ours") else THEIRS for name in names])
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # no line goes through a number
    axis.bar_label(drawn, [f"{value:.2f}" for value in values], padding=3, fontsize=8, bbox=ground)
    for verdict in verdicts:
        bar = verdict.bar
        if (bar.mode, bar.figure, bar.peer, bar.their_mode) == (mode, figure, reference, ""):
            axis.axvline(bar.at_least or bar.at_most, color=BAR, linestyle=":", linewidth=1.2)
    better = "less is better" if figure in LESS_IS_BETTER else "more is better"
    title = f"{MODES[mode].title}\n{figure} / {reference} ({better}; dotted: what we must reach)"
    axis.set_title(title, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.margins(x=0.15)
    axis.spines[["top", "right"]].set_visible(False)
