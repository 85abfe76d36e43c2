"""Items find their series, and their numbers say where something is missing."""

from __future__ import annotations

import pytest

from pilotage.agents.continuous import Series, sender_of, split_items
from pilotage.protocol.errors import InvalidMessage


def item(at: int, **more: object) -> dict[str, object]:
    return {"timestamp": at, "ecg": float(at), "sent_by": "rig/a", **more}


def cuts(series: list[Series]) -> list[tuple[str, int | None, int]]:
    return [(one.stream, one.first, len(one.data)) for one in series]


def test_a_series_is_cut_where_numbers_jump_or_the_form_changes() -> None:
    items = [item(n, item_num=n) for n in (0, 1, 2, 5, 6)] + [item(7, item_num=7, ecg=7)]
    assert cuts(split_items(items, "ecg")) == [("ecg", 0, 3), ("ecg", 5, 2), ("ecg", 7, 1)]


def test_each_stream_of_an_item_may_have_its_own_number() -> None:
    items = [
        item(0, item_num=0, index=0),
        item(1, item_num=1),
        item(2, item_num={"ecg": 2, "ecg.index": 1}, index=2),
    ]
    assert cuts(split_items(items, "ecg")) == [("ecg", 0, 3), ("ecg.index", 0, 2)]


def test_an_originals_items_have_no_numbers_and_may_have_data_of_that_name() -> None:
    items = [{"timestamp": n, "ecg": 0.5, "item_num": n * 3, "subject": "m"} for n in range(3)]
    assert cuts(split_items(items, None)) == [("ecg", None, 3), ("item_num", None, 3)]
    assert sender_of(items[0]) == "" and sender_of(item(0, item_num=0)) == "rig/a"
    assert cuts(split_items([{"timestamp": 0, "sent_by": 4}], None)) == [("sent_by", None, 1)]


@pytest.mark.parametrize("number", [-1, "1", 1.5, True, {"ecg": -1}])
def test_what_is_no_number_is_refused(number: object) -> None:
    with pytest.raises(InvalidMessage, match="item_num"):
        split_items([item(0, item_num=number)], "ecg")
