"""Real processes: every start method, every pair of roles, and what happens when a parent is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pilotage import Net_Node
from tests.conftest import Eventually, is_alive

METHODS = ["fork", "forkserver", "spawn"] if os.name != "nt" else ["spawn"]


def run_script(root: Path, name: str, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.net.scripts.{name}", *arguments],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
        **more,
    )


@pytest.mark.parametrize("method", METHODS)
def test_stations_work_under_each_start_method(root: Path, tmp_path: Path, method: str) -> None:
    with run_script(root, "roles", method, str(tmp_path), stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=40)
    assert process.returncode == 0, err
    seen = json.loads(out)
    told = seen.pop("lambda")
    if method == "fork":
        assert told == 5
    else:
        assert "the listen for 'MINE'" in told and method in told
    assert seen == {
        "started": {},
        "ended": [False, False],
        "data": "delivered",
        "state": "delivered",
        "answer": {"set": {"gain": 2}},
        "from the parent": {"set": {"gain": 3}},
        "got": [{"pilot": "rig_a", "x": 1}, {"state": "IDLE", "pilot": "rig_a"}],
        "statistics": ["T", ["_T", "rig_a"], True],
        "senders": ["_T", "rig_a"],
        "other process": True,
    }
    assert "Traceback" not in err and "destroyed" not in err


@pytest.mark.only_on("linux", "darwin")
@pytest.mark.parametrize("method", METHODS)
def test_stations_end_within_a_second_of_their_parents_kill(
    root: Path, tmp_path: Path, method: str, eventually: Eventually
) -> None:
    with run_script(root, "parent", method, str(tmp_path), stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        stations = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        try:
            eventually(lambda: (tmp_path / "HANG").exists() and (tmp_path / "STUCK").exists(), timeout_s=10)
            assert len(stations) == 3 and all(station.is_running() for station in stations)
            process.send_signal(signal.SIGKILL)
            began = time.monotonic()
            process.wait(5)
            eventually(lambda: not any(is_alive(station) for station in stations), timeout_s=1.0)
            assert time.monotonic() - began < 1.1
        finally:
            for station in stations:
                if is_alive(station):
                    station.kill()


def test_two_nodes_in_two_processes(root: Path) -> None:
    with run_script(root, "echo", stdin=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            with Net_Node(
                "near", "far", int(process.stdout.readline()), {"BACK": lambda value: value + 1}
            ) as near:
                near.wait_connected(10)
                assert near.send("far", "ECHO", {"a": 1}).result(5) == {"a": 1}
                assert near.send("far", "CALL", 1).result(5) == 2
        finally:
            process.stdin.write("\n")
            process.stdin.close()
            process.wait(5)
        assert process.returncode == 0
