import sqlite3

import pytest

from pilotage.services.store.schema import TABLES
from pilotage.services.store.tables import ROWS_A_CALL, TableWriter, insert_rows
from pilotage.services.store.values import to_text


def message(number: int | None, **values: object) -> tuple[object, ...]:
    """Give the fields of a message for its table."""
    return ("rig", "mouse", number, to_text(values), "", None, 1.0, None, None)


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
            tables.add_message(message(number, **{column: number}))
            tables.write()
    found = connection.execute("SELECT trial_num, occurrence, columns FROM trial_rows ORDER BY trial_num")
    assert found.fetchall() == [
        *((number, 0, f'{{"choice":{number},"correct":{number}}}') for number in (3, 5, 7)),
        (8, 0, '{"correct":8}'),
    ]


def test_a_message_without_a_time_leaves_the_last_one(connection):
    tables = TableWriter(connection)
    tables.reload()
    for at in (1.0, None):
        fields = message(1, x=at)
        tables.add_message((*fields[:6], at, *fields[7:]))
        tables.write()
    assert connection.execute("SELECT first_received, last_received FROM trial_rows").fetchall() == [
        (1.0, 1.0)
    ]


def test_messages_that_make_a_trial_alone_and_others_of_one_transaction_come_out_alike(connection):
    sent = [
        (1, {"a": 1}), (2, {"a": 2}), (None, {"free": 0}), (3, {"a": 3, "TRIAL_END": True}), (4, {"a": 4}),
        (2, {"b": 2}), (5, {"trial_num": 5, "a": 5}), (6, {"a": None}), (1, {"a": 10}),
    ]  # fmt: skip
    found = []
    for at_once in (len(sent), 1):
        connection.executescript(
            "DELETE FROM trial_rows; DELETE FROM data_messages; DELETE FROM trial_columns"
        )
        tables = TableWriter(connection)
        tables.reload()
        for start in range(0, len(sent), at_once):
            for number, values in sent[start : start + at_once]:
                tables.add_message(message(number, **values))
            tables.write()
        rows = connection.execute("SELECT * FROM trial_rows ORDER BY trial_num, occurrence").fetchall()
        found.append((rows, connection.execute("SELECT * FROM trial_columns ORDER BY 1").fetchall()))
    assert found[0] == found[1]
    assert [(row[2], row[4], row[7]) for row in found[0][0]] == [
        (1, 0, '{"a":10}'), (2, 0, '{"a":2,"b":2}'), (3, 1, '{"a":3}'), (4, 0, '{"a":4}'), (5, 0, '{"a":5}'),
        (6, 0, '{"a":null}'),
    ]  # fmt: skip
    assert found[0][1] == [("a",), ("b",)]
