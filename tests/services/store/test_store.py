"""What a session store promises while it is open: confirmation, once, bounds, locks."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pilotage.protocol.errors import Closed, StoreError
from pilotage.services.store import (
    Event,
    MessageId,
    Parameter,
    Provenance,
    SessionReader,
    SessionStore,
    Settled,
    Stamp,
    State,
    StoreConfig,
    StreamItems,
    TrialData,
    Trouble,
)
from pilotage.services.store.entries import Entry
from pilotage.services.store.lock import refuse_network_folder

Outcomes = list[StoreError | None]


def put(store: SessionStore, *entries: Entry) -> Outcomes:
    outcomes: Outcomes = []
    ended = threading.Event()

    def done(error: StoreError | None) -> None:
        outcomes.append(error)
        if len(outcomes) == len(entries):
            ended.set()

    for entry in entries:
        store.submit(entry, done)
    assert ended.wait(20)
    return outcomes


def new(tmp_path: Path, **settings: object) -> SessionStore:
    return SessionStore.create(tmp_path, "s", {}, StoreConfig(**settings))  # type: ignore[arg-type]


def trial(seq: int, **values: object) -> TrialData:
    return TrialData("rig", "mouse", seq, values, MessageId(1, 0, seq), Stamp(100.0 + seq, 99.0, 5.0))


def test_tables_come_back_as_they_were_given(tmp_path: Path) -> None:
    facts = {"versions": {"pilotage": "1"}, "prefs": [1, 2.5, None, float("nan")], "task": b"\x00hash"}
    strange = {"a": float("inf"), "b": [1, {"$": 2}], "c": np.arange(3, dtype="i2"), "d": 2**80, "é": True}
    with SessionStore.create(tmp_path, "s", facts) as store:
        assert (
            put(
                store,
                Event("rig", "lick", strange, None, Stamp(1.5, 1.25, 0.5)),
                State("rig", "RUNNING"),
                Parameter("rig", "reward_ms", 40, "operator", None, Stamp(3.0)),
                Provenance("note", {"weight_g": 21.5}),
            )
            == [None] * 4
        )
        assert store.statistics().rows == 4
    with SessionReader(tmp_path / "s") as reader:
        values = reader.events()["values"][0]
        assert (
            values["a"] == float("inf")
            and values["b"] == [1, {"$": 2}]
            and values["d"] == 2**80
            and values["é"]
        )
        assert np.array_equal(values["c"], strange["c"]) and values["c"].dtype == np.int16
        assert reader.events().loc[0, ["received", "sent_wall", "sent_monotonic"]].tolist() == [
            1.5,
            1.25,
            0.5,
        ]
        assert reader.states().state.tolist() == ["RUNNING"]
        assert reader.parameters()[["name", "value", "source"]].values.tolist() == [
            ["reward_ms", 40, "operator"]
        ]
        found = reader.provenance()
        assert (
            found["task"] == b"\x00hash"
            and np.isnan(found["prefs"][3])
            and found["note"] == {"weight_g": 21.5}
        )
        assert reader.summary().pilots == ("rig",)


def test_messages_of_a_trial_merge_by_column_and_stay_as_they_were(tmp_path: Path) -> None:
    first = TrialData("rig", "mouse", 7, {"choice": "L", "unknown": [1, 2], "pilot": "rig"})
    second = TrialData("rig", "mouse", 7, {"rt": 0.3, "choice": "R", "TRIAL_END": True})
    with new(tmp_path) as store:
        put(store, first, TrialData("rig", "other", 7, {"choice": "X"}))
        put(store, second)
        with SessionReader(store.folder) as reader:
            trials = reader.trials()
            assert len(trials) == 2
            mine = trials[trials.subject == "mouse"].iloc[0]
            assert (mine.choice, mine.rt, mine.unknown, mine.complete) == ("R", 0.3, [1, 2], True)
            assert reader.messages("rig")["values"].tolist() == [first.values, {"choice": "X"}, second.values]


def test_a_finished_trial_is_never_overwritten(tmp_path: Path) -> None:
    ended = TrialData("rig", "mouse", 0, {"choice": "L", "TRIAL_END": True})
    with new(tmp_path) as store:
        put(store, ended, ended, TrialData("rig", "mouse", 0, {"late": 1}))
        put(store, TrialData("rig", "mouse", 0, {"choice": "R"}))
        with SessionReader(store.folder) as reader:
            trials = reader.trials()
    assert trials[["occurrence", "choice", "complete"]].values.tolist() == [[0, "L", True], [1, "R", False]]
    assert trials.late[0] == 1


def test_a_message_is_stored_once_also_after_reopening(tmp_path: Path) -> None:
    items = StreamItems("rig", None, "hr", [0.5], np.ones(1), MessageId(2**64 - 1, 3, 9))
    with new(tmp_path) as store:
        assert put(store, items, items, trial(1, x=1), trial(1, x=2)) == [None] * 4
        assert store.statistics().duplicates == 2
    with SessionStore.open(tmp_path / "s") as store:
        assert put(store, items, trial(1, x=3)) == [None, None]
        assert store.statistics().duplicates == 2
        assert store.seen()[2**64 - 1, 3].ranges == ((9, 9),)
        with SessionReader(store.folder) as reader:
            assert len(reader.stream("rig", "hr")) == 1 and reader.trials().x.tolist() == [1]


def test_ids_take_room_by_gaps_only(tmp_path: Path) -> None:
    with new(tmp_path) as store:
        put(store, *(trial(seq, x=seq) for seq in [*range(500, 1000), *range(100), 101, 103, 102]))
        assert store.seen()[1, 0].ranges == ((0, 99), (101, 103), (500, 999))
        assert store.seen()[1, 0].high == 99
        put(store, Settled(1, 0, 500))
        assert store.seen()[1, 0].ranges == ((0, 999),)
        with sqlite3.connect(store.folder / "session.sqlite") as connection:
            assert connection.execute("SELECT count(*) FROM message_ids").fetchone() == (1,)
        connection.close()


def test_done_comes_in_order_and_an_entry_that_cant_be_stored_fails_alone(tmp_path: Path) -> None:
    with new(tmp_path) as store:
        outcomes = put(
            store,
            trial(1, x=1),
            trial(2, x=object()),
            StreamItems("rig", None, "s", [1.0], np.array([None])),
            StreamItems("rig", None, "s", [1.0, 2.0], np.zeros(1)),
            TrialData("rig", None, 2**70, {}),
            State("rig", "OK", MessageId(-1, 0, 0)),
            Event("rig", "\ud800", {}),
            trial(3, x=3),
        )
        assert [error is None for error in outcomes] == [True, *[False] * 6, True]
        assert "trial 2 of pilot 'rig'" in str(outcomes[1]) and "object" in str(outcomes[2])
        assert put(store, trial(2, x=2)) == [None], "its id must not count as stored"
        assert store.statistics().errors == 6
        with SessionReader(store.folder) as reader:
            assert reader.trials().trial_num.tolist() == [1, 3, 2]


def test_what_waits_goes_into_one_commit(tmp_path: Path) -> None:
    gate, waiting = threading.Event(), threading.Event()
    with new(tmp_path) as store:

        def hold(_: object) -> None:
            waiting.set()
            gate.wait(20)

        store.submit(trial(0, x=0), hold)
        assert waiting.wait(20)
        for seq in range(1, 500):
            store.submit(trial(seq, x=seq), lambda _: None)
        assert store.statistics().queue_depth == 499
        gate.set()
        put(store, State("rig", "IDLE"))
        assert store.statistics().commits <= 3


def test_a_full_queue_blocks_then_says_so(tmp_path: Path) -> None:
    gate, waiting = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        waiting.set()
        gate.wait(20)

    frame = StreamItems("rig", None, "cam", [0.0], np.zeros((1, 100_000), "u1"))
    with new(tmp_path, max_queue_bytes=250_000, max_queue_items=10) as store:
        store.submit(trial(0, x=0), hold)
        assert waiting.wait(20)
        store.submit(frame, lambda _: None)
        store.submit(frame, lambda _: None)
        with pytest.raises(StoreError, match="still full"):
            store.submit(frame, lambda _: None, timeout_s=0.05)
        for seq in range(1, 9):
            store.submit(trial(seq, x=0), lambda _: None, timeout_s=0)
        with pytest.raises(StoreError, match="10 entries"):
            store.submit(trial(99, x=0), lambda _: None, timeout_s=0)
        blocked = threading.Thread(target=store.submit, args=(frame, lambda _: None))
        blocked.start()
        gate.set()
        blocked.join(20)
        assert not blocked.is_alive()
    with SessionReader(tmp_path / "s") as reader:
        assert len(reader.stream("rig", "cam")) == 3


def test_a_callback_that_raises_is_counted_and_hurts_nobody(tmp_path: Path) -> None:
    def bad(_: object) -> None:
        raise RuntimeError("mine")

    with new(tmp_path) as store:
        store.submit(trial(0, x=0), bad)
        assert put(store, trial(1, x=1)) == [None]
        assert store.statistics().callback_errors == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names descriptors by /proc")
def test_chunks_are_synced_before_done(tmp_path: Path) -> None:
    story: list[str] = []

    def sync(descriptor: int) -> None:
        story.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        os.fsync(descriptor)

    with new(tmp_path, chunk_bytes=1000, sync=sync) as store:
        story.clear()
        items = StreamItems("rig", None, "hr", list(range(300)), np.arange(300.0))
        store.submit(items, lambda error: story.append(f"done {error}"))
        put(store, State("rig", "IDLE"))
        told = story.index("done None")
        for part in ("data/c", "timestamp/c"):
            assert sum(path.split(os.sep + "hr" + os.sep)[-1].startswith(part) for path in story[:told]) >= 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names descriptors by /proc")
def test_zarrs_metadata_is_synced_on_closing_and_no_thread_is_left(tmp_path: Path) -> None:
    story: list[str] = []

    def sync(descriptor: int) -> None:
        story.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        os.fsync(descriptor)

    with new(tmp_path, chunk_bytes=1000, sync=sync) as store:
        put(store, StreamItems("rig", None, "hr", list(range(300)), np.arange(300.0)))
        assert ".zarr.json.new" not in story
    assert story.count(".zarr.json.new") >= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("store-sync")]


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
static int tell(const char *name, int fd) {
    int (*real)(int) = (int (*)(int)) dlsym(RTLD_NEXT, name);
    int outcome = real(fd);
    if (write(1, "S\n", 2) != 2) return -1;
    return outcome;
}
int fsync(int fd) { return tell("fsync", fd); }
int fdatasync(int fd) { return tell("fdatasync", fd); }
"""

