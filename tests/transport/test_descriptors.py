"""A process may open as many connections as the system lets it."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource
from pilotage.transport.descriptors import raise_limit
hard = {hard}
resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE), raise_limit(64))
"""


@pytest.mark.only_on("linux", "darwin")
@pytest.mark.parametrize("hard", [128, 1000, 4096])
def test_the_limit_is_raised_to_what_is_allowed(hard: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(hard=hard)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.split() == [str(hard)] * 4
