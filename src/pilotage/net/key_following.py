"""Key following: keys that change on the disk are taken up by a messenger that runs, where they matter to it.

Law of this room: they are read on a thread of their own, and taken up on the loop's.
"""

from __future__ import annotations

import threading
from dataclasses import replace

from pilotage.net.keys import KeyFolder
from pilotage.net.security import KeyWatch, Security
from pilotage.protocol.authority import Authority
from pilotage.transport.curve import Keyring
from pilotage.transport.driver import Driver
from pilotage.transport.network import ZmqWires


class KeyFollower:
    """Follows the keys of one messenger, once others come in by them or a station wants one of it.

    Args:
        security: where they lie.
        name: the messenger's.
        wires: what they lock.
        authority: what they are good for.
    """

    def __init__(self, security: Security, name: str, wires: ZmqWires, authority: Authority) -> None:
        self._security = security
        self._name = name
        self._wires = wires
        self._authority = authority
        self._driver: Driver | None = None
        self._watch: KeyWatch | None = None

    def start(self, driver: Driver, *, listens: bool) -> None:
        """Begin; `listens` if others may come in."""
        self._driver = driver
        self._wires.on_locked = self._follow
        if listens and self._wires.keyring.own is not None:
            self._follow()

    def close(self) -> None:
        """Follow them no more."""
        self._driver = None
        if self._watch is not None:
            self._watch.close()

    def note(self, key: str) -> None:
        """Somebody has come by a key, which may be the one that was to follow its old one."""
        folder = self._security.keys
        if self._watch is not None and folder is not None and key in self._wires.keyring.successors:
            threading.Thread(
                target=lambda: KeyFolder(folder).promote(key), name="promote", daemon=True
            ).start()

    def _follow(self) -> None:
        folder = self._security.keys
        if self._watch is None and folder is not None:
            self._watch = KeyWatch(folder, self._name, self._changed)

    def _changed(self) -> None:
        now, before = self._security.keyring(self._name, is_running=True), self._wires.keyring
        now = replace(now, own=now.own or before.own)
        driver = self._driver
        if driver is not None:
            driver.call(lambda: self._take(driver, now, redials=now.own != before.own))

    def _take(self, driver: Driver, keyring: Keyring, *, redials: bool) -> None:
        self._wires.keyring = keyring
        self._authority.change(keyring.grants, keyring.roles)
        driver.judge_anew(redials=redials)
