"""Preferences: four layers, checked by key, layer, file and line."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.net.pref_files import find_file, find_folder
from pilotage.net.pref_keys import KEYS, ORIGINAL_ONLY, find_key
from pilotage.net.prefs import Layer, Lineage, LogLevel, Preferences, Prefs, prefs
from pilotage.protocol.errors import InvalidPref


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def bare() -> Preferences:
    """Defaults alone: no file, an empty environment."""
    return Preferences(environ={}, file=None)


def test_the_defaults_let_a_terminal_and_a_pilot_on_one_machine_meet(bare: Preferences) -> None:
    snapshot = bare.snapshot()
    assert snapshot.upstream() == ("T", "127.0.0.1", snapshot.terminal_listen_port)
    assert snapshot.msgport != snapshot.terminal_listen_port


def test_the_documented_defaults(bare: Preferences) -> None:
    values = {name: bare.get(name) for name in KEYS}
    assert values == {
        **dict.fromkeys(["NAME", "TERMINALPORT", "CHILDIP", "CHILDPORT", "PARENTID", "SUBJECT"]),
        "TERMINALIP": "127.0.0.1",
        "PUSHPORT": 5560,
        "MSGPORT": 5565,
        "LINEAGE": "NONE",
        "CHILDID": [],
        "PARENTIP": "127.0.0.1",
        "PARENTPORT": 5565,
        "DRAWFPS": 20,
        "PING_INTERVAL": 5,
        "SOUNDDIR": Path.home() / "pilotage" / "sounds",
        "DATADIR": Path.home() / "pilotage" / "data",
        "PILOT_DB": Path.home() / "pilotage" / "pilot_db.json",
        "KEYDIR": Path.home() / "pilotage" / "keys",
        "PAIRPORT": 5561,
        "INSECURE": False,
        "ORIGINALS": [],
        "ORIGINALPORT": 5570,
        "MAXRATE": None,
        "LOGLEVEL": "WARNING",
    }


def test_each_layer_covers_those_below(tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    path = write(tmp_path / "prefs.toml", "\nMSGPORT = 6001\n")
    mine = Preferences(environ=environ, file=path)

    def stands() -> tuple[object, Layer, str]:
        info = next(info for info in mine.describe() if info.key == "MSGPORT")
        return info.value, info.layer, info.source

    assert stands() == (6001, Layer.FILE, f"{path}, line 2")
    environ["PILOTAGE_MSGPORT"] = "6002"
    assert stands() == (6002, Layer.ENVIRONMENT, "the environment variable PILOTAGE_MSGPORT")
    mine.set("MSGPORT", 6003)
    assert stands() == (6003, Layer.SET, "set()")
    mine.unset("MSGPORT")
    del environ["PILOTAGE_MSGPORT"]
    assert stands() == (6001, Layer.FILE, f"{path}, line 2")
    assert Preferences(environ={}, file=None).describe()[4].layer is Layer.DEFAULT


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("MSGPORT", "0", 0),
        ("PUSHPORT", " 65535 ", 65535),
        ("CHILDID", "cam_1, cam_2", ["cam_1", "cam_2"]),
        ("CHILDID", '["cam_1", "cam,2"]', ["cam_1", "cam,2"]),
        ("CHILDID", "cam_1", ["cam_1"]),
        ("CHILDID", "", []),
        ("PARENTID", "", None),
        ("LOGLEVEL", "debug", LogLevel.DEBUG),
        ("LINEAGE", "child", Lineage.CHILD),
        ("LINEAGE", "", Lineage.NONE),
        ("DRAWFPS", "12.5", 12.5),
        ("DATADIR", "~/trials", Path.home() / "trials"),
        ("TERMINALIP", "fe80::1", "fe80::1"),
        ("TERMINALIP", "terminal.lab.example", "terminal.lab.example"),
        ("NAME", "größe 1", "größe 1"),
    ],
)
def test_the_environment_speaks_text(key: str, text: str, value: object) -> None:
    mine = Preferences(environ={f"PILOTAGE_{key}": text}, file=None)
    assert mine.get(key) == value
    assert getattr(mine.snapshot(), key.lower()) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("MSGPORT", 65536, "port from 0 to 65535"),
        ("MSGPORT", -1, "port from 0 to 65535"),
        ("MSGPORT", True, "whole number"),
        ("MSGPORT", 5560.0, "whole number"),
        ("MSGPORT", None, "whole number"),
        ("MSGPORT", "", "whole number"),
        ("DRAWFPS", 0, "above 0"),
        ("PING_INTERVAL", -1, "above 0"),
        ("PING_INTERVAL", float("nan"), "finite"),
        ("DRAWFPS", 10**400, "float can hold"),
        ("DRAWFPS", True, "number"),
        ("LOGLEVEL", "LOUD", "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("LINEAGE", "UNCLE", "NONE, PARENT, CHILD"),
        ("LINEAGE", 3, "NONE, PARENT, CHILD"),
        ("NAME", "_rig", "inner node"),
        ("NAME", "T", "Terminal"),
        ("NAME", "../rig", "slash"),
        ("NAME", "..", "dots"),
        ("NAME", "a\0b", "printable"),
        ("NAME", "é" * 101, "200 bytes"),
        ("NAME", 7, "text"),
        ("CHILDID", ["cam", "_x"], "inner node"),
        ("CHILDID", "[1", "JSON list"),
        ("CHILDID", {"cam": 1}, "list of names"),
        ("TERMINALIP", "tcp://10.0.0.1", "tcp://"),
        ("TERMINALIP", "10.0.0.1:5560", "port is a preference of its own"),
        ("DATADIR", 5, "path"),
        ("DATADIR", "", "path"),
        ("DATADIR", b"data", "path"),
    ],
)
def test_a_bad_value_names_itself_and_changes_nothing(
    bare: Preferences, key: str, value: object, why: str
) -> None:
    before = bare.get(key)
    with pytest.raises(InvalidPref, match=rf"(?s)^{key} = .*\(set\(\)\): .*{re.escape(why)}"):
        bare.set(key, value)
    assert bare.get(key) == before


def test_a_bad_key_names_the_nearest(bare: Preferences) -> None:
    with pytest.raises(InvalidPref, match=r"'PUSHPRT' is no preference.*did you mean PUSHPORT"):
        bare.get("PUSHPRT")
    with pytest.raises(InvalidPref, match=r"'msgport' .*set\(\).*did you mean MSGPORT"):
        bare.set("msgport", 1)
    with pytest.raises(InvalidPref, match="there are NAME, "):
        bare.unset("QQQQ")


def test_a_variable_that_is_no_preference_is_not_ignored() -> None:
    mine = Preferences(environ={"PILOTAGE_SOUNDIR": "x"}, file=None)
    with pytest.raises(InvalidPref, match=r"environment variable PILOTAGE_SOUNDIR.*did you mean SOUNDDIR"):
        mine.get("NAME")


@pytest.mark.parametrize(
    ("name", "text", "line", "why"),
    [
        ("prefs.toml", 'NAME = "rig_a"\n\nMSGPORT = 99999\n', 3, "port"),
        ("prefs.json", '{\n  "NAME": "rig_a",\n  "MSGPORT": "many"\n}', 3, "whole number"),
        ("prefs.toml", 'NAME = "rig_a"\nMSG_PORT = 6000\n', 2, "did you mean MSGPORT"),
        ("prefs.json", '{"NAMES": "rig_a"}', 1, "did you mean NAME"),
        ("prefs.toml", "\n[network]\nMSGPORT = 1\n", 2, "there are NAME"),
    ],
)
def test_a_bad_line_of_a_file_is_named(tmp_path: Path, name: str, text: str, line: int, why: str) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(InvalidPref, match=rf"{re.escape(str(path))}, line {line}\).*{why}"):
        Preferences(environ={}, file=path).get("NAME")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("prefs.json", b"{", "broken"),
        ("prefs.json", b"[]", "one object"),
        ("prefs.json", b'{"NAME": "a", "NAME": "b"}', "NAME stands there twice"),
        ("prefs.json", b"[" * 100_000, "broken|recursion"),
        ("prefs.toml", b"NAME = ", "broken"),
        ("prefs.toml", b"\xff\xfe", "can't be read"),
        ("absent.toml", None, "can't be read"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes | None, why: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    mine = Preferences(environ={}, file=None)
    with pytest.raises(InvalidPref, match=rf"{re.escape(str(path))}.*{why}"):
        mine.load(path)
    assert mine.get("NAME") is None


def test_a_file_of_the_original_loads_and_shows_what_it_holds_in_vain(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = {
        "AGENT": "PILOT",
        "AUDIOSERVER": "jack",
        "NAME": "rig_1",
        "PUSHPORT": "5560",
        "CHILDID": "cam",
        "PARENTPORT": "5570",
        "LINEAGE": "",
        "DRAWFPS": "20",
        "SOUNDDIR": "~/autopilot/sounds",
        "LOGLEVEL": {"type": "choice", "text": "Log level", "value": "INFO"},
    }
    mine = Preferences(environ={}, file=write(tmp_path / "prefs.json", json.dumps(old)))
    snapshot = mine.snapshot()
    assert (snapshot.name, snapshot.pushport, snapshot.childid) == ("rig_1", 5560, ("cam",))
    assert (snapshot.parentport, snapshot.lineage, snapshot.drawfps) == (5570, Lineage.NONE, 20.0)
    assert (snapshot.sounddir, snapshot.loglevel) == (Path.home() / "autopilot" / "sounds", LogLevel.INFO)
    assert mine.unused() == ("AGENT", "AUDIOSERVER")
    assert "no use for AGENT, AUDIOSERVER" in caplog.text
    assert not ORIGINAL_ONLY & set(KEYS)


@pytest.mark.parametrize("ending", [".toml", ".json"])
def test_what_is_saved_loads_again(tmp_path: Path, ending: str) -> None:
    mine = Preferences(environ={"PILOTAGE_CHILDID": 'a "b",c'}, file=None)
    for key, value in {"NAME": "größe \\ 🐁"[:5], "DRAWFPS": 12.5, "LINEAGE": "PARENT"}.items():
        mine.set(key, value)
    mine.set("DATADIR", tmp_path / "with space")
    mine.set("PARENTID", None)
    path = tmp_path / "new" / f"prefs{ending}"
    mine.save(path)
    again = Preferences(environ={}, file=path)
    assert again.snapshot() == mine.snapshot()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    stored = tomllib.loads(path.read_text()) if ending == ".toml" else json.loads(path.read_text())
    assert set(stored) == {"NAME", "CHILDID", "DRAWFPS", "LINEAGE", "DATADIR", "PARENTID"}


@given(st.text(min_size=1, max_size=40))
def test_any_name_that_is_taken_survives_a_file(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    mine = Preferences(environ={}, file=None)
    try:
        mine.set("NAME", name)
    except InvalidPref:
        return
    for ending in ("toml", "json"):
        path = tmp_path_factory.getbasetemp() / f"any.{ending}"
        mine.save(path)
        assert Preferences(environ={}, file=path).get("NAME") == mine.get("NAME")


def test_a_failed_save_leaves_the_old_file_and_no_crumbs(tmp_path: Path, bare: Preferences) -> None:
    taken = tmp_path / "prefs.toml"
    taken.mkdir()
    with pytest.raises(InvalidPref, match="can't be written"):
        bare.save(taken)
    with pytest.raises(InvalidPref, match=r"must end in \.toml or \.json"):
        bare.save(tmp_path / "prefs.ini")
    assert [entry.name for entry in tmp_path.iterdir()] == ["prefs.toml"]


def test_the_users_file_is_found_where_the_platform_keeps_it(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "APPDATA": str(tmp_path / "roaming")}
    assert find_folder(environ, "linux") == tmp_path / "pilotage"
    assert find_folder({}, "linux") == Path.home() / ".config" / "pilotage"
    assert find_folder(environ, "win32") == tmp_path / "roaming" / "pilotage"
    assert find_folder(environ, "darwin").parts[-3:] == ("Library", "Application Support", "pilotage")


@pytest.mark.only_on("linux")
def test_one_file_is_read_and_two_are_refused(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert find_file(environ) is None
    (tmp_path / "pilotage").mkdir()
    path = write(tmp_path / "pilotage" / "prefs.json", '{"NAME": "rig_a"}')
    assert Preferences(environ=environ).get("NAME") == "rig_a"
    write(tmp_path / "pilotage" / "prefs.toml", "")
    with pytest.raises(InvalidPref, match=re.escape(f"and {path} both exist")):
        find_file(environ)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    mine = Preferences(environ={"PILOTAGE_PREFS": str(path)})
    with pytest.raises(InvalidPref, match=f"PILOTAGE_PREFS names {re.escape(str(path))}"):
        mine.get("NAME")
    write(path, 'NAME = "rig_b"')
    assert mine.get("NAME") == "rig_b"


def test_the_terminals_port_follows_pushport_until_it_has_one_of_its_own(bare: Preferences) -> None:
    bare.set("PUSHPORT", 7000)
    assert bare.snapshot().terminal_listen_port == 7000
    bare.set("TERMINALPORT", 7001)
    assert bare.snapshot().terminal_listen_port == 7001
    bare.set("TERMINALPORT", 0)
    assert bare.snapshot().terminal_listen_port == 0


def test_whom_a_pilot_pushes_to(bare: Preferences) -> None:
    bare.set("LINEAGE", "CHILD")
    with pytest.raises(InvalidPref, match=r"PARENTID is not set.*PILOTAGE_PARENTID"):
        bare.snapshot().upstream()
    bare.set("PARENTID", "rig_a")
    assert bare.snapshot().upstream() == ("rig_a", "127.0.0.1", 5565)
    bare.set("LINEAGE", "PARENT")
    bare.set("PUSHPORT", 0)
    with pytest.raises(InvalidPref, match="PUSHPORT is 0"):
        bare.snapshot().upstream()


def test_what_must_be_set_is_asked_for(bare: Preferences) -> None:
    with pytest.raises(InvalidPref, match=r"NAME is not set: .*PILOTAGE_NAME, or call prefs\.set\('NAME'"):
        bare.snapshot().require("NAME")
    bare.set("NAME", "rig_a")
    assert bare.snapshot().require("NAME") == "rig_a"


def test_a_snapshot_is_frozen_and_travels(bare: Preferences) -> None:
    bare.set("CHILDID", ["cam"])
    snapshot = bare.snapshot()
    bare.set("CHILDID", [])
    assert snapshot.childid == ("cam",)
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot
    with pytest.raises(AttributeError):
        snapshot.msgport = 1  # type: ignore[misc]
    assert Preferences(environ={}, file=None).snapshot() == Prefs()


def test_a_list_is_handed_out_as_a_copy(bare: Preferences) -> None:
    bare.set("CHILDID", ["cam"])
    bare.get("CHILDID").append("other")
    assert bare.get("CHILDID") == ["cam"]


def test_describe_tells_every_key(bare: Preferences) -> None:
    infos = bare.describe()
    assert [info.key for info in infos] == list(KEYS)
    assert all(info.type and info.meaning.endswith(".") and info.value == info.default for info in infos)
    assert find_key("MSGPORT").attribute == "msgport"


def test_threads_see_whole_values(bare: Preferences) -> None:
    start, seen = threading.Barrier(5), []

    def change(port: int) -> None:
        start.wait()
        for _ in range(200):
            bare.set("MSGPORT", port)
            seen.append(bare.snapshot().msgport)

    threads = [threading.Thread(target=change, args=(port,)) for port in range(6000, 6004)]
    for thread in threads:
        thread.start()
    start.wait()
    for thread in threads:
        thread.join()
    assert len(seen) == 800
    assert set(seen) <= set(range(6000, 6004))


def test_the_shared_prefs_read_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTAGE_MSGPORT", "6100")
    assert prefs.get("MSGPORT") == 6100


def test_importing_is_cheap() -> None:
    script = "import sys, pilotage.net.pref_keys, pilotage.net.prefs; print(*sys.modules)"
    environ = {**os.environ, "PILOTAGE_PREFS": str(PurePath("no", "such", "file"))}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environ
    )
    assert not {"pydantic", "rich", "typer", "zarr", "blosc2"} & set(done.stdout.split())


def test_the_reference_lists_each_key(root: Path) -> None:
    page = (root / "docs" / "reference" / "prefs.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    told = {name: (kind, default.strip("`"), meaning) for name, kind, default, meaning in rows}
    expected = {
        key.name: (key.kind, "none" if key.default in {None, ()} else str(key.default), key.meaning)
        for key in KEYS.values()
    }
    assert told == expected
