"""The demo as a user runs it, and its check on copies of its folder in which one thing was changed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pilotage.agents.tasks.recordings import video_clip
from pilotage.app.demo.check import check
from pilotage.app.demo.layout import load_plan
from pilotage.app.demo.sounds import write_sounds

pytestmark = pytest.mark.timeout(180)
DEADLINE_S = 120.0


def demo(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pilotage", "demo", *map(str, arguments)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@dataclass
class Run:
    folder: Path
    done: subprocess.CompletedProcess[str]
    told: dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One demo with a smaller video, as JSON."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    done = demo("--folder", folder, "--video", video_clip("carphone_pristine.mp4"), "--seconds", 6, "--json")
    return Run(folder, done, json.loads(done.stdout) if done.stdout else {})


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Iterator[Path]:
    """A copy of the demo's folder, to be changed."""
    place = tmp_path / "copy"
    shutil.copytree(run.folder, place)
    yield place
    shutil.rmtree(place)


def test_it_ends_well_and_says_so(run: Run) -> None:
    assert run.done.returncode == 0, run.done.stderr
    assert run.done.stderr == ""
    assert run.told["complete"] and run.told["faults"] == []
    assert run.told["folder"] == str(run.folder)


def test_its_table_is_whole(run: Run) -> None:
    rows = {(row["pilot"], row["what"]): row for row in run.told["rows"]}
    wanted = {
        ("rig_a", "sounds"): "terminal",
        ("rig_a", "trials"): "rig_a",
        ("rig_a", "trial messages"): "rig_a",
        ("rig_a", "camera"): "cam",
        ("rig_a", "camera.frame_index"): "cam",
        ("rig_b", "ecg"): "rig_b",
        ("rig_b", "ecg.sample_index"): "rig_b",
    }
    assert {key: row["agent"] for key, row in rows.items()} == wanted
    for row in rows.values():
        assert row["sent"] == row["stored"] > 0 and row["missing"] == 0
        assert (run.folder / row["place"]).exists()
    for key in (("rig_a", "trial messages"), ("rig_a", "camera"), ("rig_b", "ecg")):
        assert 0 < rows[key]["latency_p50_s"] <= rows[key]["latency_p99_s"]
        assert rows[key]["resent"] is not None
    # The whole clip was sent: it is shorter than the run.
    assert rows["rig_a", "camera"]["sent"] == 120


def test_the_stopped_task_counts_on(run: Run) -> None:
    plan = load_plan(run.folder)
    lines = [json.loads(line) for line in (run.folder / plan.records["rig_a"]).read_text().splitlines()]
    starts = [line for line in lines if line["what"] == "start"]
    assert len(starts) == 2
    before_the_second = lines[: lines.index(starts[1])]
    numbers = [line["trial_num"] for line in before_the_second if line["what"] == "trial"]
    assert starts[1]["current_trial"] == max(numbers) + 1


def test_the_changed_parameter_is_kept_and_used(run: Run) -> None:
    database = run.folder / load_plan(run.folder).session / "session.sqlite"
    with sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True) as connection:
        kept = connection.execute(
            "SELECT value FROM parameters WHERE name='reward_ms' AND source='PARAM'"
        ).fetchall()
    connection.close()
    assert [json.loads(text) for (text,) in kept] == [35.0]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_table_fits_its_width(run: Run, columns: int) -> None:
    done = demo("--check", run.folder, COLUMNS=str(columns))
    assert done.returncode == 0, done.stderr
    assert "COMPLETE" in done.stdout
    table = done.stdout.split("compared:", maxsplit=1)[0]
    for row in run.told["rows"]:
        lines = [line for line in table.replace(":", " ").splitlines() if f" {row['what']} " in line]
        assert len(lines) == 1 and str(row["stored"]) in lines[0]
    if columns >= 80:
        assert max(map(len, table.splitlines())) <= columns


