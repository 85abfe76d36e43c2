"""Runs: rows of trials that one sender has sent in a row, and that go to the disk in one step.

What costs is not the row but the step. Law of this room: in a run is nothing unusual; where there is something, there
is no run, and each row goes by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, lt
from typing import Any, TypeGuard, cast

import msgspec

from pilotage.services.store.entries import Entry, MessageId, TrialData

END_OF_NUMBERS, END_OF_BOOTS = 2**63, 2**64

Fields = tuple[Any, ...]
"""A row's columns in its table, in the order in which `TableWriter` writes them."""

_WHOLE, _NOTHING = frozenset({int}), frozenset({type(None)})
_whose = attrgetter("pilot", "subject", "source")


class Run(msgspec.Struct, gc=False):
    """Rows of one sender about one subject, whose messages follow each other in one flow.

    Attributes:
        sender: pilot and source.
        subject: theirs.
        rows: as they were submitted.
        first: the first row's message.
        trials: each row's trial.
        numbers: each row's running number, which ascends; empty if nobody numbered them.
        fields: each row's, once it is packed; so the others.
        digests: each row's, for the ledger.
        names: of the columns of all their trials.
    """

    sender: tuple[str, str]
    subject: str
    rows: Sequence[TrialData]
    first: MessageId
    trials: list[int]
    numbers: list[int]
    fields: list[Fields] = msgspec.field(default_factory=list)
    digests: list[bytes] = msgspec.field(default_factory=list)
    names: set[str] = msgspec.field(default_factory=set)

    @property
    def last_seq(self) -> int:
        """The last row's message, in its flow."""
        return self.first.seq + len(self.trials) - 1


def run_of(entries: Sequence[Entry]) -> Run | None:
    """Give the run that entries are, which are to be packed yet; None if they are none."""
    if len(entries) < 2 or set(map(type, entries)) != {TrialData}:
        return None
    rows = cast("Sequence[TrialData]", entries)
    if set(map(type, [row.values for row in rows])) != {dict}:
        return None
    first, message = rows[0], rows[0].message
    trials, numbers = [row.trial_num for row in rows], [row.row_num for row in rows]
    if _NOTHING.issuperset(map(type, numbers)):
        numbers = []
    if (
        len(set(map(_whose, rows))) == 1
        and all_ascii((first.pilot, first.subject or "", first.source))
        and message is not None
        and can_be_stored(message)
        and [row.message for row in rows] == _following(message, len(rows))
        and _are_numbers(trials)
        and _are_numbers(numbers)
        and all(map(lt, numbers, numbers[1:]))
    ):
        return Run((first.pilot, first.source), first.subject or "", rows, message, trials, numbers)
    return None


def all_ascii(texts: tuple[object, ...]) -> bool:
    """Tell whether all of them are texts without unusual characters."""
    return all(isinstance(text, str) and text.isascii() for text in texts)


def can_be_stored(message: MessageId) -> bool:
    """Tell whether a message's id has the size of one."""
    boot, flow, seq = message.boot, message.flow, message.seq
    is_whole = type(boot) is type(flow) is type(seq) is int
    return is_whole and 0 <= boot < END_OF_BOOTS and 0 <= flow < END_OF_NUMBERS and 0 <= seq < END_OF_NUMBERS


def _following(first: MessageId, count: int) -> list[MessageId]:
    """Give so many ids that follow each other in a flow."""
    range_of_seqs = range(first.seq, min(first.seq + count, END_OF_NUMBERS))
    return [MessageId(first.boot, first.flow, seq) for seq in range_of_seqs]


def _are_numbers(numbers: list[int | None]) -> TypeGuard[list[int]]:
    """Tell whether all of them can be numbers of trials or rows."""
    whole = cast("list[int]", numbers)
    is_whole = _WHOLE.issuperset(map(type, numbers))
    return is_whole and min(whole, default=0) >= 0 and max(whole, default=0) < END_OF_NUMBERS
