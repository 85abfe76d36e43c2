"""Each command against a real Terminal and pilot; what goes wrong is one line and an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Lab
from tests.cli.processes import AgentProcess, run_cli, the_line, write_prefs

OK, FAILED, USAGE, NO_ANSWER, MACHINE = range(5)
REPLAY = ("-p", "path=ramp.csv", "-p", "sampling_rate_hz=200", "-p", "name=ramp")
COMMANDS = ("demo", "terminal", "pilot", "ls", "status", "start", "stop", "set", "end", "prefs")


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """Preferences that lead to a port on which nobody listens."""
    terminal = AgentProcess("terminal", prefs=write_prefs(tmp_path / "T", PUSHPORT=0))
    port = terminal.wait_port()
    terminal.end(terminal.process.terminate)
    terminal.close()
    return write_prefs(tmp_path / "operator", PUSHPORT=port)


def test_help_names_each_command() -> None:
    done = run_cli("--help")
    assert done.returncode == OK
    assert [name for name in COMMANDS if f"  {name} " not in done.stdout] == []


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from pilotage.cli.program import run; run(['--help']); "
        "heavy = {'av', 'blosc2', 'pandas', 'pydantic', 'rich', 'xarray', 'zarr'} & set(sys.modules); "
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("bogus",), ("start", "rig_b"), ("ls", "--bogus"), ("stop",), ("start", "r", "t", "--trial", "x")],
)
def test_wrong_usage_is_one_line(arguments: tuple[str, ...]) -> None:
    done = run_cli(*arguments)
    assert done.returncode == USAGE
    assert the_line(done)


def test_no_terminal_is_said_soon(nowhere: Path) -> None:
    def seconds_beyond_a_start() -> float:
        began = time.monotonic()
        done = run_cli("ls", prefs=nowhere)
        ended = time.monotonic()
        run_cli("--version")
        assert done.returncode == NO_ANSWER
        assert "no Terminal answers at 127.0.0.1:" in the_line(done)
        return 2 * ended - began - time.monotonic()

    # It waits for 2.5 s. A machine may be busy for a moment, not each time.
    assert any(seconds_beyond_a_start() < 3.5 for _ in range(3))


@pytest.mark.parametrize(
    "asked", [("set", "rig_b", "a=1"), ("stop", "--all"), ("end",), ("start", "rig_b", "replay")]
)
def test_each_question_needs_a_terminal(nowhere: Path, asked: tuple[str, ...]) -> None:
    assert run_cli(*asked, prefs=nowhere).returncode == NO_ANSWER


def test_a_port_in_use_is_named(lab: Lab) -> None:
    port = lab.terminal.wait_port()
    done = run_cli("terminal", prefs=write_prefs(lab.folder / "second", PUSHPORT=port))
    assert done.returncode == MACHINE
    assert str(port) in the_line(done)


def test_a_pilot_needs_a_name(tmp_path: Path) -> None:
    done = run_cli("pilot", prefs=write_prefs(tmp_path))
    assert done.returncode == USAGE
    assert "NAME is not set" in the_line(done)


def test_ls_shows_the_pilot(lab: Lab) -> None:
    known = json.loads(run_cli("ls", "--json", prefs=lab.prefs).stdout)
    assert known["pilots"]["rig_b"]["state"] == "IDLE"
    assert known["pilots"]["rig_b"]["link"] == "alive"
    text = run_cli("ls", prefs=lab.prefs).stdout
    assert "rig_b" in text and "IDLE" in text


def test_an_address_on_the_command_line_counts(lab: Lab, nowhere: Path) -> None:
    done = run_cli("ls", "--json", "--at", f"127.0.0.1:{lab.terminal.wait_port()}", prefs=nowhere)
    assert "rig_b" in json.loads(done.stdout)["pilots"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("start", "nobody", "replay"), FAILED, "no pilot 'nobody' is known"),
        (("start", "rig_b", "juggle"), FAILED, "no task 'juggle' is installed"),
        (
            ("start", "rig_b", "replay", "-p", "path=ramp.csv", "-p", "sampling_rate_hz=-1"),
            FAILED,
            "sampling_rate_hz",
        ),
        (("start", "rig_b", "replay", "-p", 'path="ramp.csv'), USAGE, "broken JSON"),
        (("start", "rig_b", "replay", "-p", "path"), USAGE, "NAME=VALUE"),
        (("start", "rig_b", "replay", "-p", "a=1", "-p", "a=2"), USAGE, "given twice"),
        (("start", "rig_b", "replay", "--params", "missing.json"), USAGE, "missing.json"),
        (("set", "rig_b", "speed=2"), FAILED, "no task runs"),
        (("set", "nobody", "speed=2"), FAILED, "no pilot 'nobody' is known"),
        (("stop", "nobody"), FAILED, "no pilot 'nobody' is known"),
        (("end", "neverland"), FAILED, "isn't open"),
        (("status", "neverland"), FAILED, "no session 'neverland'"),
    ],
)
def test_what_cannot_be_done_is_one_line(lab: Lab, arguments: tuple[str, ...], code: int, text: str) -> None:
    done = run_cli(*arguments, prefs=lab.prefs)
    assert done.returncode == code, done.stderr
    assert text in the_line(done)


def test_a_session_from_start_to_certificate(lab: Lab) -> None:
    begun = json.loads(
        run_cli(
            "start",
            "rig_b",
            "replay",
            *REPLAY,
            "--subject",
            "m1",
            "--session",
            "s1",
            "--json",
            prefs=lab.prefs,
        ).stdout
    )
    assert begun["session"] == "s1" and begun["runs"]["task_type"] == "replay"
    refused = run_cli("set", "rig_b", "speed=2", prefs=lab.prefs)
    assert refused.returncode == FAILED and "can't change while it runs" in the_line(refused)
    opened = json.loads(run_cli("status", "--json", prefs=lab.prefs).stdout)
    assert opened["session"] == "s1" and opened["certificate"] is None
    stopped = run_cli("stop", "rig_b", "--json", prefs=lab.prefs)
    assert json.loads(stopped.stdout) == {"rig_b": "IDLE"}
    ended = run_cli("end", "--json", prefs=lab.prefs)
    certificate = json.loads(ended.stdout)
    assert ended.returncode == OK and certificate["complete"]
    assert json.loads(run_cli("ls", "--json", prefs=lab.prefs).stdout)["open"] == []
    # From the folder alone, by name and by path, as on a computer without a Terminal.
    for named in ("s1", begun["place"]):
        done = run_cli("status", named, "--json", "--at", "127.0.0.1:1", prefs=lab.prefs)
        found = json.loads(done.stdout)
        assert done.returncode == OK and found["certificate"]["complete"]
        assert {stream["name"] for stream in found["streams"]} == {"ramp", "ramp.sample_index"}


def test_parameters_change_while_a_task_runs(lab: Lab, tmp_path: Path) -> None:
    """The choice task needs sounds, which come from the Terminal's folder."""
    from pilotage.app.demo.sounds import write_sounds

    sides = write_sounds(lab.folder / "T" / "sounds")
    sounds = {side: [{"type": "File", "path": path} for path in paths] for side, paths in sides.items()}
    file = tmp_path / "params.json"
    file.write_text(
        json.dumps({"stim": {"sounds": sounds}, "player": "silent", "simulated": {"rt_median_ms": 50}})
    )
    since = len(lab.terminal.events)
    begun = run_cli(
        "start", "rig_b", "choice", "--params", file, "-p", "iti_ms=10", "--json", prefs=lab.prefs
    )
    assert begun.returncode == OK, begun.stderr
    assert (lab.folder / "rig_b" / "sounds" / sides["L"][0]).is_file()
    lab.terminal.wait_event(lambda event: event.get("state") == "RUNNING", since)
    changed = run_cli("set", "rig_b", "reward_ms=7", "bias=0.25", "--json", prefs=lab.prefs)
    assert json.loads(changed.stdout) == {"reward_ms": 7.0, "bias": 0.25}
    wrong = run_cli("set", "rig_b", "bias=2", prefs=lab.prefs)
    assert wrong.returncode == FAILED and "bias" in the_line(wrong)
    assert run_cli("stop", "--all", prefs=lab.prefs).stdout.split() == ["rig_b", "IDLE"]
    assert run_cli("end", prefs=lab.prefs).returncode == OK


