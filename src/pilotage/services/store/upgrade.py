"""Bring a session that an older Pilotage wrote to the present tables.

Law: one transaction, which changes no recorded value. A reader needs no upgrade.
"""

from __future__ import annotations

import sqlite3

from pilotage.protocol.ledger import Kind, LedgerKey
from pilotage.services.store import schema
from pilotage.services.store.holdings import AnyTally, read_tallies, recount, write_tallies


def upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Bring the tables from `version` to the present one; nothing if they are there.

    Args:
        connection: The writer's connection, in no transaction.
        version: What `schema.check_version` found.

    Raises:
        sqlite3.Error: The disk; nothing has changed then.
    """
    if version == schema.SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        _number(connection)
        connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _number(connection: sqlite3.Connection) -> None:
    """Make room for running numbers; what is there has none. Tables' digests are made anew, as sums."""
    streams: dict[LedgerKey, AnyTally] = {
        key: tally for key, tally in read_tallies(connection).items() if key.kind is not Kind.TABLE
    }
    connection.execute("ALTER TABLE data_messages ADD COLUMN source TEXT NOT NULL DEFAULT ''")
    connection.execute("ALTER TABLE data_messages ADD COLUMN row_num INTEGER")
    connection.execute("DROP TABLE ledger")
    for statement in schema.NUMBERED.split(";"):
        connection.execute(statement)
    connection.execute(
        "INSERT INTO stream_numbers SELECT pilot, name, 0, sum(length), '', NULL FROM streams "
        "GROUP BY pilot, name HAVING sum(length) > 0"
    )
    write_tallies(connection, {**streams, **recount(connection)})
