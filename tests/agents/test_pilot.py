"""A pilot whose Terminal is away: each run keeps to its own session, and its end is told before the next begins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotage.agents import runner
from pilotage.agents.account import Accounts
from pilotage.agents.pilot import Pilot
from pilotage.agents.record import Record, RecordedRow
from pilotage.agents.states import State
from pilotage.protocol.errors import TaskError
from tests.system.lab import Tick, settings, wait_for

ONE, TWO = ({"task_type": "tick", "session": name, "subject": "m"} for name in ("one", "two"))


@pytest.fixture
def pilot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pilot]:
    monkeypatch.setattr("pilotage.agents.pilot.find_task", lambda name: Tick)
    monkeypatch.setattr("pilotage.agents.pilot.STOP_TIMEOUT_S", 0.3)
    pilot = Pilot(settings(tmp_path, NAME="rig", PUSHPORT=1, MSGPORT=0))
    yield pilot
    pilot.close(0.5)


def records(folder: Path) -> Path:
    return folder / "data" / "records" / "rig"


def lines(folder: Path, session: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (records(folder) / f"{session}.jsonl").read_text().splitlines()]


def is_open(folder: Path, session: str) -> bool:
    (life,) = json.loads((records(folder) / f"{session}.streams.json").read_text()).values()
    return bool(life["open"])


def test_a_start_waits_until_the_end_of_the_last_run_is_told(pilot: Pilot, tmp_path: Path) -> None:
    told: list[str] = []
    pilot.on_state = lambda state, reason: told.append(str(state))
    pilot.l_start(ONE).result(10)
    wait_for(lambda: pilot.runner.current_trial > 1)
    pilot.runner.stop(5)
    pilot.l_start(TWO).result(10)
    assert told == ["PREPARING", "RUNNING", "STOPPING", "IDLE", "PREPARING", "RUNNING"]
    assert [line["what"] for line in lines(tmp_path, "one") if line["what"] != "trial"] == ["start", "end"]
    assert "end" not in [line["what"] for line in lines(tmp_path, "two")]
    assert not is_open(tmp_path, "one") and is_open(tmp_path, "two")
    assert json.loads((tmp_path / "data" / "rig.running.json").read_text())["session"] == "two"
    pilot.runner.stop(5)
    wait_for(lambda: told[-1] == "IDLE")
    assert [line["what"] for line in lines(tmp_path, "two")][-1] == "end" and not is_open(tmp_path, "two")


def test_a_start_is_refused_if_the_end_of_the_last_run_can_not_be_told_in_time(
    pilot: Pilot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pilotage.agents.pilot.END_TIMEOUT_S", 0.01)
    pilot.l_start(ONE).result(10)
    wait_for(lambda: pilot.runner.current_trial > 1)
    pilot.runner.stop(5)
    with pytest.raises(TaskError, match="isn't told yet"):
        pilot.l_start(TWO)
    assert not (records(tmp_path) / "two.jsonl").exists()


def test_a_refused_start_changes_nothing_of_what_runs_not_even_for_a_moment(
    pilot: Pilot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pilot.l_start(ONE).result(10)
    check = runner.checked_params

    def slow_check(*given: Any) -> Any:
        at = pilot.runner.current_trial
        wait_for(lambda: pilot.runner.current_trial > at + 3)
        return check(*given)

    monkeypatch.setattr(runner, "checked_params", slow_check)
    with pytest.raises(TaskError, match="stop it first"):
        pilot.l_start({**TWO, "next_row": 1000, "subject": "wrong"})
    at = pilot.runner.current_trial
    wait_for(lambda: pilot.runner.current_trial > at + 3)
    rows = [line for line in lines(tmp_path, "one") if line["what"] == "trial"]
    assert [row["row_num"] for row in rows] == list(range(len(rows)))
    assert {row["subject"] for row in rows} == {"m"}
    assert not (records(tmp_path) / "two.jsonl").exists()


def test_a_trial_whose_row_was_recorded_is_not_the_one_that_was_interrupted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    Record(data, "rig", "life").add_row("one", RecordedRow("rig", 0, "m", 7, {"TRIAL_END": True}))
    (data / "rig.running.json").write_text(
        json.dumps({"task_type": "tick", "session": "one", "subject": "m", "trial": 7})
    )
    pilot = Pilot(settings(tmp_path, NAME="rig", PUSHPORT=1, MSGPORT=0))
    try:
        told = pilot.runner.statistics()
        assert told.state is State.INTERRUPTED
        assert told.reason == "tick was interrupted in trial 8 of session one"
    finally:
        pilot.close(0.5)


def test_a_life_that_has_ended_is_not_noted_as_open_until_it_begins_again(tmp_path: Path) -> None:
    account = Accounts(Record(tmp_path / "data", "rig", "life"), "rig", "life").of("s")
    account.begin_life()
    account.note_life(is_open=False)
    account.note_life(is_open=True)
    assert not is_open(tmp_path, "s")
    account.begin_life()
    assert is_open(tmp_path, "s")
