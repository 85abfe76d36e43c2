"""By which key and from where somebody came, as the audit log is told."""

from __future__ import annotations

from pilotage.agents.acquaintances import MAX_KNOWN, Acquaintances
from pilotage.agents.ports import Who


def acquaintances() -> Acquaintances:
    known = Acquaintances("T")
    known.note({"name": "desk_cli", "link": "alive", "key": "K-desk", "address": "10.0.0.9"})
    known.note({"name": "rig", "link": "alive", "key": "K-rig", "address": "10.0.0.11"})
    known.note({"name": "rig", "link": "alive", "via": "rig", "address": "127.0.0.1"})
    known.note({"name": "cam", "link": "alive", "via": "rig", "key": "K-cam", "address": "10.0.0.12"})
    known.note({"name": "here", "link": "alive", "address": "127.0.0.1"})
    return known


def test_who_came_by_a_key_is_known_by_it() -> None:
    known = acquaintances()
    assert known.who(("desk_cli", "T")) == Who("K-desk", "desk_cli", "10.0.0.9", ("T",))
    assert known.who(("cam", "rig", "T")) == Who("K-cam", "cam", "10.0.0.12", ("rig", "T"))
    assert known.who(("here", "T")) == Who("", "here", "127.0.0.1", ("T",))


def test_whom_nothing_is_known_of_has_the_key_of_who_vouches_for_it() -> None:
    assert acquaintances().who(("_rig", "rig", "T")) == Who("K-rig", "_rig", "10.0.0.11", ("rig", "T"))
    assert acquaintances().who(("stranger", "T")) == Who("", "stranger", "", ("T",))
    assert acquaintances().who(()) == Who("", "this process", "", ())


def test_a_station_has_no_say_in_who_came_in_elsewhere() -> None:
    known = acquaintances()
    known.note({"name": "desk_cli", "link": "alive", "via": "rig", "key": "K-forged"})
    assert known.who(("desk_cli", "T")).key == "K-desk"


def test_who_is_told_about_is_found_by_the_station_that_tells() -> None:
    known = acquaintances()
    assert known.who(("T",), "desk_cli", ()) == Who("K-desk", "desk_cli", "10.0.0.9", ())
    assert known.who(("rig", "T"), "cam", ("as rig says",)) == Who(
        "K-cam", "cam", "10.0.0.12", ("as rig says",)
    )


def test_who_has_gone_is_forgotten_and_the_rest_is_bounded() -> None:
    known = acquaintances()
    known.note({"name": "desk_cli", "link": "gone"})
    assert known.who(("desk_cli", "T")).key == ""
    for number in range(MAX_KNOWN + 10):
        known.note({"name": f"n{number}", "link": "alive", "key": "K" * 10_000})
    assert len(known._known) == MAX_KNOWN
    known.lose_all()
    assert known.who(("rig", "T")).key == ""
