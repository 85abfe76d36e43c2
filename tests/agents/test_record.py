"""A pilot's own record: what it writes comes back, and its name leads nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pilotage.agents.record import Record, read_record
from pilotage.protocol.errors import MachineError


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    record = Record(tmp_path, "rig_a")
    record.begin("s1", {"task_type": "choice"})
    values = {"rt_ms": 0.1 + 0.2, "response": None, "correct": True, "n": np.int64(3)}
    record.add_trial("s1", "rig_a", "m1", 7, values)
    record.end({"state": "IDLE", "marks": []})
    lines = list(read_record(record.place("s1")))
    assert [line["what"] for line in lines] == ["start", "trial", "end"]
    assert lines[1]["values"] == {**values, "n": 3} and lines[1]["trial_num"] == 7


def test_an_end_without_a_beginning_is_not_written(tmp_path: Path) -> None:
    record = Record(tmp_path, "rig_a")
    record.end({"state": "IDLE"})
    assert record.running is None and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("session", ["../../s", "/s", "a/b", "..", "a:b\\c", "s 1"])
def test_a_session_name_stays_inside(session: str, tmp_path: Path) -> None:
    datadir = tmp_path / "a" / "b" / "data"
    record = Record(datadir, "../rig")
    record.begin(session, {})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [record.place(session)]
    assert record.place(session).resolve().is_relative_to(datadir.resolve() / "records")


def test_a_disk_that_fails_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "records").write_text("a file where the folder belongs")
    Record(tmp_path, "rig_a").begin("s1", {})
    assert "can't be written" in caplog.text


@pytest.mark.parametrize(("text", "named"), [("{}\n{broken\n", "line 2"), ("[1]\n", "line 1")])
def test_a_broken_line_is_named(text: str, named: str, tmp_path: Path) -> None:
    place = tmp_path / "s.jsonl"
    place.write_text(text)
    with pytest.raises(MachineError, match=named):
        list(read_record(place))


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="nowhere"):
        list(read_record(tmp_path / "nowhere.jsonl"))
