"""The roles' file: what it says holds, and what can't be used is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotage.net.keys import KeyFolder
from pilotage.net.role_files import read_roles
from pilotage.protocol.errors import InvalidKey
from pilotage.protocol.roles import Recipient, Roles


def test_without_a_file_the_built_in_table_holds(tmp_path: Path) -> None:
    assert read_roles(tmp_path) == read_roles(tmp_path / "none") == Roles()


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    text = '[viewer]\nASK = ["up"]\n[pilot]\nSTOP = ["own", "others"]\nFILE = []\n"*" = ["all"]\n[node]\n'
    (tmp_path / "roles.toml").write_text(text)
    roles = read_roles(tmp_path)
    assert roles.allows("viewer", "ASK", Recipient.UP) and not roles.allows("viewer", "DATA", Recipient.UP)
    assert roles.allows("pilot", "STOP", Recipient.OTHERS) and not roles.allows("pilot", "STOP", Recipient.UP)
    assert not roles.allows("pilot", "FILE", Recipient.UP)
    assert roles.allows("pilot", "MY_KEY", Recipient.VIEWERS)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[node]\n[rat]\n", "line 2: there is no role 'rat'"),
        ("rat = 1\n", "line 1: rat must be a table of a role"),
        ('\n\n[node]\nA = ["up"]\nB = "up"\n', r'line 5: B needs a list of recipients, such as \["up"\]'),
        ("[node]\nA = [1]\n", "line 2: A needs a list of recipients"),
        ('[node]\n\n"A B" = ["down"]\n', "line 3: there is no recipient 'down'"),
        ('[operator]\nKILL = ["up"]\n[pilot]\nKILL = ["up"]\n', "line 4: KILL can't be given to pilot"),
        ('node.STOPALL = ["up"]\n', "line 1: STOPALL can't be given to node"),
        ('\nviewer = {A = ["up"], PARAM = ["up"]}\n', "line 2: PARAM can't be given to viewer"),
        (f'[node]\n{"A" * 300} = ["up"]\n', "line 2: no message has a key of 300 letters"),
        ("[node\n", "line 1"),
        ("[node]\n[node]\n", "line 2"),
        ("#" * 70_000, "longer than"),
    ],
)
def test_a_file_that_cannot_be_used_names_its_line(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "roles.toml").write_text(text)
    with pytest.raises(InvalidKey, match=why) as caught:
        read_roles(tmp_path)
    assert str(tmp_path / "roles.toml") in str(caught.value)


def test_nobody_starts_with_such_a_file_and_who_runs_goes_on_with_what_it_had(tmp_path: Path) -> None:
    (tmp_path / "roles.toml").write_text("[rat]\n")
    told: list[InvalidKey] = []
    with pytest.raises(InvalidKey, match="no role 'rat'"):
        KeyFolder(tmp_path).keyring("T", told.append)
    keyring = KeyFolder(tmp_path).keyring("T", told.append, is_running=True)
    assert keyring.roles is None and len(told) == 1


def test_a_change_of_the_file_is_noticed(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    before = folder.stamp()
    (tmp_path / "roles.toml").write_text('[viewer]\nASK = ["up"]\n')
    assert folder.stamp() != before
