"""The check itself can fail: each thing that could be wrong with a store is planted, and named."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.system.faults.audit import Audit, audit_items, audit_rows, read_record
from tests.system.faults.load import checksum
from tests.system.faults.rig import Load, Plan, Rig

pytestmark = pytest.mark.only_on("linux", "darwin")

PILOT = "rig_a"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """A rig that ran one session to its end, without any fault."""
    with Rig(tmp_path_factory.mktemp("rig"), Plan(pilots=[PILOT])) as rig:
        rig.begin(stream_hz=50.0)
        rig.wait_more_rows(40)
        rig.finish_and_check("no fault")
    return rig


def audit_of(place: Path, one: Load) -> Audit:
    audit = Audit()
    audit_rows(audit, place, one.truth, one.owner, one.subject, one.cut_short)
    audit_items(audit, place, one.truth, one.owner, one.params["stream"], one.cut_short)
    return audit


STORE_FAULTS = {
    "a row is missing": (
        "DELETE FROM data_messages WHERE id = (SELECT min(id) + 5 FROM data_messages)",
        "row 5 of life * is stored 0 times",
    ),
    "the last row is missing": (
        "DELETE FROM data_messages WHERE id = (SELECT max(id) FROM data_messages)",
        "is stored 0 times",
    ),
    "a row is there twice": (
        'INSERT INTO data_messages (pilot, subject, trial_num, "values") '
        'SELECT pilot, subject, trial_num, "values" FROM data_messages ORDER BY id LIMIT 1 OFFSET 7',
        "row 7 of life * is stored 2 times",
    ),
    "a row's text differs": (
        """UPDATE data_messages SET "values" = json_set("values", '$.text', 'other') """
        "WHERE id = (SELECT min(id) + 3 FROM data_messages)",
        "row 3 of life * differs from what was sent",
    ),
    "a row's trial differs": (
        "UPDATE data_messages SET trial_num = 999 WHERE id = (SELECT min(id) + 3 FROM data_messages)",
        "row 3 of life * differs from what was sent",
    ),
    "a row nobody sent": (
        """INSERT INTO data_messages (pilot, subject, trial_num, "values") SELECT pilot, subject, trial_num, """
        """json_set("values", '$.life', 'x') FROM data_messages ORDER BY id LIMIT 1""",
        "row 0 of life x was never sent",
    ),
    "items are missing": (
        "DELETE FROM stream_tail WHERE start = (SELECT max(start) FROM stream_tail)",
        "it has runs of",
    ),
    "an item's data differ": (
        "UPDATE stream_tail SET data = zeroblob(length(data)) WHERE start = (SELECT max(start) FROM stream_tail)",
        "differs from what was sent",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", STORE_FAULTS)
def test_what_is_wrong_in_the_store_is_named(what: str, ended: Rig, tmp_path: Path) -> None:
    statement, text = STORE_FAULTS[what]
    place = tmp_path / "session"
    shutil.copytree(ended.place, place)
    one = ended.loads[PILOT]
    assert audit_of(place, one).faults == []
    with closing(sqlite3.connect(place / "session.sqlite")) as connection, connection:
        assert connection.execute(statement).rowcount > 0
    found = audit_of(place, one)
    begin, _, end = text.partition("*")
    assert any(begin in fault and end in fault for fault in found.faults), found.faults
    with pytest.raises(AssertionError, match="faults: "):
        found.check("planted")


def test_a_wrong_checksum_is_named(ended: Rig, tmp_path: Path) -> None:
    """A row that was wrong before it was noted."""
    place, truth = tmp_path / "session", tmp_path / "truth"
    shutil.copytree(ended.place, place)
    one = ended.loads[PILOT]
    shutil.copytree(one.truth, truth)
    notes = next(truth.glob("*.rows.jsonl"))
    life = notes.name.split(".")[0]
    wrong = str(checksum(life, 0, "") + 1)
    first = notes.read_text().splitlines()[0]
    right = first.split('"check": ')[1].split(",")[0]
    notes.write_text(notes.read_text().replace(right, wrong))
    with closing(sqlite3.connect(place / "session.sqlite")) as connection, connection:
        connection.execute('UPDATE data_messages SET "values" = replace("values", ?, ?)', (right, wrong))
    found = Audit()
    audit_rows(found, place, truth, one.owner, one.subject, set())
    assert any("wrong checksum" in fault for fault in found.faults)


def test_only_the_last_row_of_a_killed_life_is_excused(ended: Rig, tmp_path: Path) -> None:
    place = tmp_path / "session"
    shutil.copytree(ended.place, place)
    one = ended.loads[PILOT]
    for more in (0, 1):
        with closing(sqlite3.connect(place / "session.sqlite")) as connection, connection:
            connection.execute("DELETE FROM data_messages WHERE id = (SELECT max(id) FROM data_messages)")
        found = Audit()
        audit_rows(found, place, one.truth, one.owner, one.subject, one.lives())
        assert (found.excused, len(found.faults)) == (1, more)
    taken = read_record((ended.folder / PILOT / "data" / "records").glob("*/*.jsonl"))
    assert len(taken) == found.rows
    strict = Audit()
    audit_rows(strict, place, one.truth, one.owner, one.subject, one.lives(), taken)
    assert (strict.excused, len(strict.faults)) == (0, 2)


def test_a_session_in_which_nothing_was_sent_fails() -> None:
    with pytest.raises(AssertionError, match="nothing was sent"):
        Audit().check("empty")
