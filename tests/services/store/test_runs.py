"""Rows that are submitted together come out as if each had been submitted by itself."""

from __future__ import annotations

import math
import sqlite3
import tempfile
import threading
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pilotage.protocol.errors import StoreError
from pilotage.services.store import (
    Event,
    MessageId,
    SessionReader,
    SessionStore,
    Stamp,
    StoreConfig,
    TrialData,
)
from pilotage.services.store.entries import Entry
from pilotage.services.store.packing import Group, pack_all
from pilotage.services.store.runs import run_of

TABLES = ("data_messages", "trial_rows", "trial_columns", "message_ids", "ledger")


def row(at: int, **changes: Any) -> TrialData:
    """The row that would come at a place of a run."""
    usual = TrialData("rig", "m", at, {"x": at}, MessageId(7, 1, at), Stamp(1.0 + at), "rig", at)
    return replace(usual, **changes)


def put(store: SessionStore, entries: Sequence[Entry]) -> list[StoreError | None]:
    """Submit them together, and give how they end."""
    found: list[list[StoreError | None]] = []
    ended = threading.Event()

    def done(ends: list[StoreError | None]) -> None:
        found.append(ends)
        ended.set()

    store.submit_all(entries, done)
    assert ended.wait(20)
    return found[0]


def content(folder: Path) -> dict[str, list[Any]]:
    """All that a session's tables hold of rows, those of trials in their order."""
    connection = sqlite3.connect(folder / "session.sqlite")
    try:
        order = {"trial_rows": "ORDER BY 1, 2, 3, 4"}
        return {
            table: connection.execute(f"SELECT * FROM {table} {order.get(table, '')}").fetchall()
            for table in TABLES
        }
    finally:
        connection.close()


def stored(folder: Path, groups: Sequence[Sequence[Entry]]) -> tuple[list[bool], dict[str, list[Any]], Any]:
    """Store groups of entries; give what was refused, what the tables hold, and the counts."""
    with SessionStore.create(folder, "s", {}) as store:
        ends = [end is None for group in groups if group for end in put(store, group)]
        counts = store.statistics()
    return ends, content(folder / "s"), (counts.rows, counts.bytes, counts.duplicates, counts.errors)


_values = st.sampled_from(
    (
        {"x": 1, "y": 2.5, "z": "é"}, {"x": True}, {}, {"y": math.nan}, {"y": math.inf, "n": None}, {"TRIAL_END": True},
        {"x": 3, "TRIAL_END": True}, {"pilot": "p"}, {"x": [1, 2]}, {"$": 1}, {"text": "null"}, {"x": object()},
        {1: 2}, {"bad": "\udc80"}, [1], {"x": 2**70},
    )
)  # fmt: skip
_odd = st.fixed_dictionaries(
    {"step": st.sampled_from((1, 1, 1, 1, 1, 0, 2, -1))},
    optional={
        "values": _values,
        "trial_num": st.sampled_from((None, 0, 3, -1, 2**63, True, "4")),
        "row_num": st.sampled_from((None, 0, 3, -1)),
        "pilot": st.sampled_from(("rig", "rug", "ríg", 5)),
        "subject": st.sampled_from((None, "", "m", "n")),
        "message": st.sampled_from(
            (None, MessageId(7, 2, 0), MessageId(2**64, 1, 0), MessageId(7, 1, 2**63 - 1))
        ),
    },
)


_plain = st.builds(lambda x: {"step": 1, "values": {"x": x}}, st.integers(0, 2))
_rows = st.one_of(_plain, _plain, _plain, _plain, _odd)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(_rows, max_size=6), max_size=5), st.booleans())
def test_a_group_comes_out_as_its_rows_one_by_one(
    drawn: list[list[dict[str, Any]]], is_numbered: bool
) -> None:
    at, groups = 0, []
    for group in drawn:
        rows = []
        for changes in group:
            at = max(0, at + changes["step"])
            usual = {} if is_numbered else {"row_num": None}
            rows.append(row(at, **{name: one for name, one in (usual | changes).items() if name != "step"}))
        groups.append(rows)
    with tempfile.TemporaryDirectory() as folder:
        together = stored(Path(folder, "together"), groups)
        single = stored(Path(folder, "single"), [[entry] for group in groups for entry in group])
    assert together == single


