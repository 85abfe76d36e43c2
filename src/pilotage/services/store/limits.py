"""What fits into the tables: running numbers, messages' ids, texts. Law: one rule, whether one is looked at or many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard, cast

from pilotage.services.store.entries import MessageId

END_OF_NUMBERS, END_OF_BOOTS = 2**63, 2**64
_WHOLE = frozenset({int})


def are_numbers(numbers: Sequence[object]) -> TypeGuard[Sequence[int]]:
    """Tell whether all of them are integers that fit into a column."""
    if not _WHOLE.issuperset(map(type, numbers)):
        return False
    whole = cast("Sequence[int]", numbers)
    return min(whole, default=0) >= 0 and max(whole, default=0) < END_OF_NUMBERS


def is_id(message: MessageId) -> bool:
    """Tell whether the parts of a message's id fit."""
    boot = message.boot
    return type(boot) is int and 0 <= boot < END_OF_BOOTS and are_numbers((message.flow, message.seq))


def is_text(text: object) -> bool:
    """Tell whether something is text that can be written: no half of a surrogate pair stands alone in it."""
    if not isinstance(text, str):
        return False
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False
