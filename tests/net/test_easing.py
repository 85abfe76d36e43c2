"""A process that was eased keeps the memory that its frames need over and over."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PASSES = """
import resource, sys
from pilotage.net.easing import ease_process

if sys.argv[1] == "eased":
    ease_process()

def hold_frames():
    return [bytes(bytearray(300_000)) for _ in range(20)]

for _ in range(3):
    hold_frames()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    hold_frames()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these knobs")
def test_frames_that_come_and_go_cost_no_new_pages() -> None:
    assert faults("eased") < faults("as it is") / 10


def faults(way: str) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", PASSES, way], capture_output=True, text=True, check=True, timeout=60
    )
    return int(ran.stdout)
