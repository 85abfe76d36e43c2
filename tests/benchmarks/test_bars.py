from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
from benchmarks.bars import BARS, Bar, Rounds
from benchmarks.modes import MODES
from benchmarks.peers.common import Measurement, load_peer
from benchmarks.plot import draw
from benchmarks.run import parse_arguments
from benchmarks.tables import faults, summarize


def slices(
    name: str, mode: str, *values: float, figure: str = "rate_per_s", lost: int = 0
) -> list[Measurement]:
    return [
        Measurement(name, mode, 1.0, 10, 10 - lost, 10, 0, 0, 0, 0.1, {figure: value}) for value in values
    ]


def measured(mode: str, **rates: tuple[float, ...]) -> dict[str, Rounds]:
    return {mode: {name: slices(name, mode, *values) for name, values in rates.items()}}


def test_a_bar_is_the_median_of_the_rounds_ratios() -> None:
    bar = Bar("acked", "rate_per_s", "raw_pyzmq", at_least=2.0)
    verdict = bar.judge(measured("acked", ours=(20, 90, 40), raw_pyzmq=(10, 10, 40)))
    assert verdict.value == 2.0
    assert verdict.text == "met"
    assert bar.judge(measured("acked", ours=(19, 90, 40), raw_pyzmq=(10, 10, 40))).text == "MISSED"


def test_a_bar_may_be_a_most() -> None:
    bar = Bar("acked", "rate_per_s", "raw_pyzmq", at_most=1.5)
    assert bar.judge(measured("acked", ours=(14,), raw_pyzmq=(10,))).is_met
    assert not bar.judge(measured("acked", ours=(16,), raw_pyzmq=(10,))).is_met


def test_a_bar_needs_its_rounds() -> None:
    bar = Bar("rtt", "rate_per_s", "raw_pyzmq", at_least=1.0, rounds=3)
    verdict = bar.judge(measured("rtt", ours=(5, 5), raw_pyzmq=(1, 1)))
    assert not verdict.is_met
    assert verdict.text == "too few rounds (3 needed)"


def test_what_was_not_measured_is_not_held_against_us() -> None:
    verdict = Bar("acked", "rate_per_s", "zenoh", at_least=2.0).judge(measured("acked", ours=(1,)))
    assert verdict.is_met
    assert verdict.text == "not measured"


def test_a_figure_that_is_missing_misses_its_bar() -> None:
    nothing = {"fanin": {"ours": [Measurement("ours", "fanin", 1.0, 10, 0, 0, 0, 0, 0, 0.1, {})]}}
    nothing["fanin"]["raw_pyzmq"] = slices("raw_pyzmq", "fanin", 1.0, figure="cpu_s_per_10k")
    assert not Bar("fanin", "cpu_s_per_10k", "raw_pyzmq", at_most=1.2).judge(nothing).is_met
    assert not Bar("fanin", "cpu_s_per_10k", at_most=1.2).judge(nothing).is_met


def test_a_bar_against_another_mode_takes_medians() -> None:
    bar = Bar("frames_direct", "rate_per_s", "raw_pyzmq", at_least=2.5, their_mode="frames")
    both = {**measured("frames_direct", ours=(50, 60)), **measured("frames", raw_pyzmq=(10, 20, 30))}
    assert bar.judge(both).value == 55 / 20


def test_all_bars_name_modes_figures_and_peers_that_exist() -> None:
    for bar in BARS:
        assert bar.figure in (*MODES[bar.mode].figures, "rate_per_s"), bar
        assert bar.mode in load_peer(bar.mine).modes, bar
        if bar.peer:
            assert (bar.their_mode or bar.mode) in load_peer(bar.peer).modes, bar


def test_losses_are_told_by_name() -> None:
    rounds = {"ours": slices("ours", "acked", 1.0, 2.0), "zenoh": slices("zenoh", "acked", 3.0, 3.0, lost=1)}
    summary = summarize(rounds, MODES["acked"], {})
    assert faults({"acked": summary}) == [
        ("zenoh", "zenoh, acked: 2 lost, 0 duplicates, 0 unreceived, 0 corrupt")
    ]
    assert summary["ours"]["rate_per_s"] == 1.5
    assert math.isnan(summary["ours"]["cpu_s_per_10k"])


@pytest.mark.slow
def test_the_picture_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "bench.png"
    if importlib.util.find_spec("matplotlib") is None:
        with pytest.raises(SystemExit):
            parse_arguments(["--plot", str(picture)])
        assert "needs matplotlib" in capsys.readouterr().err
        return
    rates = measured("acked", ours=(30,), raw_pyzmq=(10,), autopilot_051=(1,))
    verdicts = [Bar("acked", "rate_per_s", "raw_pyzmq", at_least=3.0).judge(rates)]
    draw(picture, rates, verdicts, {"cpus": 2, "python": "3", "load_1_min": 0.5})
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_folder_that_is_not_there_is_told_before_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--json", str(tmp_path / "nowhere" / "results.json")])
    assert "there is no folder" in capsys.readouterr().err
