"""`pilotage audit` after operators and strangers have had their say at a real Terminal and pilot."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from pilotage import Net_Node
from tests.cli.conftest import Lab
from tests.cli.processes import run_cli
from tests.conftest import wait_eventually

OK, FAILED, USAGE, NO_ANSWER, MACHINE = range(5)
REPLAY = ("-p", "path=ramp.csv", "-p", "sampling_rate_hz=200", "-p", "name=ramp")


def audited(lab: Lab, *arguments: object) -> tuple[int, dict[str, Any]]:
    done = run_cli("audit", *arguments, "--last", 0, "--json", prefs=lab.prefs)
    return done.returncode, json.loads(done.stdout)


def told(lab: Lab) -> list[tuple[str, str, str, str]]:
    entries = audited(lab)[1]["entries"]
    return [(one["name"], one["verb"], one["target"], one["outcome"].split(":")[0]) for one in entries]


def test_who_did_what_is_kept_and_a_change_is_named(lab: Lab) -> None:
    for command in (
        ("start", "rig_b", "replay", *REPLAY, "--session", "s1"),
        ("set", "rig_b", "nothing=1"),
        ("stop", "rig_b"),
        ("start", "nobody", "replay"),
        ("end", "s1"),
    ):
        run_cli(*command, prefs=lab.prefs)
    code, account = audited(lab)
    assert code == OK and account["chain"]["whole"] and account["chain"]["anchors"] == 1
    deeds = [(verb, target, outcome) for _, verb, target, outcome in told(lab)]
    wanted = [
        ("START", "rig_b", "asked"), ("START", "rig_b", "done"), ("CHANGE", "rig_b", "asked"),
        ("CHANGE", "rig_b", "failed"),
        ("STOP", "rig_b", "asked"), ("STOP", "rig_b", "done"), ("START", "nobody", "refused"), ("END", "", "asked"),
        ("END", "", "done"),
    ]  # fmt: skip
    assert [deed for deed in deeds if deed[0] != "FILE"] == wanted
    assert all(name.startswith("cli_") for name, verb, *_ in told(lab) if verb != "FILE")
    started = account["entries"][0]
    assert started["detail"]["params"]["path"] == "ramp.csv" and started["session"] == "s1"
    of_session = audited(lab, "s1")[1]["entries"]
    assert {one["session"] for one in of_session} == {"s1"} and len(of_session) < len(account["entries"])

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

    shown = run_cli("audit", prefs=lab.prefs)
    assert (
        shown.returncode == OK
        and "mallory" in shown.stdout
        and "whole, compared with 1 ended" in shown.stdout
    )
    unknown = run_cli("audit", "no_such_session", prefs=lab.prefs)
    assert unknown.returncode == USAGE and "knows no session" in unknown.stderr

    with sqlite3.connect(lab.folder / "T" / "data" / "audit.sqlite") as connection:
        connection.execute("DROP TRIGGER audit_no_change")
        connection.execute(
            "UPDATE audit SET content = replace(content, 'mallory', 'somebody') WHERE number > 3"
        )
    connection.close()
    first = next(one["number"] for one in audited(lab)[1]["entries"] if one["name"] == "somebody")
    code, account = audited(lab)
    assert code == FAILED and account["chain"]["broken_at"] == first
    shown = run_cli("audit", prefs=lab.prefs)
    assert shown.returncode == FAILED and f"BROKEN at entry {first}: its content isn't" in shown.stdout


def test_without_a_log_it_says_where_one_is_to_be_found(lab: Lab, tmp_path: Any) -> None:
    done = run_cli("audit", prefs=lab.prefs, PILOTAGE_DATADIR=str(tmp_path))
    assert done.returncode == MACHINE and "there is no audit log" in done.stderr
