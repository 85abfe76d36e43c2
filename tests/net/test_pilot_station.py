"""The Pilot's station: every listen of its table; Terminal, Pilot and children are processes of their own."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path
from typing import Any

import pytest

from pilotage import Net_Node, Outcome, Pilot_Station, Reason, Terminal_Station
from pilotage.protocol.errors import Refused
from tests.conftest import Eventually
from tests.net.conftest import Gate, MakeNode, StartStation, settings
from tests.net.test_terminal_station import Boss

TONE = {"sounds": {"L": [{"type": "File", "path": "deep/tone.wav"}], "R": [{"type": "Noise"}]}}


class Rig:
    """A Pilot's own node: it keeps what it is given, and answers."""

    def __init__(self, node: MakeNode, pilot: Pilot_Station, **listens: Any) -> None:
        self.got: list[tuple[str, Any]] = []
        keys = ("START", "STOP", "PARAM", "COHERE", "CALIBRATE_PORT")
        keep = {key: self._keep(key) for key in keys}
        self.node: Net_Node = node(f"_{pilot.id}", pilot, {**keep, **listens})

    def keys(self) -> list[str]:
        return [key for key, _ in self.got]

    def _keep(self, key: str) -> Any:
        def listen(value: Any) -> Any:
            self.got.append((key, value))
            return {"got": key}

        return listen


@pytest.fixture
def boss(node: MakeNode, terminal: Terminal_Station, pilot: Pilot_Station, eventually: Eventually) -> Boss:
    eventually(lambda: "rig_a" in terminal.senders)
    return Boss(node, terminal)


@pytest.fixture
def rig(node: MakeNode, pilot: Pilot_Station) -> Rig:
    return Rig(node, pilot)


def states(boss: Boss) -> list[str]:
    return [told["state"] for told in boss.of("STATE")]


def test_state_is_kept_and_told_with_its_reason(
    boss: Boss, rig: Rig, pilot: Pilot_Station, terminal: Terminal_Station
) -> None:
    message = rig.node.prepare_message("rig_a", "STATE", "RUNNING")
    message["reason"] = "as you asked"
    assert rig.node.send(msg=message).wait_settled(5).outcome is Outcome.DELIVERED
    assert boss.of("STATE") == [{"state": "RUNNING", "pilot": "rig_a", "reason": "as you asked"}]
    assert terminal.senders["rig_a"] == "RUNNING"


def test_a_ping_is_answered_with_the_state(boss: Boss, rig: Rig, eventually: Eventually) -> None:
    rig.node.send("rig_a", "STATE", "RUNNING").result(5)
    boss.node.send("rig_a", "PING").result(5)
    eventually(lambda: states(boss) == ["RUNNING", "RUNNING"])


def test_param_and_cohere_are_answered_by_the_pilot(boss: Boss, rig: Rig) -> None:
    assert boss.node.send("rig_a", "PARAM", {"gain": 1}).result(5) == {"got": "PARAM"}
    assert boss.node.send("T", "CHANGE", {"pilot": "rig_a", "gain": 2}).result(5) == {"got": "PARAM"}
    assert boss.node.send("rig_a", "COHERE", {"subject": "mouse"}).result(5) == {"got": "COHERE"}
    assert boss.node.send("rig_a", "CALIBRATE_PORT", 1).result(5) == {"got": "CALIBRATE_PORT"}
    assert [value for _, value in rig.got] == [{"gain": 1}, {"gain": 2}, {"subject": "mouse"}, 1]


def test_stop_is_passed_on(boss: Boss, rig: Rig) -> None:
    boss.node.send("rig_a", "STOP", {"graduation": True}).result(5)
    assert rig.got == [("STOP", {"graduation": True})]


def test_start_without_files_is_passed_on_at_once(boss: Boss, rig: Rig) -> None:
    task = {"task_type": "choice", "subject": "mouse", "stim": {"sounds": {"L": [{"type": "Noise"}]}}}
    assert boss.node.send("rig_a", "START", task).result(5) == {"got": "START"}
    assert rig.got == [("START", task)]
    assert states(boss) == []


def test_start_fetches_what_is_missing_first(boss: Boss, rig: Rig, tmp_path: Path) -> None:
    boss.node.send("rig_a", "START", {"task_type": "choice", "stim": TONE}).result(10)
    assert rig.keys() == ["START"]
    assert states(boss) == ["PREPARING"]
    assert boss.of("STATE")[0]["reason"] == "fetching 1 files"
    fetched = tmp_path / "pilot" / "deep" / "tone.wav"
    assert fetched.read_bytes() == (tmp_path / "terminal" / "deep" / "tone.wav").read_bytes()
    assert [path.name for path in fetched.parent.iterdir()] == ["tone.wav"]


