"""Easing: what a process that is a station or an agent tells Python and the C library about its memory.

Law of this room: only processes that are ours alone are told; a user's own program is left as it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

KEPT_BYTES = 32 * 2**20
"""Free memory that each part of glibc's allocator keeps; below, it goes back to the system."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Knobs of glibc's `mallopt`: https://man7.org/linux/man-pages/man3/mallopt.3.html."""


def ease_process() -> None:
    """Have Python look for garbage less often, and keep the memory that frames need over and over.

    What a station or an agent holds has few cycles, and each look at all messages under way costs as much as they do.
    Memory that is given back after each frame comes again page by page, cleared, which costs as much as a copy of it.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library has no such knobs
            library = ctypes.CDLL(None)
            library.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
            library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
