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
from pilotage.services.store.limits import END_OF_NUMBERS, are_numbers, is_id, is_text

Fields = tuple[Any, ...]
"""A row's columns in its table, in the order in which `TableWriter` writes them."""

TRIAL, TEXT, RECEIVED = 2, 3, 6
"""Places in a row of `data_messages`: its trial, its values as text, when it came."""

_NOTHING = frozenset({type(None)})
_whose = attrgetter("pilot", "subject", "source")


class Run(msgspec.Struct, gc=False):
    """Rows of one sender about one subject, whose messages follow each other in one flow.

    Attributes:
        sender: pilot and source.
        subject: theirs.
        first: the first row's message.
        trials: each row's trial.
        numbers: each row's running number, which ascends; empty if nobody numbered them.
        fields: each row's, once it is packed; so the others.
        digests: each row's, for the ledger.
        names: of the columns of all their trials.
    """

    sender: tuple[str, str]
    subject: str
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
    """Give the run that entries are, which are to be packed yet; None if they are none.

    Raises:
        TypeError: what names a row's pilot, subject or source is nothing that could.
    """
    if len(entries) < 2 or set(map(type, entries)) != {TrialData}:
        return None
    rows = cast("Sequence[TrialData]", entries)
    first, ids = rows[0], [row.message for row in rows]
    trials, numbers = [row.trial_num for row in rows], [row.row_num for row in rows]
    if _NOTHING.issuperset(map(type, numbers)):
        numbers = []
    if (
        set(map(type, [row.values for row in rows])) == {dict}
        and len(set(map(_whose, rows))) == 1
        and all(map(is_text, (first.pilot, first.subject or "", first.source)))
        and _follow(ids)
        and are_numbers(trials)
        and are_numbers(numbers)
        and all(map(lt, numbers, numbers[1:]))
    ):
        return Run((first.pilot, first.source), first.subject or "", ids[0], list(trials), list(numbers))
    return None


def _follow(ids: Sequence[MessageId | None]) -> TypeGuard[Sequence[MessageId]]:
    """Tell whether messages follow each other in one flow."""
    first = ids[0]
    if first is None or not is_id(first) or first.seq + len(ids) > END_OF_NUMBERS:
        return False
    boot, flow, seqs = first.boot, first.flow, range(first.seq, first.seq + len(ids))
    return ids == [MessageId(boot, flow, seq) for seq in seqs]
