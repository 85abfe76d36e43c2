"""A file that can't be used is set aside whole and never deleted; what can be read of it goes on."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from pilotage.protocol.errors import JournalError
from pilotage.transport import journal_file
from tests.conftest import Eventually
from tests.transport.journals import Kept, make_entries, make_entry, make_run, read_left


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def entries(file: Path) -> list[journal_file.Entry]:
    """What is in a whole journal."""
    entries = make_entries(1, 40, 3000)
    with Kept(file) as journal:
        journal.keep(entries)
    return entries


def execute(file: Path, *statements: str) -> None:
    connection = sqlite3.connect(file, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def set_aside_of(file: Path) -> list[Path]:
    return sorted(file.parent.glob(f"{file.name}.set-aside-*Z"))


def check_set_aside(file: Path, because: str, left: list[journal_file.Entry]) -> Path:
    """Open it: the file there is set aside for that reason, and a new one works."""
    with Kept(file) as journal:
        (aside,) = set_aside_of(file)
        for word in (because, str(file), aside.name):
            assert word in journal.note
        assert journal.left == left
        journal.keep([make_entry(1000)])
    assert read_left(file) == [*left, make_entry(1000)]
    assert set_aside_of(file) == [aside]
    return aside


@pytest.mark.parametrize("content", [b"x", b"trial,rt\n1,0.3\n" * 50, b"\0" * 8192])
def test_what_is_no_database(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    aside = check_set_aside(file, "no SQLite file", [])
    assert aside.read_bytes() == content


def test_the_database_of_another_program(file: Path) -> None:
    execute(file, "CREATE TABLE entries (a)", "INSERT INTO entries VALUES (1)")
    content = file.read_bytes()
    aside = check_set_aside(file, "belongs to another program", [])
    assert aside.read_bytes() == content


@pytest.mark.usefixtures("entries")
def test_a_newer_version_is_kept_for_the_program_that_reads_it(file: Path) -> None:
    execute(file, f"PRAGMA user_version={journal_file.VERSION + 1}")
    content = file.read_bytes()
    aside = check_set_aside(file, "newer Pilotage (version 3, this one reads 2", [])
    assert aside.read_bytes() == content


def test_a_file_of_the_first_version_goes_on_and_is_of_this_one_once_it_is_written(
    file: Path, entries: list[journal_file.Entry], eventually: Eventually
) -> None:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA user_version=1")
    connection.execute("DROP TABLE overs")
    for number, entry in enumerate(entries, 1):
        # One message an entry, whose id and body stood where several stand now.
        content = msgspec.msgpack.encode(
            [*entry.place, entry.path, entry.verb, entry.names[0], 3, entry.bodies[0], (), entry.deadline]
        )
        row = (zlib.crc32(content), content, number)
        connection.execute("UPDATE entries SET checksum = ?, entry = ? WHERE number = ?", row)
    connection.close()
    with Kept(file) as journal:
        assert journal.note == "" and journal.left == entries
    assert version_of(file) == 1, "the older program can still read it"
    with Kept(file) as journal:
        journal.drop([entry.place for entry in entries[:30]])
        journal.keep([make_run(1000)])
        eventually(lambda: journal.statistics().dropped == 30)
        eventually(lambda: make_run(1000).place in journal.places)
        # At once, and not only when it is closed: an older program looks there first.
        assert version_of(file) == journal_file.VERSION
        journal.drop((), [(make_run(1000).place, 1000, 1001)])
    with Kept(file) as journal:
        assert journal.left == [*entries[30:], make_run(1000)]
        assert journal.over == {make_run(1000).place: [(1000, 1001)]}


def test_what_is_over_goes_into_the_file_that_is_begun_anew(file: Path) -> None:
    entry = replace(make_run(1003), names=("a", "b"), bodies=(b"", b""))
    with Kept(file) as journal:
        journal.keep([*make_entries(1, 3), entry])
        journal.drop((), [(entry.place, 1003, 1004), (make_entry(2).place, 2, 3)])
    execute(file, "UPDATE entries SET checksum = 1 WHERE number = 2")
    with Kept(file) as journal:
        assert "1 entries can't be read" in journal.note
        assert journal.over == {entry.place: [(1003, 1004)]}
    assert rows_of(file, "SELECT number FROM overs") == [(4,)]


@pytest.mark.parametrize("spans", ["no json", "[[1]]", "7", '[["a", 2]]', b"[[1003, 1004]]", 7])
def test_what_is_over_may_be_unreadable_and_nothing_else_is(file: Path, spans: str | bytes | int) -> None:
    with Kept(file) as journal:
        journal.keep([make_run(1003), make_run(1007)])
        journal.drop((), [(make_run(1007).place, 1008, 1009)])
    content = spans if isinstance(spans, bytes) else str(spans).encode()
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("INSERT INTO overs VALUES (1, ?, ?)", (zlib.crc32(content), spans))
    connection.close()
    with Kept(file) as journal:
        assert (journal.note, journal.left) == ("", [make_run(1003), make_run(1007)])
        assert journal.over == {make_run(1007).place: [(1008, 1009)]}


def test_a_bit_that_has_turned_makes_nothing_over(file: Path) -> None:
    with Kept(file) as journal:
        journal.keep([make_run(1003)])
        journal.drop((), [(make_run(1003).place, 1003, 1004)])
    execute(file, "UPDATE overs SET spans = '[[1003, 1007]]'")
    with Kept(file) as journal:
        assert (journal.note, journal.left, journal.over) == ("", [make_run(1003)], {})


def test_a_file_without_the_table_of_what_is_over_is_given_it(file: Path) -> None:
    with Kept(file) as journal:
        journal.keep([make_run(1003), make_run(1007)])
    execute(file, "DROP TABLE overs")
    with Kept(file) as journal:
        assert journal.note == ""
        journal.drop([make_run(1003).place], [(make_run(1007).place, 1007, 1008)])
    with Kept(file) as journal:
        assert (journal.note, journal.left) == ("", [make_run(1007)])
        assert journal.over == {make_run(1007).place: [(1007, 1008)]}


def test_what_is_dropped_makes_room_in_a_full_file_of_the_first_version(
    file: Path, monkeypatch: pytest.MonkeyPatch, entries: list[journal_file.Entry], eventually: Eventually
) -> None:
    execute(file, "DROP TABLE overs", "PRAGMA user_version=1", "VACUUM")
    pages = rows_of(file, "PRAGMA page_count")[0][0]
    monkeypatch.setattr(journal_file, "PRAGMAS", (*journal_file.PRAGMAS, f"max_page_count={pages}"))
    with Kept(file) as journal:
        journal.drop([entry.place for entry in entries[:30]])
        eventually(lambda: journal.statistics().dropped == 30)
        assert journal.troubles == []
    assert version_of(file) == 1


def rows_of(file: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(file)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def version_of(file: Path) -> int:
    return int.from_bytes(file.read_bytes()[60:64], "big")


@pytest.mark.parametrize(("names", "bodies"), [((), ()), (("a", "b"), (b"",)), (("a",), (b"", b""))])
def test_an_entry_with_another_count_of_ids_than_of_messages(
    file: Path, names: tuple[str, ...], bodies: tuple[bytes, ...]
) -> None:
    with Kept(file) as journal:
        journal.keep([replace(make_entry(1), names=names, bodies=bodies), make_entry(2)])
    check_set_aside(file, f"{len(names)} ids for {len(bodies)} messages", [make_entry(2)])


@pytest.mark.usefixtures("entries")
def test_a_version_that_never_was(file: Path) -> None:
    execute(file, "PRAGMA user_version=0")
    check_set_aside(file, "never was", [])


@pytest.mark.usefixtures("entries")
def test_a_journal_without_its_table(file: Path) -> None:
    execute(file, "DROP TABLE entries")
    check_set_aside(file, "no such table", [])


def test_a_row_whose_bits_have_turned(file: Path, entries: list[journal_file.Entry]) -> None:
    content = bytearray(file.read_bytes())
    content[content.index(b"rig_21") + 300] ^= 1
    file.write_bytes(content)
    with Kept(file) as journal:
        assert "1 entries can't be read" in journal.note
        assert "checksum" in journal.note
        left = journal.left
    assert len(left) == 39
    assert [entry for entry in entries if entry in left] == left
    assert set_aside_of(file)[0].read_bytes() == content


def test_rows_that_are_no_entries(file: Path, entries: list[journal_file.Entry]) -> None:
    execute(
        file,
        "UPDATE entries SET entry = 'text' WHERE number = 3",
        "UPDATE entries SET entry = x'93', checksum = 3111160534 WHERE number = 5",
    )
    check_set_aside(file, "2 entries can't be read", [entries[i] for i in range(40) if i not in (2, 4)])


def test_pages_that_were_overwritten(file: Path, entries: list[journal_file.Entry]) -> None:
    content = file.read_bytes()
    page = content.index(entries[20].names[0].encode()) // 4096
    file.write_bytes(content[: page * 4096] + b"\xaa" * 4096 + content[(page + 1) * 4096 :])
    with Kept(file) as journal:
        assert "is damaged" in journal.note
        left = journal.left
    assert entries[0] in left
    assert entries[-1] in left
    assert 36 <= len(left) < 40
    assert [entry for entry in entries if entry in left] == left
    assert read_left(file) == left


@pytest.mark.usefixtures("entries")
def test_a_file_cut_short(file: Path) -> None:
    content = file.read_bytes()[: 10 * 4096 + 17]
    file.write_bytes(content)
    aside = check_set_aside(file, "is damaged", [])
    assert aside.read_bytes() == content


def test_a_log_that_lost_its_journal(file: Path) -> None:
    log = file.with_name(file.name + "-wal")
    log.write_bytes(b"log")
    aside = file.with_name(Path(check_note(file)).name + "-wal")
    assert aside.read_bytes() == b"log"
    assert read_left(file) == []


def check_note(file: Path) -> str:
    with Kept(file) as journal:
        assert "a log of it is there" in journal.note
        return journal.note.split("'")[3]


def test_its_log_is_set_aside_with_it(file: Path) -> None:
    with Kept(file) as journal:
        journal.hold_writer()
        log = file.with_name(file.name + "-wal").read_bytes()
        journal.goes_on.set()
    file.write_bytes(b"something else")
    file.with_name(file.name + "-wal").write_bytes(log)
    aside = check_set_aside(file, "no SQLite file", [])
    assert aside.with_name(aside.name + "-wal").read_bytes() == log


def test_an_empty_file_is_no_journal_yet(file: Path) -> None:
    file.touch()
    assert read_left(file) == []
    assert not set_aside_of(file)


def test_a_death_between_setting_aside_and_beginning_anew(
    file: Path, entries: list[journal_file.Entry]
) -> None:
    file.rename(file.with_name(file.name + ".new"))
    assert read_left(file) == entries


def test_a_death_while_beginning(file: Path) -> None:
    for ending in (".building", ".building-journal"):
        file.with_name(file.name + ending).write_bytes(b"half")
    assert read_left(file) == []


def test_a_folder_in_its_place_is_left_there(file: Path) -> None:
    file.mkdir()
    with pytest.raises(JournalError, match=r"journal\.sqlite"):
        Kept(file)
    assert file.is_dir()
    file.rmdir()
    assert read_left(file) == []
