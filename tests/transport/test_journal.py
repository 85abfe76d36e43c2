"""What is kept is told once it is synced, found again by the next life, and costs no one a wait."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pilotage.protocol.errors import JournalError, JournalInUse
from pilotage.transport import journal as room
from pilotage.transport.journal import Entry, JournalRules
from pilotage.transport.journal_file import JournalFile
from tests.conftest import Eventually
from tests.transport.journals import BOOT, Kept, make_entries, make_entry, make_run, places_of, read_left


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new folder?#" / "journal.sqlite"


def test_what_was_kept_is_told_and_found_again_in_order(file: Path, eventually: Eventually) -> None:
    entries = make_entries(1, 700)
    with Kept(file) as journal:
        assert journal.left == []
        for entry in entries:
            assert not journal.keep([entry])
        eventually(lambda: len(journal.places) == 700)
        assert journal.places == places_of(entries)
    assert read_left(file) == entries


def test_frames_may_be_views_of_anything(file: Path) -> None:
    frame = memoryview(bytes(range(64))).cast("d")
    with Kept(file) as journal:
        journal.keep([Entry(1, 2, 3, ("a",), "V", ("n",), 0, (b"",), (frame,))])
    assert read_left(file)[0].frames == (bytes(range(64)),)


def test_it_is_told_only_after_it_can_be_read_by_others(file: Path, eventually: Eventually) -> None:
    with Kept(file) as journal:
        journal.hold_writer()
        copy = file.with_name("copy.sqlite")
        for ending in ("", "-wal"):
            copy.with_name(copy.name + ending).write_bytes(file.with_name(file.name + ending).read_bytes())
        assert len(read_left(copy)) == 1
        journal.goes_on.set()


def test_all_that_waits_goes_in_one_transaction(file: Path, eventually: Eventually) -> None:
    with Kept(file) as journal:
        journal.hold_writer()
        for entry in make_entries(1, 100):
            journal.keep([entry])
        assert journal.statistics().waiting == 100
        journal.goes_on.set()
        eventually(lambda: len(journal.places) == 101)
        assert journal.statistics().commits == 2
        assert [len(places) for places in journal.told] == [1, 100]


def test_a_transaction_has_a_bound(file: Path, eventually: Eventually) -> None:
    with Kept(file, JournalRules(max_batch=40)) as journal:
        journal.hold_writer()
        journal.keep(make_entries(1, 100))
        journal.goes_on.set()
        eventually(lambda: len(journal.places) == 101)
        assert [len(places) for places in journal.told] == [1, 40, 40, 20]


def test_messages_of_one_entry_are_counted_each(file: Path, eventually: Eventually) -> None:
    entries = [make_run(seq) for seq in (3, 7, 12, 13)]  # 4, 4, 1 and 2 messages
    with Kept(file, JournalRules(max_batch=5)) as journal:
        own = journal.hold_writer()
        journal.keep(entries)
        assert journal.statistics().waiting == 11
        journal.drop([entries[3].place])
        assert (journal.statistics().waiting, journal.statistics().skipped) == (9, 2)
        journal.goes_on.set()
        eventually(lambda: journal.statistics().on_disk == 10)
        assert journal.told[1:] == [places_of(entries[:2]), places_of(entries[2:3])]
        journal.drop([own, entries[0].place])
        assert journal.statistics().on_disk == 5
        eventually(lambda: journal.statistics().dropped == 5)
        assert journal.statistics().kept == 10
    with Kept(file) as journal:
        assert journal.left == entries[1:3] and journal.statistics().on_disk == 5


def test_a_run_that_is_refused_counts_with_all_of_its_messages(file: Path) -> None:
    with Kept(file, JournalRules(max_waiting_bytes=500)) as journal:
        assert journal.keep([make_run(7), make_run(8)]) == [make_run(7).place]
        assert journal.statistics().refused == 4


def test_what_is_settled_before_it_was_written_never_is(file: Path) -> None:
    entries = make_entries(1, 10)
    with Kept(file) as journal:
        journal.hold_writer()
        journal.keep(entries)
        journal.drop(places_of(entries[::2]))
        journal.goes_on.set()
        journal.close()
        assert journal.told[1:] == [places_of(entries[1::2])]
        assert journal.statistics().skipped == 5
        assert journal.statistics().dropped == 0
    assert read_left(file)[1:] == entries[1::2]


def test_drops_are_committed_by_themselves_soon(file: Path, eventually: Eventually) -> None:
    with Kept(file) as journal:
        journal.keep(make_entries(1, 10))
        eventually(lambda: len(journal.places) == 10)
        began = time.monotonic()
        journal.drop(places_of(make_entries(1, 9)))
        eventually(lambda: journal.statistics().dropped == 9)
        assert time.monotonic() - began < 2
        assert journal.statistics().on_disk == 1
        assert journal.statistics().commits == 2
    assert read_left(file) == [make_entry(10)]


def test_drops_ride_along_with_what_is_kept(file: Path, eventually: Eventually) -> None:
    with Kept(file) as journal:
        journal.keep(make_entries(1, 10))
        eventually(lambda: len(journal.places) == 10)
        journal.drop(places_of(make_entries(1, 10)))
        journal.keep(make_entries(11, 1))
        eventually(lambda: journal.statistics().dropped == 10)
        assert journal.statistics().commits <= 3
        assert journal.statistics().on_disk_bytes > 0


def test_what_an_earlier_life_left_can_be_dropped(file: Path) -> None:
    with Kept(file) as journal:
        journal.keep(make_entries(1, 10))
    with Kept(file) as journal:
        journal.drop(places_of(journal.left[:4]))
        journal.keep(make_entries(11, 2))
    assert read_left(file) == make_entries(5, 8)


def test_a_place_is_kept_once(file: Path, eventually: Eventually) -> None:
    with Kept(file) as journal:
        journal.keep([make_entry(1), make_entry(1)])
        eventually(lambda: journal.places)
        journal.keep([make_entry(1)])
    assert read_left(file) == [make_entry(1)]


def test_dropping_what_nobody_knows_does_nothing(file: Path) -> None:
    with Kept(file) as journal:
        journal.drop([(1, 2, 3)])
        journal.close()
        assert journal.statistics().dropped == 0
        assert journal.statistics().commits == 0


def test_closed_it_takes_nothing_and_says_so(file: Path) -> None:
    journal = Kept(file)
    journal.close()
    assert journal.keep([make_entry(1)]) == [make_entry(1).place]
    journal.drop([make_entry(1).place])
    journal.close()


def test_a_callback_that_raises_stops_nothing(
    file: Path, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("not in the mood")

    with room.Journal(file, JournalRules(), refuse, refuse) as journal:
        journal.keep([make_entry(1)])
        eventually(lambda: journal.statistics().kept == 1)
        journal.keep([make_entry(2)])
        eventually(lambda: journal.statistics().kept == 2)
    assert "not in the mood" in caplog.text


def test_what_can_t_be_written_down_harms_nobody_else(
    file: Path, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    bad = Entry(BOOT, 1, 1, ("rig",), "\udc80", ("bad_1", "bad_2", "bad_3"), 0, (b"", b"", b""))
    with Kept(file) as journal:
        journal.keep([make_entry(1), bad, make_entry(2)])
        eventually(lambda: len(journal.places) == 2)
        assert journal.statistics().refused == 3
        assert journal.statistics().waiting_bytes == 0
        commits = journal.statistics().commits
        journal.keep([replace(bad, seq=4)])
        eventually(lambda: journal.statistics().refused == 6)
        assert journal.statistics().commits == commits
    assert "'bad_1' can't be journaled, nor the 2 after it" in caplog.text
    assert read_left(file) == make_entries(1, 2)


# ---------------------------------------------------------------- bounds


def test_beyond_its_bytes_it_takes_no_more_and_says_so_once(file: Path, eventually: Eventually) -> None:
    with Kept(file, JournalRules(max_bytes=100_000)) as journal:
        entries = make_entries(1, 20, 8000)
        refused = [place for entry in entries for place in journal.keep([entry])]
        assert refused == places_of(entries[12:])
        assert journal.statistics().refused == 8
        eventually(lambda: len(journal.places) == 12)
        eventually(lambda: journal.troubles)
        assert journal.keep(entries[12:]) == refused
        journal.drop(places_of(entries[:6]))
        eventually(lambda: len(journal.troubles) == 2)
        assert [trouble.is_over for trouble in journal.troubles] == [False, True]
        assert "100,000" in journal.troubles[0].text
        assert str(file) in journal.troubles[0].text
        assert "16 messages" in journal.troubles[1].text
        assert not journal.keep([entries[12]])
        assert journal.statistics().troubles == 1
    assert places_of(read_left(file)) == places_of(entries[6:13])


def test_beyond_what_may_wait_it_takes_no_more(file: Path, eventually: Eventually) -> None:
    with Kept(file, JournalRules(max_waiting_bytes=50_000)) as journal:
        journal.hold_writer()
        entries = make_entries(1, 10, 8000)
        refused = journal.keep(entries)
        assert refused == places_of(entries[6:])
        journal.goes_on.set()
        eventually(lambda: len(journal.troubles) == 2)
        assert [trouble.is_over for trouble in journal.troubles] == [False, True]
        assert not journal.keep(entries[6:])


def test_the_file_keeps_its_size_through_many_rounds(file: Path, eventually: Eventually) -> None:
    with Kept(file) as journal:
        for turn in range(60):
            entries = make_entries(1 + turn * 100, 100, 20_000)
            journal.keep(entries)
            eventually(lambda: not journal.statistics().waiting, timeout_s=20)
            journal.drop(places_of(entries))
    assert file.stat().st_size < 30_000_000  # 120 MB went through it
    assert read_left(file) == []


def test_after_a_flood_the_file_shrinks(file: Path, eventually: Eventually) -> None:
    with Kept(file) as journal:
        entries = make_entries(1, 300, 200_000)
        journal.keep(entries)
        eventually(lambda: len(journal.places) == 300, timeout_s=20)
        flood = file.stat().st_size + file.with_name(file.name + "-wal").stat().st_size
        assert flood > 60_000_000
        journal.drop(places_of(entries))
        eventually(lambda: file.stat().st_size < 20_000_000, timeout_s=20)
    assert not file.with_name(file.name + "-wal").exists()


@pytest.mark.only_on("linux")
def test_idle_it_never_wakes(file: Path, eventually: Eventually) -> None:
    with Kept(file) as journal:
        journal.keep([make_entry(1)])
        journal.drop([make_entry(1).place])
        eventually(lambda: journal._asleep and not journal._asleep_for_drops)
        status = Path(f"/proc/self/task/{journal._thread.native_id}/status")
        before = status.read_text().split("ctxt_switches")[1:]
        time.sleep(0.6)  # the time that is looked at
        assert status.read_text().split("ctxt_switches")[1:] == before


# ---------------------------------------------------------------- who may open it

HOLDER = """
import sys, time
from pathlib import Path
from pilotage.transport.journal import Journal, JournalRules
journal = Journal(Path(sys.argv[1]), JournalRules(), print, print)
print("open", flush=True)
time.sleep(60)
"""


def test_a_second_opener_of_this_process_is_refused(file: Path) -> None:
    with Kept(file) as journal:
        with pytest.raises(JournalInUse, match=rf"process {os.getpid()} .*end that first"):
            Kept(file)
        journal.keep([make_entry(1)])
    assert read_left(file) == [make_entry(1)]


def test_another_process_holds_it_until_it_is_killed(file: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        with pytest.raises(JournalInUse, match=f"process {process.pid} "):
            Kept(file)
        process.kill()
        process.wait()
        Kept(file).close()


def _forget_inherited() -> None:
    for held in [found for found in gc.get_objects() if isinstance(found, Kept) and found.is_open]:
        held.close()
        held.__dict__.clear()
    gc.collect()


@pytest.mark.only_on("linux")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_forked_child_harms_nothing(file: Path, eventually: Eventually) -> None:
    with Kept(file) as journal:
        journal.keep([make_entry(1)])
        eventually(lambda: journal.places)
        child = multiprocessing.get_context("fork").Process(target=_forget_inherited)
        child.start()
        child.join(20)
        assert child.exitcode == 0
        with pytest.raises(JournalInUse):
            Kept(file)
        journal.keep([make_entry(2)])
        eventually(lambda: len(journal.places) == 2)
        assert file.with_name(file.name + "-wal").exists()
    assert read_left(file) == make_entries(1, 2)


def test_a_network_file_system_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "find_network_mount", lambda _: "nfs4 at '/data'")
    with pytest.raises(JournalError, match="nfs4 at '/data'"):
        Kept(file)


# ---------------------------------------------------------------- what is over of an entry that stays


def _within(spans: list[tuple[int, int]]) -> set[int]:
    return {at for first, end in spans for at in range(first, end)}


@pytest.mark.parametrize("when", ["it waits", "it is written", "it is on the disk"])
def test_what_is_over_of_an_entry_that_stays_is_known_to_the_next_life(
    file: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    entry = make_run(7)
    with Kept(file) as journal:
        if when == "it waits":
            journal.hold_writer()
        if when == "it is written":
            write = JournalFile.write

            def drop_first(*args: Any) -> None:
                if args[1]:
                    journal.drop((), [(entry.place, 8, 9)])
                write(*args)

            monkeypatch.setattr(JournalFile, "write", drop_first)
        journal.keep([entry])
        if when == "it is on the disk":
            eventually(lambda: journal.places == [entry.place])
        if when != "it is written":
            journal.drop((), [(entry.place, 8, 9)])
        journal.goes_on.set()
        eventually(lambda: entry.place in journal.places)
        journal.drop((), [(entry.place, 10, 11)])
    with Kept(file) as journal:
        assert journal.left[-1] == entry and journal.over == {entry.place: [(8, 9), (10, 11)]}
        journal.drop((), [(entry.place, 7, 8)])
        eventually(lambda: not journal._unsaid)
    with Kept(file) as journal:
        assert _within(journal.over[entry.place]) == {7, 8, 10}
        journal.drop([entry.place])
        assert journal.over == {}
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT count(*) FROM overs").fetchone()[0] == 0
    connection.close()


@pytest.mark.parametrize("when", ["it waits", "it is written", "it was just written", "it is on the disk"])
def test_what_ends_piece_by_piece_in_one_breath_is_gone(
    file: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    entry, write, is_armed = (
        make_run(7),
        JournalFile.write,
        [when in ("it is written", "it was just written")],
    )

    def drop(journal: Kept) -> None:
        journal.drop([entry.place], [(entry.place, at, at + 1) for at in range(7, 11)])

    def write_and_drop(*args: Any) -> None:
        is_now = is_armed[0] and bool(args[1])
        is_armed[0] = is_armed[0] and not is_now
        if is_now and when == "it is written":
            drop(journal)
        write(*args)
        if is_now and when == "it was just written":
            drop(journal)

    monkeypatch.setattr(JournalFile, "write", write_and_drop)
    with Kept(file) as journal:
        if when == "it waits":
            journal.hold_writer()
        journal.keep([entry])
        if when == "it is on the disk":
            eventually(lambda: journal.places == [entry.place])
        if "written" not in when:
            drop(journal)
        journal.goes_on.set()
        eventually(lambda: not is_armed[0] and not (journal._writing or journal._drops or journal._unsaid))
        journal.keep([make_run(15)])
        eventually(lambda: make_run(15).place in journal.places)
        assert journal.over == {}
    with Kept(file) as journal:
        assert journal.left[-1] == make_run(15) and entry not in journal.left
        assert journal.over == {}


def test_a_fault_of_its_own_is_told_and_the_journal_goes_on(
    file: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    book, fails = Kept._book, [True]

    def stumble(*args: Any) -> Any:
        if fails[0]:
            raise KeyError("planted")
        return book(*args)

    monkeypatch.setattr(Kept, "_book", stumble)
    entries = make_entries(1, 3)
    with Kept(file) as journal:
        journal.keep(entries)
        eventually(lambda: journal.troubles)
        assert "planted" in journal.troubles[0].text and "a turn of the writer failed" in caplog.text
        with pytest.raises(JournalInUse):
            Kept(file)
        journal.drop([entries[1].place])
        fails[0] = False
        eventually(lambda: len(journal.places) == 2)
        eventually(lambda: len(journal.troubles) == 2)
        assert journal.troubles[1].is_over
    assert read_left(file) == entries[::2]


def test_what_is_over_in_its_order_is_noted_as_one(file: Path) -> None:
    entry = replace(make_run(7), names=("",) * 256, bodies=(b"",) * 256)
    with Kept(file) as journal:
        journal.keep([entry])
        for at in range(7, 200):
            journal.drop((), [(entry.place, at, at + 1)])
        assert journal.over == {entry.place: [(7, 200)]}


def test_what_is_over_is_written_by_itself_soon_and_with_few_commits(
    file: Path, eventually: Eventually
) -> None:
    entries = [make_run(seq) for seq in (3, 7, 11)]
    with Kept(file) as journal:
        journal.keep(entries)
        eventually(lambda: len(journal.places) == 3)
        before = journal.statistics().commits
        for entry in entries:
            for at in range(entry.seq, entry.seq + 3):
                journal.drop((), [(entry.place, at, at + 1)])
        eventually(lambda: not journal._unsaid)
        eventually(lambda: journal.statistics().commits == before + 1)
        assert journal.statistics().dropped == 0 and journal.statistics().on_disk == 12


def test_what_is_over_of_what_nobody_knows_is_nothing(file: Path) -> None:
    with Kept(file) as journal:
        journal.drop((), [((1, 2, 3), 3, 4)])
        assert journal.over == {}


def test_a_disk_that_fails_forgets_nothing_of_what_is_over(
    file: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, write = make_run(7), JournalFile.write
    with Kept(file) as journal:
        journal.keep([entry])
        eventually(lambda: journal.places)

        def fail(*_: Any) -> None:
            raise sqlite3.OperationalError("planted")

        monkeypatch.setattr(JournalFile, "write", fail)
        journal.drop((), [(entry.place, 8, 9)])
        eventually(lambda: journal.troubles)
        monkeypatch.setattr(JournalFile, "write", write)
    with Kept(file) as journal:
        assert journal.over == {entry.place: [(8, 9)]}


# ---------------------------------------------------------------- any sequence

_keeps = st.tuples(st.just("keep"), st.integers(1, 60))
_drops = st.tuples(st.sampled_from(["drop", "part"]), st.integers(1, 40))
_others = st.tuples(st.sampled_from(["wait", "reopen"]), st.just(0))


@settings(deadline=None, max_examples=25)
@given(st.lists(_keeps | _drops | _others, max_size=25), st.integers(1, 50))
def test_it_holds_what_a_list_would(steps: list[tuple[str, int]], max_batch: int) -> None:
    rules = JournalRules(max_batch=max_batch)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "journal.sqlite")
        model: dict[tuple[int, int, int], Entry] = {}
        over: dict[tuple[int, int, int], set[int]] = {}
        journal, seq = Kept(file, rules), 1
        for verb, count in [*steps, ("reopen", 0)]:
            if verb == "keep":
                entries = [make_run(at) for at in range(seq, seq + 4 * count, 4)]
                seq += 4 * count
                model |= {entry.place: entry for entry in entries}
                journal.keep(entries)
            elif verb == "drop":
                gone = list(model)[:: max(1, len(model) // count)]
                journal.drop(gone)
                for place in gone:
                    del model[place]
                    over.pop(place, None)
            elif verb == "part":
                parts = []
                for place in list(model)[:: max(1, len(model) // count)]:
                    gone_there = over.setdefault(place, set())
                    at = next(at for at in range(place[2] + count % 2, place[2] + 9) if at not in gone_there)
                    if at < place[2] + len(model[place].bodies):
                        gone_there.add(at)
                        parts.append((place, at, at + 1))
                ended = [place for place, *_ in parts if len(over[place]) == len(model[place].bodies)]
                journal.drop(ended, parts)  # the last piece of it and all of it in one breath
                for place in ended:
                    del model[place], over[place]
            elif verb == "wait":
                journal.drop([journal.hold_writer()])
                journal.goes_on.set()
            else:
                journal.close()
                assert len(set(journal.places)) == len(journal.places)
                assert journal.statistics().on_disk == sum(len(entry.bodies) for entry in model.values())
                journal = Kept(file, rules)
                assert journal.left == list(model.values())
                found = {place: _within(spans) for place, spans in journal.over.items()}
                assert found == {place: gone for place, gone in over.items() if gone}
        journal.close()
        with sqlite3.connect(file) as connection:
            assert connection.execute("SELECT count(*) FROM entries").fetchone()[0] == len(model)
            assert connection.execute("SELECT count(*) FROM overs").fetchone()[0] == len(found)
        connection.close()
