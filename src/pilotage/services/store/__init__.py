"""The embedded store: a folder for each session, written by one process, read by any."""

from __future__ import annotations

from pilotage.services.store.entries import (
    Entry,
    Event,
    MessageId,
    Parameter,
    Provenance,
    Settled,
    Stamp,
    State,
    StreamItems,
    TrialData,
)
from pilotage.services.store.intake import QueueFull
from pilotage.services.store.packing import Done
from pilotage.services.store.reader import SessionReader, SessionSummary, StreamInfo
from pilotage.services.store.seen import Seen
from pilotage.services.store.session import SessionStore, StoreConfig, StoreStatistics
from pilotage.services.store.trouble import Abandoned, Trouble

__all__ = [
    "Abandoned",
    "Done",
    "Entry",
    "Event",
    "MessageId",
    "Parameter",
    "Provenance",
    "QueueFull",
    "Seen",
    "SessionReader",
    "SessionStore",
    "SessionSummary",
    "Settled",
    "Stamp",
    "State",
    "StoreConfig",
    "StoreStatistics",
    "StreamInfo",
    "StreamItems",
    "TrialData",
    "Trouble",
]