@pytest.mark.parametrize("path", ["missing.wav", "../secret.txt"])
def test_start_with_a_sound_that_is_not_there_fails_with_that_error(
    boss: Boss, rig: Rig, path: str, eventually: Eventually
) -> None:
    stim = {"sounds": {"L": [{"type": "File", "path": path}]}}
    with pytest.raises(Refused, match=path):
        boss.node.send("rig_a", "START", {"task_type": "choice", "stim": stim}).result(5)
    assert rig.got == []
    if path == "missing.wav":
        eventually(lambda: states(boss) == ["PREPARING", "IDLE"])
        assert path in boss.of("STATE")[1]["reason"]
    # The next one may try again.
    boss.node.send("rig_a", "START", {"task_type": "choice"}).result(5)


@pytest.mark.parametrize("value", [None, 5, {}, {"task_type": 3}, {"task_type": "choice", "stim": "loud"}])
def test_start_with_something_else_is_refused(boss: Boss, rig: Rig, value: Any) -> None:
    assert boss.node.send("rig_a", "START", value).wait_settled(5).reason is Reason.LISTEN_FAILED
    assert rig.got == []
    boss.node.send("rig_a", "START", {"task_type": "choice"}).result(5)


def test_start_while_running_is_refused(boss: Boss, rig: Rig) -> None:
    rig.node.send("rig_a", "STATE", "RUNNING").result(5)
    with pytest.raises(Refused, match="rig_a is RUNNING already"):
        boss.node.send("rig_a", "START", {"task_type": "choice"}).result(5)
    rig.node.send("rig_a", "STATE", "IDLE").result(5)
    boss.node.send("rig_a", "START", {"task_type": "choice"}).result(5)
    assert rig.keys() == ["START"]


def test_a_start_that_the_pilot_refuses_leaves_the_station_ready(
    node: MakeNode, boss: Boss, pilot: Pilot_Station, eventually: Eventually
) -> None:
    starts: list[Any] = []

    def start(value: Any) -> None:
        starts.append(value)
        if len(starts) == 1:
            raise LookupError("no such task")

    Rig(node, pilot, START=start)
    with pytest.raises(Refused, match="no such task"):
        boss.node.send("rig_a", "START", {"task_type": "choice", "stim": TONE}).result(5)
    eventually(lambda: states(boss) == ["PREPARING", "IDLE"])
    boss.node.send("rig_a", "START", {"task_type": "choice"}).result(5)
    assert len(starts) == 2


class SlowTerminal:
    """Stands where the Terminal's station would, and keeps everybody waiting for files."""

    def __init__(self, node: MakeNode) -> None:
        self.asked: list[str] = []
        self.told: list[Any] = []
        self.node: Net_Node = node(
            "T", router_port=0, listens={"FILE": self.asked.append, "STATE": self.told.append}
        )


@pytest.fixture
def slow(node: MakeNode) -> SlowTerminal:
    return SlowTerminal(node)


def waiting_pilot(
    start: StartStation, slow: SlowTerminal, folder: Path, deadline_s: float = 30.0
) -> Pilot_Station:
    chosen = settings(NAME="rig_s", PUSHPORT=slow.node.router_port, MSGPORT=0, SOUNDDIR=str(folder))
    station = Pilot_Station(chosen)
    station.fetch_deadline_s = deadline_s
    return start(station)  # type: ignore[no-any-return]


def test_stop_cancels_the_preparation(
    start: StartStation, node: MakeNode, slow: SlowTerminal, tmp_path: Path, eventually: Eventually
) -> None:
    rig = Rig(node, waiting_pilot(start, slow, tmp_path))
    started = slow.node.send("rig_s", "START", {"task_type": "choice", "stim": TONE})
    eventually(lambda: slow.asked == ["deep/tone.wav"] and slow.told == ["PREPARING"])
    with pytest.raises(Refused, match="PREPARING already"):
        node("other", slow.node).send("rig_s", "START", {"task_type": "choice"}).result(5)
    slow.node.send("rig_s", "STOP").result(5)
    with pytest.raises(Refused, match="stopped"):
        started.result(5)
    eventually(lambda: slow.told == ["PREPARING", "IDLE"])
    assert rig.got == []


def test_a_preparation_that_takes_too_long_fails(
    start: StartStation, node: MakeNode, slow: SlowTerminal, tmp_path: Path
) -> None:
    Rig(node, waiting_pilot(start, slow, tmp_path, deadline_s=0.2))
    with pytest.raises(Refused, match=r"'deep/tone.wav' did not come from the Terminal in time"):
        slow.node.send("rig_s", "START", {"task_type": "choice", "stim": TONE}).result(5)


def test_a_stop_right_behind_a_start_is_never_lost(boss: Boss, rig: Rig) -> None:
    for _ in range(40):
        started = boss.node.send("rig_a", "START", {"task_type": "choice"})
        boss.node.send("rig_a", "STOP").result(5)
        end = started.wait_settled(5)
        told = rig.keys()
        # Either it never began, or the pilot was told to stop.
        assert told.count("STOP") >= 1 or "START" not in told, (end, told)
        rig.got.clear()


