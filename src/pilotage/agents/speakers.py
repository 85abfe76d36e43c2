"""Speakers: who may speak for whom in what is sent to a Terminal, whose stations forward it unread (promise X2).

Law of this room: a key speaks for its name and its subtree, in a message's value as on the wire.
"""

from __future__ import annotations

from pilotage.agents.deeds import Deeds
from pilotage.net.listens import Origin
from pilotage.net.pref_keys import TERMINAL_ID
from pilotage.net.security import KeyWatch, Security
from pilotage.protocol.authority import Authority
from pilotage.protocol.errors import Refused
from pilotage.protocol.settlement import Reason

MAX_JUDGED = 4_096


class Speakers:
    """Judges by the keys that the Terminal's station knows, and follows them as they change. Any thread.

    Args:
        security: where the keys lie.
        deeds: where it is noted who was refused.

    Raises:
        InvalidKey: a file of the Terminal's own can't be used.
    """

    def __init__(self, security: Security, deeds: Deeds) -> None:
        self._security = security
        self._deeds = deeds
        self._authority = Authority()
        self._may: dict[tuple[tuple[str, ...], str], bool] = {}
        self._take(is_running=False)
        self._watch: KeyWatch | None = None

    def follow(self) -> None:
        """Take up keys as they change, until closed."""
        if self._security.keys is not None:
            self._watch = KeyWatch(self._security.keys, TERMINAL_ID, self._take)

    def close(self) -> None:
        """Follow the keys no more."""
        if self._watch is not None:
            self._watch.close()

    def check(self, pilot: str, verb: str, origin: Origin | None) -> None:
        """See that a message in a pilot's name came from somebody who may speak for it.

        Raises:
            Refused: it came from the holder of another key.
        """
        if origin is None:
            return
        may, asked = self._may, (origin.trail, pilot)
        allowed = may.get(asked)
        if allowed is None:
            way = origin.trail[:-1] if origin.trail[-1:] == (TERMINAL_ID,) else origin.trail
            allowed = self._authority.speaks_for(way, pilot)
            if len(may) < MAX_JUDGED:
                may[asked] = allowed
        if not allowed:
            text = f"{verb}: the keys of {origin.trail[0]} and of its stations can't speak for {pilot!r:.80}"
            with self._deeds.refusing(verb, pilot, origin):
                raise Refused(f"{Reason.NOT_ALLOWED}: {text}", Reason.NOT_ALLOWED, text)

    def _take(self, *, is_running: bool = True) -> None:
        """Keys have changed, or are read for the first time."""
        keyring = self._security.keyring(TERMINAL_ID, is_running=is_running)
        self._authority = Authority(keyring.grants, keyring.originals, keyring.roles)
        self._may = {}
