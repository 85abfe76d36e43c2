"""A stream's items: what each gets beside its data, and what they weigh.

Law of this room: weighing costs next to nothing: each item that is put is weighed.
"""

from __future__ import annotations

from typing import Any

from pilotage.net.prefs import prefs
from pilotage.protocol.late import np
from pilotage.protocol.squeezed import Squeezed


def headers_from_prefs(subject: str | None, pilot: str | None) -> dict[str, Any]:
    """Give the headers of a stream: who is recorded, and under whose name."""
    now = prefs.snapshot()
    owner = now.parentid if str(now.lineage) == "CHILD" and now.parentid else now.name
    return {"subject": subject or now.subject or "", "pilot": pilot or owner or "", "continuous": True}


def weight_of(item: Any) -> int:
    """Estimate an item's bytes: its arrays are what weighs."""
    if isinstance(item, np.ndarray):
        return item.nbytes
    if isinstance(item, Squeezed):
        return item.size
    if isinstance(item, dict):
        weight = 64
        for part in item.values():
            if isinstance(part, np.ndarray):
                weight += part.nbytes
            elif isinstance(part, Squeezed):
                weight += part.size
            elif isinstance(part, dict | list | tuple | str | bytes):
                weight += weight_of(part)
        return weight
    if isinstance(item, str | bytes):
        return len(item)
    if isinstance(item, list | tuple) and item and isinstance(item[0], np.ndarray | dict | Squeezed):
        return sum(weight_of(part) for part in item)
    return 64
