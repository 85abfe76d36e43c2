"""Outputs, and the watchdog that outlives the process that drives them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pilotage.agents.guard import OutputGuard, TaskStopped
from pilotage.agents.outputs import FileOutput, Output, Wiring, open_output, wire_outputs
from pilotage.protocol.errors import Closed, MachineError, TaskError
from tests.agents.bench import wait_until

# Measured 5–30 ms on an idle machine; the rest is for a busy one.
SAFE_WITHIN_S = 2.0


@pytest.fixture
def guard() -> Iterator[OutputGuard]:
    made = OutputGuard()
    yield made
    made.close()


def value(path: Path) -> float:
    return float(path.read_text())


def test_opening_an_output_sets_its_safe_value(tmp_path: Path, guard: OutputGuard) -> None:
    path = tmp_path / "shutter"
    handles = guard.arm({"shutter": Output("file", str(path), safe=1)})
    assert value(path) == handles["shutter"].value == 1
    handles["shutter"].set(0.5)
    assert value(path) == 0.5


def test_made_safe_means_safe_until_it_is_armed_again(tmp_path: Path, guard: OutputGuard) -> None:
    output = {"valve": Output("file", str(tmp_path / "valve"), safe=0)}
    valve = guard.arm(output)["valve"]
    valve.set(1)
    guard.make_safe()
    assert value(tmp_path / "valve") == 0
    with pytest.raises(TaskStopped):
        valve.set(1)
    valve.set(0)
    guard.arm(output)["valve"].set(1)
    assert value(tmp_path / "valve") == 1


def test_a_stop_cuts_a_pulse_short(tmp_path: Path, guard: OutputGuard) -> None:
    valve = guard.arm({"valve": Output("file", str(tmp_path / "valve"), safe=0)})["valve"]
    threading.Timer(0.05, guard.make_safe).start()
    began = time.monotonic()
    with pytest.raises(TaskStopped):
        valve.pulse(30_000)
    assert time.monotonic() - began < 10
    assert value(tmp_path / "valve") == 0


def test_a_pulse_lasts_as_long_as_asked(tmp_path: Path, guard: OutputGuard) -> None:
    valve = guard.arm({"valve": Output("file", str(tmp_path / "valve"), safe=0)})["valve"]
    began = time.monotonic()
    valve.pulse(40)
    assert 0.04 <= time.monotonic() - began < 1
    assert value(tmp_path / "valve") == 0


def test_values_out_of_range_are_refused(tmp_path: Path, guard: OutputGuard) -> None:
    valve = guard.arm({"valve": Output("file", str(tmp_path / "valve"), safe=0)})["valve"]
    for wrong in (-1, 1.5, float("nan")):
        with pytest.raises(TaskError, match="takes 0 to 1"):
            valve.set(wrong)
    with pytest.raises(TaskError, match="safe value"):
        Output("file", "x", safe=2)
    with pytest.raises(TaskError, match="no output driver 'laser'; there are: file, gpio"):
        Output("laser", "x", safe=0)


def test_wiring_moves_an_output_but_keeps_its_safe_value(tmp_path: Path) -> None:
    declared = {"a": Output("file", "a", safe=1), "b": Output("file", "b", safe=0)}
    wired = wire_outputs(declared, {"a": Wiring("gpio", "17"), "other": Wiring("gpio", "4")}, tmp_path)
    assert wired == {"a": Output("gpio", "17", safe=1), "b": Output("file", str(tmp_path / "b"), safe=0)}


def test_an_output_that_cannot_be_opened_is_named(tmp_path: Path, guard: OutputGuard) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="output 'valve' at file"):
        guard.arm({"valve": Output("file", str(tmp_path / "file" / "valve"), safe=0)})


def test_what_neither_side_can_set_is_raised_by_name(tmp_path: Path, guard: OutputGuard) -> None:
    folder = tmp_path / "pins"
    valve = guard.arm({"valve": Output("file", str(folder / "valve"), safe=0)})["valve"]
    valve.set(1)
    folder.rename(tmp_path / "gone")
    folder.write_text("no folder any more")
    with pytest.raises(MachineError, match="switch them off by hand: 'valve'"):
        guard.make_safe()
    folder.unlink()
    (tmp_path / "gone").rename(folder)


def test_the_watchdog_sets_what_this_process_cannot(tmp_path: Path, guard: OutputGuard) -> None:
    valve = guard.arm({"valve": Output("file", str(tmp_path / "valve"), safe=0)})["valve"]
    valve.set(1)
    valve._driver = _Stuck()
    guard.make_safe()
    assert value(tmp_path / "valve") == 0


class _Stuck:
    def write(self, value: float) -> None:
        raise OSError("stuck")

    def close(self) -> None:
        """Nothing to close."""


def test_a_closed_guard_arms_nothing_and_its_watchdog_is_gone(tmp_path: Path) -> None:
    guard = OutputGuard()
    guard.arm({"valve": Output("file", str(tmp_path / "valve"), safe=0)})["valve"].set(1)
    pid = guard.pid
    assert pid is not None
    assert psutil.pid_exists(pid)
    guard.close()
    assert value(tmp_path / "valve") == 0
    assert not psutil.pid_exists(pid)
    with pytest.raises(Closed):
        guard.arm({})


def test_files_never_hold_half_a_number(tmp_path: Path) -> None:
    output = FileOutput(str(tmp_path / "pin"), 0)
    done = threading.Event()

    def write() -> None:
        for number in range(300):
            output.write(number % 2)
        done.set()

    threading.Thread(target=write).start()
    seen = set()
    while not done.is_set():
        seen.add((tmp_path / "pin").read_text())
    assert seen <= {"0.0\n", "1.0\n"}


CHILD = """
import multiprocessing, sys, threading, time
from pilotage.agents.guard import OutputGuard
from pilotage.agents.outputs import Output

