"""The table of roles: the reference prints it, and it knows every key that our stations and agents listen for."""

from __future__ import annotations

import re
from pathlib import Path

from tests.net.conftest import settings

from pilotage import Pilot_Station, Terminal_Station
from pilotage.net.pref_keys import Prefs
from pilotage.protocol.roles import ANY, BUILT_IN, BY_POWER, EVERYBODY, KNOWN_KEYS, Recipient

LISTENS = re.compile(r'"([A-Z_]{2,})": (?:self|successors|PilotSuccessors\(.*?\))\.l_|listens\["([A-Z_]+)"\]')


def shown(recipients: frozenset[Recipient]) -> str:
    if recipients == EVERYBODY:
        return "all"
    return ", ".join(one for one in Recipient if one in recipients) or "-"


def printed(root: Path) -> dict[str, tuple[str, ...]]:
    """Read the table of the reference: for each key, what stands under each role."""
    page = (root / "docs/reference/keys.md").read_text(encoding="utf-8")
    rows = page.split("| keys | viewer |")[1].split("\n\n")[0].splitlines()[2:]
    found: dict[str, tuple[str, ...]] = {}
    for row in rows:
        keys, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        names = re.findall(r"`([A-Z_]+)`", keys) or [ANY]
        found.update(dict.fromkeys(names, tuple(cells)))
    return found


def test_the_reference_prints_the_table(root: Path) -> None:
    table = {key: tuple(shown(BUILT_IN[role][key]) for role in BY_POWER) for key in BUILT_IN["admin"]}
    assert printed(root) == table


def test_the_table_knows_all_that_stations_listen_for() -> None:
    chosen: Prefs = settings(NAME="rig")
    heard = {*Terminal_Station({}, chosen).listens, *Pilot_Station(chosen).listens}
    assert heard - KNOWN_KEYS == set()


def test_the_table_knows_all_that_agents_listen_for(root: Path) -> None:
    heard: set[str] = set()
    for agent in ("terminal", "desk", "intake", "pilot"):
        text = (root / f"src/pilotage/agents/{agent}.py").read_text(encoding="utf-8")
        heard |= {first or second for first, second in LISTENS.findall(text)}
    assert {"RUN", "HALT", "REKEY", "COHERE", "AUDIT"} <= heard
    assert heard - KNOWN_KEYS == set()


def test_the_reference_names_each_key_of_the_table(root: Path) -> None:
    page = (root / "docs/reference/messages.md").read_text(encoding="utf-8")
    assert [key for key in sorted(KNOWN_KEYS) if f"`{key}`" not in page] == []
