"""Ends: how listens have ended for messages of a parcel, as the exchange is told.

Law of this room: each message is told of once; what ended plainly, one after the other, is told of as one.
"""

from __future__ import annotations

from pilotage.protocol.inbox import Handled, Token
from pilotage.protocol.records import Parcel
from pilotage.protocol.settlement import DELIVERED, Settlement

End = tuple[Settlement, bytes]
"""How a message has ended, and its listen's answer, encoded."""

PLAIN: End = (DELIVERED, b"")


def token_of(parcel: Parcel, at: int) -> Token:
    """Tell which message one of a parcel is."""
    return parcel.boot, parcel.flow, parcel.seq + at


def is_plain(ends: list[Handled]) -> bool:
    """Tell whether there is nothing but one message that was delivered."""
    if len(ends) != 1:
        return False
    _, settlement, answer, messages = ends[0]
    return settlement is DELIVERED and not answer and messages == 1


class Ends:
    """How the messages of a parcel have ended so far.

    Attributes:
        plain: the last so many were delivered, and nothing else is to be said of them.
    """

    __slots__ = ("_at", "_parcel", "_told", "plain")

    def __init__(self, parcel: Parcel) -> None:
        self.plain = 0
        self._parcel = parcel
        self._told: list[Handled] = []
        self._at = 0

    def add(self, end: End | None) -> None:
        """Note the end of the next message; None for one that ends later."""
        self._join()
        if end is not None:
            self._told.append(Handled(token_of(self._parcel, self._at), *end))
        self._at += 1

    def take(self) -> list[Handled]:
        """Give what has not been given yet."""
        self._join()
        told, self._told = self._told, []
        return told

    def _join(self) -> None:
        if self.plain:
            self._told.append(Handled(token_of(self._parcel, self._at), messages=self.plain))
            self._at += self.plain
            self.plain = 0


def joined(tokens: list[Token], ends: list[Settlement]) -> list[Handled]:
    """Give the ends of messages; where all are plain and follow each other, as one."""
    count = len(tokens)
    if count > 1 and all(end is DELIVERED for end in ends):
        boot, flow, first = tokens[0]
        if tokens[-1] == (boot, flow, first + count - 1):
            return [Handled(tokens[0], messages=count)]
    return list(map(Handled, tokens, ends))
