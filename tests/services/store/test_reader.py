""".

What was stored comes back equal, while it is being written and after, with our reader and with common
tools.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from pilotage.protocol.errors import StoreError
from pilotage.services.store import SessionReader, SessionStore, State, StoreConfig, StreamItems, TrialData
from pilotage.services.store.entries import Entry, Event

DATA = {
    "bool": np.array([True, False, True] * 5),
    "uint8 frames": np.arange(15 * 6 * 4, dtype="u1").reshape(15, 6, 4),
    "float16": np.linspace(-1, 1, 15).astype("f2"),
    "float32": np.array([0.1, -0.0, np.nan, np.inf, 1e-45] * 3, dtype="f4"),
    "float64": np.frombuffer(bytes(range(120)), "f8"),
    "complex64": (np.arange(15) * (1 - 2j)).astype("c8"),
    "complex128": np.arange(30).reshape(15, 2) * (0.1 + 1j),
    "int64": np.array([-(2**63), 2**63 - 1, 0] * 5),
    "uint64": np.array([2**64 - 1, 0, 1] * 5, dtype="u8"),
    "big-endian": np.arange(15, dtype=">i4"),
    "fortran": np.asfortranarray(np.arange(60, dtype="f4").reshape(15, 4)),
    "strided": np.arange(60, dtype="i2")[::4],
    "text": np.array(["a", "bcdé", ""] * 5),
    "bytes": np.array([b"a", b"bcd", b""] * 5),
    "datetime": np.array(["2026-01-01", "NaT", "1969-05-05"] * 5, dtype="M8[ns]"),
    "timedelta": np.arange(15).astype("m8[us]"),
}


def put(store: SessionStore, *entries: Entry) -> None:
    ended = threading.Event()
    outcomes: list[StoreError | None] = []

    def done(error: StoreError | None) -> None:
        outcomes.append(error)
        if len(outcomes) == len(entries):
            ended.set()

    for entry in entries:
        store.submit(entry, done)
    assert ended.wait(20)
    assert outcomes == [None] * len(entries)


@pytest.mark.parametrize("compressor", ["none", "zstd", "blosc"])
def test_every_dtype_comes_back_bit_for_bit(tmp_path: Path, compressor: str) -> None:
    stamps = [n + 0.1 for n in range(15)]
    # About seven items of eight bytes a chunk: two chunks, and a rest in SQLite.
    with SessionStore.create(tmp_path, "s", {}, StoreConfig(chunk_bytes=56, compressor=compressor)) as store:
        for name, data in DATA.items():
            put(store, StreamItems("rig", None, name, stamps[:4], data[:4]))
            put(store, StreamItems("rig", None, name, stamps[4:], data[4:]))
    with SessionReader(tmp_path / "s") as reader:
        paths = dict(reader._connection.execute("SELECT name, path FROM streams"))
        for name, data in DATA.items():
            found = reader.stream("rig", name)
            assert found.dtype == data.dtype.newbyteorder("<"), name
            assert found.values.tobytes() == data.astype(data.dtype.newbyteorder("<")).tobytes(), name
            assert found.timestamp.values.tolist() == stamps
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # zarr calls its text and datetime types unstable
                array = zarr.open_array(tmp_path / "s" / "streams.zarr" / paths[name] / "data", mode="r")
                assert array.shape[0] >= 7 or data[0].nbytes < 8, name
                whole = np.asarray(array[:])
            assert whole.tobytes() == found.values[: len(whole)].tobytes(), name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([0.1, 1e300, float("nan"), -0.0], np.array([0.1, 1e300, np.nan, -0.0])),
        ([1, 2**62 + 1, -5], np.array([1, 2**62 + 1, -5])),
        ([1, 2.5], np.array([1.0, 2.5])),
        (
            ["2026-01-02T03:04:05.678901", "2026-01-02T03:04:05"],
            np.array(["2026-01-02T03:04:05.678901", "2026-01-02T03:04:05"], "M8[us]"),
        ),
        ([datetime(2026, 1, 2, 3, 4, 5, 7)], np.array(["2026-01-02T03:04:05.000007"], "M8[us]")),
        (["2026-01-02T03:04:05+02:00"], np.array(["2026-01-02T03:04:05+02:00"])),
        ([datetime(2026, 1, 2, tzinfo=UTC)], np.array(["2026-01-02T00:00:00+00:00"])),
        (np.array(["2026-01-02T03:04:05.123456789"], "M8[ns]"), np.array(["2026-01-02T03:04:05.123456789"])),
        (np.array([1, 2], "u2"), np.array([1, 2])),
        (["2026-13-99T00:00:00"], np.array(["2026-13-99T00:00:00"])),
    ],
)
def test_timestamps_come_back_exactly(tmp_path: Path, given: list[object], expected: np.ndarray) -> None:
    with SessionStore.create(tmp_path, "s", {}, StoreConfig(chunk_bytes=8)) as store:
        put(store, StreamItems("rig", None, "s", given, np.arange(float(len(given)))))  # type: ignore[arg-type]
    with SessionReader(tmp_path / "s") as reader:
        found = reader.stream("rig", "s").timestamp.values
    assert found.astype(expected.dtype).tobytes() == expected.tobytes()
    assert found.dtype.kind == expected.dtype.kind


def test_timestamps_that_no_form_holds_are_refused(tmp_path: Path) -> None:
    said: list[StoreError | None] = []
    with SessionStore.create(tmp_path, "s", {}) as store:
        for bad in ([2**64], [None], [1, "x"], [0.5, 2**60], [[1]]):
            store.submit(StreamItems("rig", None, "s", bad, np.zeros(len(bad))), said.append)  # type: ignore[arg-type]
    assert len(said) == 5 and all("timestamps" in str(error) for error in said)


def test_a_change_of_form_begins_a_segment(tmp_path: Path) -> None:
    with SessionStore.create(tmp_path, "s", {}, StoreConfig(chunk_bytes=64)) as store:
        put(store, StreamItems("rig", "m1", "cam", [0.5], np.zeros((1, 4, 4), "u1")))
        put(
            store, StreamItems("rig", "m1", "cam", [1], np.ones((1, 4, 4), "u1"))
        )  # whole seconds fit among fractions
        put(store, StreamItems("rig", "m1", "cam", [2.0], np.full((1, 4, 5), 2, "u1")))
        put(store, StreamItems("rig", "m1", "cam", [3.0], np.full((1, 4, 5), 3, "i2")))
        put(store, StreamItems("rig", "m2", "cam", [4.0], np.full((1, 4, 5), 4, "i2")))
        put(store, StreamItems("rig", "m2", "cam", [5.0], np.full((1, 4, 4), 5, "i2")), State("rig", "IDLE"))
        put(store, StreamItems("rig", None, "words", [0.0], np.array(["long"])))
        put(store, StreamItems("rig", None, "words", [1.0], np.array(["no"])))
    with SessionReader(tmp_path / "s") as reader:
        segments = [info for info in reader.streams() if info.name == "cam"]
        assert [(info.segment, info.length, info.subject) for info in segments] == [
            (0, 2, "m1"), (1, 1, "m1"), (2, 1, "m1"), (3, 1, "m2"), (4, 1, "m2"),
        ]  # fmt: skip
        assert reader.stream("rig", "cam", 0).timestamp.values.tolist() == [0.5, 1.0]
        assert reader.stream("rig", "cam", 2).values.tolist() == np.full((1, 4, 5), 3).tolist()
        assert reader.stream("rig", "words").values.tolist() == ["long", "no"]
        with pytest.raises(StoreError, match="choose a segment"):
            reader.stream("rig", "cam")
        with pytest.raises(StoreError, match="its streams: rig/cam, rig/words"):
            reader.stream("rig", "nose")


def test_names_never_leave_the_folder_nor_meet(tmp_path: Path) -> None:
    names = [
        "..",
        "../../x",
        "/etc",
        "a/b",
        "A",
        "a",
        "",
        "nul",
        "c",
        "x" * 300,
        "x" * 299 + "y",
        "zarr.json",
        "é\n",
    ]
    with SessionStore.create(tmp_path, "s", {}, StoreConfig(chunk_bytes=8)) as store:
        for pilot in ("..", "rig"):
            for number, name in enumerate(names):
                put(store, StreamItems(pilot, None, name, [0.0, 1.0], np.full(2, float(number))))
    assert {path.name for path in tmp_path.iterdir()} == {"s"}
    with SessionReader(tmp_path / "s") as reader:
        for pilot in ("..", "rig"):
            for number, name in enumerate(names):
                assert reader.stream(pilot, name).values.tolist() == [number, number]
        paths = [path for (path,) in reader._connection.execute("SELECT lower(path) FROM streams")]
        assert len(set(paths)) == 2 * len(names)


def test_uncommitted_leftovers_go_on_opening(tmp_path: Path) -> None:
    with SessionStore.create(tmp_path, "s", {}, StoreConfig(chunk_bytes=80)) as store:
        put(store, StreamItems("rig", None, "hr", np.arange(25.0), np.arange(25.0)))
    group = tmp_path / "s" / "streams.zarr" / "rig"
    (group / "hr" / "data" / "c" / "2").write_bytes(b"\7" * 80)
    (group / "hr" / "timestamp" / "c" / "7").write_bytes(b"half")
    metadata = (group / "hr" / "data" / "zarr.json").read_text()
    (group / "hr" / "data" / "zarr.json").write_text(metadata.replace('"shape": [20]', '"shape": [30]'))
    (group / "ghost" / "timestamp").mkdir(parents=True)
    (group / "ghost" / "zarr.json").write_bytes(b"")
    SessionStore.open(tmp_path / "s").close()
    assert not (group / "ghost").exists()
    assert {path.name for path in (group / "hr").glob("*/c/*")} == {"0", "1"}
    assert zarr.open_array(group / "hr" / "data", mode="r").shape == (20,)
    with SessionReader(tmp_path / "s") as reader:
        assert reader.stream("rig", "hr").values.tolist() == list(range(25))


READING = """
import sys, warnings
import numpy as np, pandas as pd, sqlite3, xarray as xr
from pilotage.services.store import SessionReader
warnings.simplefilter("error")
last, looks = 0, 0
print("reading", flush=True)
while last < 4000:
    with SessionReader(sys.argv[1]) as reader:
        if not reader.streams():
            continue
        stream = reader.stream("rig", "hr")
        assert (stream.values == np.arange(len(stream))).all()
        assert (stream.timestamp.values == stream.values / 10).all()
        assert len(stream) >= last and len(stream) % 10 == 0
        joined = np.concatenate([piece.values for piece in reader.stream_chunks("rig", "hr")])
        assert (joined == np.arange(len(joined))).all() and len(joined) >= len(stream)
        trials = reader.trials()
        assert trials.trial_num.tolist() == list(range(len(trials)))
    plain = xr.open_zarr(sys.argv[1] + "/streams.zarr", group="rig/hr")
    assert (plain.data.values == np.arange(plain.sizes["timestamp"])).all()
    plain = xr.open_zarr(sys.argv[1] + "/streams.zarr/rig/hr", consolidated=True)
    assert (plain.timestamp.values * 10 == plain.data.values).all()
    connection = sqlite3.connect(sys.argv[1] + "/session.sqlite")
    table = pd.read_sql("SELECT pilot, trial_num, choice FROM trials", connection)
    assert len(table) >= len(trials) and set(table.choice) <= {"L"}
    connection.close()
    last, looks = len(stream), looks + 1
