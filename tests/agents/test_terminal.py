"""A Terminal with real folders and sockets: what it keeps, and lets go of."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotage.agents.sessions import Sessions
from pilotage.agents.terminal import Terminal
from pilotage.app.archive import FolderArchives
from pilotage.net.listens import Origin
from pilotage.net.node import Net_Node
from pilotage.protocol.errors import PortInUse, StoreError
from pilotage.services.store import SessionReader
from tests.agents.bench import FullDisk
from tests.system.lab import numbers, settings, wait_for


def terminal_in(folder: Path, port: int = 0) -> Terminal:
    return Terminal(FolderArchives(folder / "data"), settings(folder, PUSHPORT=port))


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with terminal_in(tmp_path) as terminal:
        yield terminal


def origin(seq: int) -> Origin:
    return Origin(1, 1, seq, None, ("_rig",))


def test_a_terminal_whose_port_is_taken_lets_go_of_its_sessions(tmp_path: Path) -> None:
    with terminal_in(tmp_path) as first:
        first.sessions.begin("a")
    with socket.create_server(("", 0)) as taken, pytest.raises(PortInUse):
        terminal_in(tmp_path, taken.getsockname()[1])
    with terminal_in(tmp_path) as second:
        assert second.sessions.opened() == ["a"]


def test_operators_are_answered_while_many_flows_wait_for_a_record(
    tmp_path: Path, terminal: Terminal
) -> None:
    elsewhere = Sessions(FolderArchives(tmp_path / "data"), {})
    elsewhere.begin("a")
    row = {"subject": "m", "trial_num": 1, "session": "a"}
    with ExitStack() as stack:
        operator, *senders = [
            stack.enter_context(Net_Node(name, "T", terminal.port, {}, journal=None))
            for name in ("operator", *(f"rig_{number}" for number in range(66)))
        ]
        sent = [sender.send("_T", "DATA", {**row, "pilot": sender.id}) for sender in senders]
        wait_for(lambda: operator.send("_T", "STATUS").result(5)["troubles"])
        status = operator.send("_T", "STATUS").result(5)
        assert list(status["troubles"]) == ["a"] and status["open"] == []
        assert operator.send("_T", "PILOTS").result(5) == {}
        operator.send("_T", "HALT").result(5)
        assert not any(receipt.is_settled for receipt in sent)
        elsewhere.close(5)
        for receipt in sent:
            receipt.result(10)
        wait_for(lambda: operator.send("_T", "STATUS").result(5)["troubles"] == {})


def test_what_a_terminals_disk_refuses_stays_with_its_sender_when_the_terminal_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    first = terminal_in(tmp_path)
    first.sessions.begin("a")
    with Net_Node("rig", "T", first.port, {}, journal=tmp_path / "journal") as rig:
        rig.send("_T", "DATA", {"subject": "m", "trial_num": 0, "session": "a"}).result(10)
        disk.is_full = True
        refused = rig.send("_T", "DATA", {"subject": "m", "trial_num": 1, "session": "a"})
        wait_for(lambda: first.sessions.archive("a").trouble)
        with pytest.raises(StoreError, match="can't be ended"):
            first.end_session("a")
        with pytest.raises(StoreError, match="did not close"):
            first.close(0.1)
        assert not refused.is_settled
        disk.is_full = False
        with terminal_in(tmp_path, first.port) as second:
            refused.result(30)
            assert numbers(Path(second.sessions.look("a")[0])) == [0, 1]


def test_a_state_is_kept_when_it_changes_not_each_time_it_is_told(terminal: Terminal) -> None:
    terminal.sessions.begin("a")
    terminal.sessions.join("a", "rig")
    for seq, state in enumerate(("IDLE", "IDLE", "RUNNING", "RUNNING", "IDLE", "IDLE")):
        kept = terminal.intake.l_state({"pilot": "rig", "state": state}, origin(seq))
        if kept is not None:
            kept.result(5)
    place, _ = terminal.sessions.look("a")
    with sqlite3.connect(f"file:{place}/session.sqlite?mode=ro", uri=True) as found:
        states = [state for (state,) in found.execute("SELECT state FROM states ORDER BY id")]
    found.close()
    assert states == ["IDLE", "RUNNING", "IDLE"]


def test_a_stream_on_the_terminals_machine_goes_straight_to_it_and_its_plot_has_the_newest(
    tmp_path: Path, terminal: Terminal
) -> None:
    terminal.sessions.begin("a")
    plotted: list[dict[str, Any]] = []
    with (
        Net_Node("P_rig_a", "T", terminal.port, {"CONTINUOUS": plotted.append}, journal=None) as plot,
        Net_Node("_rig_a", "T", terminal.port, {}, journal=None) as rig,
    ):
        plot.wait_connected(10)
        wait_for(lambda: terminal.plots)
        stream = rig.get_stream("eye", "CONTINUOUS", min_size=5, subject="m", pilot="rig_a")
        stream.headers.update(stream="eye", session="a")
        for number in range(500):
            stream.put({"timestamp": number / 1000, "eye": np.full(2000, number)})
        stream.put("END")
        stream.join()
        assert list(stream.statistics().peers) == ["_T"] and stream.failed == 0
        wait_for(lambda: plotted)
        assert plotted[0]["pilot"] == "rig_a" and (plotted[0]["eye"] == plotted[0]["timestamp"] * 1000).all()
        assert len(plotted) < 50, "at DRAWFPS, not each batch"
    terminal.end_session("a")
    with SessionReader(Path(terminal.sessions.look("a")[0])) as reader:
        data = np.concatenate([block.data for block in reader.stream_chunks("rig_a", "eye")])
    assert (data[:, 0] == np.arange(500)).all()
