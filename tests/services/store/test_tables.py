import sqlite3

import pytest

from pilotage.services.store import Stamp
from pilotage.services.store.schema import TABLES
from pilotage.services.store.tables import ROWS_A_CALL, TableWriter, TrialKey, insert_rows

STATE = "pilot, state, received, sent_wall, sent_monotonic"
MANY = sum(ROWS_A_CALL) * 2 + 5


@pytest.fixture
def connection():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(TABLES)
    yield connection
    connection.close()


@pytest.mark.parametrize("count", [0, 1, ROWS_A_CALL[0] - 1, ROWS_A_CALL[0], MANY])
def test_many_rows_go_in_with_few_statements_each_once_and_in_order(connection, count):
    calls = []
    connection.set_trace_callback(calls.append)
    rows = [("rig", str(number), None, 0.5, number) for number in range(count)]
    insert_rows(connection, f"INSERT INTO states ({STATE}) VALUES (?, ?, ?, ?, ?)", rows)
    connection.set_trace_callback(None)
    assert connection.execute(f"SELECT {STATE} FROM states ORDER BY id").fetchall() == rows
    assert len(calls) <= count // ROWS_A_CALL[0] + ROWS_A_CALL[0] // ROWS_A_CALL[1] + ROWS_A_CALL[1]


def test_what_follows_the_values_holds_for_each_row(connection):
    statement = "INSERT INTO provenance VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
    insert_rows(connection, statement, [(f"key {number % 40}", str(number)) for number in range(MANY)])
    stored = dict(connection.execute("SELECT * FROM provenance"))
    assert stored == {f"key {number % 40}": str(number) for number in range(MANY)}


def test_a_trial_is_merged_with_what_is_stored_of_it_also_after_later_ones(connection):
    for numbers, column in (((3, 7, 5), "choice"), ((5, 3, 8, 7), "correct")):
        tables = TableWriter(connection)
        tables.reload()
        for number in numbers:
            tables.merge(TrialKey("rig", "mouse", number), {column: number}, Stamp(1.0, None))
            tables.write()
    found = connection.execute("SELECT trial_num, occurrence, columns FROM trial_rows ORDER BY trial_num")
    assert found.fetchall() == [
        *((number, 0, f'{{"choice":{number},"correct":{number}}}') for number in (3, 5, 7)),
        (8, 0, '{"correct":8}'),
    ]