def test_rows_in_a_row_are_one_run(tmp_path: Path) -> None:
    rows = [row(at, values={"x": at, f"only_{at}": "yes"}) for at in range(5)]
    group = Group(5, lambda ends: None)
    jobs = pack_all(rows, group)
    run = group.run
    assert run is not None
    assert (run.sender, run.subject, run.first, run.last_seq) == (("rig", "rig"), "m", MessageId(7, 1, 0), 4)
    assert run.trials == run.numbers == [0, 1, 2, 3, 4]
    assert run.names == {"x", *(f"only_{at}" for at in range(5))}
    assert [(job.fields, job.digest) for job in jobs] == list(zip(run.fields, run.digests, strict=True))
    assert run_of([row(at, row_num=None) for at in range(5)]) is not None


@pytest.mark.parametrize(
    "odd",
    [
        {"pilot": "rug"}, {"pilot": "ríg"}, {"subject": "n"}, {"source": "other"}, {"message": None},
        {"message": MessageId(7, 1, 9)}, {"message": MessageId(7, 2, 2)}, {"message": MessageId(8, 1, 2)},
        {"trial_num": None}, {"trial_num": -1}, {"trial_num": 2**63}, {"trial_num": True}, {"row_num": None},
        {"row_num": 1}, {"row_num": 0}, {"row_num": 2**63}, {"values": [("x", 1)]},
    ],
)  # fmt: skip
def test_what_is_unusual_makes_no_run(odd: dict[str, Any]) -> None:
    assert run_of([row(0), row(1), row(2, **odd)]) is None


def test_other_entries_and_single_ones_make_no_run() -> None:
    assert run_of([row(0)]) is None
    assert run_of([]) is None
    assert run_of([row(0), Event("rig", "e", {}, MessageId(7, 1, 1))]) is None
    assert run_of([row(at, pilot="ríg") for at in range(2)]) is not None
    assert run_of([row(at, pilot="\udc80") for at in range(2)]) is None
    assert run_of([row(at, message=MessageId(2**64, 1, at)) for at in range(2)]) is None
    assert run_of([row(at, message=MessageId(7, -1, at)) for at in range(2)]) is None
    assert run_of([row(at, message=MessageId(7, 1, 2**63 - 1 + at)) for at in range(2)]) is None


@pytest.mark.parametrize("odd", [{"values": {"x": object()}}, {"values": {1: 2}}, {"pilot": ["rig"]}])
def test_one_that_cant_be_packed_is_refused_alone(tmp_path: Path, odd: dict[str, Any]) -> None:
    rows = [row(0), row(1, **odd), row(2)]
    with SessionStore.create(tmp_path, "s", {}) as store:
        first, second, third = put(store, rows)
        assert first is third is None
        assert "trial 1 of pilot" in str(second)
    assert [fields[3] for fields in content(tmp_path / "s")["data_messages"]] == [0, 2]


@pytest.mark.parametrize("is_numbered", [True, False])
def test_what_is_sent_again_in_part_is_stored_once(tmp_path: Path, is_numbered: bool) -> None:
    def rows(first: int, end: int) -> list[TrialData]:
        return [row(at, row_num=at if is_numbered else None) for at in range(first, end)]

    with SessionStore.create(tmp_path, "s", {}) as store:
        for first, end in ((0, 4), (2, 6), (0, 6), (6, 8)):
            assert put(store, rows(first, end)) == [None] * (end - first)
        assert store.statistics().duplicates == 8
    with SessionStore.open(tmp_path / "s") as store:
        assert put(store, rows(6, 10)) == [None] * 4
        assert store.statistics().duplicates == 2
    held = content(tmp_path / "s")
    assert [fields[3] for fields in held["data_messages"]] == list(range(10))
    assert [(first, last) for _, _, first, last in held["message_ids"]] == [(0, 9)]