print(looks)
"""


def test_another_process_reads_while_it_is_written(tmp_path: Path) -> None:
    with SessionStore.create(tmp_path, "s", {}, StoreConfig(chunk_bytes=400)) as store:
        command = [sys.executable, "-c", READING, str(store.folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout and process.stderr
            assert process.stdout.readline() == "reading\n"
            written = 0
            while process.poll() is None and written < 1_000_000:
                data = np.arange(written, written + 10.0)
                put(
                    store,
                    StreamItems("rig", None, "hr", data / 10, data),
                    TrialData("rig", None, written // 10, {"choice": "L"}),
                )
                written += 10
            looks, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert int(looks) >= 2, "the reader never saw the session grow"


def test_common_tools_read_a_session(tmp_path: Path) -> None:
    with SessionStore.create(tmp_path, "s", {}, StoreConfig(chunk_bytes=120)) as store:
        stamps = [f"2026-01-01T00:00:00.{n:06d}" for n in range(10)]
        put(store, StreamItems("rig", None, "cam", stamps, np.arange(120, dtype="u1").reshape(10, 3, 4)))
        put(
            store,
            TrialData("rig", None, 0, {"rt": float("nan"), "it's": 1, "pilot": "rig", "complete": "no"}),
        )
        put(store, TrialData("rig", None, 1, {"rt": 0.5, 'quoted"': 2}))
        connection = sqlite3.connect(store.folder / "session.sqlite")
        table = pd.read_sql("SELECT * FROM trials", connection)
        connection.close()
    assert np.isnan(table.rt[0]) and table.rt[1] == 0.5 and table["it's"][0] == 1
    assert table["values.complete"][0] == "no" and table.complete.tolist() == [0, 0]
    with xr.open_zarr(tmp_path / "s" / "streams.zarr", group="rig/cam") as plain:
        assert plain.data.dims == ("timestamp", "dim_1", "dim_2") and plain.data.dtype == np.uint8
        assert (plain.timestamp.values == np.array(stamps, "M8[us]")).all()
        assert (plain.data.values.ravel() == np.arange(120)).all()
    with SessionReader(tmp_path / "s") as reader:
        assert reader.trials()['quoted"'][1] == 2


def test_closing_leaves_no_log_and_what_is_no_session_is_refused(tmp_path: Path) -> None:
    with SessionStore.create(tmp_path, "s", {}) as store:
        put(store, State("rig", "IDLE"))
    assert not (tmp_path / "s" / "session.sqlite-wal").exists()
    with pytest.raises(StoreError, match="holds no session"):
        SessionReader(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "session.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="no readable session"):
        SessionReader(tmp_path / "broken")


@pytest.mark.parametrize(
    ("pilot", "left", "expected"),
    [
        ("rig", {"subject": "mouse", "trial": 21}, 21),
        ("rig", {"subject": "mouse", "trial": 3}, 20),
        ("rig", {"subject": "mouse", "trial": "?"}, 20),
        ("rig", {"trial": "?"}, 20),
        ("rig", {"subject": "rat", "trial": 21}, 20),
        ("other", {"subject": "mouse", "trial": 21}, 20),
    ],
)
def test_the_next_trial_follows_what_was_interrupted_though_its_last_rows_are_missing(
    tmp_path: Path, pilot: str, left: dict[str, object], expected: int
) -> None:
    with SessionStore.create(tmp_path, "s", {}) as store:
        put(store, TrialData("rig", "mouse", 19, {"n": 1}), Event(pilot, "interrupted", left))
    with SessionReader(tmp_path / "s") as reader:
        assert reader.next_trial("rig", "mouse") == expected
        assert reader.next_trial("new", "mouse") == 0
