"""A lab whose machines are locked: keys are paired, listed, revoked, rotated by commands (promises X1, X2)."""

from __future__ import annotations

import json
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotage.net.keys import KeyFolder
from pilotage.protocol.authority import Authority
from tests.cli.processes import AgentProcess, command, environment, run_cli, the_line, write_prefs
from tests.system.lab import wait_for
from tests.transport.relay import Relay

# Another address of the loopback interface stands for another machine: Linux alone has it.
pytestmark = [pytest.mark.only_on("linux"), pytest.mark.slow, pytest.mark.timeout(180)]

OUTSIDE = "127.0.0.2"


class Prompt:
    """A command that asks, at a screen that is read and typed at."""

    def __init__(self, *arguments: object, prefs: Path) -> None:
        self.lines: list[str] = []
        self._told = threading.Condition()
        self.process = subprocess.Popen(
            command(*arguments, prefs=prefs),
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            with self._told:
                self.lines.append(line.strip())
                self._told.notify_all()

    def wait_line(self, begins: str) -> str:
        def find() -> str | None:
            return next((line for line in self.lines if line.startswith(begins)), None)

        with self._told:
            found = self._told.wait_for(find, 20)
        assert found, self.lines
        return found.removeprefix(begins).strip()

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(20)
        self._reader.join(20)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


class Lab:
    """A Terminal's machine, and machines of pilots."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.terminal_prefs = write_prefs(folder / "T", PUSHPORT=0, PAIRPORT=0)
        self.agents: list[AgentProcess] = []
        self.prompts: list[Prompt] = []
        self.port = 0
        self.pilot_port = 0

    def start_terminal(self) -> AgentProcess:
        terminal = AgentProcess("terminal", prefs=self.terminal_prefs)
        self.agents.append(terminal)
        self.port = terminal.wait_port()
        self.terminal_prefs = write_prefs(self.folder / "T", PUSHPORT=self.port, PAIRPORT=0)
        return terminal

    def prefs(self, name: str, **more: object) -> Path:
        return write_prefs(
            self.folder / name, NAME=name, TERMINALIP=OUTSIDE, PUSHPORT=self.port, PING_INTERVAL=0.5, **more
        )

    def start_pilot(self, name: str, **more: object) -> AgentProcess:
        pilot = AgentProcess("pilot", prefs=self.prefs(name, **more))
        self.agents.append(pilot)
        return pilot

    def pair(
        self, name: str, typed: tuple[str, str] = ("y\n", "y\n"), *options: str, host_name: str = "T"
    ) -> tuple[int, int]:
        prefs = self.terminal_prefs if host_name == "T" else self.prefs(host_name, PAIRPORT=0)
        host = Prompt("keys", "accept", "--for", "30", *options, prefs=prefs)
        self.prompts.append(host)
        port = host.wait_line(f"{host_name} waits on port ").partition(":")[0]
        newcomer = Prompt("join", f"127.0.0.1:{port}", prefs=self.prefs(name))
        self.prompts.append(newcomer)
        codes = host.wait_line("code:"), newcomer.wait_line("code:")
        assert codes[0] == codes[1] and len(codes[0].replace(" ", "")) == 6
        newcomer.type(typed[0])
        host.type(typed[1])
        code = newcomer.process.wait(20)
        if code:
            host.process.terminate()
        return code, host.process.wait(20)

    def wait_link(self, name: str, link: str) -> None:
        """Wait until the Terminal, which ran last, has said so of a pilot last."""
        terminal = next(one for one in reversed(self.agents) if "terminal" in one.process.args)

        def last() -> object:
            told = [event for event in terminal.events if event.get("name") == name]
            return told[-1]["link"] if told else ""

        wait_for(lambda: last() == link, 90.0, told=lambda: terminal.events)

    def keys(self, name: str) -> KeyFolder:
        return KeyFolder(self.folder / name / "keys")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    opened = Lab(tmp_path)
    assert run_cli("keys", "init", prefs=opened.terminal_prefs).returncode == 0
    yield opened
    for agent in reversed(opened.agents):
        agent.close()
    for prompt in opened.prompts:
        prompt.close()


def test_a_pilot_is_paired_in_a_minute_and_refused_once_it_is_revoked(lab: Lab) -> None:
    terminal = lab.start_terminal()
    assert terminal.events[0]["openness"] == "open to known keys"
    pilot = lab.start_pilot("rig_a")
    assert lab.pair("rig_a") == (0, 0)
    # A pilot that ran before it was paired finds its key, and the Terminal that ran finds the pilot's.
    lab.wait_link("rig_a", "alive")
    for secret in lab.folder.glob("*/keys/*.secret"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    table = run_cli("keys", "list", "--json", prefs=lab.terminal_prefs)
    assert [(row["name"], row["role"]) for row in json.loads(table.stdout)] == [
        ("T", "own"),
        ("rig_a", "pilot"),
    ]
    asked = run_cli("ls", prefs=lab.prefs("rig_a"))
    assert asked.returncode == 0 and "rig_a" in asked.stdout
    assert run_cli("keys", "revoke", "rig_a", prefs=lab.terminal_prefs).returncode == 0
    lab.wait_link("rig_a", "gone")
    refused = run_cli("ls", prefs=lab.prefs("rig_a"))
    assert "is not known there" in the_line(refused)
    assert lab.pair("rig_a") == (0, 0)
    lab.wait_link("rig_a", "alive")
    assert pilot.process.poll() is None


def test_without_a_key_nobody_comes_in_and_is_told_what_to_do(lab: Lab) -> None:
    lab.start_terminal()
    refused = run_cli("ls", prefs=lab.prefs("stranger"))
    assert "pilotage join" in the_line(refused)


@pytest.mark.parametrize("typed", [("n\n", "y\n"), ("y\n", "n\n"), ("y\n", "\n")])
def test_nothing_is_kept_unless_both_people_agree(lab: Lab, typed: tuple[str, str]) -> None:
    code, _ = lab.pair("rig_a", typed)
    assert code == 1
    assert lab.keys("T").known() == lab.keys("rig_a").known() == []


def test_files_may_be_copied_by_hand_instead(lab: Lab) -> None:
    lab.start_terminal()
    run_cli("keys", "init", "--name", "rig_b", prefs=lab.prefs("rig_b"))
    for there, here in (("T", "rig_b"), ("rig_b", "T")):
        known = lab.folder / here / "keys" / "known"
        known.mkdir()
        (known / "copied.key").write_text((lab.folder / there / "keys" / f"{there}.key").read_text())
    lab.start_pilot("rig_b")
    lab.wait_link("rig_b", "alive")


def test_a_pilots_key_is_rotated_while_it_runs_and_the_old_one_is_worth_nothing(lab: Lab) -> None:
    lab.start_terminal()
    lab.pair("rig_a")
    lab.start_pilot("rig_a")
    lab.wait_link("rig_a", "alive")
    (before,) = lab.keys("rig_a").own()
    done = run_cli("keys", "rotate", prefs=lab.prefs("rig_a"))
    assert done.returncode == 0, done.stderr
    (after,) = lab.keys("rig_a").own()
    assert before.public != after.public
    wait_for(lambda: lab.keys("T").find("rig_a").keys == (after.public,))
    lab.wait_link("rig_a", "alive")
    lab.keys("rig_a").keep(before)
    assert "is not known there" in the_line(run_cli("ls", prefs=lab.prefs("rig_a")))


def test_children_learn_the_next_key_of_their_parent(lab: Lab) -> None:
    lab.start_terminal()
    lab.pair("rig_a")
    lab.pair("cam", ("y\n", "y\n"), "--via", "rig_a")
    lab.pair("cam", host_name="rig_a")
    parent = lab.start_pilot("rig_a", MSGPORT=0, CHILDID=["cam"])
    port = parent.wait_port()
    lineage = {"LINEAGE": "CHILD", "PARENTID": "rig_a", "PARENTIP": OUTSIDE, "PARENTPORT": port}
    lab.start_pilot("cam", MSGPORT=0, **lineage)
    lab.wait_link("cam", "alive")
    (before,) = lab.keys("rig_a").own()
    done = run_cli("keys", "rotate", prefs=lab.prefs("rig_a"))
    assert done.returncode == 0, done.stderr
    assert "cam  knows the new key" in done.stdout and "start rig_a anew" in done.stdout
    (after,) = lab.keys("rig_a").own()
    assert lab.keys("cam").find("rig_a").keys == (before.public, after.public)
    parent.end(parent.process.terminate)
    lab.wait_link("cam", "gone")
    lab.start_pilot("rig_a", MSGPORT=port, CHILDID=["cam"])
    lab.wait_link("cam", "alive")
    wait_for(lambda: lab.keys("cam").find("rig_a").keys == (after.public,))


def test_the_terminals_key_is_rotated_between_sessions(lab: Lab) -> None:
    terminal = lab.start_terminal()
    lab.pair("rig_a")
    lab.start_pilot("rig_a")
    lab.wait_link("rig_a", "alive")
    (before,) = lab.keys("T").own()
    done = run_cli("keys", "rotate", prefs=lab.terminal_prefs)
    assert done.returncode == 0, done.stderr
    assert "rig_a  knows the new key" in done.stdout
    (after,) = lab.keys("T").own()
    assert lab.keys("rig_a").find("T").keys == (before.public, after.public)
    terminal.end(terminal.process.terminate)
    lab.start_terminal()
    lab.wait_link("rig_a", "alive")
    wait_for(lambda: lab.keys("rig_a").find("T").keys == (after.public,))


def test_told_insecure_it_is_open_and_says_so_on_each_screen(lab: Lab) -> None:
    terminal = AgentProcess("--insecure", "terminal", prefs=lab.terminal_prefs)
    lab.agents.append(terminal)
    lab.port = terminal.wait_port()
    prefs = write_prefs(lab.folder / "T", PUSHPORT=lab.port)
    assert str(terminal.events[0]["openness"]).startswith("INSECURE")
    shown = run_cli("ls", prefs=prefs)
    assert "the Terminal is INSECURE" in shown.stderr
    _, _, said = terminal.end(terminal.process.terminate)
    assert "T is INSECURE" in said


def test_who_listens_in_on_a_run_reads_nothing(lab: Lab) -> None:
    lab.start_terminal()
    lab.pair("rig_a")
    relay = Relay(lab.port, OUTSIDE)
    prefs = {"TERMINALIP": "127.0.0.1", "PUSHPORT": relay.port}
    try:
        (lab.folder / "rig_a" / "sounds" / "ramp.csv").write_text("".join(f"{n / 10}\n" for n in range(300)))
        path = write_prefs(lab.folder / "rig_a", NAME="rig_a", **prefs)
        pilot = AgentProcess("pilot", prefs=path)
        lab.agents.append(pilot)
        lab.wait_link("rig_a", "alive")
        options = (
            "-p",
            "path=ramp.csv",
            "-p",
            "sampling_rate_hz=500",
            "-p",
            "name=ramp",
            "--subject",
            "Mousse_7",
        )
        started = run_cli("start", "rig_a", "replay", *options, prefs=lab.terminal_prefs)
        assert started.returncode == 0, started.stderr
        running = pilot.wait_event(lambda event: event.get("state") == "RUNNING")
        pilot.wait_event(lambda event: event.get("state") == "IDLE", pilot.events.index(running))
        ended = run_cli("end", prefs=lab.terminal_prefs)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    finally:
        relay.close()
    assert len(relay.seen) > 5_000  # streams of one machine don't come this way
    words = (b"Mousse_7", b"replay", b"ramp.csv", b"START", b"CONTINUOUS", b"X-Name", b"rig_a")
    assert [word for word in words if word in relay.seen] == []


def test_what_is_made_here_is_judged_as_the_file_says(lab: Lab) -> None:
    lab.pair("cam", ("y\n", "y\n"), "--role", "node")
    keyring = lab.keys("T").keyring("T", lambda error: None)
    grant = keyring.grants[lab.keys("cam").own()[0].public]
    assert (grant.name, grant.role) == ("cam", "node")
    assert Authority(keyring.grants).knows(lab.keys("T").own()[0].public)
