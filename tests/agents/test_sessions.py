"""Sessions over real folders: what is resumed, what waits, what is removed."""

from __future__ import annotations

import threading
import time
from itertools import count
from pathlib import Path

import pytest

from pilotage.agents.ports import TrialRow
from pilotage.agents.sessions import Sessions
from pilotage.app.archive import FolderArchives
from pilotage.net.listens import Origin
from pilotage.protocol.errors import Closed, StoreError, TaskError
from pilotage.services.store import SessionReader, StoreConfig
from tests.agents.bench import FullDisk
from tests.conftest import wait_eventually


def sessions_in(folder: Path) -> Sessions:
    sessions = Sessions(FolderArchives(folder), {})
    sessions.resume()
    return sessions


def test_what_nobody_has_ended_is_open_again_and_the_current_one_is_current(tmp_path: Path) -> None:
    first = sessions_in(tmp_path)
    for name in ("a", "b", "c"):
        first.begin(name)
        first.join(name, f"rig_{name}")
    first.begin("b")
    first.end("a", 5)
    first.close(5)
    second = sessions_in(tmp_path)
    assert (second.opened(), second.current) == (["b", "c"], "b")
    assert second.agents("b") == ["rig_b"]
    second.end("b", 5)
    second.close(5)
    third = sessions_in(tmp_path)
    assert (third.opened(), third.current) == (["c"], ""), "nobody has made it the current one since"
    third.close(5)


def test_late_data_open_their_record_again_with_its_agents(tmp_path: Path) -> None:
    sessions = sessions_in(tmp_path)
    sessions.begin("a")
    sessions.join("a", "rig")
    sessions.end("a", 5)
    sessions.begin("b")
    sessions.keep("a", lambda archive: archive.add_event("rig", "late", {})).result(5)
    assert sessions.current == "b"
    assert sessions.agents("a") == ["rig"]
    sessions.close(5)


def test_late_data_do_not_make_an_ended_session_the_current_one(tmp_path: Path) -> None:
    sessions = sessions_in(tmp_path)
    sessions.begin("a")
    sessions.end("a", 5)
    sessions.keep("a", lambda archive: archive.add_event("rig", "late", {})).result(5)
    assert sessions.current == "" and sessions.opened() == ["a"]
    assert sessions.begin(sessions.current) != "a", "the next START without a session gets one of its own"
    sessions.close(5)
    again = sessions_in(tmp_path)
    assert again.current != "a", "nor does it become so when the Terminal starts again"
    again.close(5)


def test_late_data_do_not_make_an_ended_session_the_current_one_of_the_next_life(tmp_path: Path) -> None:
    sessions = sessions_in(tmp_path)
    sessions.begin("a")
    sessions.end("a", 5)
    sessions.keep("a", lambda archive: archive.add_event("rig", "late", {})).result(5)
    sessions.close(5)
    again = sessions_in(tmp_path)
    assert (again.opened(), again.current) == (["a"], "")
    again.close(5)


def test_data_without_any_session_begin_one_for_all_of_them(tmp_path: Path) -> None:
    sessions = sessions_in(tmp_path)
    for number in range(3):
        sessions.keep("", lambda archive, n=number: archive.add_event("rig", f"{n}", {})).result(5)
    assert sessions.names() == [sessions.current] and sessions.current.startswith("unasked")
    sessions.close(5)


def test_data_of_a_session_that_is_not_there_share_one_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = sessions_in(tmp_path)
    sessions.begin("a")
    seconds = count()
    monkeypatch.setattr(Sessions, "_free_name", lambda self: f"at-second-{next(seconds)}")
    for number in range(3):
        sessions.keep("gone", lambda archive, n=number: archive.add_event("rig", f"{n}", {})).result(5)
    aside = sessions.names()[-1]
    assert sessions.names() == ["a", aside] and sessions.current == "a"
    sessions.end(aside, 5)
    sessions.keep("gone", lambda archive: archive.add_event("rig", "late", {})).result(5)
    sessions.begin("gone")
    sessions.keep("gone", lambda archive: archive.add_event("rig", "new", {})).result(5)
    assert sessions.names() == ["a", aside, "gone"]
    with SessionReader(tmp_path / "gone") as reader:
        assert list(reader.events().name) == ["new"]
    sessions.close(5)


def test_what_comes_for_a_record_that_is_being_written_elsewhere_waits_for_it(tmp_path: Path) -> None:
    elsewhere = sessions_in(tmp_path)
    elsewhere.begin("a")
    sessions = sessions_in(tmp_path)
    assert sessions.opened() == []
    told: list[tuple[str, bool]] = []
    before = threading.active_count()
    sessions.on_trouble = lambda session, text, is_over: told.append((session, is_over))
    began = time.monotonic()
    kept = [
        sessions.keep("a", lambda archive, n=number: archive.add_event("rig", f"late {n}", {}))
        for number in range(100)
    ]
    assert time.monotonic() < began + 5, "nobody waited with it"
    wait_eventually(lambda: told == [("a", False)])
    assert not any(one.done() for one in kept) and threading.active_count() < before + 10
    elsewhere.close(5)
    for one in kept:
        one.result(10)
    wait_eventually(lambda: told == [("a", False), ("a", True)])
    with SessionReader(tmp_path / "a") as reader:
        assert list(reader.events().name) == [f"late {number}" for number in range(100)]
    assert sessions.opened() == ["a"]
    sessions.close(5)


