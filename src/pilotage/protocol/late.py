"""numpy, imported when it is first asked for something.

It takes longer to import than all else together, and whoever handles no arrays, such as a station, never needs it.
Law of this room: here is no rule of ours, only a door.
"""

from __future__ import annotations

import mmap
import sys
from typing import TYPE_CHECKING, Any, TypeAlias

__all__ = ["Array", "blank_memory", "load_numpy", "np"]


BLANKED_BYTES = 1024 * 1024
"""Up to here memory is blanked at once: it is soon filled, and the system has it at hand."""


class _Late:
    """Stands for numpy until its names have been asked for; then they are its own, as fast as the module's."""

    def __getattr__(self, name: str) -> Any:
        import numpy  # noqa: PLC0415 - late is what this is for

        found = getattr(numpy, name)
        setattr(self, name, found)
        return found


if TYPE_CHECKING:
    import numpy as np
else:
    np = _Late()

Array: TypeAlias = "np.ndarray[Any, Any]"


def load_numpy() -> None:
    """Import numpy now, so that no loop has to wait for it when its first array comes."""
    import numpy  # noqa: F401, PLC0415 - late is what this is for


def blank_memory(size: int) -> memoryview:
    """Give memory to be filled; much of it such as is blanked where it is written to, not before."""
    if "numpy" in sys.modules:
        return np.empty(size, np.uint8).data
    if size > BLANKED_BYTES:
        return memoryview(mmap.mmap(-1, size))
    return memoryview(bytearray(size))
