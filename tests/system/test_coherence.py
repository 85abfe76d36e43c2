"""The certificate of a session: complete, or exactly what is missing; and what is missing is fetched (promise D7)."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pilotage.agents.account import values_of
from pilotage.agents.pilot import Pilot
from pilotage.agents.terminal import Terminal
from pilotage.app.archive import FolderArchives
from pilotage.net.node import Net_Node
from pilotage.protocol.canonical import canonical
from pilotage.services.store import SessionReader
from tests.conftest import Eventually
from tests.system.lab import settings
from tests.system.sending import Sends, row_values

pytestmark = pytest.mark.timeout(120)
ROWS, ITEMS = 30, 40


@dataclass
class Lab:
    folder: Path
    terminal: Terminal
    place: Path = Path()

    def run(self, rows: int = ROWS, items: int = ITEMS, **params: Any) -> str:
        """Run the task in session "s" until all is stored; give the session's name."""
        asked = {"rows": rows, "items": items, **params}
        started = self.terminal.start("rig", "sends", asked, subject="m", session="s")
        self.place = Path(started["place"])
        return str(started["session"])

    def execute(self, statement: str, *arguments: object) -> list[Any]:
        """Change or read the open session behind the Terminal's back."""
        with (
            contextlib.closing(sqlite3.connect(self.place / "session.sqlite", timeout=10)) as connection,
            connection,
        ):
            return connection.execute(statement, arguments).fetchall()

    def count(self, table: str = "data_messages") -> int:
        return int(self.execute(f"SELECT count(*) FROM {table}")[0][0])

    def items(self) -> int:
        return int(self.execute("SELECT coalesce(sum(length), 0) FROM streams WHERE name = 'count'")[0][0])

    def lives_noted(self) -> int:
        """Count the lives that have written down where their streams are."""
        place = self.record().with_suffix(".streams.json")
        return sum(bool(life["streams"]) for life in json.loads(place.read_text()).values())

    def record(self) -> Path:
        return self.folder / "rig" / "data" / "records" / "rig" / "s.jsonl"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setattr("pilotage.agents.pilot.find_task", lambda task: Sends)
    archives = FolderArchives(tmp_path / "t" / "data")
    with Terminal(archives, settings(tmp_path / "t", PUSHPORT=0)) as terminal:
        yield Lab(tmp_path, terminal)


@contextlib.contextmanager
def a_pilot(lab: Lab) -> Iterator[Pilot]:
    known = settings(lab.folder / "rig", NAME="rig", PUSHPORT=lab.terminal.port, MSGPORT=0)
    with Pilot(known) as pilot:
        lab.terminal.roster.wait_state("rig", ["IDLE", "INTERRUPTED"], 15)
        yield pilot


@pytest.fixture
def pilot(lab: Lab) -> Iterator[Pilot]:
    with a_pilot(lab) as pilot:
        yield pilot


def run_whole(lab: Lab, eventually: Eventually) -> None:
    """Run the task to its end, everything stored."""
    lab.run()
    eventually(lambda: lab.count() == ROWS and lab.items() == ITEMS, timeout_s=30)
    lab.terminal.stop("rig")


def line(certificate: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in certificate["lines"] if one["name"] == name]
    return dict(found)


def test_what_arrived_whole_is_certified(lab: Lab, pilot: Pilot, eventually: Eventually) -> None:
    run_whole(lab, eventually)
    certificate = lab.terminal.end_session()
    assert certificate["complete"], certificate
    assert {one["name"] for one in certificate["lines"]} == {"trials", "count", "count.index"}
    for one in certificate["lines"]:
        assert one["sent"] == one["stored"] == (ROWS if one["name"] == "trials" else ITEMS)
        assert (one["verdict"], one["digest"], one["missing"], one["is_exact"]) == (
            "complete",
            "equal",
            [],
            True,
        )
    with SessionReader(lab.place) as reader:
        assert reader.provenance()["certificate"]["complete"]


