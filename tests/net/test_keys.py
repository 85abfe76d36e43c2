"""Key files: what is written is read, and what can't be used is named."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pilotage.net.keys import KeyFolder, KnownKey, make_pair
from pilotage.net.security import KeyWatch, Security
from pilotage.protocol.authority import Original
from pilotage.protocol.errors import InvalidKey
from tests.conftest import Eventually
from tests.net.conftest import settings

# The same in all of xdist's processes, for tests are called by them.
A, B = "G+3s][<3XT.SaB0Cf/Ix0Vb7bAudE+U6[Xr?w0Tx", "/u?9MHT=&VaIJ}YZb*FHk*cyPJ%{[.Lm$+MZXR*Y"


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


def write(folder: KeyFolder, name: str, text: str) -> Path:
    folder.known_folder.mkdir(parents=True, exist_ok=True)
    file = folder.known_folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_no_folder_means_no_keys(folder: KeyFolder) -> None:
    assert (folder.own(), folder.known(), folder.stamp()) == ([], [], ())


def test_what_is_kept_is_found_again(folder: KeyFolder) -> None:
    pair, known = make_pair("rig a/é%".replace("/", "-")), KnownKey("T", A, "admin", "rig", B)
    folder.keep(pair)
    folder.know(known)
    assert folder.own() == [pair] and folder.known() == [known] == [folder.find("T")]
    assert pair.secret not in repr(pair)


@pytest.mark.only_on("linux", "darwin")
def test_nobody_else_may_read_a_secret(folder: KeyFolder) -> None:
    folder.keep(make_pair("rig"))
    (secret,) = folder.folder.glob("*.secret")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    secret.chmod(0o640)
    with pytest.raises(InvalidKey, match="chmod 600"):
        folder.own()


def test_the_longest_name_has_the_key(folder: KeyFolder) -> None:
    pairs = {name: make_pair(name) for name in ("rig", "rig_a")}
    for pair in pairs.values():
        folder.keep(pair)

    def own_of(name: str) -> object:
        return folder.keyring(name, lambda error: None).own

    assert own_of("_rig_a_video") == pairs["rig_a"]
    assert own_of("rig_b") == pairs["rig"]
    assert own_of("cam") is None


def test_who_is_known_anew_replaces_the_old_one_in_whatever_file_that_was(folder: KeyFolder) -> None:
    file = write(folder, "copied by hand.key", f'name = "rig"\npublic = "{A}"\n')
    assert folder.find("rig").role == "pilot"
    folder.know(KnownKey("rig", B, "node"))
    assert folder.known() == [KnownKey("rig", B, "node")] and file.exists()
    assert folder.forget("rig").public == B
    with pytest.raises(InvalidKey, match="no key of 'rig' is known here"):
        folder.forget("rig")


def test_a_successor_takes_the_place_once_it_is_used(folder: KeyFolder) -> None:
    folder.know(KnownKey("rig", A, "node", "", B))
    assert folder.find("rig").keys == (A, B)
    folder.promote(A)
    assert folder.find("rig").keys == (A, B)
    folder.promote(B)
    assert folder.find("rig") == KnownKey("rig", B, "node")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a name must be a text"),
        ("name = 1", "a name must be a text"),
        ('name = "a/b"', "slash"),
        ('name = "rig"', "40 characters"),
        ('name = "rig"\npublic = "short"', "40 characters"),
        (f'name = "rig"\npublic = "{A[:-1]}~"', "40 characters"),
        (f'name = "rig"\npublic = "{A}"\nrole = "king"', "role must be one of"),
        (f'name = "rig"\npublic = "{A}"\nrole = []', "role must be one of"),
        (f'name = "rig"\npublic = "{A}"\nnext = 5', "40 characters"),
        (f'name = "rig"\npublic = "{A}"\nvia = "_x"', "must not begin"),
        ("name = [", "can't be read"),
        ("\0", "can't be read"),
        ("#" * 5000, "too long"),
        (f'name = "other"\npublic = "{B}"', "same name or key"),
        (f'name = "one"\npublic = "{A}"', "same name or key"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_keeps_nobody_else_out(
    folder: KeyFolder, text: str, why: str
) -> None:
    write(folder, "1 good.key", f'name = "one"\npublic = "{B}"\n')
    file = write(folder, "2 bad.key", text)
    with pytest.raises(InvalidKey, match=why) as caught:
        folder.known()
    assert str(file) in str(caught.value)
    told: list[InvalidKey] = []
    assert [known.name for known in folder.known(told.append)] == ["one"]
    assert len(told) == 1


def test_halves_that_do_not_fit_are_refused(folder: KeyFolder) -> None:
    folder.keep(make_pair("rig"))
    (secret,) = folder.folder.glob("*.secret")
    lines = secret.read_text().splitlines()
    secret.write_text("\n".join([lines[0], f'public = "{A}"', lines[2]]))
    with pytest.raises(InvalidKey, match="not the public half"):
        folder.own()


def test_a_watch_tells_each_change(folder: KeyFolder, eventually: Eventually) -> None:
    seen: list[int] = []
    watch = KeyWatch(folder.folder, "test", lambda: seen.append(len(folder.known())))
    try:
        eventually(lambda: seen == [0])
        folder.know(KnownKey("rig", A))
        eventually(lambda: seen[-1] == 1)
        folder.forget("rig")
        eventually(lambda: seen[-1] == 0)
    finally:
        watch.close()


def test_security_comes_from_the_preferences(tmp_path: Path) -> None:
    prefs = settings(KEYDIR=str(tmp_path), ORIGINALS="old@10.0.0.7, rig@::1=node", INSECURE="yes")
    security = Security.of(prefs)
    assert security.originals == {Original("old", "10.0.0.7", "pilot"), Original("rig", "::1", "node")}
    assert security.insecure and security.openness("T").startswith("INSECURE")
    assert Security.of(settings(KEYDIR=str(tmp_path))).openness("T") == "open to this machine only (no key)"


@pytest.mark.only_on("linux", "darwin")
def test_a_station_whose_key_cannot_be_used_says_so_at_once(folder: KeyFolder) -> None:
    from pilotage import Station

    folder.keep(make_pair("hub"))
    next(folder.folder.glob("*.secret")).chmod(0o644)
    station = Station(id="hub", listen_port=0, security=Security(folder.folder))
    with pytest.raises(InvalidKey, match="chmod 600"):
        station.start()
