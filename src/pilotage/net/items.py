"""A stream's items: what each gets beside its data, and what they weigh.

Law of this room: weighing costs next to nothing: each item that is put is weighed.
"""

from __future__ import annotations

from typing import Any

from pilotage.net.prefs import prefs
from pilotage.protocol.late import np
from pilotage.protocol.squeezed import Squeezed

DICT_BYTES = 64
NUMBER_BYTES = 8


def headers_from_prefs(subject: str | None, pilot: str | None) -> dict[str, Any]:
    """Give the headers of a stream: who is recorded, and under whose name."""
    now = prefs.snapshot()
    owner = now.parentid if str(now.lineage) == "CHILD" and now.parentid else now.name
    return {"subject": subject or now.subject or "", "pilot": pilot or owner or "", "continuous": True}


def weight_of(item: Any) -> int:
    """Estimate an item's bytes: its arrays are what weighs."""
    kind = type(item)
    if kind is int or kind is float:  # most parts of most items: asking what else they may be costs more
        return NUMBER_BYTES
    if isinstance(item, dict):
        return sum(map(weight_of, item.values()), DICT_BYTES)
    if isinstance(item, np.ndarray):
        return int(item.nbytes)
    if isinstance(item, Squeezed):
        return item.size
    if isinstance(item, list | tuple):
        plain = not item or isinstance(item[0], int | float)
        return NUMBER_BYTES * len(item) if plain else sum(map(weight_of, item))
    return len(item) if isinstance(item, str | bytes) else NUMBER_BYTES
