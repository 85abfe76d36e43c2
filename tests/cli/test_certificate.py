"""`pilotage status SESSION` prints the certificate, and its exit code says whether it is complete."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from pilotage.cli.exits import Exit
from pilotage.protocol.coverage import Claim, Holding, judge
from pilotage.protocol.ledger import Kind, LedgerKey, Mark
from pilotage.services.store import Provenance, SessionStore
from tests.cli.processes import run_cli

ROWS = LedgerKey("rig", Kind.TABLE, "trials", "rig")
ITEMS = LedgerKey("rig", Kind.STREAM, "ecg", "cam/0123456789abcdef")


def certificate(**known: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = {"differences": [], "unheard": [], "unjudged": [], "accounts": {}}
    return {"session": "s", "complete": False, **nothing, **known}


def some_lines() -> list[dict[str, Any]]:
    claims = [
        Claim(ROWS, Mark(30, "aa"), ((0, 29),)),
        Claim(ITEMS, Mark(812, "aa"), ((0, 811),), is_exact=False),
    ]
    lines = judge(
        claims,
        [Holding(ROWS, Mark(28, "bb"), ((0, 16), (19, 29))), Holding(ITEMS, Mark(820, ""), ((0, 819),))],
    )
    lines[1].fetched = ((3, 4),)
    return [line.as_plain() for line in lines]


def keep(folder: Path, content: dict[str, Any] | None) -> Path:
    kept = threading.Event()
    with SessionStore.create(folder, "s", {}) as store:
        if content is not None:
            store.submit(Provenance("certificate", content), lambda error: kept.set())
            assert kept.wait(20)
    return folder / "s"


INCOMPLETE = certificate(
    lines=some_lines(),
    differences=["rows 17–18 of trials of rig are missing"],
    fetched=["rows 3–4 of trials of rig were missing, and fetched from rig"],
    unjudged=["stream ecg of rig from cam: 820 stored, not judged: it ended without a word"],
    unheard=["old"],
    accounts={"old": {"error": "nobody answers"}},
)
BEFORE = certificate(
    differences=["table 'trials' of pilot 'rig': 2 missing"], unheard=["rig"], unjudged=[["rig", "stream", "ecg"]],
    stored=[["rig", "table", "trials", 28]], accounts={},
)  # fmt: skip


@pytest.mark.parametrize(
    ("content", "code", "texts"),
    [
        (
            INCOMPLETE,
            Exit.FAILED,
            [
                "rig trials 30 28 2 2 unknown missing",
                "rig ecg (cam) 812 or more 820 0 0 unknown unjudged",
                "fetched: rows 3–4 of trials of rig were missing",
                "not complete: rows 17–18 of trials of rig are missing",
                "not complete: no account from old: nobody answers",
                "not complete: stream ecg of rig from cam: 820 stored, not judged",
                "certificate: INCOMPLETE",
            ],
        ),
        (certificate(complete=True, lines=[]), Exit.OK, ["certificate: complete; both sides hold the same"]),
        (
            BEFORE,
            Exit.FAILED,
            ["not complete: table 'trials'", "no account from rig", "certificate: INCOMPLETE"],
        ),
        (None, Exit.OK, ["no certificate: the session has not been ended"]),
    ],
    ids=["incomplete", "complete", "of the version before", "none"],
)
def test_the_certificate_is_printed(
    content: dict[str, Any] | None, code: Exit, texts: list[str], tmp_path: Path
) -> None:
    folder = keep(tmp_path, content)
    done = run_cli("status", folder, COLUMNS="100", PYTHONUTF8="1")
    assert done.returncode == code, done.stderr
    printed = " ".join(done.stdout.split())
    for text in texts:
        assert text in printed, done.stdout
    as_json = run_cli("status", folder, "--json", PYTHONUTF8="1")
    assert as_json.returncode == code and json.loads(as_json.stdout)["certificate"] == content