TELLING = """
import os, sys, threading
from pilotage.services.store import SessionStore, State
with SessionStore.create(sys.argv[1], "s", {}) as store:
    for turn in range(5):
        ended = threading.Event()
        os.write(1, b"submit\\n")
        store.submit(State("rig", str(turn)), lambda error: (os.write(1, b"done\\n"), ended.set()))
        ended.wait()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="listens to the C library's fsync")
def test_the_database_is_synced_between_submit_and_done(tmp_path: Path) -> None:
    source, shim = tmp_path / "shim.c", tmp_path / "shim.so"
    source.write_text(SHIM)
    try:
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a C compiler")
    told = subprocess.run(
        [sys.executable, "-c", TELLING, str(tmp_path)],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        check=True,
    )
    turns = told.stdout.split("submit\n")[1:]
    assert len(turns) == 5
    assert all("S" in turn.split("done")[0] for turn in turns), told.stdout


def test_a_second_writer_is_told_who_holds_the_session(tmp_path: Path) -> None:
    with new(tmp_path) as store:
        with pytest.raises(StoreError, match=f"process {os.getpid()} on"):
            SessionStore.open(store.folder)
        program = (
            "import sys; from pilotage.services.store import SessionStore; SessionStore.open(sys.argv[1])"
        )
        other = subprocess.run(
            [sys.executable, "-c", program, str(store.folder)], capture_output=True, text=True, check=False
        )
        assert other.returncode != 0 and f"process {os.getpid()} on" in other.stderr
        assert put(store, trial(0, x=0)) == [None]
    SessionStore.open(tmp_path / "s").close()


def test_places_that_cant_hold_a_session_are_refused(tmp_path: Path) -> None:
    new(tmp_path).close()
    with pytest.raises(StoreError, match="exists already"):
        new(tmp_path)
    with pytest.raises(StoreError, match="holds no session"):
        SessionStore.open(tmp_path)
    for name in ("", "..", "a/b", "a\\b", "x.", "a\nb", "CON:"):
        with pytest.raises(StoreError, match="name"):
            SessionStore.create(tmp_path, name, {})
    with pytest.raises(StoreError, match="compressor"):
        StoreConfig(compressor="rar")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be created"):
        SessionStore.create(tmp_path / "file", "s", {})


def test_network_mounts_are_refused_by_name(tmp_path: Path) -> None:
    spaced = str(tmp_path / "lab data").replace(" ", "\\040")
    mounts = f"/dev/sda / ext4 rw 0 0\nserver:/x {spaced} nfs4 rw 0 0\n/dev/sdb {spaced}/local ext4 rw 0 0\n"
    with pytest.raises(StoreError, match=r"nfs4 at '.*lab data'.*local disk"):
        refuse_network_folder(tmp_path / "lab data" / "deep", mounts)
    refuse_network_folder(tmp_path / "lab data" / "local", mounts)
    refuse_network_folder(tmp_path / "lab data too", mounts)


def test_a_closed_store_takes_nothing_and_closes_twice(tmp_path: Path) -> None:
    store = new(tmp_path)
    outcomes: Outcomes = []
    store.submit(trial(0, x=0), outcomes.append)
    store.close()
    store.close()
    assert outcomes == [None]
    with pytest.raises(Closed):
        store.submit(trial(1, x=0), outcomes.append)


def test_a_writer_that_hangs_is_reported_on_closing(tmp_path: Path) -> None:
    gate, waiting = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        waiting.set()
        gate.wait(20)

    store = new(tmp_path)
    outcomes: Outcomes = []
    store.submit(trial(0, x=0), hold)
    assert waiting.wait(20)
    store.submit(trial(1, x=0), outcomes.append)
    with pytest.raises(StoreError, match="1 entries not stored"):
        store.close(timeout_s=0.05)
    assert "closed before" in str(outcomes[0])
    gate.set()
    store.close()


FILLING = """
import json, resource, signal, sys, threading, time
import numpy as np
from pilotage.services.store import *

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
told, outcomes, ended = [], [], threading.Event()

