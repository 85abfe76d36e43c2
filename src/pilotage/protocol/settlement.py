"""The ends that a send can have. Every send reaches exactly one of them (promise D1)."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from pilotage.protocol.errors import DeliveryError, Expired, NameTaken, Refused


class Outcome(StrEnum):
    """How a send ended."""

    DELIVERED = "delivered"
    EXPIRED = "expired"
    REFUSED = "refused"


class Reason(StrEnum):
    """Why a send was refused."""

    UNKNOWN_RECIPIENT = "unknown recipient"
    NOT_ALLOWED = "not allowed"
    INVALID = "invalid"
    LISTEN_FAILED = "listen failed"
    QUEUE_FULL = "queue full"
    INTERRUPTED = "interrupted"
    NAME_TAKEN = "name taken"


class Stage(StrEnum):
    """How far a send has come."""

    SENT = "sent"
    ACCEPTED = "accepted"
    RECEIVED = "received"
    SETTLED = "settled"


class Settlement(msgspec.Struct, frozen=True):
    """The one end of a send.

    Attributes:
        outcome: delivered, expired or refused.
        reason: of a refusal; None otherwise.
        text: what a person should read about it; "" for a delivery.
        answer: what the recipient's listen returned, if it did.
    """

    outcome: Outcome
    reason: Reason | None = None
    text: str = ""
    answer: Any = None

    def error(self) -> DeliveryError | None:
        """Give the error that this end stands for, or None for a delivery."""
        if self.outcome is Outcome.DELIVERED:
            return None
        if self.outcome is Outcome.EXPIRED:
            return Expired(self.text)
        kind = NameTaken if self.reason is Reason.NAME_TAKEN else Refused
        return kind(self.text if kind is NameTaken else f"{self.reason}: {self.text}", self.reason, self.text)


DELIVERED = Settlement(Outcome.DELIVERED)


def refused(reason: Reason, text: str) -> Settlement:
    """Build a refusal."""
    return Settlement(Outcome.REFUSED, reason, text)


def expired(text: str) -> Settlement:
    """Build an expiry."""
    return Settlement(Outcome.EXPIRED, None, text)