def test_rows_that_the_store_lost_are_named_and_fetched_bit_for_bit(
    lab: Lab, pilot: Pilot, eventually: Eventually
) -> None:
    run_whole(lab, eventually)
    lab.execute("DELETE FROM data_messages WHERE row_num IN (0, 17, 18, 19)")
    lab.execute("DELETE FROM trial_rows WHERE trial_num IN (0, 17)")
    certificate = lab.terminal.end_session()
    assert certificate["complete"], certificate
    assert certificate["fetched"] == ["rows 0 and 17–19 of trials of rig were missing, and fetched from rig"]
    assert line(certificate, "trials")["fetched"] == [[0, 0], [17, 19]]
    with SessionReader(lab.place) as reader:
        table = reader.messages("rig").sort_values("row_num")
        assert table["row_num"].tolist() == list(range(ROWS))
        sent = [canonical({"trial_num": n, **row_values(n), "TRIAL_END": True}) for n in range(ROWS)]
        stored = [
            canonical({"trial_num": int(trial), **values})
            for trial, values in zip(table["trial_num"], table["values"], strict=True)
        ]
        assert stored == sent
        assert sorted(reader.trials()["trial_num"]) == list(range(ROWS))
        assert reader.trials()["occurrence"].max() == 0, "what came late began no second occurrence"


def test_rows_whose_record_is_gone_too_are_named_as_missing(
    lab: Lab, pilot: Pilot, eventually: Eventually
) -> None:
    run_whole(lab, eventually)
    lab.execute("DELETE FROM data_messages WHERE row_num BETWEEN 5 AND 7")
    lab.record().unlink()
    certificate = lab.terminal.end_session()
    assert not certificate["complete"]
    assert line(certificate, "trials")["missing"] == [[5, 7]]
    assert certificate["differences"] == [
        "rows 5–7 of trials of rig are missing: rig has no record of them any more"
    ]


def test_a_record_that_lost_some_lines_gives_the_others(
    lab: Lab, pilot: Pilot, eventually: Eventually
) -> None:
    run_whole(lab, eventually)
    lab.execute("DELETE FROM data_messages WHERE row_num BETWEEN 5 AND 9")
    lines = lab.record().read_text().splitlines()
    kept = ["{torn" if '"row_num": 6,' in text else text for text in lines]
    lab.record().write_text("\n".join(kept))
    certificate = lab.terminal.end_session()
    assert line(certificate, "trials")["missing"] == [[6, 6]]
    assert line(certificate, "trials")["fetched"] == [[5, 5], [7, 9]]
    assert certificate["differences"] == [
        "row 6 of trials of rig is missing: rig has no record of them any more"
    ]


CHANGED: dict[str, tuple[str, str]] = {
    "a value": (
        'UPDATE data_messages SET "values" = json_set("values", \'$.rt_s\', 9.0) WHERE row_num IN (3, 11)',
        "rows 3 and 11 of trials of rig: stored with other content than was sent",
    ),
    "a subject": (
        "UPDATE data_messages SET subject = 'other' WHERE row_num = 4",
        "row 4 of trials of rig: stored with other content than was sent",
    ),
    "a row too many": (
        'INSERT INTO data_messages (pilot, subject, trial_num, "values", source, row_num) '
        "VALUES ('rig', 'm', 99, '{}', 'rig', 99)",
        "row 99 of trials of rig: stored, but its sender does not know of it",
    ),
    "a stream's digest": (
        "UPDATE ledger SET pending = zeroblob(length(pending)) WHERE name = 'count' AND kind = 'stream'",
        "stream count of rig: the same count of 40, but other content or another order",
    ),
    "a timestamp's digest": (
        "UPDATE ledger SET pending = zeroblob(length(pending)) WHERE name = 'count' AND kind = 'timestamp'",
        "stream count of rig: the same count of 40, but other content or another order",
    ),
    "items of a stream": (
        "UPDATE stream_numbers SET count = 20 WHERE name = 'count'",
        "items 20–39 of stream count of rig are missing: items of streams are not kept by the pilot",
    ),
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_differs_is_named(what: str, lab: Lab, pilot: Pilot, eventually: Eventually) -> None:
    run_whole(lab, eventually)
    statement, text = CHANGED[what]
    lab.execute(statement)
    certificate = lab.terminal.end_session()
    assert not certificate["complete"]
    assert text in certificate["differences"], certificate


def start_process(lab: Lab) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "tests.system.sending",
        lab.folder / "rig",
        "rig",
        str(lab.terminal.port),
    ]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2])


