"""Sessions over real folders: what is resumed, what waits, what is removed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pilotage.agents.sessions import Sessions
from pilotage.app.archive import FolderArchives
from pilotage.protocol.errors import Closed, StoreError, TaskError
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


def test_what_comes_for_a_record_that_is_being_written_elsewhere_waits_for_it(tmp_path: Path) -> None:
    elsewhere = sessions_in(tmp_path)
    elsewhere.begin("a")
    sessions = sessions_in(tmp_path)
    assert sessions.opened() == []
    told: list[tuple[str, bool]] = []
    sessions.on_trouble = lambda session, text, is_over: told.append((session, is_over))
    kept = threading.Thread(
        target=lambda: sessions.keep("a", lambda archive: archive.add_event("rig", "late", {})), daemon=True
    )
    kept.start()
    wait_eventually(lambda: told == [("a", False)])
    assert kept.is_alive()
    elsewhere.close(5)
    kept.join(10)
    assert not kept.is_alive() and told == [("a", False), ("a", True)]
    assert sessions.opened() == ["a"]
    sessions.close(5)


def test_whoever_waits_for_a_record_is_let_go_when_the_terminal_ends(tmp_path: Path) -> None:
    elsewhere = sessions_in(tmp_path)
    elsewhere.begin("a")
    sessions = sessions_in(tmp_path)
    failed: list[Exception] = []

    def keep() -> None:
        try:
            sessions.archive("a")
        except StoreError as error:
            failed.append(error)

    waits = threading.Thread(target=keep, daemon=True)
    waits.start()
    sessions.close(5)
    waits.join(5)
    assert "is being written by" in str(failed[0])
    elsewhere.close(5)


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

    assert sessions.keep("a", put) == "kept"
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