def test_a_file_that_comes_is_kept_inside_the_folder(boss: Boss, rig: Rig, tmp_path: Path) -> None:
    content = base64.b64encode(b"noise").decode()
    boss.node.send("rig_a", "FILE", {"path": "/new/noise.wav", "file": content}).result(5)
    assert (tmp_path / "pilot" / "new" / "noise.wav").read_bytes() == b"noise"
    for wrong in (
        {"path": "../out.wav", "file": content},
        {"path": "x.wav", "file": "%%%"},
        {"path": 3},
        None,
    ):
        assert boss.node.send("rig_a", "FILE", wrong).wait_settled(5).reason is Reason.LISTEN_FAILED
    assert not (tmp_path / "out.wav").exists()


def test_the_pilot_may_have_a_file_fetched_and_others_may_not(boss: Boss, rig: Rig, tmp_path: Path) -> None:
    rig.node.send("rig_a", "FILE", "deep/tone.wav").result(5)
    assert (tmp_path / "pilot" / "deep" / "tone.wav").is_file()
    with pytest.raises(Refused, match=r"missing.wav"):
        rig.node.send("rig_a", "FILE", "missing.wav").result(5)
    with pytest.raises(Refused, match="only _rig_a may"):
        boss.node.send("rig_a", "FILE", "deep/tone.wav").result(5)


def test_kill_is_for_the_pilot_only(
    boss: Boss, rig: Rig, pilot: Pilot_Station, eventually: Eventually
) -> None:
    with pytest.raises(Refused, match="only _rig_a may end the station rig_a"):
        boss.node.send("rig_a", "KILL").result(5)
    rig.node.send("rig_a", "KILL")
    eventually(lambda: not pilot.is_alive())


# Children


def child_settings(name: str, pilot: Pilot_Station) -> Any:
    return settings(NAME=name, LINEAGE="CHILD", PARENTID=pilot.id, PARENTPORT=pilot.listen_port, MSGPORT=0)


@pytest.fixture
def children(start: StartStation, node: MakeNode, pilot: Pilot_Station, eventually: Eventually) -> list[Rig]:
    stations = [start(Pilot_Station(child_settings(name, pilot))) for name in ("cam_1", "cam_2")]
    eventually(lambda: {"cam_1", "cam_2"} <= set(pilot.senders))
    return [Rig(node, station) for station in stations]


def test_child_starts_the_task_at_every_child(rig: Rig, children: list[Rig]) -> None:
    task = {"task_type": "camera", "subject": "mouse", "child": {"parent": "rig_a", "subject": "mouse"}}
    assert rig.node.send("rig_a", "CHILD", task).wait_settled(5).outcome is Outcome.DELIVERED
    assert [child.got for child in children] == [[("START", task)]] * 2


def test_child_takes_another_key_and_a_named_child(rig: Rig, children: list[Rig]) -> None:
    rig.node.send("rig_a", "CHILD", {"KEY": "STOP"}).result(5)
    assert [child.keys() for child in children] == [["STOP"], ["STOP"]]
    named = {"KEY": "PARAM", "child": {"id": "cam_2"}, "gain": 1}
    assert rig.node.send("rig_a", "CHILD", named).result(5) == {"got": "PARAM"}
    assert [child.keys() for child in children] == [["STOP"], ["STOP", "PARAM"]]
    with pytest.raises(Refused, match="dictionary"):
        rig.node.send("rig_a", "CHILD", "camera").result(5)


def test_a_pilot_without_children_says_so(
    start: StartStation, node: MakeNode, slow: SlowTerminal, tmp_path: Path
) -> None:
    rig = Rig(node, waiting_pilot(start, slow, tmp_path))
    with pytest.raises(Refused, match="CHILDID"):
        rig.node.send("rig_s", "CHILD", {"task_type": "camera"}).result(5)


def test_a_childs_continuous_data_arrive_under_the_parents_name_and_subject(
    boss: Boss, rig: Rig, children: list[Rig]
) -> None:
    boss.node.send("rig_a", "START", {"task_type": "choice", "subject": "mouse_3"}).result(5)
    sent = children[0].node.send("rig_a", "CONTINUOUS", {"frame": 1, "pilot": "cam_1"})
    assert sent.wait_settled(5).outcome is Outcome.DELIVERED
    assert boss.of("DATA") == [{"frame": 1, "pilot": "rig_a", "subject": "mouse_3", "continuous": True}]


def test_a_childs_handshake_ends_at_its_parent(boss: Boss, children: list[Rig]) -> None:
    children[0].node.send("rig_a", "HANDSHAKE", {"pilot": "cam_1"}).result(5)
    assert boss.of("HANDSHAKE") == []


def test_data_wait_for_a_terminal_that_holds_them_up(
    node: MakeNode, terminal: Terminal_Station, pilot: Pilot_Station, gate: Gate
) -> None:
    """Through two stations the settlement is the inner node's own."""
    Boss(node, terminal, DATA=gate)
    rig = Rig(node, pilot)
    receipt = rig.node.send("T", "DATA", {"pilot": "rig_a", "x": 1})
    assert gate.entered.wait(5)
    with contextlib.suppress(TimeoutError):
        receipt.wait_settled(0.05)
    assert not receipt.is_settled
    gate.opened.set()
    receipt.result(5)