def put(count, *entries):
    for entry in entries:
        store.submit(entry, lambda error: note(error, count))

def note(error, count):
    outcomes.append(error and str(error))
    if len(outcomes) == count:
        ended.set()

def frames(first, count, seq):
    data = np.broadcast_to(np.arange(first, first + count, dtype="u1")[:, None], (count, 10_000))
    stamps = [float(n) for n in range(first, first + count)]
    return StreamItems("rig", None, "cam", stamps, data, MessageId(1, 1, seq))

def row(number, **values):
    return TrialData("rig", None, number, values, MessageId(1, 0, number))

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

config = StoreConfig(chunk_bytes=100_000, on_trouble=lambda trouble: told.append((trouble.is_over, trouble.text)))
store = SessionStore.create(sys.argv[1], "s", {}, config)
put(2, frames(0, 15, 0), row(0, x=1))
ended.wait()
limit({"chunk": 50_000, "database": 110_000}[sys.argv[2]])
put(5, frames(15, 15, 1), row(1, x=2))
while store.statistics().held < 2:
    time.sleep(0.01)
put(5, row(2, x=3))
ended.clear()
limit(resource.RLIM_INFINITY)
ended.wait()
store.close()
print(json.dumps({"outcomes": outcomes, "told": told, "errors": store.statistics().errors}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files by setrlimit")
@pytest.mark.parametrize("what", ["chunk", "database"])
def test_what_a_full_disk_refuses_waits_until_there_is_room(tmp_path: Path, what: str) -> None:
    # Either the chunk's file or, at a limit above a chunk and below the log, the database can't grow.
    ran = subprocess.run(
        [sys.executable, "-c", FILLING, str(tmp_path), what], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["outcomes"] == [None] * 5 and said["errors"] == 0
    (begun, why), (over, _) = said["told"]
    assert (begun, over) == (False, True), "told once when it begins, and once when it is over"
    assert "is not stored" in why and "pilot 'rig'" in why
    with SessionReader(tmp_path / "s") as reader:
        stream = reader.stream("rig", "cam")
        assert stream.timestamp.values.tolist() == list(range(30))
        assert (stream.values == np.arange(30)[:, None]).all()
        assert reader.trials().x.tolist() == [1, 2, 3]


def failing_sync(broken: threading.Event) -> Callable[[int], None]:
    """Make a disk that fails while `broken` is set."""

    def sync(descriptor: int) -> None:
        if broken.is_set():
            raise OSError(5, "Input/output error")
        os.fsync(descriptor)

    return sync


def test_one_pilots_trouble_leaves_the_others_alone(
    tmp_path: Path, eventually: Callable[..., object]
) -> None:
    broken = threading.Event()
    told: list[Trouble] = []
    with new(tmp_path, chunk_bytes=1000, sync=failing_sync(broken), on_trouble=told.append) as store:
        put(store, StreamItems("bad", None, "hr", [0.0], np.zeros(1)))
        broken.set()
        late: Outcomes = []
        store.submit(StreamItems("bad", None, "hr", list(range(1, 200)), np.zeros(199)), late.append)
        eventually(lambda: store.statistics().held)
        assert put(store, *(trial(number, x=number) for number in range(4))) == [None] * 4
        store.submit(StreamItems("bad", None, "hr", [200.0], np.zeros(1)), late.append)
        eventually(lambda: store.statistics().held == 2)
        assert late == [] and "Input/output error" in store.statistics().trouble
        broken.clear()
        eventually(lambda: late == [None, None])
        eventually(lambda: not store.statistics().held)
    assert [trouble.is_over for trouble in told] == [False, True]
    assert "'bad'" in told[0].text and told[0].file == str(tmp_path / "s")
    with SessionReader(tmp_path / "s") as reader:
        assert reader.trials().trial_num.tolist() == [0, 1, 2, 3]
        assert reader.stream("bad", "hr").timestamp.values.tolist() == list(range(201))


def test_a_store_that_can_never_write_closes_in_time_and_says_what_is_not_stored(tmp_path: Path) -> None:
    broken = threading.Event()
    store = new(tmp_path, chunk_bytes=1000, sync=failing_sync(broken))
    broken.set()
    outcomes: Outcomes = []
    store.submit(StreamItems("rig", None, "hr", list(range(200)), np.zeros(200)), outcomes.append)
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"1 entries not stored: .*Input/output error"):
        store.close(timeout_s=0.2)
    assert time.monotonic() - began < 2
    assert [("closed before" in str(error)) for error in outcomes] == [True]
    with SessionStore.open(tmp_path / "s") as again:
        assert again.statistics().rows == 0, "the folder was let go"


def test_an_entry_that_breaks_a_commit_is_refused_alone(tmp_path: Path) -> None:
    gate, waiting = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        waiting.set()
        gate.wait(20)

    with new(tmp_path) as store:
        store.submit(State("other", "IDLE"), hold)
        assert waiting.wait(20)
        outcomes: Outcomes = []
        for number in range(5):
            # A stamp that no number is breaks the statement, which only the commit finds out.
            stamp = Stamp(100.0, [] if number == 3 else None)  # type: ignore[arg-type]
            store.submit(TrialData("rig", None, number, {}, MessageId(1, 0, number), stamp), outcomes.append)
        gate.set()
        put(store, State("rig", "IDLE"))
        assert [error is None for error in outcomes].count(False) == 1
        assert "trial 3" in str(next(error for error in outcomes if error))
        assert store.statistics().held == 0


def test_many_threads_submit_at_once(tmp_path: Path, eventually: Callable[..., object]) -> None:
    with new(tmp_path) as store:
        outcomes: Outcomes = []

        def many(pilot: str) -> None:
            for seq in range(300):
                store.submit(TrialData(pilot, None, seq, {"x": seq}), outcomes.append)

        threads = [threading.Thread(target=many, args=(f"rig_{n}",)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        eventually(lambda: len(outcomes) == 1800, timeout_s=20)
        assert set(outcomes) == {None}
        assert {mark.count for mark in store.ledger().values()} == {300}
