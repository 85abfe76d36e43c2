"""numpy, imported when it is first asked for something.

It takes longer to import than all else together, and whoever handles no arrays, such as a station, never needs it.
Law of this room: here is no rule of ours, only a door.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

__all__ = ["Array", "load_numpy", "np"]


class _Late:
    """Stands for a module until its names have been asked for; then they are its own, as fast as the module's."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        found = getattr(import_module(self._name), name)
        setattr(self, name, found)
        return found


if TYPE_CHECKING:
    import numpy as np
else:
    np = _Late("numpy")

Array: TypeAlias = "np.ndarray[Any, Any]"


def load_numpy() -> None:
    """Import numpy now, so that no loop has to wait for it when its first array comes."""
    import_module("numpy")
