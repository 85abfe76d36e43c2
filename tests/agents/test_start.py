"""What START carries, and the files it asks for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pilotage.agents.start import parse_start
from pilotage.net.jail import inside
from pilotage.net.stimuli import missing_files, stimulus_files
from pilotage.protocol.errors import TaskError


def test_a_start_is_split_into_run_and_parameters() -> None:
    start = parse_start(
        {
            "task_type": "choice",
            "pilot": "rig_a",
            "subject": "m1",
            "session": 3,
            "step": 1,
            "step_name": "training",
            "current_trial": 12,
            "graduation": {"type": "NTrials"},
            "child": {"parent": "rig_a", "subject": "m1"},
            "reward_ms": 20,
        }
    )
    assert (start.task_type, start.current_trial, start.session) == ("choice", 12, 3)
    assert start.params == {"reward_ms": 20}
    assert start.child == {"parent": "rig_a", "subject": "m1"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "needs a dictionary"),
        ({}, "task_type: Field required"),
        ({"task_type": "x", "current_trial": -1}, "current_trial: .*greater than or equal to 0"),
        ({"task_type": "x", "subject": 3}, "subject: .*valid string"),
        ({"task_type": ""}, "task_type"),
    ],
)
def test_a_start_that_cannot_be_used_names_its_field(value: Any, text: str) -> None:
    with pytest.raises(TaskError, match=text):
        parse_start(value)


def sound(path: str, kind: str = "File") -> dict[str, Any]:
    return {"type": kind, "path": path, "amplitude": 0.1}


def test_files_are_listed_once_in_order_and_tones_are_none() -> None:
    stim = {
        "sounds": {"L": [sound("a.wav"), {"type": "Tone", "frequency": 500}], "R": [sound("b.wav", "Speech")]}
    }
    assert stimulus_files(stim) == ["a.wav", "b.wav"]
    managed = {"manager": "global", "groups": [stim, {"name": "g2", "sounds": {"L": [sound("c.wav")]}}, stim]}
    assert stimulus_files(managed) == ["a.wav", "b.wav", "c.wav"]
    assert stimulus_files({}) == []


@pytest.mark.parametrize(
    "stim",
    [
        3,
        {"sounds": [1]},
        {"sounds": {"L": "a.wav"}},
        {"sounds": {"L": [{"type": "File"}]}},
        {"groups": {}, "sounds": 1},
    ],
)
def test_broken_descriptions_are_refused(stim: Any) -> None:
    with pytest.raises(TaskError, match="stim"):
        stimulus_files(stim)


def test_a_leading_slash_means_the_folders_top(tmp_path: Path) -> None:
    assert inside(tmp_path, "/tones/a.wav") == (tmp_path / "tones" / "a.wav").resolve()
    (tmp_path / "there").write_text("x")
    assert missing_files(["there", "/there", "not/there"], tmp_path) == ["not/there"]


@pytest.mark.parametrize(
    "path", ["../a", "a/../../b", "", "/", ".", "C:/a", "a\\..\\b", "a\0b", "/../../etc/passwd"]
)
def test_no_path_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(TaskError, match="inside"):
        inside(tmp_path, path)


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    with pytest.raises(TaskError, match="leads out"):
        inside(tmp_path / "in", "link/secret")
