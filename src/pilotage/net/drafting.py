"""Drafting: what a message of ours holds before anybody asks for the message itself.

Law of this room: whoever sends pays for what goes out, and for nothing else; a `Message` is made when it is asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pilotage.protocol.errors import InvalidMessage
from pilotage.protocol.message import Flag, Message

NOREPEAT = Flag.NOREPEAT.value
_TTL = Message.ttl
_NONE: dict[str, Any] = {}
_now = datetime.now

Draft = tuple[str, str, str, Any, datetime, int, Mapping[str, Any], Mapping[str, Any]]
"""A message of ours, but for its key, as its body holds it: id, sender, to, value, when it was made (local time,
written as the original does), ttl, flags, and no further fields."""


def message_of(key: str, draft: Draft) -> Message:
    """Make the message."""
    name, sender, to, value, made_at, ttl, flags, _ = draft
    return Message.from_parts(
        id=name,
        sender=sender,
        to=to,
        key=key,
        value=value,
        timestamp=made_at.isoformat(),
        ttl=ttl,
        flags=dict(flags),
    )


def as_message(key: str, message: Message | Draft) -> Message:
    """Give the message, whether it was made already or not."""
    return message_of(key, message) if isinstance(message, tuple) else message


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
        self, to: str, key: object, value: object, repeat: bool, flags: Mapping[str, Any] | None
    ) -> Draft:
        """Draft a message that originates here.

        Raises:
            InvalidMessage: no key, or flags that are no dictionary.
        """
        if not key:
            raise InvalidMessage(f"a message needs a key (what it is about), not {key!r}")
        if flags is not None and not isinstance(flags, Mapping):
            raise InvalidMessage(f"flags must be a dictionary, not {type(flags).__name__}")
        if not repeat:
            flags = {**(flags or _NONE), NOREPEAT: True}
        name = self._name
        number = next(self.counter)
        return f"{name}_{number}", name, to, value, _now(), _TTL, dict(flags) if flags else _NONE, _NONE

    def following(self, first: Draft, value: object) -> Draft:
        """Draft a message that follows another one of ours, with the same key, and differs only in its value."""
        _, sender, to, _, _, ttl, flags, extra = first
        return f"{sender}_{next(self.counter)}", sender, to, value, _now(), ttl, flags, extra
