"""Ranges are what sets of numbers are, written shortly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.protocol.errors import InvalidMessage
from pilotage.protocol.ranges import Ranges, cut, join, ranges_from_wire, ranges_of, say, size, subtract

NUMBERS = st.sets(st.integers(min_value=0, max_value=40))


def numbers_in(ranges: Ranges) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


@given(NUMBERS, NUMBERS)
def test_ranges_behave_like_sets(one: set[int], other: set[int]) -> None:
    ours, theirs = ranges_of(sorted(one)), ranges_of(sorted(other))
    assert numbers_in(ours) == one and size(ours) == len(one)
    assert numbers_in(subtract(ours, theirs)) == one - other
    assert join([*ours, *theirs]) == ranges_of(sorted(one | other))
    assert subtract(ours, theirs) == ranges_of(sorted(one - other)), "as short as can be"


@given(NUMBERS, st.integers(min_value=1, max_value=9))
def test_parts_hold_all_and_no_more_than_they_may(one: set[int], at_most: int) -> None:
    parts = list(cut(ranges_of(sorted(one)), at_most))
    assert join(pair for part in parts for pair in part) == ranges_of(sorted(one))
    assert all(size(part) == at_most for part in parts[:-1]) and all(size(part) <= at_most for part in parts)


@pytest.mark.parametrize(
    ("ranges", "text"),
    [
        (((3, 3),), "row 3"),
        (((17, 19),), "rows 17–19"),
        (((0, 1), (5, 5), (9, 12)), "rows 0–1, 5 and 9–12"),
        (tuple((n, n) for n in range(0, 60, 2)), "rows 0, 2 and 28 more"),
    ],
)
def test_ranges_are_said_as_people_do(ranges: Ranges, text: str) -> None:
    assert say("row", ranges, at_most=2 if len(ranges) > 3 else 20) == text


@pytest.mark.parametrize(
    "value", [None, 3, [3], [[1]], [[1, "2"]], [[-1, 2]], [[0, True]], [[0, 1]] * 10_001]
)
def test_what_is_no_range_is_refused(value: object) -> None:
    with pytest.raises(InvalidMessage):
        ranges_from_wire(value)


def test_what_came_is_brought_into_order() -> None:
    assert ranges_from_wire([[5, 6], [0, 4], [9, 8]]) == ((0, 6),)
