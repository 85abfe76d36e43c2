"""Two ledgers agree exactly when they recorded the same, in the same order."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterable
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.protocol.canonical import canonical
from pilotage.protocol.errors import InvalidMessage
from pilotage.protocol.ledger import BLOCK, Kind, Ledger, LedgerKey, RowTally, Tally, compare, row_digest

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def as_tuples(value: object) -> object:
    if isinstance(value, list):
        return tuple(as_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: as_tuples(value[key]) for key in reversed(value)}
    return value


def alike(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or struct.pack("<d", one) == struct.pack("<d", other)
    if type(one) is not type(other):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    return one == other


@given(PLAIN, PLAIN)
def test_canonical_bytes_are_equal_exactly_for_equal_values(one: object, other: object) -> None:
    assert (canonical(one) == canonical(other)) is alike(one, other)
    assert canonical(one) == canonical(as_tuples(one))


def test_numpy_scalars_equal_python_numbers_and_arrays_keep_dtype_and_shape() -> None:
    assert canonical(np.float64(1.5)) == canonical(np.array(1.5)) == canonical(1.5)
    assert canonical(np.int8(3)) == canonical(3) != canonical(3.0) != canonical(True)
    assert canonical(np.str_("a")) == canonical("a") and canonical(np.bool_(True)) == canonical(True)
    array = np.arange(6, dtype="i4").reshape(2, 3)
    assert canonical(array) == canonical(np.asfortranarray(array)) == canonical(array.astype(">i4"))
    assert (
        len({canonical(array), canonical(array.T), canonical(array.astype("i8")), canonical(array.tolist())})
        == 4
    )
    assert canonical(datetime(2026, 1, 2, 3)) == canonical("2026-01-02T03:00:00")


@pytest.mark.parametrize("value", [object(), [object()], [np.array([None])]])
def test_what_has_no_canonical_bytes_is_refused(value: object) -> None:
    with pytest.raises(InvalidMessage):
        canonical(value)


@given(
    st.lists(st.integers(min_value=0, max_value=700), max_size=6),
    st.lists(st.integers(min_value=0, max_value=700), max_size=6),
    st.sampled_from(["f8", "u1", "c16", "U3"]),
)
def test_a_streams_digest_does_not_depend_on_its_batches(
    cuts: list[int], others: list[int], dtype: str
) -> None:
    data = (np.arange(700 * 2) % 251).reshape(700, 2).astype(dtype)
    stamps = (np.arange(700) / 3).tolist()
    marks = []
    for places in (cuts, others):
        ledger = Ledger()
        edges = [0, *sorted(places), 700]
        for start, end in itertools.pairwise(edges):
            if start < end:
                ledger.add_items("rig", "s", stamps[start:end], data[start:end])
        marks.append(ledger.marks())
    assert marks[0] == marks[1]


def test_a_ledger_resumes_from_its_stored_tallies() -> None:
    whole, part = Ledger(), Ledger()
    stored: dict[LedgerKey, Tally | RowTally] = {}
    stream = LedgerKey("rig", Kind.STREAM, "s")
    for n in range(300):
        for ledger in (whole, part):
            ledger.add("rig", "trials", {"n": n, "pad": "x" * 40}, n)
            ledger.add_items("rig", "s", [n], np.full((1, 9), n))
        stored |= part.take_changed()
        tally = stored[stream]
        assert isinstance(tally, Tally) and len(tally.pending) < BLOCK
        part = Ledger(stored)
    assert part.marks() == whole.marks() and part.take_changed() == {}


@given(st.permutations(range(7)), st.integers(min_value=0, max_value=6))
def test_a_tables_digest_does_not_depend_on_the_order_but_on_every_row(order: list[int], other: int) -> None:
    def mark(numbers: Iterable[int], changed: int = -1) -> object:
        ledger = Ledger()
        for n in numbers:
            ledger.add("rig", "trials", {"n": n if n != changed else -n - 1}, n)
        return ledger.marks()

    assert mark(order) == mark(range(7)) != mark(order, changed=other)
    swapped = Ledger()
    for n in range(7):
        swapped.add("rig", "trials", {"n": n}, 6 - n)
    assert swapped.marks() != mark(range(7)), "the same values under other numbers are other rows"


def test_tallies_of_a_table_join() -> None:
    rows = [row_digest(n, canonical(n)) for n in range(4)]
    parts = RowTally().add(rows[0]).add(rows[3]).join(RowTally().add(rows[2]).add(rows[1]))
    whole = RowTally()
    for row in rows:
        whole = whole.add(row)
    assert parts == whole and row_digest(None, canonical(0)) != rows[0]


def test_who_numbers_is_told_apart() -> None:
    ledger = Ledger()
    ledger.add("rig", "trials", 1, 0, "rig")
    ledger.add("rig", "trials", 1, 0, "cam")
    ledger.add_items("rig", "s", [0.0], np.zeros(1), "cam/ab")
    keys = sorted(ledger.marks())
    assert [(key.agent, key.life) for key in keys] == [("cam", "ab"), ("cam", ""), ("rig", ""), ("cam", "ab")]
    assert ledger.count(LedgerKey("rig", Kind.TABLE, "trials", "cam")) == 1


def test_differences_name_what_is_missing_surplus_or_other() -> None:
    ours, theirs = Ledger(), Ledger()
    for n in range(3):
        ours.add("rig", "trials", n)
        theirs.add("rig", "trials", n)
    assert compare(ours.marks(), theirs.marks()) == []
    theirs.add("rig", "trials", 3)
    theirs.add_items("rig", "hr", [0.0, 1.0], np.zeros(2))
    ours.add_items("rig", "hr", [0.0, 1.0], np.array([0.0, -0.0]))
    ours.add("a", "events", "extra")
    found = compare(ours.marks(), theirs.marks())
    assert [(each.key.name, each.missing, each.surplus) for each in found] == [
        ("events", 0, 1),
        ("hr", 0, 0),
        ("trials", 1, 0),
    ]
    assert str(found[0]) == "table 'events' of pilot 'a': 1 too many (we hold 1, the other side 0)"
    assert "same count of 2, but other content" in str(found[1])
    assert str(found[2]) == "table 'trials' of pilot 'rig': 1 missing (we hold 3, the other side 4)"


@pytest.mark.parametrize(
    "change", [lambda a: a.astype("f4"), lambda a: a[::-1], lambda a: a.reshape(-1, 2), lambda a: a + 1e-12]
)
def test_any_change_of_items_shows(change: object) -> None:
    data = np.arange(2000.0)
    ours, theirs = Ledger(), Ledger()
    ours.add_items("rig", "s", data.tolist(), data)
    changed = change(data)  # type: ignore[operator]
    theirs.add_items("rig", "s", data[: len(changed)].tolist(), changed)
    assert compare(ours.marks(), theirs.marks())


def test_timestamps_are_digested_as_values() -> None:
    def mark(stamps: object) -> object:
        ledger = Ledger()
        ledger.add_items("rig", "s", stamps, np.zeros(2))  # type: ignore[arg-type]
        return ledger.marks()[LedgerKey("rig", Kind.TIMESTAMP, "s")]

    assert mark([1, 2]) == mark([1.0, 2.0]) == mark(np.array([1, 2], "u1")) != mark([1, 3])
    assert mark(["a", "b"]) != mark(["ab", ""])
    assert mark([2**60, 1]) != mark([2**60 + 1, 1])
    with pytest.raises(InvalidMessage):
        mark([None, 1])
    with pytest.raises(InvalidMessage):
        mark([1])
