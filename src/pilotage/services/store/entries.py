"""What can be stored.

Law: an entry is a value; it knows neither the wire it came on nor the table it goes to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import numpy as np


class MessageId(msgspec.Struct, frozen=True, gc=False):
    """Which message carried an entry, unique over restarts of its sender.

    Args:
        boot: The sender's boot, 0 … 2**64 - 1.
        flow: The sender's numbered flow within its boot, 0 … 2**63 - 1.
        seq: The message's number in its flow, 0 … 2**63 - 1. Numbers without gaps are kept in the least room.
    """

    boot: int
    flow: int
    seq: int


class Stamp(msgspec.Struct, frozen=True, gc=False):
    """When a message was made and when it came.

    Args:
        received: The receiver's wall clock, seconds since 1970 (UTC).
        sent_wall: The sender's wall clock, seconds since 1970 (UTC), if it gave one.
        sent_monotonic: The sender's monotonic clock in seconds, if it gave one.
    """

    received: float
    sent_wall: float | None = None
    sent_monotonic: float | None = None


class TrialData(msgspec.Struct, frozen=True, gc=False):
    """One DATA message of a trial: columns to be merged into the trial's row.

    Args:
        pilot: Whose trial it is.
        subject: The subject, or None when none was given.
        trial_num: The trial's number; None keeps the message without a row.
        values: Columns. The presence of the key TRIAL_END marks the trial complete.
        message: The id of the message, so that it is stored once.
        stamp: When it was sent and received.
        source: Who numbered the row: the agent that sent it. Empty if nobody did.
        row_num: The row's running number among those of `pilot` and `source`, from 0. A row with a number that is
            stored already, with the same content, is not stored again, whatever message carries it.
    """

    pilot: str
    subject: str | None
    trial_num: int | None
    values: Mapping[str, object]
    message: MessageId | None = None
    stamp: Stamp | None = None
    source: str = ""
    row_num: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, with any values that describe it."""

    pilot: str
    name: str
    values: Mapping[str, object]
    message: MessageId | None = None
    stamp: Stamp | None = None


@dataclass(frozen=True, slots=True)
class State:
    """A pilot entered a state."""

    pilot: str
    state: str
    message: MessageId | None = None
    stamp: Stamp | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """A task's parameter got a value; `source` says from whom."""

    pilot: str
    name: str
    value: object
    source: str
    message: MessageId | None = None
    stamp: Stamp | None = None


@dataclass(frozen=True, slots=True)
class StreamItems:
    """Items of a continuous stream.

    Args:
        pilot: Whose stream it is.
        subject: The subject, or None when none was given.
        stream: The stream's name.
        timestamps: One for each item: seconds (float), integers, ISO 8601 text, datetimes or datetime64.
        data: Items of one dtype, shape (k, *item_shape). Not to be changed until `done` was called.
        message: The id of the message, so that it is stored once.
        stamp: When it was sent and received.
        source: Who numbered the items: a life of the agent that sent them, "agent/life". Empty if nobody did.
        first: The running number of the first item among those of `stream` and `source`; the others follow it
            without a gap. None if nobody numbered them.
    """

    pilot: str
    subject: str | None
    stream: str
    timestamps: Sequence[float | int | str | datetime] | np.ndarray[Any, Any]
    data: np.ndarray[Any, Any]
    message: MessageId | None = None
    stamp: Stamp | None = None
    source: str = ""
    first: int | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """A fact about the session as a whole; a later one under the same key replaces it."""

    key: str
    value: object
    message: MessageId | None = None
    stamp: Stamp | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """All messages of a flow below `below` have ended: none of them will be sent again.

    A flow in which not every number is stored leaves a range for each gap; this closes them.
    """

    boot: int
    flow: int
    below: int


Entry = TrialData | Event | State | Parameter | StreamItems | Provenance | Settled
