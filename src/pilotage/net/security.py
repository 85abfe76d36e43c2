"""How one station or node is secured: where its keys lie, and what it lets in without.

Law of this room: keys that change on the disk are taken up by whoever runs, within `LOOK_S`; files that can't be used
count as not there, and are told.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pilotage.net.keys import KeyFolder
from pilotage.net.pref_keys import Prefs
from pilotage.net.pref_values import split_original
from pilotage.protocol.authority import Original
from pilotage.protocol.errors import InvalidKey
from pilotage.transport.curve import Keyring

LOOK_S = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Security:
    """What preferences say of keys; it can be pickled, so that a station's process gets what its maker had.

    Attributes:
        keys: KEYDIR; None for no keys at all.
        insecure: INSECURE.
        originals: ORIGINALS.
        originals_port: ORIGINALPORT.
        max_rate: MAXRATE.
    """

    keys: Path | None = None
    insecure: bool = False
    originals: frozenset[Original] = frozenset()
    originals_port: int = 0
    max_rate: float | None = None

    @classmethod
    def of(cls, settings: Prefs) -> Security:
        """Take it from preferences."""
        originals = frozenset(Original(*split_original(original)) for original in settings.originals)
        return cls(settings.keydir, settings.insecure, originals, settings.originalport, settings.maxrate)

    def keyring(self, name: str, *, is_running: bool = False) -> Keyring:
        """Read what a station or node of that name has and knows.

        Args:
            name: whose.
            is_running: it runs already: a file of its own that can't be used is logged, not raised.

        Raises:
            InvalidKey: a file of its own can't be used.
        """

        def say(error: InvalidKey) -> None:
            log.error("%s", error)

        found = Keyring()
        if self.keys is not None:
            found = KeyFolder(self.keys).keyring(name, say, is_running=is_running)
        return replace(
            found, insecure=self.insecure, originals=self.originals, originals_port=self.originals_port
        )

    def openness(self, name: str) -> str:
        """Say in a few words to whom a station of that name is open: what each screen shows that shows its state.

        Raises:
            InvalidKey: a file of its own can't be used.
        """
        if self.insecure:
            return "INSECURE: open to every machine, in clear"
        own = self.keyring(name).own
        openness = "open to this machine only (no key)" if own is None else "open to known keys"
        return f"{openness}, and to {len(self.originals)} originals in clear" if self.originals else openness


class KeyWatch:
    """Looks, on a thread of its own, whether keys have changed.

    Args:
        folder: where they lie.
        name: for the thread's name.
        changed: called on that thread: once at the beginning, then whenever a file has changed.
    """

    def __init__(self, folder: Path, name: str, changed: Callable[[], None]) -> None:
        self._folder = KeyFolder(folder)
        self._changed = changed
        self._stamp: object = None
        self._closing = threading.Event()
        threading.Thread(target=self._watch, name=f"keys-{name}", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._closing.set()

    def _watch(self) -> None:
        while not self._closing.is_set():
            stamp = self._folder.stamp()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._changed()
                except Exception:
                    log.exception("new keys could not be taken up")
            self._closing.wait(LOOK_S)
