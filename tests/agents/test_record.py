"""A pilot's own record: what it writes comes back, and its name leads nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pilotage.agents.exact import from_json, to_json
from pilotage.agents.record import Record, RecordedRow, read_record
from pilotage.protocol.canonical import canonical
from pilotage.protocol.errors import InvalidMessage, MachineError


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    record = Record(tmp_path, "rig_a", "life")
    record.begin("s1", {"task_type": "choice"})
    values = {"rt_ms": 0.1 + 0.2, "response": None, "correct": True, "n": np.int64(3)}
    row = RecordedRow("rig_a", 0, "m1", 7, values)
    record.add_row("s1", row)
    record.end({"state": "IDLE", "marks": []})
    lines = list(read_record(record.place("s1")))
    assert [line["what"] for line in lines] == ["start", "trial", "end"]
    assert lines[0]["life"] == "life"
    assert lines[1]["values"] == values and (lines[1]["trial_num"], lines[1]["row_num"]) == (7, 0)
    assert list(record.rows("s1")) == [row]


@pytest.mark.parametrize(
    ("trial", "subject", "expected"),
    [(7, "m1", 8), (8, "m1", 8), (12, "m1", 12), (7, "m2", 7), ("?", "m1", "?")],
)
def test_a_trial_whose_row_was_recorded_has_ended_whatever_the_diary_says(
    tmp_path: Path, trial: object, subject: str, expected: object
) -> None:
    record = Record(tmp_path, "rig_a", "life")
    record.add_row("s1", RecordedRow("rig_a", 0, "m1", 7, {"TRIAL_END": True}))
    record.add_row("s1", RecordedRow("rig_a", 1, "m1", 8, {"response": 1}))  # the trial that ran
    assert record.trial_after({"session": "s1", "subject": subject, "trial": trial}) == expected
    assert record.trial_after({"session": "s2", "subject": subject, "trial": trial}) == trial


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text()
    | st.binary()
    | st.datetimes()
    | st.dates()
    | st.times()
    | array_shapes(min_dims=0).flatmap(
        lambda shape: arrays(st.sampled_from([">f4", "<c16", "?", "<U3", "S2"]), shape)
    )
    | st.sampled_from([np.float32(0.1), np.int8(-3), np.datetime64("2026-01-02T03"), np.bool_(True)]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.just("$") | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(PLAIN)
def test_any_value_comes_back_bit_for_bit(value: object) -> None:
    text = json.dumps(to_json(value), allow_nan=False)
    back = from_json(json.loads(text))
    assert canonical(back) == canonical(value) and type(back) is type(value)
    if isinstance(value, np.ndarray):
        assert (back.dtype, back.shape, back.tobytes()) == (value.dtype, value.shape, value.tobytes())


@pytest.mark.parametrize("value", [object(), {1}, np.array([None]), np.zeros(1, [("a", "f4")])])
def test_what_can_not_be_kept_is_refused(value: object) -> None:
    with pytest.raises(InvalidMessage, match="can't be recorded"):
        to_json({"a": [value]})


@pytest.mark.parametrize("broken", [{"$": "array"}, {"$": "?", "value": 1}, {"$": "date", "value": "x"}])
def test_a_broken_value_is_refused(broken: object) -> None:
    with pytest.raises(InvalidMessage, match="broken"):
        from_json({"a": broken})


def test_a_torn_last_line_spoils_neither_the_rows_before_nor_those_after(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [RecordedRow("rig_a", n, "m", n, {"x": n}) for n in range(3)]
    for row in rows[:2]:
        Record(tmp_path, "rig_a").add_row("s", row)
    place = Record(tmp_path, "rig_a").place("s")
    place.write_bytes(place.read_bytes()[:-9])
    Record(tmp_path, "rig_a").add_row("s", rows[2])
    assert list(Record(tmp_path, "rig_a").rows("s")) == [rows[0], rows[2]]
    assert "line 2, is left out" in caplog.text


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
