"""What is over of a journal's entries that stay, as it lies on the disk beside them.

Law of this room: what can't be read, or whose checksum doesn't fit, is not over: its messages are sent once more, which
their recipients know.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from pilotage.transport.journal_entries import Span

Over = dict[int, list[Span]]
"""Which messages of an entry are over, by its number."""

_spans_decoder = msgspec.json.Decoder(list[Span])


def add_span(spans: list[Span], first: int, end: int) -> None:
    """Add what is over; what follows what was added last is one with it, as it usually does."""
    if spans and spans[-1][1] == first:
        spans[-1] = (spans[-1][0], end)
    else:
        spans.append((first, end))


def has_overs(connection: sqlite3.Connection) -> bool:
    """Tell whether there is a table for it."""
    return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'overs'").fetchone())


def make_overs(connection: sqlite3.Connection) -> None:
    """Make the table, if there is none."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS overs "
        "(number INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, spans TEXT NOT NULL)"
    )


def read_overs(connection: sqlite3.Connection) -> Over:
    """Read what is over, as far as that can be read."""
    over: Over = {}
    with suppress(sqlite3.Error):
        for number, checksum, spans in connection.execute("SELECT number, checksum, spans FROM overs"):
            if isinstance(spans, str) and zlib.crc32(spans.encode()) == checksum:
                with suppress(msgspec.MsgspecError):
                    over[number] = _spans_decoder.decode(spans)
    return over


def write_overs(connection: sqlite3.Connection, over: Mapping[int, Sequence[Span]]) -> None:
    """Write all that is over of these entries."""
    if over:
        texts = [(number, json.dumps(spans)) for number, spans in over.items()]
        rows = json.dumps([(number, zlib.crc32(text.encode()), text) for number, text in texts])
        columns = ", ".join(f"json_extract(value, '$[{at}]')" for at in range(3))
        connection.execute(f"INSERT OR REPLACE INTO overs SELECT {columns} FROM json_each(?)", (rows,))
