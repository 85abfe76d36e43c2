"""Running numbers in the store: a row once, every gap known, and sessions of the version before."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from pilotage.protocol.canonical import canonical
from pilotage.protocol.coverage import Holding
from pilotage.protocol.errors import StoreError
from pilotage.protocol.ledger import Kind, Ledger, LedgerKey, row_digest
from pilotage.services.store import MessageId, SessionReader, SessionStore, Stamp, StreamItems, TrialData
from pilotage.services.store.entries import Entry

TRIALS = LedgerKey("rig", Kind.TABLE, "trials", "rig")


def put(store: SessionStore, *entries: Entry) -> list[StoreError | None]:
    outcomes: list[StoreError | None] = []
    ended = threading.Event()

    def done(error: StoreError | None) -> None:
        outcomes.append(error)
        if len(outcomes) == len(entries):
            ended.set()

    for entry in entries:
        store.submit(entry, done)
    assert ended.wait(20)
    return outcomes


def row(
    number: int | None, seq: int, trial: int | None = None, source: str = "rig", **values: object
) -> TrialData:
    trial = number if trial is None else trial
    return TrialData("rig", "m", trial, values, MessageId(1, 0, seq), Stamp(1.0), source, number)


def items(stream: str, first: int | None, count: int, seq: int, source: str = "rig/a") -> StreamItems:
    stamps, data = np.arange(count) / 3, np.arange(count)
    return StreamItems("rig", "m", stream, stamps, data, MessageId(1, 1, seq), None, source, first)


def held(store: SessionStore, key: LedgerKey) -> Holding:
    (found,) = [holding for holding in store.holdings() if holding.key == key]
    return found


def test_a_row_is_stored_once_whatever_message_carries_it(tmp_path: Path) -> None:
    with SessionStore.create(tmp_path, "s", {}) as store:
        assert put(store, row(0, 0, x=1), row(1, 1, x=2)) == [None, None]
        again = [row(0, 2, x=1), row(1, 3, x=2), row(2, 4, x=3), row(2, 5, x=3)]
        assert put(store, *again, *again) == [None] * 8
        assert store.statistics().duplicates == 7
        holding = held(store, TRIALS)
        assert holding.numbers == ((0, 2),) and holding.mark.count == 3
        ledger = Ledger()
        for number in (2, 0, 1):
            ledger.add("rig", "trials", ["m", number, {"x": number + 1}], number, "rig")
        assert store.ledger()[TRIALS] == holding.mark == ledger.marks()[TRIALS]
    with SessionStore.open(tmp_path / "s") as store:
        assert put(store, row(1, 9, x=2)) == [None] and store.statistics().duplicates == 1
        assert store.next_row("rig", "rig") == 3 and store.next_row("rig", "other") == 0


def test_gaps_are_known_and_a_late_row_fills_its_own(tmp_path: Path) -> None:
    with SessionStore.create(tmp_path, "s", {}) as store:
        put(store, *(row(number, number, x=number) for number in (0, 1, 5, 9)))
        assert held(store, TRIALS).numbers == ((0, 1), (5, 5), (9, 9))
        put(store, row(4, 20, x=4), row(6, 21, x=6))
        assert held(store, TRIALS).numbers == ((0, 1), (4, 6), (9, 9))
        digests = store.row_digests("rig", "rig", 4, 8)
        assert digests == {n: row_digest(n, canonical(["m", n, {"x": n}])).hex() for n in (4, 5, 6)}


def test_another_row_under_a_number_that_is_taken_is_kept_without_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SessionStore.create(tmp_path, "s", {}) as store:
        assert put(store, row(0, 0, x=1), row(0, 1, x=2)) == [None, None]
        holding = held(store, TRIALS)
        assert (holding.mark.count, holding.numbers, holding.unnumbered) == (2, ((0, 0),), 1)
        assert store.ledger()[TRIALS] == holding.mark
    assert "kept without a number" in caplog.text
    with SessionReader(tmp_path / "s") as reader:
        assert [values["x"] for values in reader.messages()["values"]] == [1, 2], "nothing is dropped"


def test_a_late_part_of_a_trial_changes_no_later_value(tmp_path: Path) -> None:
    with SessionStore.create(tmp_path, "s", {}) as store:
        put(store, row(0, 0, 7, a=0), row(2, 2, 7, b=2), row(3, 3, 7, c=3, TRIAL_END=True))
        put(store, row(1, 1, 7, b=1, late=True))
    with SessionReader(tmp_path / "s") as reader:
        table = reader.trials()
        assert table[["trial_num", "occurrence", "a", "b", "c", "late"]].to_numpy().tolist() == [
            [7, 0, 0, 2, 3, True]
        ]


def test_what_numbers_nothing_is_counted_apart(tmp_path: Path) -> None:
    with SessionStore.create(tmp_path, "s", {}) as store:
        put(store, row(None, 0, 3, "", x=1), row(None, 1, 3, "", x=1), row(0, 2, x=1))
        put(store, items("s", None, 4, 0, ""), items("s", None, 2, 1, ""))
        unnumbered = held(store, LedgerKey("rig", Kind.TABLE, "trials", ""))
        assert (unnumbered.mark.count, unnumbered.numbers, unnumbered.unnumbered) == (2, (), 2)
        stream = held(store, LedgerKey("rig", Kind.STREAM, "s", ""))
        assert (stream.mark.count, stream.numbers, stream.unnumbered) == (6, (), 6)


def test_a_streams_numbers_are_kept_in_runs_by_sender(tmp_path: Path) -> None:
    with SessionStore.create(tmp_path, "s", {}) as store:
        put(store, items("s", 0, 10, 0), items("s", 10, 5, 1), items("s", 20, 5, 2))
        put(store, items("s", 0, 3, 3, "rig/b"))
    with SessionStore.open(tmp_path / "s") as store:
        put(store, items("s", 3, 3, 4, "rig/b"), items("s", 25, 1, 5), items("s", 25, 1, 6))
        first, second = (
            held(store, LedgerKey("rig", Kind.STREAM, "s", source)) for source in ("rig/a", "rig/b")
        )
        assert (first.numbers, first.mark.count, first.doubled) == (((0, 14), (20, 25)), 22, 1)
        assert (second.numbers, second.mark.count, second.doubled) == (((0, 5),), 6, 0)
    with sqlite3.connect(tmp_path / "s" / "session.sqlite") as connection:
        runs = connection.execute("SELECT position, count, source, first FROM stream_numbers").fetchall()
    connection.close()
    assert runs == [
        (0, 15, "rig/a", 0),
        (15, 5, "rig/a", 20),
        (20, 6, "rig/b", 0),
        (26, 1, "rig/a", 25),
        (27, 1, "rig/a", 25),
    ]


@pytest.mark.parametrize("number", [-1, 1 << 63, 1.0, True])
def test_what_is_no_number_is_refused(tmp_path: Path, number: object) -> None:
    with SessionStore.create(tmp_path, "s", {}) as store:
        (error,) = put(store, TrialData("rig", "m", 0, {}, row_num=number))  # type: ignore[arg-type]
        assert "row_num" in str(error)


VERSION_1 = """
DROP INDEX data_rows;
DROP TABLE stream_numbers;
ALTER TABLE data_messages DROP COLUMN source;
ALTER TABLE data_messages DROP COLUMN row_num;
CREATE TABLE old (
    pilot TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, count INTEGER NOT NULL,
    digest BLOB NOT NULL, pending BLOB NOT NULL, form BLOB NOT NULL,
    PRIMARY KEY (pilot, kind, name)) WITHOUT ROWID;
