"""A disk that is full, fails or goes away: said once, waited for, and nothing kept twice."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from pilotage.transport import journal_file
from pilotage.transport.journal import JournalRules
from pilotage.transport.journal_file import JournalFile
from tests.conftest import Eventually
from tests.transport.journals import Kept, make_entries, make_entry, places_of, read_left


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=False)
    if made.returncode:
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    descriptor = os.open(filler, os.O_CREAT | os.O_WRONLY)
    for size in (65536, 512, 1):
        try:
            while os.write(descriptor, bytes(size)):
                pass
        except OSError:
            continue
    os.close(descriptor)
    return filler


def test_a_full_journal_waits_and_goes_on(
    file: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(journal_file, "PRAGMAS", (*journal_file.PRAGMAS, "max_page_count=30"))
    entries = make_entries(1, 20, 10_000)
    entries[5] = replace(entries[5], names=("rig_6a", "rig_6b"), bodies=(b"6a", b"6b"))
    with Kept(file) as journal:
        journal.keep(entries[:5])
        eventually(lambda: len(journal.places) == 5)
        journal.keep(entries[5:])
        eventually(lambda: journal.troubles)
        assert str(file) in journal.troubles[0].text
        assert "full" in journal.troubles[0].text
        assert "16 messages" in journal.troubles[0].text
        journal.drop([entries[6].place])
        assert not journal.keep(make_entries(21, 1))
        assert journal._file._connection
        journal._file._connection.execute("PRAGMA max_page_count=100000")
        eventually(lambda: len(journal.places) == 20)
        eventually(lambda: len(journal.troubles) == 2)
        assert [trouble.is_over for trouble in journal.troubles] == [False, True]
    wanted = [*entries[:6], *entries[7:], make_entry(21)]
    assert journal.places == places_of(wanted)
    assert read_left(file) == wanted


def test_drops_make_the_room_that_keeps_need(
    file: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(journal_file, "PRAGMAS", (*journal_file.PRAGMAS, "max_page_count=30"))
    entries = make_entries(1, 14, 10_000)
    with Kept(file) as journal:
        journal.keep(entries[:6])
        eventually(lambda: len(journal.places) == 6)
        journal.keep(entries[6:])
        eventually(lambda: journal.troubles)
        journal.drop(places_of(entries[:6]))
        eventually(lambda: len(journal.places) == 14)
    assert read_left(file) == entries[6:]


@pytest.mark.only_on("linux")
def test_a_disk_that_is_really_full(small_disk: Path, eventually: Eventually) -> None:
    file = small_disk / "journal.sqlite"
    entries = make_entries(1, 200, 2000)
    with Kept(file) as journal:
        journal.keep(entries[:50])
        eventually(lambda: len(journal.places) == 50)
        filler = fill(small_disk)
        for entry in entries[50:]:
            journal.keep([entry])
        eventually(lambda: journal.troubles)
        assert not journal.troubles[0].is_over
        journal.drop(places_of(entries[190:]))
        filler.unlink()
        eventually(lambda: len(journal.places) == 190)
        eventually(lambda: len(journal.troubles) == 2)
        assert journal.troubles[1].is_over
    assert journal.places == places_of(entries[:190])
    assert read_left(file) == entries[:190]


@pytest.mark.only_on("linux")
def test_on_a_full_disk_what_is_left_can_be_read(
    small_disk: Path, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    file = small_disk / "journal.sqlite"
    entries = make_entries(1, 50, 2000)
    with Kept(file) as journal:
        journal.keep(entries)
    filler = fill(small_disk)
    with Kept(file) as journal:
        assert journal.note == ""
        assert journal.left == entries
        journal.keep(make_entries(51, 1))
        eventually(lambda: journal.troubles)
        journal.close()
    assert "1 messages are not in it" in caplog.text
    filler.unlink()
    assert read_left(file) == entries


def fail_once(monkeypatch: pytest.MonkeyPatch, error: Exception, after_commit: bool) -> None:
    """Let the next write fail: before it did anything, or after it was committed."""
    write = JournalFile._write

    def fail(self: JournalFile, *arguments: object) -> None:
        monkeypatch.setattr(JournalFile, "_write", write)
        if after_commit:
            write(self, *arguments)  # type: ignore[arg-type]
        raise error

    monkeypatch.setattr(JournalFile, "_write", fail)


@pytest.mark.parametrize("after_commit", [False, True])
def test_a_write_of_which_nobody_knows_is_not_doubled(
    file: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually, after_commit: bool
) -> None:
    entries = make_entries(1, 10)
    with Kept(file, JournalRules(retry_s=0.3)) as journal:
        fail_once(monkeypatch, sqlite3.OperationalError("disk I/O error"), after_commit)
        journal.keep(entries)
        eventually(lambda: journal.troubles)
        journal.drop([entries[4].place])
        eventually(lambda: len(journal.troubles) == 2)
        eventually(lambda: len(journal.places) == 9)
    assert read_left(file) == entries[:4] + entries[5:]


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_dropped_while_it_is_written_is_neither_told_nor_left(
    file: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually, fails: bool
) -> None:
    write, entries = JournalFile.write, make_entries(1, 10)
    with Kept(file) as journal:

        def drop_meanwhile(self: JournalFile, *arguments: object) -> None:
            monkeypatch.setattr(JournalFile, "write", write)
            write(self, *arguments)  # type: ignore[arg-type]
            journal.drop(places_of(entries[:3]))
            if fails:
                raise OSError(5, "no such luck")

        monkeypatch.setattr(JournalFile, "write", drop_meanwhile)
        journal.keep(entries)
        eventually(lambda: len(journal.places) == 7)
        eventually(lambda: journal.statistics().skipped + journal.statistics().dropped == 3)
        assert journal.statistics().skipped == (3 if fails else 0)
        assert journal.statistics().on_disk == 7
    assert journal.places == places_of(entries[3:])
    assert read_left(file) == entries[3:]


def test_trouble_is_over_though_nothing_waits_any_more(
    file: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    with Kept(file) as journal:
        fail_once(monkeypatch, OSError(5, "no such luck"), after_commit=True)
        journal.keep([make_entry(1)])
        eventually(lambda: journal.troubles)
        journal.drop([make_entry(1).place])
        eventually(lambda: len(journal.troubles) == 2)
    assert read_left(file) == []


@pytest.mark.only_on("linux", "darwin")
def test_a_file_that_is_taken_away_is_missed_until_it_is_back(file: Path, eventually: Eventually) -> None:
    with Kept(file) as journal:
        journal.keep([make_entry(1)])
        eventually(lambda: journal.places)
        file.rename(file.with_name("elsewhere"))
        journal.keep([make_entry(2)])
        eventually(lambda: journal.troubles)
        assert "moved or removed" in journal.troubles[0].text
        assert len(journal.places) == 1
        eventually(lambda: journal._file._connection is None)
        file.with_name("elsewhere").rename(file)
        eventually(lambda: len(journal.places) == 2)
    assert read_left(file) == make_entries(1, 2)


@pytest.mark.only_on("linux", "darwin")
def test_another_journal_in_its_place_is_not_written_to(file: Path, eventually: Eventually) -> None:
    other = file.with_name("other")
    Kept(other).close()
    with Kept(file) as journal:
        file.rename(file.with_name("elsewhere"))
        other.rename(file)
        journal.keep([make_entry(1)])
        eventually(lambda: journal.troubles and journal._file._connection is None)
        assert journal.places == []
    assert read_left(file) == []
