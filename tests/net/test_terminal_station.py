"""The Terminal's station: every listen of its table, with real nodes around a real process."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import pytest

from pilotage import Net_Node, Outcome, Reason, Terminal_Station, takes_batches
from pilotage.protocol.errors import InvalidMessage, Refused
from tests.conftest import Eventually
from tests.net.conftest import Gate, MakeNode

KEYS = ("DATA", "STATE", "HANDSHAKE", "CONTINUOUS", "PEER")


class Boss:
    """The Terminal's own node: it keeps what it is told."""

    def __init__(self, node: MakeNode, terminal: Terminal_Station, **listens: Any) -> None:
        self.got: list[tuple[str, Any]] = []
        keep = {key: self._keep(key) for key in KEYS}
        self.node: Net_Node = node("_T", terminal, {**keep, **listens})

    def of(self, key: str) -> list[Any]:
        return [value for told, value in self.got if told == key]

    def _keep(self, key: str) -> Any:
        return lambda value: self.got.append((key, value))


@pytest.fixture
def boss(node: MakeNode, terminal: Terminal_Station) -> Boss:
    return Boss(node, terminal)


def test_ping_is_answered_with_a_blank_state(
    node: MakeNode, terminal: Terminal_Station, eventually: Eventually
) -> None:
    states: list[Any] = []
    cam = node("cam", terminal, {"STATE": states.append})
    assert cam.send("T", "PING").wait_settled(5).outcome is Outcome.DELIVERED
    eventually(lambda: states == [None])


def test_init_pings_every_pilot(
    node: MakeNode, terminal: Terminal_Station, boss: Boss, eventually: Eventually
) -> None:
    pings: list[Any] = []
    node("rig_a", terminal, {"PING": lambda value: pings.append("rig_a")})
    node("other", terminal, {"PING": lambda value: pings.append("other")})
    boss.node.send("T", "INIT").result(5)
    eventually(lambda: pings == ["rig_a"])


@pytest.mark.parametrize("key", ["CHANGE", "PARAM"])
def test_change_reaches_the_pilot_and_its_answer_comes_back(
    node: MakeNode, terminal: Terminal_Station, boss: Boss, key: str
) -> None:
    node("rig_a", terminal, {"PARAM": lambda value: {"now": value}})
    assert boss.node.send("T", key, {"pilot": "rig_a", "gain": 2}).result(5) == {"now": {"gain": 2}}
    with pytest.raises(Refused, match="pilot's name"):
        boss.node.send("T", key, {"gain": 2}).result(5)


def test_stopall_stops_pilots_and_plots(
    node: MakeNode, terminal: Terminal_Station, boss: Boss, eventually: Eventually
) -> None:
    stopped: list[str] = []
    for name in ("rig_a", "P_rig_a", "bystander"):
        node(name, terminal, {"STOP": lambda value, name=name: stopped.append(name)})
    boss.node.send("T", "STOPALL").result(5)
    eventually(lambda: sorted(stopped) == ["P_rig_a", "rig_a"])


def test_kill_is_for_the_inner_node_only(
    node: MakeNode, terminal: Terminal_Station, boss: Boss, eventually: Eventually
) -> None:
    with pytest.raises(Refused, match="only _T may end the station T, not cam"):
        node("cam", terminal).send("T", "KILL").result(5)
    assert terminal.is_alive()
    boss.node.send("T", "KILL")
    eventually(lambda: not terminal.is_alive())


def test_data_settle_when_the_inner_nodes_listen_has_settled_them(
    node: MakeNode, terminal: Terminal_Station, gate: Gate, eventually: Eventually
) -> None:
    plotted: list[Any] = []
    Boss(node, terminal, DATA=gate)
    node("P_rig_a", terminal, {"DATA": plotted.append})
    rig = node("rig_a", terminal)
    receipt = rig.send("T", "DATA", {"pilot": "rig_a", "trial_num": 3})
    assert gate.entered.wait(5)
    eventually(lambda: plotted == [{"pilot": "rig_a", "trial_num": 3}])
    assert not receipt.is_settled
    gate.opened.set()
    assert receipt.wait_settled(5).outcome is Outcome.DELIVERED
    assert gate.got == [{"pilot": "rig_a", "trial_num": 3}]


def test_data_that_the_inner_node_cant_store_are_refused(node: MakeNode, terminal: Terminal_Station) -> None:
    Boss(node, terminal, DATA=lambda value: 1 / 0)
    end = node("rig_a", terminal).send("T", "DATA", {"pilot": "rig_a"}).wait_settled(5)
    assert end.reason is Reason.LISTEN_FAILED and "ZeroDivisionError" in end.text


def test_data_wait_for_an_inner_node_that_is_not_there_yet(
    node: MakeNode, terminal: Terminal_Station, eventually: Eventually
) -> None:
    receipt = node("rig_a", terminal).send("T", "DATA", {"pilot": "rig_a", "x": 1})
    eventually(lambda: terminal.statistics().waiting == 1)
    boss = Boss(node, terminal)
    assert receipt.wait_settled(5).outcome is Outcome.DELIVERED
    assert boss.of("DATA") == [{"pilot": "rig_a", "x": 1}]


def test_continuous_goes_to_the_inner_node_always_and_to_the_plot_at_drawfps(
    node: MakeNode, terminal: Terminal_Station, boss: Boss, eventually: Eventually
) -> None:
    plotted: list[tuple[float, Any]] = []
    node("P_rig_a", terminal, {"CONTINUOUS": lambda value: plotted.append((time.monotonic(), value))})
    rig = node("rig_a", terminal)
    began = time.monotonic()
    sent = 0
    while len(plotted) < 5 and time.monotonic() - began < 20:
        rig.send("T", "CONTINUOUS", {"pilot": "rig_a", "n": sent}).result(5)
        sent += 1
    assert [item["n"] for item in boss.of("CONTINUOUS")] == list(range(sent))
    took = time.monotonic() - began
    assert 5 <= len(plotted) <= took * 10 + 1, "DRAWFPS is 10 a second"
    assert sent > 3 * len(plotted)


