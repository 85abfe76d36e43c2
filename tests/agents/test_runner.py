"""The runner with real tasks in real threads."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotage.agents.runner import TaskRunner
from pilotage.agents.states import State
from pilotage.agents.task import Item, Task, TaskParams, source
from pilotage.protocol.errors import Closed, TaskError
from tests.agents.bench import (
    Blink,
    BlinkParams,
    Counter,
    Patient,
    Recorder,
    lamp,
    order,
    runner_in,
    wait_until,
)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def runner(tmp_path: Path, recorder: Recorder) -> Iterator[TaskRunner]:
    with runner_in(tmp_path, recorder) as made:
        yield made


def test_rows_are_completed_and_trials_counted_from_current_trial(
    runner: TaskRunner, recorder: Recorder
) -> None:
    runner.start(order(current_trial=7), Blink)
    wait_until(lambda: len(recorder.rows) >= 6)
    runner.stop()
    first, last = recorder.rows[0], recorder.rows[1]
    assert first == {"pilot": "rig_a", "subject": "mouse_1", "trial_num": 7, "level": 1.0}
    assert last == {"pilot": "rig_a", "subject": "mouse_1", "trial_num": 7, "note": None, "TRIAL_END": True}
    assert [row["trial_num"] for row in recorder.rows[:6]] == [7, 7, 8, 8, 9, 9]
    assert runner.current_trial == sum("TRIAL_END" in row for row in recorder.rows) + 7
    assert recorder.path == [State.PREPARING, State.RUNNING, State.STOPPING, State.IDLE]
    assert recorder.errors == []


def test_a_stop_ends_a_stage_that_waits_for_a_trigger(
    runner: TaskRunner, recorder: Recorder, tmp_path: Path
) -> None:
    runner.start(order(), Patient)
    wait_until(lambda: len(recorder.rows) == 1)
    assert lamp(tmp_path) == 1
    before = Patient.ended
    runner.stop(timeout_s=5)
    assert runner.state is State.IDLE
    assert Patient.ended == before + 1
    assert lamp(tmp_path) == 0


class Deaf(Blink):
    """Does not listen to a stop until it is let go."""

    let_go = threading.Event()
    stage_methods = ("light",)

    def light(self) -> dict[str, Any]:
        self.outputs["lamp"].set(1)
        self.let_go.wait(30)
        self.outputs["lamp"].set(1)
        return {"level": 1.0}


def test_the_final_state_waits_for_the_task_but_the_outputs_do_not(
    runner: TaskRunner, recorder: Recorder, tmp_path: Path
) -> None:
    runner.start(order(), Deaf)
    wait_until(lambda: (tmp_path / "outputs" / "lamp").exists() and lamp(tmp_path) == 1)
    with pytest.raises(TaskError, match=r"has not ended within 0\.05 s \(in stage 'light' of trial 0"):
        runner.stop(timeout_s=0.05)
    assert lamp(tmp_path) == 0
    assert recorder.path[-1] is State.STOPPING
    with pytest.raises(TaskError, match="stop it first"):
        runner.start(order(), Blink)
    Deaf.let_go.set()
    assert runner.wait_ended(10) is State.IDLE
    assert lamp(tmp_path) == 0, "a stage that goes on after the stop can't light the lamp again"


def test_a_crash_in_a_stage_makes_outputs_safe_and_names_task_stage_and_trial(
    runner: TaskRunner, recorder: Recorder, tmp_path: Path
) -> None:
    runner.start(order("blink", fail_in_trial=2), Blink)
    assert runner.wait_ended(10) is State.ERROR
    (text, trace) = recorder.errors[0]
    assert text == "task 'blink' failed in stage 'dark', trial 2: ZeroDivisionError: the lamp is gone"
    assert "in dark" in trace
    assert lamp(tmp_path) == 0
    assert recorder.path == [State.PREPARING, State.RUNNING, State.STOPPING, State.ERROR]
    runner.start(order(current_trial=runner.current_trial), Blink)
    wait_until(lambda: runner.state is State.RUNNING and recorder.rows[-1]["trial_num"] >= 3)
    runner.stop()
    assert runner.state is State.IDLE


def test_parameters_change_while_the_task_runs(runner: TaskRunner, recorder: Recorder) -> None:
    runner.start(order(), Blink)
    wait_until(lambda: bool(recorder.rows))
    assert runner.change({"level": 0.25}) == {"level": 0.25}
    wait_until(lambda: any(row.get("level") == 0.25 for row in recorder.rows))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"level": 2}, "level: .*less than or equal to 1"),
        ({"colour": "blue"}, "colour can't change while it runs"),
        ({"lever": 1}, "lever: .*it takes: level, lit_ms"),
        ({"level": float("nan")}, "level"),
    ],
)
def test_a_change_that_does_not_fit_changes_nothing(
    runner: TaskRunner, recorder: Recorder, values: dict[str, Any], text: str
) -> None:
    runner.start(order(), Blink)
    wait_until(lambda: runner.state is State.RUNNING)
    with pytest.raises(TaskError, match=text):
        runner.change({"lit_ms": 2.0, **values})
    assert runner.change({}) == {}
    wait_until(lambda: len(recorder.rows) > 4)
    assert all(row.get("level", 1.0) == 1.0 for row in recorder.rows)


def test_a_start_that_does_not_fit_is_refused_before_anything_happens(
    runner: TaskRunner, recorder: Recorder
) -> None:
    with pytest.raises(TaskError, match="parameters of task 'blink': level"):
        runner.start(order("blink", level="much"), Blink)
    with pytest.raises(
        TaskError, match="no task 'blonk' is installed here; there are: camera, choice, replay"
    ):
        runner.start(order("blonk"))
    with pytest.raises(TaskError, match="the pilot is IDLE"):
        runner.change({"level": 1})
    assert recorder.states == []


class WrongRows(Blink):
    stage_methods = ("bad",)
    bad_row: object = {}

    def bad(self) -> Any:
        return self.bad_row


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"level": "bright"}, "column level: .*valid number"),
        ({"lvel": 1.0}, "column lvel: BlinkTrial has no such column"),
        ({"TRIAL_END": True}, "at the trial's end, column level: Field required"),
        ({"level": 1.0, "trial_num": 99}, "column trial_num: the stage returned 99 in trial 0"),
        ([1, 2], "a stage returns a dictionary of columns or None, not list"),
    ],
)
def test_a_row_that_does_not_fit_is_reported_not_sent(
    runner: TaskRunner, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, row: object, text: str
) -> None:
    monkeypatch.setattr(WrongRows, "bad_row", row)
    runner.start(order("wrong"), WrongRows)
    assert runner.wait_ended(10) is State.ERROR
    assert recorder.rows == []
    with pytest.raises(TaskError, match=text):
        raise TaskError(recorder.errors[0][0])


def test_a_source_streams_until_the_stop(runner: TaskRunner, recorder: Recorder) -> None:
    runner.start(order(), Counter)
    wait_until(lambda: len(recorder.items.get("count", [])) >= 20)
    runner.stop()
    numbers = [item["n"] for item in recorder.items["count"]]
    assert numbers == list(range(len(numbers)))
    assert runner.statistics().items == {"count": len(numbers)}


class Short(Task[TaskParams]):
    @source("few")
    def few(self) -> Iterator[Item]:
        for number in range(3):
            yield {"timestamp": self.wall_time(), "n": number}


def test_a_task_ends_by_itself_when_its_sources_are_exhausted(runner: TaskRunner, recorder: Recorder) -> None:
    runner.start(order(), Short)
    assert runner.wait_ended(10) is State.IDLE
    assert recorder.states[-2:] == [(State.STOPPING, "exhausted"), (State.IDLE, "exhausted")]
    assert len(recorder.items["few"]) == 3


class BrokenSource(Patient):
    @source("bad")
    def bad(self) -> Iterator[Item]:
        yield {"timestamp": 0.0, "x": 1}
        raise OSError("the probe fell off")


def test_a_source_that_fails_ends_the_task_even_while_a_stage_waits(
    runner: TaskRunner, recorder: Recorder, tmp_path: Path
) -> None:
    runner.start(order("probe"), BrokenSource)
    assert runner.wait_ended(10) is State.ERROR
    assert "in source 'bad' after 1 items, trial 0: OSError: the probe fell off" in recorder.errors[0][0]
    assert lamp(tmp_path) == 0


def test_data_that_nobody_takes_end_the_task(tmp_path: Path, recorder: Recorder) -> None:
    def refuse(row: dict[str, Any]) -> None:
        raise OSError("the journal is full")

    with runner_in(tmp_path, recorder, on_data=refuse) as runner:
        runner.start(order("blink"), Blink)
        assert runner.wait_ended(10) is State.ERROR
    assert "in stage 'light', trial 0: OSError: the journal is full" in recorder.errors[0][0]
    assert lamp(tmp_path) == 0


def test_a_report_that_raises_stops_nothing(
    tmp_path: Path, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    def deaf(*told: object) -> None:
        raise RuntimeError("nobody listens")

    with runner_in(tmp_path, recorder, on_state=deaf, on_error=deaf) as runner:
        runner.start(order(fail_in_trial=1), Blink)
        assert runner.wait_ended(10) is State.ERROR
    assert "on_state raised for state RUNNING" in caplog.text
    assert "on_error raised for" in caplog.text


class Unbuildable(Blink):
    def begin(self) -> None:
        raise OSError("no such camera")


def test_a_build_that_fails_is_reported(runner: TaskRunner, recorder: Recorder) -> None:
    before = Unbuildable.ended
    runner.start(order("cam"), Unbuildable)
    assert runner.wait_ended(10) is State.ERROR
    assert recorder.path == [State.PREPARING, State.STOPPING, State.ERROR]
    assert recorder.errors[0][0].startswith(
        "task 'cam' failed while preparing, trial 0: OSError: no such camera"
    )
    assert Unbuildable.ended == before + 1


class Finite(Blink):
    @property
    def stages(self) -> Iterator[Any]:
        return iter([self.light, self.dark])


def test_a_task_ends_by_itself_when_its_stages_run_out(runner: TaskRunner, recorder: Recorder) -> None:
    runner.start(order(), Finite)
    assert runner.wait_ended(10) is State.IDLE
    assert [row["trial_num"] for row in recorder.rows] == [0, 0]
    assert runner.current_trial == 1


class Empty(Task[BlinkParams]):
    Params = BlinkParams


def test_a_task_without_stages_and_sources_is_refused(runner: TaskRunner, recorder: Recorder) -> None:
    runner.start(order(), Empty)
    assert runner.wait_ended(10) is State.ERROR
    assert "Empty has neither stages nor sources" in recorder.errors[0][0]


class Quitter(Blink):
    def light(self) -> dict[str, Any]:
        raise SystemExit(3)


def test_a_task_that_calls_exit_is_an_error(runner: TaskRunner, recorder: Recorder) -> None:
    runner.start(order(), Quitter)
    assert runner.wait_ended(10) is State.ERROR
    assert "SystemExit: 3" in recorder.errors[0][0]


def test_a_task_can_ask_for_its_own_end_but_not_wait_for_it(tmp_path: Path, recorder: Recorder) -> None:
    refused: list[str] = []

    def stop_it(row: dict[str, Any]) -> None:
        try:
            runner.stop()
        except TaskError as error:
            refused.append(str(error))
        runner.request_stop("enough")

    with runner_in(tmp_path, recorder, on_data=stop_it) as runner:
        runner.start(order(), Patient)
        assert runner.wait_ended(10) is State.IDLE
    assert "request_stop" in refused[0]
    assert recorder.states[-1] == (State.IDLE, "enough")


def test_start_and_stop_alternate_quickly_without_a_wrong_state(
    runner: TaskRunner, recorder: Recorder
) -> None:
    for _ in range(20):
        runner.start(order(), Patient)
        runner.stop()
        assert runner.state is State.IDLE
    assert recorder.path.count(State.IDLE) == 20
    assert recorder.errors == []


def test_a_stop_while_files_are_fetched_ends_the_preparation(tmp_path: Path, recorder: Recorder) -> None:
    fetching = threading.Event()

    def fetch(paths: Any, stopping: threading.Event) -> None:
        fetching.set()
        stopping.wait(30)

    with runner_in(tmp_path, recorder, prepare=fetch) as runner:
        runner.start(order("replay", path="a.csv", sampling_rate_hz=10))
        assert fetching.wait(10)
        runner.stop(5)
    assert recorder.path == [State.PREPARING, State.STOPPING, State.IDLE]
    assert recorder.errors == []


def test_missing_files_are_named(runner: TaskRunner, recorder: Recorder) -> None:
    runner.start(order("replay", path="night/heart.csv", sampling_rate_hz=10))
    assert runner.wait_ended(10) is State.ERROR
    assert "night/heart.csv; put them there first" in recorder.errors[0][0]


def test_the_death_of_the_watchdog_ends_the_task(
    runner: TaskRunner, recorder: Recorder, tmp_path: Path
) -> None:
    runner.start(order(), Patient)
    wait_until(lambda: len(recorder.rows) == 1)
    pid = runner._guard.pid
    assert pid is not None
    os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    assert runner.wait_ended(10) is State.ERROR
    assert f"watchdog of outputs (process {pid}) ended" in recorder.errors[0][0]
    assert lamp(tmp_path) == 0
    runner.start(order(), Patient)
    wait_until(lambda: len(recorder.rows) == 2)
    assert runner._guard.pid != pid


def test_a_closed_runner_starts_nothing(tmp_path: Path, recorder: Recorder) -> None:
    runner = runner_in(tmp_path, recorder)
    runner.start(order(), Patient)
    began = time.monotonic()
    runner.close()
    runner.close()
    assert time.monotonic() - began < 5
    assert runner.state is State.IDLE
    with pytest.raises(Closed):
        runner.start(order(), Blink)