def put_at_once(store: SessionStore, *groups: Sequence[Entry]) -> None:
    """Have groups stored by one commit."""
    held, ends = threading.Event(), [threading.Event() for _ in groups]
    store.submit(Event("rig", "wait", {}), lambda error: held.wait(20))
    for group, end in zip(groups, ends, strict=True):
        store.submit_all(group, lambda _, end=end: end.set())
    held.set()
    assert all(end.wait(20) for end in ends)


@pytest.mark.parametrize("at_once", [True, False])
def test_rows_that_other_messages_bring_again_are_stored_once(tmp_path: Path, at_once: bool) -> None:
    first, second = [row(at) for at in range(4)], [row(at) for at in range(4, 8)]
    again = [row(at, message=MessageId(7, 2, at)) for at in range(6, 10)]
    other = [row(5, message=MessageId(7, 3, 0), values={"x": "other"})]
    with SessionStore.create(tmp_path, "s", {}) as store:
        if at_once:
            put_at_once(store, first, second, again, other)
        else:
            assert [put(store, group) for group in (first, second, again)] == [[None] * 4] * 3
            assert put(store, other) == [None]
        assert store.statistics().duplicates == 2
    held = content(tmp_path / "s")["data_messages"]
    assert [(fields[3], fields[9]) for fields in held] == [*((at, at) for at in range(10)), (5, None)]


def test_a_run_that_two_commits_part_is_stored_as_if_they_had_not(tmp_path: Path) -> None:
    rows = [row(at) for at in range(7)]
    with SessionStore.create(tmp_path, "s", {}, StoreConfig(batch_items=3)) as store:
        put_at_once(store, rows)
        assert store.statistics().rows == 8
        assert store.statistics().commits >= 3
    held = content(tmp_path / "s")
    assert [fields[9] for fields in held["data_messages"]] == list(range(7))


@pytest.mark.parametrize("key", [(1, (2, "x")), np.datetime64("2026-01-01"), 1j, b"k", math.nan, None])
def test_what_is_kept_without_its_number_can_be_read_and_compared_again(tmp_path: Path, key: object) -> None:
    values = {"x": {key: 3}}
    with SessionStore.create(tmp_path, "s", {}) as store:
        assert put(store, [row(0)]) == [None]
        for flow in (2, 3):  # another row under its number, twice
            assert put(store, [row(0, values=values, message=MessageId(7, flow, 0))]) == [None]
        assert put(store, [row(1, values=values, message=MessageId(7, 4, 0))]) == [None]
        assert put(store, [row(1, values=values, message=MessageId(7, 5, 0))]) == [None]
        assert store.statistics().duplicates == 1
        (holding,) = store.holdings()
        assert holding.mark == store.ledger()[holding.key]
    assert [fields[9] for fields in content(tmp_path / "s")["data_messages"]] == [0, None, None, 1]


def test_nan_is_the_same_whoever_says_it(tmp_path: Path) -> None:
    def mark(name: str, nan: float) -> object:
        with SessionStore.create(tmp_path, name, {}) as store:
            assert put(store, [row(at, values={"x": nan, "y": [nan]}) for at in range(3)]) == [None] * 3
            (holding,) = store.holdings()
            assert holding.mark == store.ledger()[holding.key]
            return holding.mark

    assert mark("plus", math.nan) == mark("minus", -math.nan)


def test_a_column_with_the_name_of_our_tag_is_stored_and_read_as_any_other(tmp_path: Path) -> None:
    odd = {"$": "array", "x": math.inf}
    with SessionStore.create(tmp_path, "s", {}) as store:
        assert put(store, [row(0, values=odd), row(1, values=odd)]) == [None, None]
        assert put(store, [Event("rig", "e", odd)]) == [None]
        (holding,) = store.holdings()
        assert holding.mark == store.ledger()[holding.key]
        assert put(store, [row(1, values=odd, message=MessageId(7, 2, 0))]) == [None]
        assert store.statistics().duplicates == 1
    with SessionReader(tmp_path / "s") as reader:
        assert reader.messages()["values"].tolist() == [odd, odd]
        assert reader.events()["values"].tolist() == [odd]
        assert reader.trials()["$"].tolist() == ["array", "array"]


