"""The how-to's task runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_the_task_of_the_how_to_runs(root: Path, tmp_path: Path) -> None:
    page = (root / "docs" / "how-to" / "write-a-task.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(code) == 1
    (tmp_path / "blink.py").write_text(code[0], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "blink.py"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True
    )
    assert "IDLE - all trials done" in done.stdout
    assert done.stdout.count("TRIAL_END") == 3
    assert "the lamp is at 0.0" in done.stdout
    assert "ERROR" not in done.stdout
