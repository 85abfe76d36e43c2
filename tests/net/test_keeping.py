"""What is durable outlives its process: it is kept on the disk and goes on under a new life."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from pilotage import Message, Net_Node, Outcome, Reason, on_loop
from pilotage.net.keeping import Keeping
from pilotage.net.notes import NoteLog
from pilotage.net.posting import Posting
from pilotage.protocol.bodies import encode_body
from pilotage.protocol.errors import MalformedFrame, MisuseError
from pilotage.protocol.sends import Kept
from pilotage.protocol.settlement import Stage
from pilotage.transport.journal import JournalRules, Trouble
from pilotage.transport.journal_file import JournalFile
from tests.conftest import Eventually
from tests.net.conftest import Gate, MakeNode

NOBODY = 1  # a port on which nobody listens


def test_what_was_accepted_goes_on_in_the_next_life_and_before_its_own(
    node: MakeNode, tmp_path: Path, eventually: Eventually
) -> None:
    got: list[Any] = []
    rig = node("rig", router_port=0, listens={"DATA": got.append})
    early = Net_Node("cam", "rig", NOBODY, journal=tmp_path)
    receipts = [early.send("rig", "DATA", n) for n in range(5)]
    for receipt in receipts:
        receipt.wait_accepted(5)
    assert receipts[0].is_accepted and receipts[0].stage is Stage.ACCEPTED
    early.release()
    ends = {receipt.wait_settled(1).reason for receipt in receipts}
    assert ends == {Reason.INTERRUPTED} and "journal" in receipts[0].wait_settled(1).text
    late = node("cam", rig, journal=tmp_path)
    assert late.send("rig", "DATA", 5).wait_settled(10).outcome is Outcome.DELIVERED
    assert got == [0, 1, 2, 3, 4, 5]
    eventually(lambda: late.statistics().journal.on_disk == 0)
    assert late.outbox == {}


def test_the_outbox_shows_what_an_earlier_life_left(node: MakeNode, tmp_path: Path) -> None:
    with Net_Node("cam", "rig", NOBODY, journal=tmp_path) as early:
        receipt = early.send("rig", "TRIAL", {"n": 1}, durable=True)
        receipt.wait_accepted(5)
    late = node("cam", journal=tmp_path)
    ((name, message),) = late.outbox.items()
    assert name == receipt.message.id and (message.key, message.value) == ("TRIAL", {"n": 1})


@pytest.mark.parametrize("journal", [None, ""])
def test_data_are_kept_unless_nobody_wants_it(node: MakeNode, tmp_path: Path, monkeypatch, journal) -> None:
    monkeypatch.setenv("PILOTAGE_DATADIR", str(tmp_path / "data"))
    rig = node("rig", router_port=0, listens={"DATA": lambda value: None})
    cam = node("cam", rig, journal=journal)
    assert cam.send("rig", "DATA", 1).wait_settled(5).outcome is Outcome.DELIVERED
    cam.release()
    assert (tmp_path / "data" / "journal" / "cam.sqlite").exists() is (journal == "")


def test_a_deadline_ends_what_is_durable(node: MakeNode, tmp_path: Path) -> None:
    cam = Net_Node("cam", "rig", NOBODY, journal=tmp_path)
    receipt = cam.send("rig", "DATA", 1, deadline_s=0.2)
    assert receipt.wait_settled(5).outcome is Outcome.EXPIRED
    cam.release()
    assert node("cam", journal=tmp_path).outbox == {}


def test_a_disk_that_can_not_be_used_is_told_and_stops_nothing(
    node: MakeNode, tmp_path: Path, eventually: Eventually
) -> None:
    (tmp_path / "file").touch()
    rig = node("rig", router_port=0, listens={"DATA": lambda value: None})
    cam = node("cam", rig, journal=tmp_path / "file" / "folder")
    troubles: list[Any] = []
    cam.on_journal = troubles.append
    assert cam.send("rig", "DATA", 1).wait_settled(5).outcome is Outcome.DELIVERED
    eventually(lambda: troubles)
    assert not troubles[0].is_over and "cam.sqlite" in troubles[0].text


def test_a_slow_disk_keeps_nobody_waiting(node: MakeNode, tmp_path: Path, monkeypatch, gate: Gate) -> None:
    from pilotage.transport.journal_file import JournalFile

    write = JournalFile.write

    def slow(*arguments: Any) -> None:
        gate(None)
        write(*arguments)

    monkeypatch.setattr(JournalFile, "write", slow)
    rig = node("rig", router_port=0, listens={"DATA": lambda value: None, "WAIT": lambda value: None})
    cam = node("cam", rig, journal=tmp_path)
    blocked = cam.send("nobody", "DATA", 1)
    assert gate.entered.wait(5)
    assert cam.send("rig", "DATA", 2).wait_settled(5).outcome is Outcome.DELIVERED
    assert not blocked.is_accepted
    with pytest.raises(TimeoutError, match="not on the disk"):
        blocked.wait_accepted(0.01)
    gate.opened.set()
    blocked.wait_accepted(5)


@pytest.mark.timeout(120)
def test_what_a_killed_process_had_accepted_arrives_once_and_in_order(
    node: MakeNode, tmp_path: Path, eventually: Eventually
) -> None:
    got: list[int] = []
    lock = threading.Lock()
    rig = node("rig", router_port=0, listens={"DATA": lambda value: got.append(value["n"])})
    accepted: list[int] = []
    for life in range(4):
        # Every other life finds nobody, so that all of it is left to the next one.
        port = rig.router_port if life % 2 else NOBODY
        command = [
            sys.executable,
            "-m",
            "tests.net.scripts.keeper",
            str(tmp_path),
            str(port),
            str(life * 1_000_000),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with lock:
            accepted += [int(process.stdout.readline()) for _ in range(20 + 7 * life)]
        process.kill()
        accepted += [int(line) for line in process.stdout if line.endswith("\n")]
        process.wait(10)
        process.stdout.close()
    last = node("cam", rig, journal=tmp_path)
    last.send("rig", "DATA", {"n": 10**9}).wait_settled(20)
    eventually(lambda: not last.outbox, timeout_s=10)
    assert len(set(got)) == len(got) and set(accepted) <= set(got)
    assert [n for n in got if n in set(accepted)] == accepted


def test_a_journal_that_is_held_is_gone_on_with_when_its_holder_has_gone(
    node: MakeNode, tmp_path: Path, eventually: Eventually
) -> None:
    got: list[Any] = []
    rig = node("rig", router_port=0, listens={"DATA": got.append})
    early = Net_Node("cam", "rig", NOBODY, journal=tmp_path)
    for n in range(3):
        early.send("rig", "DATA", n).wait_accepted(5)
    late = node("cam", rig, journal=tmp_path)
    assert got == [] and late.outbox == {}
    early.release()
    eventually(lambda: got == [0, 1, 2], timeout_s=10)
    eventually(lambda: late.statistics().journal.on_disk == 0)


def test_releasing_and_making_anew_at_once_loses_and_reorders_nothing(
    node: MakeNode, tmp_path: Path, eventually: Eventually
) -> None:
    got: list[Any] = []
    rig = node("rig", router_port=0, listens={"DATA": got.append})
    early = Net_Node("cam", "rig", NOBODY, journal=tmp_path)
    receipts = [early.send("rig", "DATA", n) for n in range(5000)]
    receipts[-1].wait_accepted(20)
    early.release()
    late = node("cam", rig, journal=tmp_path)
    late.send("rig", "DATA", 5000).wait_settled(30)
    assert got == list(range(5001))


def test_of_what_was_sent_in_a_row_nothing_is_handled_twice_though_it_is_kept_together(
    node: MakeNode, tmp_path: Path, eventually: Eventually, gate: Gate
) -> None:
    got: list[Any] = []

    def listen(value: int) -> None:
        if value == 60:
            gate(None)
        got.append(value)

    rig = node("rig", router_port=0, listens={"DATA": listen})
    early = node("cam", rig, journal=tmp_path)
    receipts = [early.send("rig", "DATA", n) for n in range(100)]
    receipts[-1].wait_accepted(10)
    assert gate.entered.wait(5)
    early.release()
    late = node("cam", rig, journal=tmp_path)
    gate.opened.set()
    late.send("rig", "DATA", 100).wait_settled(10)
    assert got == list(range(101))
    eventually(lambda: late.statistics().journal.on_disk == 0)


@pytest.mark.parametrize("opens", ["at once", "late"])
def test_what_is_over_of_what_is_kept_as_one_is_not_found_by_the_next_life(
    tmp_path: Path, eventually: Eventually, opens: str
) -> None:
    folder = tmp_path / "journal"
    if opens == "late":
        folder.touch()  # no folder: it can't be opened yet
    keeping = Keeping(folder, "cam", lambda places: None, lambda trouble: None)
    keeping.keep([Kept((1, 1, 1), ("rig",), "DATA", ["a", "b", "c"], 0, [b"a", b"b", b"c"], ())])
    keeping.keep([Kept((1, 1, 4), ("rig",), "DATA", ["d", "e"], 0, [b"d", b"e"], ())])
    keeping.keep([Kept((1, 1, 6), ("rig",), "DATA", ["f"], 0, [b"f"], ())])
    keeping.drop([], [((1, 1, 1), 2, 3), ((1, 1, 4), 4, 5), ((1, 1, 4), 5, 6), ((9, 9, 9), 9, 10)])
    keeping.drop([], [((1, 1, 6), 6, 7)])
    keeping.drop([(1, 1, 6)])
    if opens == "late":
        assert set(keeping._early_parts) == {(1, 1, 1), (1, 1, 4)}, "of nothing else is anything remembered"
        folder.unlink()
        eventually(keeping.statistics, timeout_s=10)
    keeping.close(10)
    keeping = Keeping(folder, "cam", lambda places: None, lambda trouble: None)
    left = keeping.left()
    assert [(one.place, one.seq, one.names, one.bodies) for one in left] == [
        ((1, 1, 1), 1, ("a",), (b"a",)),
        ((1, 1, 1), 3, ("c",), (b"c",)),
    ]
    keeping.drop([(1, 1, 1)])
    keeping.close(10)
    keeping = Keeping(folder, "cam", lambda places: None, lambda trouble: None)
    assert keeping.left() == []
    assert keeping.statistics() is not None and keeping.statistics().on_disk == 0
    keeping.close(10)


def test_what_was_told_to_be_delivered_is_not_sent_again_to_whoever_comes_after(
    node: MakeNode, tmp_path: Path, eventually: Eventually
) -> None:
    """Neither by a sender nor to a recipient that was started anew, though some of what was sent in a row is open."""
    first: list[int] = []
    second: list[int] = []
    open_ones: list[Future[None]] = []

    def listen(value: int) -> Future[None] | None:
        first.append(value)
        if value % 10:
            return None
        open_ones.append(Future())
        return open_ones[-1]

    rig = node("rig", router_port=0, listens={"DATA": on_loop(listen)})
    early = node("cam", rig, journal=tmp_path)
    receipts = [early.send("rig", "DATA", n) for n in range(100)]
    eventually(lambda: sum(receipt.is_settled for receipt in receipts) == 90, timeout_s=10)
    delivered = {receipt.message.value for receipt in receipts if receipt.is_settled}
    early.release()
    rig.release()
    rig = node("rig", router_port=0, listens={"DATA": second.append})
    late = node("cam", rig, journal=tmp_path)
    late.send("rig", "DATA", 100).wait_settled(10)
    assert sorted(first) == list(range(100)) and not delivered & set(second)
    assert second == [*range(0, 100, 10), 100]
    eventually(lambda: late.statistics().journal.on_disk == 0)


@pytest.mark.parametrize("ends", ["answered", "refused", "handled"])
def test_each_end_of_what_was_sent_in_a_row_reaches_a_slow_disk(
    node: MakeNode, tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Answers and refusals end messages one by one, while the disk is at work on all of them."""
    write = JournalFile.write

    def slow(*arguments: Any) -> None:
        write(*arguments)
        time.sleep(0.01)  # what is tested: a disk that takes its time

    def listen(value: int) -> int | None:
        if ends == "refused":
            raise ValueError(str(value))
        return value if ends == "answered" else None

    monkeypatch.setattr(JournalFile, "write", slow)
    rig = node("rig", router_port=0, listens={"DATA": listen})
    cam = node("cam", rig, journal=tmp_path)
    cam.on_journal = (troubles := []).append
    cam.send("nobody", "DATA").wait_accepted(10)  # it is open from now on
    for _ in range(15):
        receipts = [cam.send("rig", "DATA", n) for n in range(200)]
        wanted = Outcome.REFUSED if ends == "refused" else Outcome.DELIVERED
        assert {receipt.wait_settled(20).outcome for receipt in receipts} == {wanted}
    eventually(lambda: cam.statistics().journal.on_disk == 1, timeout_s=10)
    assert troubles == []
    cam.release()
    assert [message.to for message in node("cam", rig, journal=tmp_path).outbox.values()] == ["nobody"]


