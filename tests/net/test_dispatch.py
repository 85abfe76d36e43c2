"""How the messages of a run end that one worker gives to their listen."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from pilotage.net import dispatch
from pilotage.net.dispatch import Dispatch
from pilotage.net.drafting import Drafting
from pilotage.net.notes import NoteLog
from pilotage.protocol.bodies import decode_value, encode_value
from pilotage.protocol.inbox import Handled
from pilotage.protocol.instructions import HandOver, Service
from pilotage.protocol.records import Parcel
from pilotage.protocol.settlement import Outcome

VALUES = [1, 2, "answer", "fail", 3, "object", 4, 5]


def run_of(values: list[Any]) -> Parcel:
    drafting = Drafting("rig")
    bodies = [encode_value(drafting.draft("cam", "K", value, True, None))[0] for value in values]
    return Parcel(["cam"], ["rig"], 1, 1, 1, 0, "K", 0, bodies)


def listen(value: Any) -> Any:
    if value == "fail":
        raise LookupError("on purpose")
    if value == "object":
        return object()
    return 7 if value == "answer" else None


def told_of(values: list[Any]) -> list[list[Handled]]:
    told: list[list[Handled]] = []
    dispatch_to(told)._work([run_of(values)])
    return told


def dispatch_to(told: list[list[Handled]]) -> Dispatch:
    notes = NoteLog(logging.getLogger("cam"))
    return Dispatch(
        "cam", {"K": listen}, lambda results, is_last=False, may_wait=False: told.append(results), notes,
        gives_values=True, expands=True, max_workers=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("urgent", "others"),
    [(True, True), (True, False), (False, True), (False, False), (None, True), (True, None)],
)
def test_the_loop_comes_back_while_either_kind_of_worker_is_late(
    urgent: bool | None, others: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatched = dispatch_to([])
    helped: list[object] = []
    for workers, is_late in ((dispatched._urgent, urgent), (dispatched._workers, others)):
        monkeypatch.setattr(workers, "submit_all", lambda jobs: None)
        if is_late is not None:
            monkeypatch.setattr(workers, "unserved", [workers])
            monkeypatch.setattr(workers, "help_out", lambda is_late=is_late: helped.append(1) or is_late)
    assert dispatched.turn_over() is False and not helped, "nothing was handed over yet"
    dispatched.hand_over(HandOver([run_of([1])], []))
    for _ in range(2):
        assert dispatched.turn_over() is bool(urgent or others)
    count = len(helped)
    monkeypatch.setattr(dispatched._urgent, "unserved", [])
    monkeypatch.setattr(dispatched._workers, "unserved", [])
    assert dispatched.turn_over() is False is dispatched.turn_over() and len(helped) == count


def test_each_ends_as_its_listen_did_and_what_ends_plainly_in_a_row_is_told_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "TOLD_AFTER_S", 60.0)
    (ends,) = told_of(VALUES)
    assert [(end.token[2], end.messages) for end in ends] == [
        (1, 2), (3, 1), (4, 1), (5, 1), (6, 1), (7, 2),
    ]  # fmt: skip
    outcomes = [end.settlement.outcome for end in ends]
    assert outcomes.count(Outcome.REFUSED) == 2
    assert outcomes[2] is outcomes[4] is Outcome.REFUSED
    assert [end.answer and decode_value(end.answer) for end in ends] == [b"", 7, b"", b"", b"", b""]
    assert "on purpose" in ends[2].settlement.text


def test_ends_of_slow_listens_are_told_while_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "TOLD_AFTER_S", -1.0)
    told = told_of(VALUES)
    assert [[end.token[2] for end in ends] for ends in told] == [[1], [2], [3], [4], [5], [6], [7], [8]]
    assert [[end.token[2] for end in ends] for ends in told_of(VALUES[:1])] == [[1]]


def test_a_key_that_has_no_listen_is_none_of_ours_but_for_what_a_stream_carries() -> None:
    dispatched = dispatch_to([])
    told = [dispatched.service_of(verb) for verb in ("K", "STREAM", "OTHER")]
    assert told == [Service.HANDLE, Service.HANDLE, Service.NONE]