def test_what_waits_for_a_record_stays_unsettled_when_the_terminal_ends(tmp_path: Path) -> None:
    elsewhere = sessions_in(tmp_path)
    elsewhere.begin("a")
    sessions = sessions_in(tmp_path)
    with pytest.raises(StoreError, match="is being written by"):
        sessions.archive("a")
    waiting = sessions.keep("a", lambda archive: archive.add_event("rig", "late", {}))
    sessions.close(5)
    late = sessions.keep("a", lambda archive: archive.add_event("rig", "later", {}))
    elsewhere.close(5)
    for one in (waiting, late):
        with pytest.raises(TimeoutError):
            one.result(1.5)


def test_a_session_is_not_ended_while_its_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    sessions = sessions_in(tmp_path)
    sessions.begin("a")
    disk.is_full = True
    row = sessions.keep("a", lambda archive: archive.add_trial("rig", "mouse", 0, {"x": 1}, None))
    wait_eventually(lambda: sessions.archive("a").trouble)
    with pytest.raises(StoreError, match=r"can't be ended while data wait for its disk.*No space left"):
        sessions.end("a", 5)
    assert (sessions.opened(), sessions.current, row.done()) == (["a"], "a", False)
    disk.is_full = False
    row.result(10)
    wait_eventually(lambda: not sessions.archive("a").trouble)
    sessions.end("a", 5)


def test_what_a_closing_record_does_not_take_is_kept_when_it_opens_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    sessions = sessions_in(tmp_path)
    sessions.begin("a")
    sessions.archive("a").add_event("rig", "first", {}).result(5)
    disk.is_full = True
    rows = [TrialRow("rig", "mouse", trial, {"x": 1}, Origin(1, 1, trial, None, ())) for trial in range(3)]
    kept = sessions.keep("a", lambda archive: archive.add_trials(rows))
    with pytest.raises(StoreError, match="did not close"):
        sessions.end("a", 0.1)
    disk.is_full = False
    assert kept.result(15) == [None, None, None]
    assert (sessions.opened(), sessions.current) == (["a"], "")
    sessions.close(5)


def test_what_comes_for_a_full_record_waits_in_order_and_nobody_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    archives = FolderArchives(tmp_path, StoreConfig(max_queue_items=10))
    sessions = Sessions(archives, {})
    told: list[tuple[str, bool]] = []
    sessions.on_trouble = lambda session, text, is_over: told.append((session, is_over))
    sessions.begin("a")
    disk.is_full = True
    kept = [
        sessions.keep("a", lambda archive, n=number: archive.add_event("rig", f"{n}", {}))
        for number in range(100)
    ]
    wait_eventually(lambda: told == [("a", False)])
    disk.is_full = False
    for one in kept:
        one.result(20)
    wait_eventually(lambda: told == [("a", False), ("a", True)])
    with SessionReader(tmp_path / "a") as reader:
        assert list(reader.events().name) == [f"{number}" for number in range(100)]
    sessions.close(5)


def test_what_meets_a_session_that_is_being_ended_opens_it_again(tmp_path: Path) -> None:
    sessions = sessions_in(tmp_path)
    sessions.begin("a")
    ended = sessions.archive("a")
    met: list[object] = []

    def put(archive: object) -> object:
        met.append(archive)
        if archive is ended:
            sessions.end("a", 5)
            raise Closed("it was closed")
        return "kept"

    assert sessions.keep("a", put).result(5) == "kept"
    assert len(met) == 2
    sessions.close(5)


def test_a_session_begun_for_nothing_is_removed_but_none_that_holds_data(tmp_path: Path) -> None:
    sessions = sessions_in(tmp_path)
    sessions.begin("kept")
    sessions.begin("empty")
    sessions.archive("empty").add_event("rig", "error", {}).result(5)
    sessions.discard("empty", "kept", 5)
    assert sessions.names() == ["kept"] and sessions.current == "kept"
    assert not (tmp_path / "empty").exists()
    sessions.begin("full")
    sessions.archive("full").add_trial("rig", "mouse", 0, {"x": 1}, None).result(5)
    sessions.discard("full", "", 5)
    assert sessions.names() == ["kept", "full"] and sessions.opened() == ["kept"]
    assert not sessions.knows("empty") and sessions.knows("full")
    with pytest.raises(TaskError, match="isn't open"):
        sessions.end("full", 5)
    sessions.close(5)


def test_names_from_the_wire_make_no_more_records_than_so_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotage.agents.sessions.MAX_ASIDES", 3)
    seconds = count()
    monkeypatch.setattr(Sessions, "_free_name", lambda self: f"at-second-{next(seconds)}")
    sessions = sessions_in(tmp_path)
    sessions.begin("a")
    kept = [sessions.archive(f"hostile-{number}") for number in range(50)]
    assert len({archive.place for archive in kept}) == 3
    assert len(sessions.names()) == 4 and len(sessions.opened()) == 4
    assert sessions.archive("a").place.endswith("a")
    sessions.close(5)