def test_ids_that_come_again_are_all_shown(node: MakeNode, tmp_path: Path) -> None:
    with Net_Node("cam", "rig", NOBODY, journal=tmp_path) as early:
        early.send("rig", "DATA", "early").wait_accepted(5)
    late = node("cam", journal=tmp_path)
    late.send("rig", "DATA", "late")
    assert sorted(message.value for message in late.outbox.values()) == ["early", "late"]
    assert "cam_0" in late.outbox


def test_what_can_not_be_read_back_does_not_keep_a_node_from_starting(
    node: MakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Net_Node("cam", "rig", NOBODY, journal=tmp_path) as early:
        early.send("rig", "DATA", 1).wait_accepted(5)

    def broken(*_: Any) -> None:
        raise MalformedFrame("planted")

    monkeypatch.setattr("pilotage.net.posting.decode_body", broken)
    assert list(node("cam", journal=tmp_path).outbox) == ["cam_0"]


def test_who_is_told_of_a_disk_and_raises_does_not_stop_the_journal(
    node: MakeNode, tmp_path: Path, eventually: Eventually
) -> None:
    place = tmp_path / "file"
    place.touch()
    cam = Net_Node("cam", "rig", NOBODY, journal=place)
    told: list[Any] = []

    def raising(trouble: Any) -> None:
        told.append(trouble)
        raise ValueError("planted")

    cam.on_journal = raising
    receipt = cam.send("rig", "DATA", 1)
    eventually(lambda: told)
    place.unlink()
    receipt.wait_accepted(10)
    cam.release()


def test_waiting_for_the_disk_on_the_loop_is_refused(node: MakeNode, tmp_path: Path) -> None:
    said: list[BaseException] = []

    def listen(value: Any) -> None:
        try:
            cam.send("nobody", "DATA", 1).wait_accepted(1)
        except MisuseError as error:
            said.append(error)

    rig = node("rig", router_port=0)
    cam = node("cam", rig, {"NOW": on_loop(listen)}, journal=tmp_path)
    rig.send("cam", "NOW").wait_settled(5)
    assert len(said) == 1


def test_ids_begin_behind_those_that_the_journal_has(node: MakeNode, tmp_path: Path) -> None:
    with Net_Node("cam", "rig", NOBODY, journal=tmp_path) as early:
        early.send("rig", "PING")
        for n in range(3):
            receipt = early.send("rig", "DATA", n)
        receipt.wait_accepted(5)
    late = node("cam", journal=tmp_path)
    assert late.send("rig", "DATA", 2).message.id == "cam_4"


def test_what_was_kept_together_is_accepted_together_in_the_next_life() -> None:
    posting = Posting("cam", NoteLog(logging.getLogger("cam")), has_journal=True)
    bodies = [encode_body(Message(id=f"cam_{n}", sender="cam", to="rig", value=n))[0] for n in range(3)]
    bundle = posting.resume(Kept((1, 1, 1), ("rig",), "DATA", ["cam_0", "cam_1", "cam_2"], 0, bodies, ()))
    assert [message.value for _, message in bundle.open_messages()] == [0, 1, 2]
    assert all(bundle.is_accepted(at) for at in range(3))


@pytest.mark.parametrize(("kept", "lost"), [(2, 3), (0, 5)])
def test_what_was_never_written_is_counted_message_by_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kept: int, lost: int
) -> None:
    (tmp_path / "file").touch()
    told: list[Trouble] = []
    keeping = Keeping(tmp_path / "file", "cam", lambda places: None, told.append)
    monkeypatch.setattr("pilotage.net.keeping.RULES", JournalRules(max_waiting_bytes=600 if kept else 0))
    sends = [(1, ["a", "b"]), (3, ["c", "d", "e"])]
    keeping.keep([Kept((1, 1, at), ("rig",), "DATA", ids, 0, [b""] * len(ids), ()) for at, ids in sends])
    keeping.close(1)
    assert keeping._lost == lost
    assert "5 messages are not in it" in caplog.text