def test_prefs_says_where_a_value_comes_from(tmp_path: Path) -> None:
    prefs = write_prefs(tmp_path, PUSHPORT=7000)
    found = {row["key"]: row for row in json.loads(run_cli("prefs", "--json", prefs=prefs).stdout)}
    assert found["PUSHPORT"]["value"] == 7000 and str(prefs) in found["PUSHPORT"]["source"]
    over = json.loads(run_cli("prefs", "pushport", "--json", prefs=prefs, PILOTAGE_PUSHPORT="7001").stdout)
    assert [row["value"] for row in over] == [7001]


@pytest.mark.parametrize("prefs", ["missing.json", None])
def test_bad_preferences_are_one_line(prefs: str | None, tmp_path: Path) -> None:
    path = tmp_path / "missing.json" if prefs else write_prefs(tmp_path, NAMEE="x")
    done = run_cli("ls", prefs=path)
    assert done.returncode == USAGE
    assert ("missing.json" if prefs else "NAMEE") in the_line(done)


@pytest.mark.parametrize(("typed", "offered"), [("st", "start"), ("start rig_b re", "replay")])
def test_the_shell_completes(typed: str, offered: str) -> None:
    words = f"pilotage {typed}"
    done = run_cli(
        _PILOTAGE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1)
    )
    assert offered in done.stdout.split()