def is_idle(lab: Lab, *states: str) -> Callable[[], bool]:
    def look() -> bool:
        known = lab.terminal.roster.snapshot().get("rig")
        return known is not None and known["link"] == "alive" and known["state"] in states

    return look


@pytest.mark.slow
@pytest.mark.only_on("linux", "darwin")
def test_a_pilot_that_was_killed_accounts_for_all_its_lives(lab: Lab, eventually: Eventually) -> None:
    killed = []
    for life in range(3):
        process = start_process(lab)
        eventually(is_idle(lab, "IDLE" if not life else "INTERRUPTED"), timeout_s=30)
        before, items = (lab.count(), lab.items()) if life else (0, 0)
        lab.run(rows=10_000, items=10_000, pause_s=0.003)
        eventually(lambda: lab.count() > before + 40 and lab.items() > items + 40, timeout_s=30)  # noqa: B023
        eventually(lambda: lab.lives_noted() == life + 1, timeout_s=30)  # noqa: B023
        process.kill()
        process.wait()
        killed.append(process.returncode)
        eventually(lambda: not is_idle(lab, "RUNNING")(), timeout_s=30)
    assert killed == [-9, -9, -9]
    with a_pilot(lab):
        certificate = lab.terminal.end_session("s")
    trials = line(certificate, "trials")
    assert trials["verdict"] == "complete" and trials["is_exact"], certificate
    assert trials["sent"] == trials["stored"] == lab.count()
    streams = [one for one in certificate["lines"] if one["name"] == "count"]
    assert len({one["life"] for one in streams}) == 3
    for one in streams:
        # What a killed life had in memory can't be known, and is not called complete.
        assert one["verdict"] in ("unjudged", "missing") and not one["is_exact"]
        assert one["sent"] > 0
    assert not certificate["complete"]
    assert certificate["rows_complete"]
    said = [text for text in certificate["differences"] if "not kept by the pilot" in text]
    said += [text for text in certificate["unjudged"] if "ended without a word" in text]
    assert sum("stream count of rig" in text for text in said) == 3
    with SessionReader(lab.place) as reader:
        numbers = reader.messages("rig")["row_num"]
    assert sorted(numbers) == list(range(len(numbers))), "the numbers went on from life to life"


def test_a_pilot_that_was_started_anew_accounts_for_its_earlier_life(
    lab: Lab, eventually: Eventually
) -> None:
    for begin in (0, ROWS):
        with a_pilot(lab):
            lab.run(rows=begin + ROWS)
            eventually(lambda: lab.count() == begin + ROWS, timeout_s=30)  # noqa: B023
            eventually(lambda: lab.items() == (ITEMS if not begin else 2 * ITEMS), timeout_s=30)  # noqa: B023
            lab.terminal.stop("rig")
    with a_pilot(lab):
        lab.execute("DELETE FROM data_messages WHERE row_num IN (2, 40)")
        certificate = lab.terminal.end_session("s")
    assert certificate["complete"], certificate
    assert line(certificate, "trials")["fetched"] == [[2, 2], [40, 40]]
    assert line(certificate, "trials")["sent"] == 2 * ROWS
    assert [one["sent"] for one in certificate["lines"] if one["name"] == "count"] == [ITEMS, ITEMS]