INSERT INTO old SELECT pilot, kind, name, count, digest, x'0102', form FROM ledger WHERE kind = 'table';
INSERT INTO old SELECT pilot, kind, name, count, digest, pending, form FROM ledger WHERE kind <> 'table';
DROP TABLE ledger;
ALTER TABLE old RENAME TO ledger;
PRAGMA user_version = 1;
"""


@pytest.fixture
def old_session(tmp_path: Path) -> Path:
    """A session as version 1 left it: no numbers, tables digested in their order."""
    with SessionStore.create(tmp_path, "s", {"made": "long ago"}) as store:
        put(store, row(None, 0, 0, "", x=1), row(None, 1, 1, "", x=np.arange(3)))
        put(store, items("s", None, 4, 0, ""), items("t", None, 2, 1, ""))
    connection = sqlite3.connect(tmp_path / "s" / "session.sqlite")
    connection.executescript(VERSION_1)
    connection.close()
    return tmp_path / "s"


def test_a_session_of_version_1_is_read_as_it_is(old_session: Path) -> None:
    with SessionReader(old_session) as reader:
        assert reader.trials()["trial_num"].tolist() == [0, 1]
        assert len(reader.messages()) == 2 and reader.holdings() == []
        assert {key.name: mark.count for key, mark in reader.ledger().items() if key.kind is Kind.STREAM} == {
            "s": 4,
            "t": 2,
        }
        assert reader.summary().data_messages == 2
    connection = sqlite3.connect(old_session / "session.sqlite")
    assert connection.execute("PRAGMA user_version").fetchone() == (1,), "reading changes nothing"
    connection.close()


def test_a_session_of_version_1_goes_on_and_is_brought_up_to_date(old_session: Path) -> None:
    with SessionReader(old_session) as reader:
        streams = {key: mark for key, mark in reader.ledger().items() if key.kind is not Kind.TABLE}
        kept = [canonical(values) for values in reader.messages()["values"]]
    with SessionStore.open(old_session) as store:
        assert {key: mark for key, mark in store.ledger().items() if key.kind is not Kind.TABLE} == streams
        assert put(store, row(None, 0, 0, "", x=1)) == [None] and store.statistics().duplicates == 1
        put(store, row(0, 50, 2, x=3), items("s", 0, 2, 50))
        table = {holding.key.source: holding for holding in store.holdings() if holding.key.name == "trials"}
        assert (table[""].mark.count, table[""].unnumbered, table["rig"].numbers) == (2, 2, ((0, 0),))
        assert table[""].mark == store.ledger()[table[""].key], "the sums were made from the rows"
        assert held(store, LedgerKey("rig", Kind.STREAM, "s", "")).unnumbered == 4
        assert held(store, LedgerKey("rig", Kind.STREAM, "s", "rig/a")).numbers == ((0, 1),)
    with SessionReader(old_session) as reader:
        assert [canonical(values) for values in reader.messages()["values"]][:2] == kept
        assert reader.stream("rig", "s").to_numpy().tolist() == [0, 1, 2, 3, 0, 1]


def test_a_newer_session_is_refused(old_session: Path) -> None:
    connection = sqlite3.connect(old_session / "session.sqlite")
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    for open_one in (SessionReader, SessionStore.open):
        with pytest.raises(StoreError, match="use a newer Pilotage"):
            open_one(old_session)


def test_a_row_that_lies_there_twice_is_found(tmp_path: Path) -> None:
    with SessionStore.create(tmp_path, "s", {}) as store:
        put(store, row(0, 0, x=1), row(1, 1, x=2))
    with sqlite3.connect(tmp_path / "s" / "session.sqlite") as changed:
        changed.execute("DROP INDEX data_rows")
        columns = 'pilot, subject, trial_num, received, "values", source, row_num'
        changed.execute(
            f"INSERT INTO data_messages ({columns}) SELECT {columns} FROM data_messages WHERE row_num = 1"
        )
    changed.close()
    with SessionStore.open(tmp_path / "s") as store:
        holding = held(store, TRIALS)
        assert (holding.mark.count, holding.numbers, holding.doubled) == (3, ((0, 1),), 1)
