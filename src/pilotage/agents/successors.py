"""New keys for old: who has proved its key may name the next one (`pilotage keys rotate`).

Law of this room: a key is followed by another only at the word of whoever holds it, as the connection shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from pilotage.net.keys import KeyFolder, KnownKey, checked_key
from pilotage.net.listens import Origin, takes_origin
from pilotage.net.node import Net_Node
from pilotage.net.pref_keys import TERMINAL_ID
from pilotage.net.security import Security
from pilotage.protocol.authority import belongs_to
from pilotage.protocol.errors import InvalidMessage, PilotageError

TELL_S = 5.0


def checked_successor(value: Any) -> str:
    """Give the key that a REKEY names.

    Raises:
        InvalidMessage: it names none.
        InvalidKey: that is no key.
    """
    if not isinstance(value, dict):
        raise InvalidMessage("REKEY needs a dictionary with the next public key")
    return checked_key(value.get("public"), "what REKEY names as `public`")


class PilotSuccessors:
    """A pilot's side: the Terminal names its next key, or that of the pilot's parent.

    Args:
        security: where the keys lie.
    """

    def __init__(self, security: Security) -> None:
        self._security = security

    @takes_origin
    def l_rekey(self, value: Any, origin: Origin | None = None) -> None:
        """Take the next key of the Terminal, or of whom else we know it names.

        Raises:
            InvalidMessage: it doesn't come from the Terminal, or names no key.
            InvalidKey: we know no key of that name, or can't write it.
        """
        if origin is None or origin.trail[:2] != (f"_{TERMINAL_ID}", TERMINAL_ID):
            raise InvalidMessage(f"only {TERMINAL_ID} may name a next key")
        public, folder = checked_successor(value), _folder(self._security)
        folder.know(replace(folder.find(str(value.get("name", TERMINAL_ID))), next=public))


class TerminalSuccessors:
    """The Terminal's side: pilots and operators name theirs, and this machine's operator the Terminal's.

    Args:
        security: where the keys lie.
        pilots: gives the names of those who are connected.
        submit: runs what takes its time.
    """

    def __init__(
        self,
        security: Security,
        pilots: Callable[[], list[str]],
        submit: Callable[..., Future[Any]],
    ) -> None:
        self.node: Net_Node | None = None
        self._security = security
        self._pilots = pilots
        self._submit = submit

    @takes_origin
    def l_rekey(self, value: Any, origin: Origin | None = None) -> Future[Any] | None:
        """Take the next key of whoever asks, and tell its children; or, asked on this machine, tell all the Terminal's.

        The answer is for each who was to be told "" or what went wrong.

        Raises:
            InvalidMessage: it came through somebody else's station, or names no key.
            InvalidKey: the key can't be written.
        """
        public, trail = checked_successor(value), origin.trail if origin is not None else ()
        asker, way = (trail[0], trail[1:]) if trail else ("", ())
        folder = _folder(self._security)
        known = folder.known(lambda error: None)
        owner = _owner(known, asker)
        if owner is None:
            if way != (TERMINAL_ID,):
                raise InvalidMessage(f"{asker!r:.80} has no key here that another could follow")
            return self._submit(self._tell, TERMINAL_ID, public, known)
        if way not in ((TERMINAL_ID,), (owner.name, TERMINAL_ID)):
            raise InvalidMessage(f"the next key of {owner.name} must come from {owner.name} itself")
        folder.know(replace(owner, next=public))
        children = [one for one in known if one.via == owner.name]
        return self._submit(self._tell, owner.name, public, children) if children else None

    def _tell(self, name: str, public: str, whom: list[KnownKey]) -> dict[str, str]:
        """Tell the agents that have these keys the next key of somebody they know."""
        node = self.node
        if node is None:
            return {}
        value, told = {"name": name, "public": public}, {one.name: "it is not connected" for one in whom}
        receipts = [
            (owner.name, node.send(f"_{pilot}", "REKEY", value))
            for pilot in self._pilots()
            if (owner := _owner(whom, pilot)) is not None
        ]
        deadline = time.monotonic() + TELL_S
        for one, receipt in receipts:
            try:
                receipt.result(max(0.0, deadline - time.monotonic()))
                told[one] = ""
            except (PilotageError, TimeoutError) as error:
                told[one] = told[one] and str(error)
        return told


def _owner(known: list[KnownKey], name: str) -> KnownKey | None:
    fitting = [one for one in known if belongs_to(name, one.name)]
    return max(fitting, key=lambda one: len(one.name), default=None)


def _folder(security: Security) -> KeyFolder:
    if security.keys is None:
        raise InvalidMessage("there are no keys here")
    return KeyFolder(security.keys)
