"""kill -9 while a session is written.

Nothing confirmed is missing, nothing is there twice, nothing is invented.
"""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pilotage.protocol.ledger import Ledger
from pilotage.services.store import SessionReader, SessionStore, StreamItems, TrialData
from pilotage.services.store.entries import Entry

SCRIPT = Path(__file__).with_name("crash_writer.py")
_spec = importlib.util.spec_from_file_location("crash_writer", SCRIPT)
assert _spec and _spec.loader
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)

KILLS = 25


def run_until_killed(folder: Path, starts: list[int], moment_s: float) -> list[list[str]]:
    command = [sys.executable, str(SCRIPT), str(folder), *map(str, starts)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        killer = threading.Timer(moment_s, process.kill)
        killer.start()
        lines = [line.split(" ", 2) for line in process.stdout if line.endswith("\n")]
    assert process.returncode == -9, "the writer ended by itself"
    return lines


def note_confirmed(lines: list[list[str]], starts: list[int]) -> None:
    for flow, seq, outcome in lines:
        assert outcome == "ok\n", outcome
        assert int(seq) == starts[int(flow)], "confirmed out of the order of submission"
        starts[int(flow)] += 1


def check_stored(folder: Path, confirmed: list[int]) -> list[int]:
    """Compare everything with its source; give how many messages of each flow are stored."""
    with SessionReader(folder) as reader:
        messages, trials = reader.messages("rig"), reader.trials()
        names = {stream.name for stream in reader.streams()}
        stored = [len(messages), 0, 0]
        assert messages.trial_num.tolist() == [seq // 2 for seq in range(len(messages))]
        assert trials.trial_num.tolist() == list(range((len(messages) + 1) // 2))
        assert trials.complete.sum() == len(messages) // 2
        for flow, name, source, each in (
            (writer.NUMBERS, "numbers", writer.number_items, writer.NUMBERS_EACH),
            (writer.FRAMES, "frames", writer.frame_items, writer.FRAMES_EACH),
        ):
            if name in names:
                stream = reader.stream("rig", name)
                stamps, data = source(0, len(stream))
                assert np.array_equal(stream.timestamp.values, stamps)
                assert np.array_equal(stream.values, data)
                assert stream.dtype == data.dtype
                assert len(stream) % each == 0
                stored[flow] = len(stream) // each
    assert all(have >= told for have, told in zip(stored, confirmed, strict=True))
    return stored


def check_zarr_alone(folder: Path) -> int:
    frames = 0
    for name, source in (("numbers", writer.number_items), ("frames", writer.frame_items)):
        if (folder / "streams.zarr" / "rig" / name).exists():
            with xr.open_zarr(folder / "streams.zarr", group=f"rig/{name}") as plain:
                stamps, data = source(0, plain.sizes["timestamp"])
                assert np.array_equal(plain.timestamp.values, stamps)
                assert np.array_equal(plain.data.values, data)
                frames = len(data)
    return frames


def add_to(ledger: Ledger, item: Entry) -> None:
    if isinstance(item, TrialData):
        ledger.add(item.pilot, "trials", [item.subject, item.trial_num, item.values])
    else:
        assert isinstance(item, StreamItems)
        ledger.add_items(item.pilot, item.stream, item.timestamps, item.data)


@pytest.mark.timeout(120)
def test_kill_at_random_moments(tmp_path: Path) -> None:
    moments = random.Random(20260)
    SessionStore.create(tmp_path, "s", {}, writer.CONFIG).close()
    folder = tmp_path / "s"
    confirmed = [0, 0, 0]
    kept_unconfirmed = 0
    for _ in range(KILLS):
        note_confirmed(run_until_killed(folder, confirmed, moments.uniform(0.0, 0.35)), confirmed)
        before = check_stored(folder, confirmed)
        with SessionStore.open(folder, writer.CONFIG) as store:
            seen = store.seen()
        assert [seen[writer.BOOT, flow].high + 1 for flow in range(3) if before[flow]] == [
            n for n in before if n
        ]
        assert check_stored(folder, confirmed) == before, "recovery changed what was committed"
        check_zarr_alone(folder)
        kept_unconfirmed += sum(before) - sum(confirmed)
    assert min(confirmed) > 100, "too little was written to mean anything"
    assert kept_unconfirmed > 0, (
        "no kill fell between a commit and its confirmation: duplicates were never tried"
    )
    assert check_zarr_alone(folder) > 0, "no chunk was ever filled"
    with SessionReader(folder) as reader:
        marks = reader.ledger()
    ours = Ledger()
    for flow, count in enumerate(check_stored(folder, confirmed)):
        for seq in range(count):
            add_to(ours, writer.entry(flow, seq))
    assert ours.marks() == marks
