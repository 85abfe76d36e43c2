"""Drafting: what a message of ours holds before anybody asks for the message itself.

Law of this room: whoever sends pays for what goes out, and for nothing else; a `Message` is made when it is asked for.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from pilotage.protocol.bodies import encode_value
from pilotage.protocol.errors import InvalidMessage
from pilotage.protocol.message import Flag, Message
from pilotage.protocol.records import Attached

DEFAULT_TTL = Message.ttl
SECOND = 1_000_000
"""In microseconds, which is what a timestamp tells."""

NOREPEAT = Flag.NOREPEAT.value
_NO_EXTRA: dict[str, Any] = {}


class Draft(msgspec.Struct):
    """The fields of a message of ours."""

    id: str
    sender: str
    to: str
    key: str
    value: Any
    timestamp: str
    ttl: int
    flags: dict[str, Any]

    def message(self) -> Message:
        """Make the message."""
        return Message.from_parts(**msgspec.structs.asdict(self))

    def encode(self) -> tuple[bytes, Attached | int]:
        """Give its body and raw frames, as `bodies.encode_body` does for the message.

        Raises:
            InvalidMessage: a value that can't be sent.
        """
        fields = (self.id, self.sender, self.to, self.value, self.timestamp, self.ttl, self.flags, _NO_EXTRA)
        return encode_value(fields)


class Drafting:
    """Numbers the messages of one sender.

    Args:
        name: whose they are.

    Attributes:
        counter: gives the next number.
    """

    def __init__(self, name: str) -> None:
        self.counter = itertools.count()
        self._name = name

    def begin_behind(self, ids: Iterable[str]) -> None:
        """Begin behind the numbers of messages that earlier lives have left: originals confirm by ids alone."""
        numbers = [one.rpartition("_")[2] for one in ids]
        self.counter = itertools.count(max((int(one) + 1 for one in numbers if one.isdecimal()), default=0))

    def draft(
        self, to: str, key: str, value: object, *, repeat: bool, flags: Mapping[str, Any] | None
    ) -> Draft:
        """Draft a message that originates here.

        Raises:
            InvalidMessage: no key, or flags that are no dictionary.
        """
        if not key:
            raise InvalidMessage(f"a message needs a key (what it is about), not {key!r}")
        if flags is not None and not isinstance(flags, Mapping):
            raise InvalidMessage(f"flags must be a dictionary, not {type(flags).__name__}")
        all_flags = dict(flags) if flags else {}
        if not repeat:
            all_flags[NOREPEAT] = True
        name = self._name
        return Draft(
            f"{name}_{next(self.counter)}", name, to, str(key), value, _stamp(), DEFAULT_TTL, all_flags
        )


_second = (0, "")


def _stamp() -> str:
    """Give the local time as the original writes it; the text up to the second is made once for each."""
    global _second  # noqa: PLW0603 - a cache, replaced whole
    now = time.time_ns() // 1000
    begin, text = _second
    if not begin <= now < begin + SECOND:
        begin = now - now % SECOND
        text = f"{datetime.fromtimestamp(begin // SECOND).isoformat()}."
        _second = (begin, text)
    return text + str(SECOND + now - begin)[1:]
