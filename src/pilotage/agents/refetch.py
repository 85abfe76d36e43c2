"""Send rows again from a pilot's record, or tell their digests, for a Terminal that finds itself short of them (FETCH).

Law: a message asks for a bounded number of rows, and is answered when those that could be sent have settled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from pilotage.agents.account import TRIALS, data_of, digest_of
from pilotage.agents.record import Record, RecordedRow
from pilotage.net.receipt import Receipt
from pilotage.protocol.errors import InvalidMessage
from pilotage.protocol.ranges import Ranges, ranges_from_wire, ranges_of, size, subtract
from pilotage.protocol.settlement import Outcome

MAX_ROWS = 1000
"""Rows that one FETCH may ask for."""

MAX_DIGESTS = 4000
"""Digests that one FETCH may ask for: an answer has 256 KiB at most."""

SETTLE_TIMEOUT_S = 20.0


def answer_fetch(
    record: Record, agent: str, value: object, send: Callable[[dict[str, Any]], Receipt]
) -> dict[str, Any]:
    """Do what a FETCH asks.

    Args:
        record: what this agent wrote down.
        agent: its name.
        value: `{session, pilot, table, ranges}`, and `digests` for digests instead of rows.
        send: sends a DATA value to the Terminal.

    Returns:
        `{digests: [[number, digest], …]}`, or `{stored, failed, gone}`, ranges of row numbers: those that have settled
        as delivered, those that were sent and have not, and those that the record lacks.

    Raises:
        InvalidMessage: it asks for something else, or for too much.
    """
    session, pilot, ranges, wants_digests = _asked(value)
    found = _find(record, session, pilot, ranges)
    if wants_digests:
        return {"digests": [[row.number, digest_of(row).hex()] for row in found]}
    receipts = {row.number: send(data_of(row, session, agent)) for row in found}
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    stored = ranges_of(
        sorted(number for number, receipt in receipts.items() if _is_stored(receipt, deadline))
    )
    sent = ranges_of(sorted(receipts))
    return {"stored": stored, "failed": subtract(sent, stored), "gone": subtract(ranges, sent)}


def _asked(value: object) -> tuple[str, str, Ranges, bool]:
    if not isinstance(value, dict) or value.get("table") != TRIALS:
        raise InvalidMessage(
            f"FETCH needs session, pilot, ranges and the table {TRIALS!r}: no other is kept here"
        )
    session, pilot = value.get("session"), value.get("pilot")
    if not isinstance(session, str) or not isinstance(pilot, str):
        raise InvalidMessage("FETCH needs the names of its session and its pilot")
    ranges, wants_digests = ranges_from_wire(value.get("ranges")), bool(value.get("digests"))
    if size(ranges) > (MAX_DIGESTS if wants_digests else MAX_ROWS):
        raise InvalidMessage(
            f"FETCH asks for {size(ranges)} rows; at most {MAX_ROWS}, or {MAX_DIGESTS} digests, go at once"
        )
    return session, pilot, ranges, wants_digests


def _find(record: Record, session: str, pilot: str, ranges: Ranges) -> list[RecordedRow]:
    return list({row.number: row for row in _matching(record, session, pilot, ranges)}.values())


def _matching(record: Record, session: str, pilot: str, ranges: Ranges) -> Iterator[RecordedRow]:
    for row in record.rows(session):
        if row.pilot == pilot and any(first <= row.number <= last for first, last in ranges):
            yield row


def _is_stored(receipt: Receipt, deadline: float) -> bool:
    try:
        settlement = receipt.wait_settled(max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        return False
    return settlement.outcome is Outcome.DELIVERED
