"""Ranges of running numbers: what is there, what is missing.

Law: ranges are sorted (first, last) pairs, both ends included, that neither touch nor overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pilotage.protocol.errors import InvalidMessage

Ranges = tuple[tuple[int, int], ...]

MAX_RANGES = 10_000
"""Ranges that one message may name."""


def join(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Bring ranges into order; those that touch or overlap become one.

    >>> join([(5, 9), (0, 2), (3, 3)])
    ((0, 3), (5, 9))
    """
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        elif first <= last:
            joined.append((first, last))
    return tuple(joined)


def ranges_of(numbers: Iterable[int]) -> Ranges:
    """Give the ranges that sorted numbers make."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][0] <= number <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(number, found[-1][1]))
        else:
            found.append((number, number))
    return tuple(found)


def subtract(whole: Ranges, taken: Ranges) -> Ranges:
    """Give what is in `whole` and not in `taken`.

    >>> subtract(((0, 9),), ((2, 3), (8, 20)))
    ((0, 1), (4, 7))
    """
    left: list[tuple[int, int]] = []
    at = 0
    for first, last in whole:
        while at < len(taken) and taken[at][1] < first:
            at += 1
        begin = first
        for low, high in _from(taken, at):
            if low > last:
                break
            if begin < low:
                left.append((begin, low - 1))
            begin = max(begin, high + 1)
        if begin <= last:
            left.append((begin, last))
    return tuple(left)


def size(ranges: Ranges) -> int:
    """Count the numbers."""
    return sum(last - first + 1 for first, last in ranges)


def cut(ranges: Ranges, at_most: int) -> Iterator[Ranges]:
    """Cut into parts of at most so many numbers each."""
    part: list[tuple[int, int]] = []
    room = at_most
    for first, last in ranges:
        begin = first
        while begin <= last:
            end = min(last, begin + room - 1)
            part.append((begin, end))
            room -= end - begin + 1
            begin = end + 1
            if not room:
                yield tuple(part)
                part, room = [], at_most
    if part:
        yield tuple(part)


def say(what: str, ranges: Ranges, at_most: int = 20) -> str:
    """Name ranges for people.

    >>> say("row", ((3, 3), (17, 19)))
    'rows 3 and 17–19'
    """
    parts = [str(first) if first == last else f"{first}–{last}" for first, last in ranges[:at_most]]
    rest = size(ranges[at_most:])
    if rest:
        parts.append(f"{rest} more")
    several = size(ranges) != 1
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else "none"
    return f"{what}{'s' * several} {listed}"


def ranges_from_wire(value: object) -> Ranges:
    """Read ranges that came from elsewhere.

    Raises:
        InvalidMessage: They are no pairs of whole numbers, or too many.
    """
    if not isinstance(value, list | tuple) or len(value) > MAX_RANGES:
        raise InvalidMessage(f"ranges must be a list of at most {MAX_RANGES} pairs [first, last]")
    for pair in value:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(map(_is_number, pair)):
            raise InvalidMessage(f"a range must be a pair of whole numbers [first, last], not {pair!r:.60}")
    return join((first, last) for first, last in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _from(ranges: Sequence[tuple[int, int]], at: int) -> Iterator[tuple[int, int]]:
    for index in range(at, len(ranges)):
        yield ranges[index]
