"""Real peers in tiny slices: what is sent arrives, and what doesn't is seen."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from benchmarks.modes import MODES
from benchmarks.peers.common import BenchmarkFailed, Peer, Process, Session, load_peer
from benchmarks.run import choose_peers, known_peers, main, measure_rounds
from benchmarks.tables import faults, summarize
from rich.console import Console

from tests.benchmarks import bad_network
from tests.conftest import wait_eventually

FAST = [("raw_pyzmq", "acked"), ("raw_pyzmq", "chunks"), ("ours", "acked"), ("ours", "chunks")]
LONG = {"scale", "scale_10", "scale_fast", "idle_station", "idle_pilot", "loaded"}
LOSING = {("autopilot_051", mode) for mode in ("fanin", "chunks")}
ALL = [
    (name, mode)
    for name in known_peers()
    for mode in load_peer(name).modes
    if (name, mode) not in FAST and mode not in LONG and (name, mode) not in LOSING
]


def check(name: str, mode: str) -> None:
    peer = load_peer(name)
    if missing := peer.missing():
        assert any(why in missing for why in ("not installed", "no liblsl", "can't be made"))
        return
    with Session(peer) as session:
        measured = session.measure(mode, 0.2)
    assert measured.lost == 0
    assert (measured.duplicates, measured.corrupt) == (0, 0)
    assert measured.received >= measured.sent
    assert measured.figures[MODES[mode].figures[0]] > 0


@pytest.mark.parametrize(("name", "mode"), FAST)
def test_a_slice_loses_nothing(name: str, mode: str) -> None:
    check(name, mode)


@pytest.mark.slow
@pytest.mark.timeout(300)  # the original's environment may have to be built
@pytest.mark.parametrize(("name", "mode"), ALL)
def test_any_slice_loses_nothing(name: str, mode: str) -> None:
    check(name, mode)


@pytest.mark.parametrize("mode", ["acked", "frames"])
def test_what_a_bad_network_does_is_seen(mode: str) -> None:
    with Session(bad_network.PEER) as session:
        rounds = measure_rounds([session], MODES[mode], 1, 0.3)
    (one,) = rounds["bad_network"]
    assert one.lost > 0
    assert one.duplicates > 0
    assert (one.corrupt > 0) is (mode == "frames")
    assert [name for name, _ in faults({mode: summarize(rounds, MODES[mode], {})})] == ["bad_network"]


def test_a_run_fails_for_a_peer_that_loses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.run.load_peer", lambda name: bad_network.PEER)
    words = ["--peers", "raw_pyzmq", "--modes", "acked", "--rounds", "1", "--seconds", "0.3"]
    assert main(words) == 1
    assert "bad_network, acked:" in capsys.readouterr().out


def test_a_peer_that_is_not_there_is_skipped_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = Peer("absent", list, missing=lambda: "it is not installed here")
    monkeypatch.setattr("benchmarks.run.load_peer", lambda name: absent)
    assert choose_peers(["absent"], ["acked"], Console()) == []
    assert "absent is skipped: it is not installed here" in capsys.readouterr().out


def test_an_original_that_cannot_be_made_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORIGINAL_AUTOPILOT_VENV", "/dev/null/nowhere")
    assert "its environment can't be made (" in load_peer("autopilot_051").missing()


def test_a_role_that_ends_early_fails_the_mode(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Peer("broken", lambda: [("sender", ["false"])])
    monkeypatch.setattr("benchmarks.run.load_peer", lambda name: broken)
    assert main(["--peers", "raw_pyzmq", "--modes", "acked", "--rounds", "1"]) == 1
    assert "acked failed: sender" in capsys.readouterr().out


def test_a_role_that_has_ended_is_asked_and_closed_like_any_other(tmp_path: Path) -> None:
    role = Process("sender", ["false"], tmp_path)
    wait_eventually(lambda: psutil.Process(role.pid).status() == psutil.STATUS_ZOMBIE)
    with pytest.raises(BenchmarkFailed, match="it ended with 1"):
        role.ask({"what": "count"}, 5.0)
    role.close()
