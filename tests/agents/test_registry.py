"""Tasks are found by name; a broken package hides none but its own."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path

import pytest

from pilotage.agents.registry import find_task, known_tasks, task_code_hash
from pilotage.agents.task import Task
from pilotage.agents.tasks.choice import Choice
from pilotage.protocol.errors import TaskError
from tests.agents.bench import Blink, Patient


def install(folder: Path, project: str, points: str, code: str = "") -> None:
    """Lay out an installed package: its module, and the metadata that pip would write."""
    info = folder / f"{project}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    (folder / f"{project}.py").write_text(code)


GOOD = "from pilotage.agents.task import Task\nclass Nod(Task):\n    stage_methods = ('a',)\n"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("lab_good", "lab_broken", "lab_other"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    install(tmp_path, "lab_good", "[pilotage.tasks]\nnod = lab_good:Nod\nchoice = lab_good:Nod\n", GOOD)
    install(
        tmp_path, "lab_broken", "[pilotage.tasks]\nwink = lab_broken:Wink\n", "raise OSError('no driver')\n"
    )
    install(
        tmp_path, "lab_other", "[pilotage.tasks]\nodd = lab_other:odd\nlost = lab_other:lost\n", "odd = 3\n"
    )
    install(tmp_path, "lab_garbled", "[pilotage.tasks\nthis is = = no entry point\n:::")
    return tmp_path


@pytest.mark.usefixtures("lab")
def test_a_labs_task_is_found_beside_the_shipped_ones() -> None:
    assert {"choice", "camera", "replay", "nod", "wink"} <= set(known_tasks())
    assert find_task("nod").__name__ == "Nod"
    assert find_task("choice") is Choice


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wink", "can't be loaded: OSError: no driver"),
        ("odd", "lab_other:odd is no subclass"),
        ("lost", "can't be loaded: AttributeError"),
        ("nap", "no task 'nap' is installed here; there are: camera, choice, lost, nod, odd, replay, wink"),
    ],
)
def test_what_cannot_be_used_says_why(name: str, text: str) -> None:
    with pytest.raises(TaskError, match=text):
        find_task(name)


def test_every_shipped_task_loads() -> None:
    for name in ("choice", "camera", "replay"):
        assert issubclass(find_task(name), Task)


def test_the_code_hash_is_that_of_the_code_that_runs(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = task_code_hash(find_task("nod"))
    assert len(bytes.fromhex(before)) == hashlib.sha256().digest_size
    (lab / "lab_good.py").write_text(GOOD + "# a comment counts, too\n")
    assert task_code_hash(find_task("nod")) == before, "an edit after loading isn't what runs"
    monkeypatch.delitem(sys.modules, "lab_good")
    importlib.invalidate_caches()
    assert task_code_hash(find_task("nod")) != before
    assert task_code_hash(Patient) != task_code_hash(Blink)


def test_a_class_without_a_source_is_refused() -> None:
    typed: type[Task[object]] = type("Typed", (Task,), {"__module__": "nowhere"})  # type: ignore[type-var]
    with pytest.raises(TaskError, match="source of Typed can't be read"):
        task_code_hash(typed)
    assert "nowhere" not in sys.modules
