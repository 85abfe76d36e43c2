"""`pilotage audit` after operators and strangers have had their say at a real Terminal and pilot."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from pilotage import Net_Node
from pilotage.app.audit import read_audit
from tests.cli.conftest import Lab
from tests.cli.processes import run_cli
from tests.conftest import wait_eventually

OK, FAILED, USAGE, NO_ANSWER, MACHINE = range(5)
REPLAY = ("-p", "path=ramp.csv", "-p", "sampling_rate_hz=200", "-p", "name=ramp")
WANTED = [
    ("START", "rig_b", "asked"), ("START", "rig_b", "done"), ("CHANGE", "rig_b", "asked"),
    ("CHANGE", "rig_b", "failed"), ("STOP", "rig_b", "asked"), ("STOP", "rig_b", "done"),
    ("START", "nobody", "refused"), ("END", "", "asked"), ("END", "", "done"),
]  # fmt: skip


def data_of(lab: Lab) -> Path:
    return lab.folder / "T" / "data"


def told(lab: Lab, session: str = "") -> list[tuple[str, str, str, str]]:
    entries = [link.fields for link in read_audit(data_of(lab), session).entries]
    return [(one["name"], one["verb"], one["target"], one["outcome"].split(":")[0]) for one in entries]


def test_who_did_what_is_kept(lab: Lab) -> None:
    for command in (
        ("start", "rig_b", "replay", *REPLAY, "--session", "s1"),
        ("set", "rig_b", "nothing=1"),
        ("stop", "rig_b"),
        ("start", "nobody", "replay"),
        ("end", "s1"),
    ):
        run_cli(*command, prefs=lab.prefs)
    wait_eventually(lambda: told(lab)[-1][1:] == WANTED[-1])
    deeds = [deed for deed in told(lab) if deed[1] != "FILE"]
    assert [deed[1:] for deed in deeds] == WANTED
    assert all(name.startswith("cli_") for name, *_ in deeds)
    done = run_cli("audit", "s1", "--json", prefs=lab.prefs)
    account: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == OK and account["chain"]["whole"] and account["chain"]["anchors"] == 1
    assert {one["session"] for one in account["entries"]} == {"s1"}
    assert account["entries"][0]["detail"]["params"]["path"] == "ramp.csv"
    unknown = run_cli("audit", "no_such_session", prefs=lab.prefs)
    assert unknown.returncode == USAGE and "knows no session" in unknown.stderr


def test_what_strangers_try_is_kept_and_a_change_of_it_is_named(lab: Lab) -> None:
    port = json.loads(lab.prefs.read_text())["PUSHPORT"]
    with Net_Node("mallory", "T", port, {}) as mallory:
        mallory.wait_connected(10)
        for to, key, value in (
            ("T", "KILL", None), ("T", "STOPALL", None), ("T", "FILE", "../../etc/passwd"), ("rig_b", "KILL", None),
            ("rig_b", "STOP", None), ("T", "WATCH", None),
        ):  # fmt: skip
            mallory.send(to, key, value).wait_settled(10)
    by_mallory = {
        ("mallory", "KILL", "", "refused"), ("mallory", "STOPALL", "", "obeyed"), ("mallory", "WATCH", "", "refused"),
        ("mallory", "FILE", "../../etc/passwd", "refused"), ("mallory", "KILL", "rig_b", "refused"),
        ("mallory", "STOP", "rig_b", "obeyed"),
    }  # fmt: skip
    wait_eventually(lambda: by_mallory <= set(told(lab)), timeout_s=20)
    shown = run_cli("audit", "--last", 0, prefs=lab.prefs)
    assert shown.returncode == OK and "mallory" in shown.stdout and "whole" in shown.stdout

    with sqlite3.connect(data_of(lab) / "audit.sqlite") as connection:
        connection.execute("DROP TRIGGER audit_no_change")
        connection.execute("UPDATE audit SET content = replace(content, 'mallory', 'somebody')")
    connection.close()
    account = read_audit(data_of(lab))
    first = next(link.number for link in account.entries if link.fields["name"] == "somebody")
    assert account.verdict.broken_at == first
    shown = run_cli("audit", prefs=lab.prefs)
    assert shown.returncode == FAILED and f"BROKEN at entry {first}: its content isn't" in shown.stdout


def test_without_a_log_it_says_where_one_is_to_be_found(lab: Lab, tmp_path: Path) -> None:
    done = run_cli("audit", prefs=lab.prefs, PILOTAGE_DATADIR=str(tmp_path))
    assert done.returncode == MACHINE and "there is no audit log" in done.stderr