def drive(path, pids):
    guard = OutputGuard()
    valve = guard.arm({"valve": Output("file", path, safe=0)})["valve"]
    valve.set(1)
    keepers = []
    if "fork" in multiprocessing.get_all_start_methods():
        # A child that was forked after the pipe was made, and outlives its parent.
        keepers = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(20,), daemon=True)]
        keepers[0].start()
    with open(pids, "w") as file:
        keeper = keepers[0].pid if keepers else 0
        file.write(f"{multiprocessing.current_process().pid} {guard.pid} {keeper}\\n")
    time.sleep(60)

if __name__ == "__main__":
    method, path, pids = sys.argv[1:]
    if method == "none":
        drive(path, pids)
    else:
        process = multiprocessing.get_context(method).Process(target=drive, args=(path, pids))
        process.start()
        process.join()
"""


@pytest.mark.parametrize("method", ["none", "fork", "forkserver", "spawn"])
def test_a_valve_shuts_when_its_process_is_killed(tmp_path: Path, method: str) -> None:
    script, path, pids = tmp_path / "rig.py", tmp_path / "valve", tmp_path / "pids"
    script.write_text(textwrap.dedent(CHILD))
    if method != "none" and os.name != "posix" and method != "spawn":
        pytest.skip("this start method is POSIX's")
    starter = subprocess.Popen([sys.executable, str(script), method, str(path), str(pids)])
    keeper = 0
    try:
        wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"), 30)
        driver, watchdog, keeper = (int(part) for part in pids.read_text().split())
        assert value(path) == 1
        killed = time.monotonic()
        os.kill(driver, getattr(signal, "SIGKILL", signal.SIGTERM))
        wait_until(lambda: value(path) == 0, SAFE_WITHIN_S)
        assert time.monotonic() - killed < SAFE_WITHIN_S
        wait_until(lambda: not psutil.pid_exists(watchdog), 10)
    finally:
        if keeper and psutil.pid_exists(keeper):
            os.kill(keeper, signal.SIGTERM)
        if starter.poll() is None:
            starter.kill()
        starter.wait(10)


@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX's")
def test_signals_to_the_group_do_not_reach_the_watchdog(tmp_path: Path) -> None:
    script, path, pids = tmp_path / "rig.py", tmp_path / "valve", tmp_path / "pids"
    script.write_text(textwrap.dedent(CHILD))
    starter = subprocess.Popen(
        [sys.executable, str(script), "none", str(path), str(pids)],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"), 30)
    _, watchdog, _ = (int(part) for part in pids.read_text().split())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(watchdog, number)
    assert psutil.Process(watchdog).status() != psutil.STATUS_ZOMBIE
    assert value(path) == 1
    os.killpg(starter.pid, signal.SIGTERM)
    starter.wait(10)
    wait_until(lambda: value(path) == 0, SAFE_WITHIN_S)


def test_a_gpio_pin_is_driven_through_gpiozero(monkeypatch: pytest.MonkeyPatch) -> None:
    # gpiozero's own stand-in for a Pi's pins; this machine has none.
    gpiozero = pytest.importorskip("gpiozero", reason="pip install 'pilotage[gpio]'")
    mock = pytest.importorskip("gpiozero.pins.mock")
    monkeypatch.setattr(gpiozero.Device, "pin_factory", mock.MockFactory())
    driver = open_output(Output("gpio", "17", safe=1))
    pin = gpiozero.Device.pin_factory.pin(17)
    assert pin.state
    driver.write(0)
    assert not pin.state
    with pytest.raises(TaskError, match="takes 0 or 1"):
        driver.write(0.5)
    with pytest.raises(MachineError, match="can't be driven"):
        open_output(Output("gpio", "NOPIN", safe=0))
    driver.close()


def test_a_missing_gpio_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpiozero", None)
    with pytest.raises(MachineError, match=r"pip install 'pilotage\[gpio\]'"):
        open_output(Output("gpio", "17", safe=0))
