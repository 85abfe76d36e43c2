"""Rights: what one connection may send, by its key's role.

Law of this room: it is decided once for each key and recipient; after that a message pays one look into a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pilotage.protocol.roles import Recipient, Roles

MAX_DECIDED = 1_000


class Rights:
    """What a peer may send.

    Args:
        name: whom its key speaks for.
        role: what it is here.
        roles: the table.
        who: tells who somebody is to this peer, by a name.
    """

    __slots__ = ("_decided", "_roles", "_who", "name", "role")

    def __init__(self, name: str, role: str, roles: Roles, who: Callable[[str], Recipient]) -> None:
        self.name = name
        self.role = role
        self._roles = roles
        self._who = who
        self._decided: dict[tuple[str, str], str] = {}

    def refusal(self, verb: str, path: Sequence[str]) -> str:
        """Tell why a message with a key may not go to the end of a path; "" if it may."""
        last = path[-1]
        text = self._decided.get((verb, last))
        if text is not None:
            return text
        if not last:
            # Whoever is last but for blanks is where it ends; which depends on all of the path.
            return self._judge(verb, next((name for name in reversed(path) if name), ""))
        if len(self._decided) >= MAX_DECIDED:
            self._decided.clear()
        text = self._decided[verb, last] = self._judge(verb, last)
        return text

    def _judge(self, verb: str, recipient: str) -> str:
        return self._roles.refusal(self.name, self.role, verb, recipient, self._who(recipient))
