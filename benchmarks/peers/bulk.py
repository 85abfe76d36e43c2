"""Arrays to send and to check: a few with fixed noise, made alike at both ends, told apart by the message's number.

They are never changed, so that whoever sends without copying may; the receiver adds all bytes of each up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.modes import CHUNK_BYTES, FRAME_BYTES

from .roles import Arrivals

POOL = 16
SEED = 7


class Arrays:
    """The arrays of one size, and what their bytes add up to.

    Args:
        size: bytes of each; a multiple of 8.
    """

    def __init__(self, size: int) -> None:
        random = np.random.default_rng(SEED)
        self.size = size
        self._arrays = [random.integers(0, 256, size, np.uint8) for _ in range(POOL)]
        self._sums = [self._sum(array) for array in self._arrays]
        for array in self._arrays:
            array.flags.writeable = False

    def __getitem__(self, n: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the array of message number n."""
        return self._arrays[n % POOL]

    def is_sound(self, n: int, data: Any) -> bool:
        """Tell whether that is the array of message number n; any buffer will do."""
        view = np.frombuffer(data, np.uint8)
        return view.size == self.size and self._sum(view) == self._sums[n % POOL]

    @staticmethod
    def _sum(array: np.ndarray[Any, Any]) -> int:
        return int(array.view(np.uint64).sum())


class BulkArrivals(Arrivals):
    """Arrivals of arrays as well."""

    def __init__(self) -> None:
        super().__init__()
        self._by_size = {size: Arrays(size) for size in (CHUNK_BYTES, FRAME_BYTES)}

    def note_array(self, n: int, data: Any) -> None:
        """Take message number n with its array, and check it."""
        arrays = self._by_size.get(memoryview(data).nbytes)
        self.note(n, is_sound=arrays is not None and arrays.is_sound(n, data))
