"""From a stream's items to what is stored and accounted for. Sender and Terminal use the same rule.

An item is a dictionary with `timestamp` and data. The data under the stream's own name form that stream; any other
key of the item forms the stream `{stream}.{key}`. Items of an original peer don't name their stream: each of their
keys is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pilotage.protocol.errors import InvalidMessage

HEADERS = frozenset(
    ("timestamp", "pilot", "subject", "continuous", "stream", "session", "inner_key", "TRIAL_END")
)


@dataclass(frozen=True, slots=True)
class Series:
    """Items of one stream: timestamps, and data of shape (n, *item_shape)."""

    stream: str
    timestamps: list[Any]
    data: npt.NDArray[Any]


def split_items(items: Sequence[object], stream: str | None) -> list[Series]:
    """Sort a batch's items into series, in order.

    Args:
        items: dictionaries with `timestamp` and data.
        stream: the stream's name, as the sender told it; None from an original.

    Raises:
        InvalidMessage: an item has no timestamp, or its data are no numbers, text or arrays.
    """
    series: dict[str, tuple[list[Any], list[Any]]] = {}
    for item in items:
        if not isinstance(item, dict) or "timestamp" not in item:
            raise InvalidMessage("an item of continuous data needs a timestamp")
        for key in item.keys() - HEADERS:
            stamps, values = series.setdefault(_name(stream, key), ([], []))
            stamps.append(item["timestamp"])
            values.append(item[key])
    return [run for name in sorted(series) for run in _runs(name, *series[name])]


def _name(stream: str | None, key: str) -> str:
    return key if stream is None or key == stream else f"{stream}.{key}"


def _runs(name: str, stamps: list[Any], values: list[Any]) -> Iterator[Series]:
    """Cut where dtype or shape changes, since one array holds one form."""
    arrays = [np.asarray(value) for value in values]
    begin = 0
    for at in range(1, len(arrays) + 1):
        if at == len(arrays) or _form(arrays[at]) != _form(arrays[begin]):
            if arrays[begin].dtype.hasobject:
                raise InvalidMessage(f"stream {name!r}: data must be numbers, text or arrays of them")
            yield Series(name, stamps[begin:at], np.stack(arrays[begin:at]))
            begin = at


def _form(array: npt.NDArray[Any]) -> tuple[str, tuple[int, ...]]:
    return array.dtype.str, array.shape
