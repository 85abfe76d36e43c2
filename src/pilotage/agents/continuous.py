"""From a stream's items to what is stored and accounted for. Sender and Terminal use the same rule.

An item is a dictionary with `timestamp` and data. The data under the stream's own name form that stream; any other
key of the item forms the stream `{stream}.{key}`. Items of an original peer don't name their stream: each of their
keys is one.

An item may bring its running number in that life of its sender, `item_num`: one for all of its streams, or, where
they differ, a dictionary of them by stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pilotage.protocol.errors import InvalidMessage

ITEM_NUM = "item_num"
SENT_BY = "sent_by"
HEADERS = frozenset(
    ("timestamp", "pilot", "subject", "continuous", "stream", "session", "inner_key", "TRIAL_END")
)


@dataclass(frozen=True, slots=True)
class Series:
    """Items of one stream: timestamps, and data of shape (n, *item_shape); `first` is the first one's number."""

    stream: str
    timestamps: list[Any]
    data: npt.NDArray[Any]
    first: int | None = None


def split_items(items: Sequence[object], stream: str | None) -> list[Series]:
    """Sort a batch's items into series, in order.

    Args:
        items: dictionaries with `timestamp` and data.
        stream: the stream's name, as the sender told it; None from an original.

    Raises:
        InvalidMessage: an item has no timestamp, or its data are no numbers, text or arrays.
    """
    series: dict[str, _Column] = {}
    for item in items:
        if not isinstance(item, dict) or "timestamp" not in item:
            raise InvalidMessage("an item of continuous data needs a timestamp")
        # An original may have data under one of these names.
        if not all(isinstance(key, str) for key in item):
            raise InvalidMessage("an item of continuous data has a key that is no text")
        own = {ITEM_NUM, SENT_BY} if sender_of(item) else frozenset[str]()
        number = item.get(ITEM_NUM) if own else None
        for key in item.keys() - HEADERS - own:
            name = _name(stream, key)
            column = series.setdefault(name, _Column([], [], []))
            column.stamps.append(item["timestamp"])
            column.values.append(item[key])
            column.numbers.append(_number(number, name))
    return [run for name in sorted(series) for run in _runs(name, series[name])]


def sender_of(item: Mapping[str, Any]) -> str:
    """Give who numbered an item, "" if nobody did."""
    sender = item.get(SENT_BY)
    return sender if isinstance(sender, str) and ITEM_NUM in item else ""


class _Column(NamedTuple):
    stamps: list[Any]
    values: list[Any]
    numbers: list[int | None]


def _number(given: object, name: str) -> int | None:
    number = given.get(name) if isinstance(given, dict) else given
    if number is None:
        return None
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 63:
        raise InvalidMessage(f"stream {name!r}: {ITEM_NUM} must be a whole number, not {number!r:.60}")
    return number


def _name(stream: str | None, key: str) -> str:
    return key if stream is None or key == stream else f"{stream}.{key}"


def _runs(name: str, column: _Column) -> Iterator[Series]:
    """Cut where dtype or shape changes, since one array holds one form, and where numbers jump."""
    try:
        arrays = [np.asarray(value) for value in column.values]
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidMessage(f"stream {name!r}: a value is no array: {error}") from error
    begin = 0
    for at in range(1, len(arrays) + 1):
        if at == len(arrays) or _form(arrays[at]) != _form(arrays[begin]) or _jumps(column.numbers, at):
            if arrays[begin].dtype.hasobject:
                raise InvalidMessage(f"stream {name!r}: data must be numbers, text or arrays of them")
            yield Series(name, column.stamps[begin:at], np.stack(arrays[begin:at]), column.numbers[begin])
            begin = at


def _jumps(numbers: Sequence[int | None], at: int) -> bool:
    before = numbers[at - 1]
    return numbers[at] != (None if before is None else before + 1)


def _form(array: npt.NDArray[Any]) -> tuple[str, tuple[int, ...]]:
    return array.dtype.str, array.shape
