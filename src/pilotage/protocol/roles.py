"""Roles: which keys a peer may send, and to whom (promise X2). The table is the text below; nothing else decides.

    up         the station that the peer is connected to, its inner node, and the Terminal
    own        the peer itself and what belongs to its name
    viewers    whoever is a viewer
    others     everybody else
    all        these four; - is nobody

A file may change the table (`changed`), but not give away what needs an operator.

Law of this room: it knows words only, no connection and no key.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from enum import StrEnum

ROLES = ("pilot", "node", "viewer", "operator", "admin")
"""What a key's owner may be, the likeliest first."""

BY_POWER = ("viewer", "node", "pilot", "operator", "admin")

TABLE = """
keys                               viewer   node           pilot          operator       admin
PILOTS STATUS REKEY                up       up             up             up             all
PING CONFIRM                       up       up own others  up own others  up own others  all
DATA CONTINUOUS STREAM             -        all            all            all            all
HANDSHAKE STATE EVENT PEER AUDIT   -        -              up             -              all
FILE                               -        -              up             up             all
START RUN CHILD STOP HALT STOPALL  -        -              -              up own others  all
PARAM CHANGE SET END KILL          -        -              -              up own others  all
INIT COHERE FETCH BANDWIDTH        -        -              -              up own others  all
CALIBRATE_PORT CALIBRATE_RESULT    -        -              -              up own others  all
STREAM_VIDEO                       -        -              -              up own others  all
WATCH                              -        -              -              -              up
*                                  -        up own others  up own others  up own others  all
"""
"""`*` is every key that isn't named, a lab's own ones. REKEY is judged once more by whose key it is to follow."""

ANY = "*"

NEEDS_OPERATOR = frozenset(
    ("START", "RUN", "CHILD", "HALT", "STOPALL", "PARAM", "CHANGE", "SET", "END", "KILL", "WATCH")
)
"""What no file can give to less than an operator: it starts, stops, changes or ends what isn't the sender's."""

STREAMED = frozenset(("DATA", "CONTINUOUS"))


class Recipient(StrEnum):
    """Who somebody is to whoever sends something to it."""

    UP = "up"
    OWN = "own"
    VIEWERS = "viewers"
    OTHERS = "others"


EVERYBODY = frozenset(Recipient)
Rows = Mapping[str, Mapping[str, frozenset[Recipient]]]
"""For each role, for each key, to whom it may be sent."""


def recipients(words: Collection[str]) -> frozenset[Recipient]:
    """Read to whom something may be sent.

    Raises:
        ValueError: a word is none of ours.
    """
    if list(words) == ["all"]:
        return EVERYBODY
    if list(words) == ["-"]:
        return frozenset()
    unknown = [word for word in words if word not in list(Recipient)]
    if unknown:
        raise ValueError(f"there is no recipient {unknown[0]!r}: there are {', '.join(Recipient)} and all")
    return frozenset(map(Recipient, words))


def _read_table(text: str) -> dict[str, dict[str, frozenset[Recipient]]]:
    """Read a table whose columns are two blanks or more apart."""
    head, *lines = (re.split(r" {2,}", line.strip()) for line in text.strip().splitlines())
    rows: dict[str, dict[str, frozenset[Recipient]]] = {role: {} for role in head[1:]}
    for keys, *cells in lines:
        for role, cell in zip(head[1:], cells, strict=True):
            rows[role].update(dict.fromkeys(keys.split(), recipients(cell.split())))
    return rows


BUILT_IN: Rows = _read_table(TABLE)
KNOWN_KEYS = frozenset(BUILT_IN["admin"]) - {ANY}


class Roles:
    """A table of roles.

    Args:
        rows: it; the built-in one if not given.
    """

    def __init__(self, rows: Rows = BUILT_IN) -> None:
        self._rows = rows

    def __eq__(self, other: object) -> bool:
        """Tell whether another table says the same."""
        return isinstance(other, Roles) and self._rows == other._rows

    __hash__ = None  # type: ignore[assignment]

    def allows(self, role: str, verb: str, to: Recipient) -> bool:
        """Tell whether a role may send a key to somebody."""
        row = self._rows[role]
        return to in row.get(verb, row[ANY])

    def who_may(self, verb: str, to: Recipient) -> tuple[str, ...]:
        """Give the roles that may send a key to somebody, the least first."""
        return tuple(role for role in BY_POWER if self.allows(role, verb, to))

    def refusal(self, name: str, role: str, verb: str, recipient: str, to: Recipient) -> str:
        """Tell why somebody may not send a key to a recipient; "" if it may."""
        if self.allows(role, verb, to):
            return ""
        may = self.who_may(verb, to)
        needed = f"that needs the role {' or '.join(may)}" if may else "no role may"
        article = "an" if role[0] in "aeiou" else "a"
        where = f" to {recipient:.80}" if recipient else ""
        return f"{name} is {article} {role} here and can't send {verb:.40}{where}: {needed}"

    def changed(self, changes: Mapping[str, Mapping[str, Collection[str]]]) -> Roles:
        """Give a table that says something else of some keys.

        Args:
            changes: for each role, for each key (`*` for all that the table doesn't name), to whom it may be sent.

        Raises:
            ValueError: no such role or recipient, or something that needs an operator; the text names it.
        """
        rows = {role: dict(row) for role, row in self._rows.items()}
        for role, row in changes.items():
            for verb, words in row.items():
                check_change(role, verb, words)
                rows[role][verb] = recipients(words)
        return Roles(rows)


def check_change(role: str, verb: str, words: Collection[str]) -> None:
    """See that a table can be changed like that.

    Raises:
        ValueError: no such role or recipient, or something that needs an operator.
    """
    if role not in ROLES:
        raise ValueError(f"there is no role {role!r:.40}: there are {', '.join(BY_POWER)}")
    if recipients(words) and verb in NEEDS_OPERATOR and BY_POWER.index(role) < BY_POWER.index("operator"):
        raise ValueError(f"{verb} can't be given to {role}: it needs an operator or more")


def may_be_streamed(verb: str) -> bool:
    """Tell whether a stream's items may have a key: none that has a meaning of its own, which STREAM would hide."""
    return verb in STREAMED or verb not in KNOWN_KEYS