def test_it_takes_recordings_of_ones_own(tmp_path: Path) -> None:
    """A signal shorter than the run, whose last samples fill no item; sounds from a folder."""
    signal_file = tmp_path / "two columns.csv"
    signal_file.write_text("t,v\n" + "".join(f"{n / 100},{n * 0.1}\n" for n in range(333)))
    sides = write_sounds(tmp_path / "made")
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for number, path in enumerate(sides["L"]):
        shutil.copyfile(tmp_path / "made" / path, sounds / f"{number}.wav")
    own = (
        "--signal",
        signal_file,
        "--column",
        "v",
        "--sounds",
        sounds,
        "--video",
        video_clip("carphone_pristine.mp4"),
    )
    done = demo(*own, "--folder", tmp_path / "run", "--seconds", 6, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    stored = {row["what"]: row["stored"] for row in json.loads(done.stdout)["rows"]}
    assert (stored["ecg"], stored["ecg_tail"], stored["sounds"]) == (33, 3, 3)


# What is changed is found, and named


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def change_chunk(folder: Path) -> None:
    chunks = [
        path for path in (folder / load_plan(folder).session).rglob("*camera/data/c/**/*") if path.is_file()
    ]
    flip(max(chunks, key=lambda path: path.stat().st_size), 100_000)


def execute(statement: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        connection = sqlite3.connect(folder / load_plan(folder).session / "session.sqlite")
        with connection:
            assert connection.execute(statement).rowcount > 0
        connection.close()

    return change


def change_record(folder: Path) -> None:
    record = folder / load_plan(folder).records["rig_a"]
    text = record.read_text()
    assert '"correct": true' in text
    record.write_text(text.replace('"correct": true', '"correct": false', 1))


def cut_record(folder: Path) -> None:
    record = folder / load_plan(folder).records["rig_b"]
    lines = record.read_text().splitlines()
    record.write_text("\n".join(line for line in lines if '"what": "end"' not in line))


def change_sound(folder: Path) -> None:
    flip(next((folder / "rig_a" / "sounds").rglob("*.wav")), 2000)


def drop_sound(folder: Path) -> None:
    next((folder / "rig_a" / "sounds").rglob("*.wav")).unlink()


def change_signal(folder: Path) -> None:
    source = next((folder / "rig_b" / "sounds").glob("*.csv"))
    lines = source.read_text().splitlines()
    lines[20] = str(float(lines[20]) + 1)
    source.write_text("\n".join(lines))


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a bit of a frame": (change_chunk, "rig_a camera: item "),
    "a sample's bytes": (
        execute("UPDATE stream_tail SET data = zeroblob(length(data)) WHERE stream = "
                "(SELECT id FROM streams WHERE name = 'ecg')"),
        "rig_b ecg: item 0 ",
    ),
    "a timestamp": (
        execute("UPDATE stream_tail SET timestamps = zeroblob(length(timestamps)) WHERE stream = "
                "(SELECT id FROM streams WHERE name = 'ecg')"),
        "timestamp 'ecg' of pilot 'rig_b'",
    ),
    "a message of a trial": (
        execute("DELETE FROM data_messages WHERE id = (SELECT max(id) FROM data_messages)"),
        "rig_a trial messages: a message of trial ",
    ),
    "a trial's row": (execute("DELETE FROM trial_rows WHERE trial_num = 1"), "rig_a trials: trial 1 was run"),
    "a trial's cell": (
        execute("UPDATE trial_rows SET columns = json_set(columns, '$.reward_ms', 99.0) WHERE trial_num = 1"),
        "rig_a trials: trial 1: reward_ms differs",
    ),
    "the pilot's record": (change_record, "rig_a trial messages: a message of trial "),
    "the end of a record": (cut_record, "rig_b's own record and its account to the Terminal differ"),
    "a sound": (change_sound, "differs from the Terminal's"),
    "a sound that is not there": (drop_sound, "was not fetched"),
    "the source of a signal": (change_signal, "rig_b ecg: item 2 (number 20) differs from its source"),
    "the certificate": (execute("DELETE FROM provenance WHERE key = 'certificate'"), "has no certificate"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_changed_is_named(what: str, copy: Path) -> None:
    change, text = CHANGES[what]
    assert check(copy).complete
    change(copy)
    report = check(copy)
    assert not report.complete
    assert text in "\n".join(report.all_faults())


def test_a_fault_is_shown_and_fails_the_command(copy: Path) -> None:
    change_chunk(copy)
    done = demo("--check", copy)
    assert done.returncode == 1
    assert "NOT RIGHT: rig_a camera: item " in done.stdout and "INCOMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--video", "missing.mp4"), 2, "missing.mp4 is no file"),
        (("--sounds", "missing"), 2, "two WAV files"),
        (("--seconds", "1"), 2, "--seconds"),
        (("--check", "missing"), 4, "holds no demo"),
        (("--folder", "."), 2, "isn't an empty folder"),
    ],
)
def test_what_cannot_be_run_is_one_line(arguments: tuple[str, ...], code: int, text: str) -> None:
    done = demo(*arguments)
    assert done.returncode == code, done.stderr
    assert text in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.only_on("linux", "darwin")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_it(number: signal.Signals, tmp_path: Path) -> None:
    import psutil

    command = [sys.executable, "-m", "pilotage", "demo", "--folder", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "replays" in line:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 8
    process.send_signal(number)
    _, errors = process.communicate(timeout=DEADLINE_S)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert (process.returncode, errors) == (130, "pilotage: interrupted\n")
    _, alive = psutil.wait_procs(children, timeout=5 if number == signal.SIGKILL else 0.5)
    assert alive == []
