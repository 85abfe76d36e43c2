"""Rigs that tests share as long as they are well, seeds, and what the machine must have."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.faults.rig import Plan, Rig, quiet

FIRST_SEED = int(os.environ.get("FAULTS_SEED", "0"))
FAST_SEEDS, SLOW_SEEDS = 1, 20


def seeded(fast: int = FAST_SEEDS, slow: int = SLOW_SEEDS) -> pytest.MarkDecorator:
    """Run a test for some seeds, `slow` of them in all; the first `fast` belong to the normal tests."""
    seeds = range(FIRST_SEED, FIRST_SEED + slow)
    marks = [() if at < fast else (pytest.mark.slow,) for at in range(slow)]
    return pytest.mark.parametrize(
        "seed", [pytest.param(seed, marks=mark) for seed, mark in zip(seeds, marks, strict=True)]
    )


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """What draws the moments of this test: the same whenever it is run with the same seed."""
    return random.Random(f"{request.node.originalname} {sorted(request.node.callspec.params.items())}")


class Shed:
    """Keeps one rig for all tests of a module, and builds another when a test has left it unwell."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder, self._plan = folder, plan
        self._rig: Rig | None = None
        self._count = 0
        self.spoiled = False

    def take(self) -> Rig:
        if self._rig is not None and (self.spoiled or not self._rig.is_well()):
            self.close()
        if self._rig is None:
            self._count += 1
            self._rig = Rig(self._folder / str(self._count), self._plan)
            self._rig.start()
        # Until the test has ended well.
        self.spoiled = True
        return self._rig

    def close(self) -> None:
        if self._rig is not None:
            self._rig.close()
        self._rig, self.spoiled = None, False


@pytest.fixture(scope="module")
def shed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Shed]:
    """A module's rig; the module may say in PLAN what it is like."""
    opened = Shed(tmp_path_factory.mktemp("rig"), getattr(request.module, "PLAN", Plan()))
    yield opened
    opened.close()


@pytest.fixture
def rig(shed: Shed) -> Rig:
    """A Terminal and its pilots, well and idle; a test ends with `finish_and_check`."""
    return shed.take()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Have a rig used again only after a test that passed."""
    result = yield
    opened = getattr(item, "funcargs", {}).get("shed")
    if opened is not None:
        opened.spoiled = False
    return result


@pytest.fixture
def needs_root() -> None:
    """Skip, saying why, unless we may make namespaces and mount file systems."""
    if not sys.platform.startswith("linux"):
        pytest.skip("namespaces and tmpfs are Linux's")
    if os.geteuid() != 0:
        pytest.skip("not root: namespaces and mounts can't be made")


@pytest.fixture
def needs_namespaces(needs_root: None) -> None:
    """Skip, saying why, unless network namespaces can be made."""
    if shutil.which("ip") is None:
        pytest.skip("`ip` is missing: apt-get install iproute2")
    name = f"probe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def small_disk(needs_root: None, tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB, mounted on a folder of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def faketime() -> Path:
    """Where libfaketime is; skip, saying why, if it is nowhere."""
    if not sys.platform.startswith("linux"):
        pytest.skip("libfaketime is preloaded on Linux only")
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime is missing: apt-get install faketime")
    return found[0]
