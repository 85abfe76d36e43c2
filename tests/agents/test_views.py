"""The Terminal's view of who is connected moves along its table only, and the worst that is said counts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from pilotage.agents.roster import Roster
from pilotage.agents.views import STEPS, steps_to
from pilotage.protocol.errors import InvalidMessage


@pytest.fixture
def roster(tmp_path: Path) -> Roster:
    return Roster(tmp_path / "db" / "pilots.json")


def link(roster: Roster, name: str) -> str:
    return str(roster.snapshot()[name]["link"])


@pytest.mark.parametrize("to", STEPS)
@pytest.mark.parametrize("link", STEPS)
def test_every_way_consists_of_steps_of_the_table(link: str, to: str) -> None:
    way = [link, *steps_to(link, to)]
    assert all(after in STEPS[before] for before, after in pairwise(way))
    assert way[-1] == to or to == ""


def test_what_was_gone_comes_back_by_joining() -> None:
    assert steps_to("gone", "alive") == ["joining", "alive"]
    assert steps_to("gone", "suspect") == ["joining", "alive", "suspect"]
    assert steps_to("alive", "") == [], "nobody who was seen is unseen again"


def test_whoever_was_heard_is_alive_until_a_station_says_otherwise(roster: Roster) -> None:
    roster.update("rig", state="IDLE")
    assert link(roster, "rig") == "alive"
    roster.note_link("rig", "suspect")
    roster.update("rig", state="RUNNING")
    assert link(roster, "rig") == "suspect", "an old word of the pilot's, still on its way, changes nothing"
    roster.note_link("rig", "gone")
    roster.update("rig", state="RUNNING")
    assert link(roster, "rig") == "gone"
    roster.note_link("rig", "alive")
    assert link(roster, "rig") == "alive"


def test_a_pilot_whose_process_is_silent_is_no_better_than_its_process(roster: Roster) -> None:
    roster.update("rig", state="RUNNING")
    roster.note_link("rig", "alive")
    roster.note_link("rig", "suspect", via="rig")
    assert link(roster, "rig") == "suspect"
    roster.note_link("rig", "alive", via="rig")
    assert link(roster, "rig") == "alive"


def test_who_is_behind_a_pilot_that_has_gone_is_gone_too(roster: Roster) -> None:
    roster.update("rig", state="RUNNING")
    roster.update("cam", state="RUNNING", parent="rig")
    roster.update("lens", state="RUNNING", parent="cam")
    roster.note_link("cam", "alive", via="rig")
    roster.note_link("rig", "gone")
    assert [link(roster, name) for name in ("rig", "cam", "lens")] == ["gone"] * 3
    roster.note_link("rig", "alive")
    assert [link(roster, name) for name in ("rig", "cam", "lens")] == ["alive"] * 3
    roster.note_link("cam", "gone", via="rig")
    assert [link(roster, name) for name in ("rig", "cam", "lens")] == ["alive", "gone", "gone"]


def test_nobody_else_has_a_say(roster: Roster) -> None:
    roster.update("rig", state="IDLE")
    with pytest.raises(InvalidMessage, match="no say"):
        roster.note_link("rig", "gone", via="other")
    with pytest.raises(InvalidMessage, match="no state"):
        roster.note_link("rig", "asleep")
    roster.note_link("stranger", "alive")
    assert roster.names() == ["rig"]


def test_two_that_claim_to_be_behind_each_other_end_no_loop(roster: Roster) -> None:
    roster.update("a", parent="b")
    roster.update("b", parent="a")
    roster.note_link("a", "gone")
    assert link(roster, "b") == "gone"


def test_a_new_station_of_the_terminals_knows_nobody_yet(roster: Roster) -> None:
    roster.update("rig", state="IDLE")
    roster.note_link("rig", "alive")
    roster.lose_all()
    assert link(roster, "rig") == "gone"


def test_a_list_that_cannot_be_written_stops_nobody_and_is_written_later(tmp_path: Path) -> None:
    (tmp_path / "db").write_text("no folder")
    roster = Roster.__new__(Roster)
    Roster.__init__(roster, tmp_path / "elsewhere" / "pilots.json")
    roster._path = tmp_path / "db" / "pilots.json"
    roster.update("rig", ip="10.0.0.1")
    assert roster.names() == ["rig"]
    (tmp_path / "db").unlink()
    roster.update("rig", state="IDLE")
    assert Roster(tmp_path / "db" / "pilots.json").names() == ["rig"]


def test_a_view_says_how_old_it_is(roster: Roster) -> None:
    roster.note_subject("rig", "mouse")
    assert roster.snapshot()["rig"]["age_s"] is None
    roster.update("rig", state="IDLE")
    assert 0 <= roster.snapshot()["rig"]["age_s"] < 5


def test_what_was_said_of_somebody_before_it_told_its_name_counts(roster: Roster) -> None:
    roster.note_link("rig", "alive")
    roster.update("rig", state="IDLE")
    roster.lose_all()
    assert link(roster, "rig") == "gone"
    roster.note_link("visitor", "alive")
    roster.note_link("visitor", "gone")
    roster.update("visitor", state="IDLE")
    assert link(roster, "visitor") == "alive", "nothing is kept of who has gone without telling"
