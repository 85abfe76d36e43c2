"""Compression: whether a stream's arrays are made smaller on their way, decided by what was measured.

Law of this room: compression must pay. It is tried only while a stream is held up by its link, kept only where the
same link moves more of the stream with it, and dropped as soon as it doesn't.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from pilotage.protocol.late import np
from pilotage.protocol.squeezed import Squeezed, squeeze

SQUEEZED_FROM_BYTES = 16_384
"""A smaller array is sent as it is: there is nothing to gain."""

WINDOW_S = 0.5
"""A link's rate is what it has moved in this time or longer, without a rest."""

LOOK_EVERY_S = 5.0
"""How long a decision against compression stands."""

FAST_LINK_BYTES_PER_S = 250e6
"""A link that moves as much is left alone: no cable that rigs have does, and to try costs, too."""

WORTH = 1.25
"""How much more of a stream must get through."""


class Compression(StrEnum):
    """What a stream does with its arrays."""

    AUTO = "auto"
    BLOSC2 = "blosc2"


class Squeezer:
    """Makes the arrays of one stream smaller, or leaves them. Under the stream's mutex.

    Args:
        kind: None to leave all; "blosc2" to try each array; "auto" to do what pays.
        clock: gives seconds.
    """

    def __init__(self, kind: Compression | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.squeezed = 0
        self.saved_bytes = 0
        self.is_on = kind is Compression.BLOSC2
        self._auto = kind is Compression.AUTO
        self._clock = clock
        self._rate = 0.0
        self._moved = 0
        self._since = 0.0
        self._look_at = 0.0

    def moved(self, wire_bytes: int, *, is_busy: bool) -> None:
        """So many bytes have arrived; `is_busy` while more are on their way."""
        if not self._auto:
            return
        now = self._clock()
        self._moved += wire_bytes
        if now - self._since >= WINDOW_S and self._since:
            self._rate = self._moved / (now - self._since)
            self._since = 0.0
        if not is_busy or not self._since:
            self._moved, self._since = 0, now if is_busy else 0.0

    def apply(self, batch: list[Any], *, is_held_up: bool) -> list[Any]:
        """Give a batch as it is to be sent.

        Args:
            batch: its items.
            is_held_up: whoever puts is waiting, or soon will be.
        """
        is_slow = 0 < self._rate < FAST_LINK_BYTES_PER_S
        may_pay = self._auto and not self.is_on and is_held_up and is_slow
        if may_pay and self._clock() >= self._look_at and _is_ready():
            self._look_at = self._clock() + LOOK_EVERY_S
            self.is_on = self._would_pay(batch)
        return [self._item(item) for item in batch] if self.is_on else batch

    def give_up(self) -> None:
        """Leave all arrays from now on: the recipient can't read what was made of them."""
        self.is_on = self._auto = False

    def _would_pay(self, batch: list[Any]) -> bool:
        """Try one array: does the link move more of it when it is smaller, and are we quicker than the link?"""
        array = next((found for item in batch for found in _arrays(item) if _is_large(found)), None)
        if array is None:
            return False
        began = time.perf_counter()
        small = squeeze(array)
        took_s = max(time.perf_counter() - began, 1e-9)
        if small is None:
            return False
        through = min(array.nbytes / took_s, self._rate * array.nbytes / small.size)
        return through >= WORTH * self._rate

    def _item(self, item: Any) -> Any:
        if isinstance(item, dict):
            return {key: self._array(part) for key, part in item.items()}
        return self._array(item)

    def _array(self, part: Any) -> Any:
        if not self.is_on or not isinstance(part, np.ndarray) or not _is_large(part):
            return part
        small = squeeze(part)
        if small is None:
            if self._auto:
                self.is_on, self._look_at = False, self._clock() + LOOK_EVERY_S
            return part
        self.squeezed += 1
        self.saved_bytes += part.nbytes - small.size
        return small


_importing: list[threading.Thread] = []


def _is_ready() -> bool:
    """Tell whether blosc2 is there; it takes a while to come, for which no stream waits."""
    if not _importing:
        _importing.append(threading.Thread(target=_import, name="blosc2", daemon=True))
        _importing[0].start()
    return not _importing[0].is_alive()


def _import() -> None:
    with contextlib.suppress(ImportError):
        importlib.import_module("blosc2")


def unsqueezed(item: Any) -> Any:
    """Give an item as it was put."""
    if isinstance(item, dict):
        return {key: part.array if isinstance(part, Squeezed) else part for key, part in item.items()}
    return item.array if isinstance(item, Squeezed) else item


def _arrays(item: Any) -> list[np.ndarray[Any, Any]]:
    parts = item.values() if isinstance(item, dict) else (item,)
    return [part for part in parts if isinstance(part, np.ndarray)]


def _is_large(array: np.ndarray[Any, Any]) -> bool:
    return array.nbytes >= SQUEEZED_FROM_BYTES and not array.dtype.hasobject and array.dtype.names is None