def test_a_plot_that_has_stalled_is_given_no_more_and_what_it_missed_is_counted(
    node: MakeNode, terminal: Terminal_Station, boss: Boss, gate: Gate, eventually: Eventually
) -> None:
    node("P_rig_a", terminal, {"CONTINUOUS": gate})
    rig = node("rig_a", terminal)
    began = time.monotonic()
    sent = 0
    while not terminal.statistics().counts.get("plots dropped"):
        rig.send("T", "CONTINUOUS", {"pilot": "rig_a", "n": sent}).result(5)
        sent += 1
        assert time.monotonic() - began < 10
    assert [item["n"] for item in boss.of("CONTINUOUS")] == list(range(sent)), "the record has all"
    gate.opened.set()
    eventually(lambda: len(gate.got) == 4)


def test_a_stream_through_the_terminal_is_unpacked_once_at_its_inner_node(
    node: MakeNode, terminal: Terminal_Station, eventually: Eventually
) -> None:
    batches: list[list[Any]] = []
    plotted: list[Any] = []

    @takes_batches
    def keep(items: list[Any]) -> None:
        batches.append(items)

    boss = Boss(node, terminal, CONTINUOUS=keep)
    node("P_rig_a", terminal, {"CONTINUOUS": plotted.append})
    stream = node("rig_a", terminal).get_stream(
        "eye", "CONTINUOUS", min_size=10, pilot="rig_a", subject="mouse"
    )
    before = boss.node.statistics().received
    for number in range(30):
        stream.put({"n": number})
    stream.join()
    assert [item["n"] for batch in batches for item in batch] == list(range(30))
    assert {(item["pilot"], item["subject"], item["continuous"]) for batch in batches for item in batch} == {
        ("rig_a", "mouse", True)
    }
    peers_told = len(boss.of("PEER"))
    assert boss.node.statistics().received - before <= len(batches) + peers_told
    eventually(lambda: plotted)
    assert plotted[0]["pilot"] == "rig_a" and plotted[0]["n"] % 10 == 9


def test_state_is_kept_and_told(
    node: MakeNode, terminal: Terminal_Station, boss: Boss, eventually: Eventually
) -> None:
    plotted: list[Any] = []
    node("P_rig_a", terminal, {"STATE": plotted.append})
    rig = node("rig_a", terminal)
    assert rig.send("T", "STATE", "RUNNING").wait_settled(5).outcome is Outcome.DELIVERED
    assert boss.of("STATE") == [{"state": "RUNNING", "pilot": "rig_a"}]
    assert terminal.senders["rig_a"] == "RUNNING"
    eventually(lambda: plotted == ["RUNNING"])
    inner = node("_rig_a", terminal)
    inner.send("T", "STATE", "IDLE").result(5)
    assert boss.of("STATE")[-1] == {"state": "IDLE", "pilot": "rig_a"}


def test_a_handshake_is_told(node: MakeNode, terminal: Terminal_Station, boss: Boss) -> None:
    value = {"pilot": "rig_new", "ip": "10.0.0.7", "state": "IDLE"}
    node("rig_new", terminal).send("T", "HANDSHAKE", value).result(5)
    assert boss.of("HANDSHAKE") == [value]


@pytest.mark.parametrize("path", ["deep/tone.wav", "/deep/tone.wav"])
def test_a_file_is_sent(
    node: MakeNode, terminal: Terminal_Station, tmp_path: Path, path: str, eventually: Eventually
) -> None:
    files: list[Any] = []
    node("rig_a", terminal, {"FILE": files.append}).send("T", "FILE", path).result(5)
    assert [file["path"] for file in files] == [path]
    assert base64.b64decode(files[0]["file"]) == (tmp_path / "terminal" / "deep" / "tone.wav").read_bytes()


@pytest.mark.parametrize(
    "path", ["missing.wav", "../secret.txt", "/../secret.txt", "deep/../../secret.txt", "deep", "", 7, "a\0b"]
)
def test_a_file_that_is_not_there_or_outside_is_refused_with_an_error_reply(
    node: MakeNode, terminal: Terminal_Station, path: Any, eventually: Eventually
) -> None:
    files: list[Any] = []
    end = node("rig_a", terminal, {"FILE": files.append}).send("T", "FILE", path).wait_settled(5)
    assert end.reason is Reason.LISTEN_FAILED
    eventually(lambda: len(files) == 1)
    assert files[0]["path"] == path and files[0]["error"] and "file" not in files[0]


def test_a_link_out_of_the_folder_is_no_way_out(
    node: MakeNode, terminal: Terminal_Station, tmp_path: Path
) -> None:
    (tmp_path / "terminal" / "way_out").symlink_to(tmp_path / "secret.txt")
    end = node("rig_a", terminal, {"FILE": lambda value: None}).send("T", "FILE", "way_out").wait_settled(5)
    assert end.reason is Reason.LISTEN_FAILED and "leads out" in end.text


def test_no_more_pilots_than_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    station = Terminal_Station({"rig_a": {}})
    monkeypatch.setattr("pilotage.net.terminal_station.MAX_PILOTS", 3)
    for number in range(2):
        station._pilot(f"rig_{number}")["state"] = "IDLE"
    with pytest.raises(InvalidMessage, match="too many"):
        station._pilot("rig_x")
    with pytest.raises(InvalidMessage, match="can be seen"):
        station._pilot("\x1b[2J")
    assert station._pilot("rig_1")["state"] == "IDLE"