def test_an_earlier_life_whose_record_is_gone_is_not_called_complete(
    lab: Lab, eventually: Eventually
) -> None:
    with a_pilot(lab):
        run_whole(lab, eventually)
    lab.execute("DELETE FROM data_messages WHERE row_num = 3")
    lab.record().unlink()
    with a_pilot(lab):
        certificate = lab.terminal.cohere("s")
        assert line(certificate, "trials")["missing"] == [[3, 3]], "the notes of that life outlive its record"
        assert line(certificate, "count")["verdict"] == "complete"
        assert not certificate["complete"]
    shutil.rmtree(lab.record().parent)
    with a_pilot(lab):
        lab.run(rows=ROWS + 2, items=0)
        eventually(lambda: lab.count() == ROWS - 1 + 2, timeout_s=30)
        lab.terminal.stop("rig")
        certificate = lab.terminal.end_session("s")
    assert not certificate["complete"]
    assert any("no record of its life" in text for text in certificate["unjudged"]), certificate
    with SessionReader(lab.place) as reader:
        numbers = sorted(reader.messages("rig")["row_num"])
    assert numbers == [n for n in range(ROWS + 2) if n != 3], "new rows took no number that was in use"


def test_an_originals_rows_are_stored_counted_and_not_judged(
    lab: Lab, pilot: Pilot, eventually: Eventually
) -> None:
    run_whole(lab, eventually)
    with Net_Node("_old", "T", lab.terminal.port, {}) as old:
        for trial in range(3):
            value = {"pilot": "old", "subject": "m", "trial_num": trial, "row_num": 7, "session": "s"}
            old.send("T", "DATA", value).result(15)
            old.send("T", "DATA", value).result(15)
        certificate = lab.terminal.end_session()
    (unnumbered,) = [one for one in certificate["lines"] if one["pilot"] == "old"]
    assert (unnumbered["sent"], unnumbered["stored"], unnumbered["verdict"]) == (None, 6, "unjudged")
    assert any("numbers nothing" in text for text in certificate["unjudged"])
    assert (
        line({"lines": [one for one in certificate["lines"] if one["pilot"] == "rig"]}, "trials")["verdict"]
        == "complete"
    )
    with SessionReader(lab.place) as reader:
        kept = reader.messages("old")
        assert [values["row_num"] for values in kept["values"]] == [7] * 6, (
            "a column of theirs, not our number"
        )


def test_a_row_that_comes_by_two_ways_is_stored_once(lab: Lab, pilot: Pilot, eventually: Eventually) -> None:
    run_whole(lab, eventually)
    asked = {"session": "s", "pilot": "rig", "table": "trials", "ranges": [[0, ROWS - 1]]}
    answer = lab.terminal.node.send("rig", "FETCH", asked).result(30)
    assert answer["stored"] == [[0, ROWS - 1]] and answer["gone"] == answer["failed"] == []
    assert lab.count() == ROWS
    assert lab.terminal.end_session()["complete"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"ranges": [[0, 1000]]}, "at most 1000"),
        ({"table": "events"}, "no other"),
        ({"pilot": None}, "names"),
    ],
)
def test_a_fetch_that_asks_for_too_much_is_refused(
    change: dict[str, Any], text: str, lab: Lab, pilot: Pilot
) -> None:
    asked = {"session": "s", "pilot": "rig", "table": "trials", "ranges": [[0, 1]], **change}
    settlement = lab.terminal.node.send("rig", "FETCH", asked).wait_settled(15)
    assert text in str(settlement.error())


def test_a_silent_pilot_is_named(lab: Lab, eventually: Eventually) -> None:
    with a_pilot(lab):
        run_whole(lab, eventually)
    certificate = lab.terminal.end_session("s")
    assert certificate["unheard"] == ["rig"] and not certificate["complete"]
    assert certificate["differences"] == [], "nothing is too many: nobody could be asked"
    assert all(one["verdict"] == "unjudged" for one in certificate["lines"])


def test_columns_that_say_whose_a_row_is_are_no_columns() -> None:
    ours = {
        "pilot": "p",
        "subject": "s",
        "trial_num": 1,
        "session": "x",
        "row_num": 3,
        "sent_by": "p",
        "a": 1,
    }
    assert values_of(ours) == {"a": 1}
    for theirs in (
        {"row_num": 3},
        {"sent_by": "x"},
        {"row_num": 0.5, "sent_by": "x"},
        {"row_num": 1, "sent_by": 2},
    ):
        assert values_of({"pilot": "p", "a": 1, **theirs}) == {"a": 1, **theirs}