def test_a_later_part_of_a_runs_trial_finds_it_in_the_same_commit_and_in_a_later_one(tmp_path: Path) -> None:
    runs = [row(at, values={"x": at}, stamp=Stamp(5.0)) for at in range(4)]
    late = row(4, trial_num=2, values={"y": 1, "TRIAL_END": True}, stamp=Stamp(6.0))
    later = row(5, trial_num=3, values={"y": 2}, stamp=Stamp(7.0))
    with SessionStore.create(tmp_path, "s", {}) as store:
        put_at_once(store, runs, [late])
        put(store, [later])
    found = content(tmp_path / "s")["trial_rows"]
    assert [(trial, *rest) for _, _, trial, _, *rest in found] == [
        (0, 0, 5.0, 5.0, '{"x":0}'), (1, 0, 5.0, 5.0, '{"x":1}'), (2, 1, 5.0, 6.0, '{"x":2,"y":1}'),
        (3, 0, 5.0, 7.0, '{"x":3,"y":2}'),
    ]  # fmt: skip


def test_trials_in_any_order_and_with_ends_are_merged_as_ever(tmp_path: Path) -> None:
    mixed = [row(at, trial_num=trial, values={"x": at}) for at, trial in enumerate((3, 1, 2))]
    ends = [
        row(3 + trial, trial_num=trial, values={"TRIAL_END": True, "pilot": "p"}) for trial in range(1, 5)
    ]
    late = [row(8, trial_num=3, values={"y": 1}), row(9, trial_num=9, values={"y": 2})]
    with SessionStore.create(tmp_path, "s", {}) as store:
        whole = [row(at, trial_num=at, values={"x": at, "TRIAL_END": True}) for at in (10, 11)]
        for rows in (mixed, ends, late, whole):
            assert put(store, rows) == [None] * len(rows)
    found = content(tmp_path / "s")["trial_rows"]
    assert [(trial, complete, columns) for _, _, trial, _, complete, *_, columns in found] == [
        (1, 1, '{"x":1}'), (2, 1, '{"x":2}'), (3, 1, '{"x":0,"y":1}'), (4, 1, "{}"), (9, 0, '{"y":2}'),
        (10, 1, '{"x":10}'), (11, 1, '{"x":11}'),
    ]  # fmt: skip


class Name(str):
    """A name that is no plain text."""

    __slots__ = ()


class Letter(str, Enum):  # noqa: UP042 - a StrEnum says its text
    """Names that say something else of themselves."""

    X = "x"


def test_names_that_behave_like_text_are_text(tmp_path: Path) -> None:
    with SessionStore.create(tmp_path, "s", {}) as store:
        for at, odd in enumerate(({Name("x"): 1, "y": 2}, {Letter.X: 1, "y": 2})):
            first = 5 * at
            assert put(store, [row(first, values=odd), row(first + 1, values=odd)]) == [None, None]
            assert put(store, [row(first + 2, values=MappingProxyType(odd))]) == [None]
        (holding,) = store.holdings()
        assert holding.mark == store.ledger()[holding.key]
    assert {fields[7] for fields in content(tmp_path / "s")["data_messages"]} == {'{"x":1,"y":2}'}


def test_values_are_read_before_submitting_returns(tmp_path: Path) -> None:
    values = [{"x": at} for at in range(3)]
    with SessionStore.create(tmp_path, "s", {}) as store:
        held = threading.Event()
        store.submit(Event("rig", "wait", {}), lambda error: held.wait(20))
        ended = threading.Event()
        rows = [row(0, values=values[0]), row(1, values=values[1]), row(1, values=values[2])]
        store.submit_all(rows, lambda _: ended.set())
        for one in values:
            one["x"] = -1
        held.set()
        assert ended.wait(20)
    assert [fields[7] for fields in content(tmp_path / "s")["data_messages"]] == ['{"x":0}', '{"x":1}']
