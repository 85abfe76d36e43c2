"""The audit log: it only grows, tampering is named by entry, and a disk that refuses delays nobody."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Eventually

from pilotage.protocol.errors import StoreError
from pilotage.services.audit import AuditLog, Link, read_log, verify
from pilotage.services.audit import log as log_module
from pilotage.services.audit.chain import FIRST, bind, canonical


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "audit.sqlite"
    log = AuditLog(file)
    for number in range(1, 11):
        log.note({"name": "anna", "verb": "START", "target": f"rig_{number}", "outcome": "asked"})
    log.close()
    return file


def found(file: Path, anchors: dict[int, str] | None = None) -> tuple[int | None, str]:
    links, fault = read_log(file)
    verdict = verify(links, anchors)
    return verdict.broken_at, verdict.text or fault


def forge(file: Path, *statements: str) -> None:
    """Do what somebody with the file in hands can do: take the guards away, and change what they like."""
    connection = sqlite3.connect(file)
    guards = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in guards:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    for _, sql in guards:
        connection.execute(sql)
    connection.commit()
    connection.close()


def test_what_was_noted_is_there_in_its_order(file: Path) -> None:
    links, fault = read_log(file)
    assert fault == "" and [link.number for link in links] == list(range(1, 11))
    assert [link.fields["target"] for link in links] == [f"rig_{n}" for n in range(1, 11)]
    assert all(abs(link.fields["at"] - time.time()) < 60 for link in links)
    verdict = verify(links)
    assert verdict.is_whole and verdict.entries == 10 and verdict.newest == links[-1].digest.hex()
    assert links[0].previous == FIRST


@pytest.mark.only_on("linux", "darwin")
def test_nobody_else_may_read_it(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET content = '{}' WHERE number = 3",
        "DELETE FROM audit WHERE number = 10",
        "DELETE FROM audit",
        "INSERT INTO audit VALUES (12, '{}', x'00', x'00')",
        "INSERT INTO audit VALUES (3, '{}', x'00', x'00')",
        "INSERT OR REPLACE INTO audit VALUES (3, '{}', x'00', x'00')",
        "REPLACE INTO audit VALUES (10, '{}', x'00', x'00')",
    ],
)
def test_the_file_refuses_to_forget(file: Path, statement: str) -> None:
    connection = sqlite3.connect(file)
    with pytest.raises(sqlite3.IntegrityError, match="audit entr"):
        connection.execute(statement)
    connection.close()
    assert found(file) == (None, "")


@pytest.mark.parametrize(
    ("statement", "broken_at", "says"),
    [
        (
            "UPDATE audit SET content = replace(content, 'anna', 'bert') WHERE number = 4",
            4,
            "isn't what was written",
        ),
        ("UPDATE audit SET digest = zeroblob(32) WHERE number = 4", 4, "isn't what was written"),
        ("UPDATE audit SET previous = zeroblob(32) WHERE number = 4", 4, "doesn't follow"),
        ("DELETE FROM audit WHERE number = 4", 4, "entry 4 is missing; 5 follows"),
        ("DELETE FROM audit WHERE number = 1", 1, "entry 1 is missing"),
        ("UPDATE audit SET number = number + 1 WHERE number = 10", 10, "entry 10 is missing"),
        (
            "UPDATE audit SET content = (SELECT content FROM audit WHERE number = 5) WHERE number = 6",
            6,
            "isn't what",
        ),
    ],
)
def test_the_first_broken_link_is_named(file: Path, statement: str, broken_at: int, says: str) -> None:
    forge(file, statement)
    assert found(file)[0] == broken_at and says in found(file)[1]


def test_a_chain_that_was_computed_anew_is_told_by_what_was_written_elsewhere(file: Path) -> None:
    links, _ = read_log(file)
    anchors = {5: links[4].digest.hex(), 10: links[9].digest.hex()}
    assert found(file, anchors) == (None, "")
    forged: list[Link] = []
    before = FIRST
    for link in links:
        content = link.content.replace("rig_3", "rig_x")
        forged.append(bind(link.number, content, before))
        before = forged[-1].digest
    assert verify(forged).is_whole
    verdict = verify(forged, anchors)
    assert verdict.broken_at == 5 and "written anew" in verdict.text
    verdict = verify(links[:8], anchors)
    assert verdict.broken_at == 9 and "are gone" in verdict.text


def test_a_guard_that_is_missing_is_named(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("DROP TRIGGER audit_no_removal")
    connection.commit()
    connection.close()
    assert "audit_no_removal is missing" in read_log(file)[1]


def test_a_later_life_goes_on_with_the_chain(file: Path) -> None:
    log = AuditLog(file)
    log.note({"verb": "STOP"})
    assert log.flush(5) and log.newest()[0] == 11
    assert log.statistics().written == 1
    log.close()
    assert found(file) == (None, "")


def _add(file: Path, name: str) -> None:
    log = AuditLog(file)
    for number in range(50):
        log.note({"name": name, "verb": str(number)})
        log.flush(10)
    log.close(10)


def test_two_terminals_on_one_file_make_one_chain(file: Path) -> None:
    makers = [multiprocessing.get_context("spawn").Process(target=_add, args=(file, name)) for name in "ab"]
    for one in makers:
        one.start()
    for one in makers:
        one.join(50)
    assert found(file) == (None, "") and len(read_log(file)[0]) == 110


def test_anything_can_be_noted(file: Path) -> None:
    log = AuditLog(file)
    for detail in (
        object(),
        float("nan"),
        "\ud800",
        {1: {2, 3}},
        "x" * 10**6,
        {"a": ["y" * 5000] * 9},
        b"\xff",
    ):
        log.note({"verb": "START", "detail": detail})
    log.close()
    links, _ = read_log(file)
    assert len(links) == 17 and verify(links).is_whole
    assert max(len(link.content) for link in links) < 9000 and all(
        link.fields["verb"] == "START" for link in links
    )


def test_a_disk_that_refuses_delays_nobody_and_what_is_lost_is_told(
    file: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    log = AuditLog(file)
    add: Callable[..., None] = log_module._add
    refuses = True

    def adding(*given: object) -> None:
        if refuses:
            raise sqlite3.OperationalError("database or disk is full")
        add(*given)

    monkeypatch.setattr(log_module, "_add", adding)
    monkeypatch.setattr(log_module, "MAX_WAITING", 5)
    monkeypatch.setattr(log_module, "RETRY_S", 0.01)
    began = time.monotonic()
    for number in range(8):
        log.note({"verb": str(number)})
    assert time.monotonic() - began < 1
    eventually(lambda: "full" in log.statistics().trouble)
    assert not log.flush(0.05)
    refuses = False
    assert log.flush(5)
    log.close()
    links, _ = read_log(file)
    assert [link.fields["verb"] for link in links[10:]] == ["0", "1", "2", "3", "4", "LOST"]
    assert links[-1].fields["detail"] == {"entries": 3} and verify(links).is_whole


def test_what_is_no_log_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no audit log"):
        read_log(tmp_path / "none")
    other = tmp_path / "other"
    other.write_bytes(b"no database at all, but long enough to be taken for something" * 20)
    with pytest.raises(StoreError, match="can't be read"):
        read_log(other)
    with pytest.raises(StoreError, match="can't be opened"):
        AuditLog(other)


def test_the_same_fields_are_always_written_alike() -> None:
    assert canonical({"b": 1, "a": "é"}) == '{"a":"\\u00e9","b":1}'
