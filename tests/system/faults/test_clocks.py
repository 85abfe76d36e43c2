"""A process's wall clock is stepped by an hour, forth and back, as by an NTP client; nothing else may notice."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.system.faults.conftest import seeded
from tests.system.faults.rig import TERMINAL, Plan, Rig

pytestmark = [pytest.mark.only_on("linux"), pytest.mark.timeout(180)]

HOUR_S = 3600
STAMPS = {"rig_a": "sent_wall", TERMINAL: "received"}


class Clock:
    """The wall clock of one agent's processes."""

    def __init__(self, place: Path, library: Path) -> None:
        self._place = place
        self.env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(place),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }
        self.step(0)

    def step(self, seconds: int) -> None:
        """Set it so far before (or, if negative, behind) the true time."""
        part = self._place.with_suffix(".part")
        part.write_text(f"{seconds:+d}\n")
        part.replace(self._place)


def start_stations_afresh(packages: Path) -> None:
    """Have agents fork their stations from a process without threads.

    The library's own lock is not freed in a child, so that one forked while another thread asks for the time hangs.
    """
    packages.mkdir()
    (packages / "sitecustomize.py").write_text(
        "import multiprocessing\nmultiprocessing.set_start_method('forkserver')\n"
    )


@pytest.fixture
def lab(faketime: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Rig, Clock]]:
    name = request.node.callspec.params["name"]
    clock = Clock(tmp_path / "clock", faketime)
    start_stations_afresh(tmp_path / "packages")
    with Rig(tmp_path, Plan(env={name: clock.env})) as rig:
        yield rig, clock


@seeded(fast=1, slow=5)
@pytest.mark.parametrize("name", ["rig_a", TERMINAL])
def test_a_clock_that_is_stepped(lab: tuple[Rig, Clock], name: str, seed: int, chance: random.Random) -> None:
    rig, clock = lab
    rig.begin(stream_hz=20.0)
    steps = chance.sample([HOUR_S, -HOUR_S, 0], 3)
    for seconds in steps:
        time.sleep(chance.uniform(0, 0.5))
        clock.step(seconds)
        # As quickly as ever: no timer may hang on the wall clock.
        rig.wait_more_rows(timeout_s=8.0)
    rig.finish_and_check(f"{name}'s clock was set {steps} s off, seed {seed}")
    assert stamped_range_s(rig.place, STAMPS[name]) > HOUR_S, (
        "the clock was never stepped: nothing was tested"
    )


def stamped_range_s(place: Path, column: str) -> float:
    """Give how far apart the earliest and the latest time are that rows of rig_a were stamped with."""
    statement = f"SELECT max({column}) - min({column}) FROM data_messages WHERE pilot = 'rig_a'"
    database = f"{(place / 'session.sqlite').as_uri()}?mode=ro"
    with closing(sqlite3.connect(database, uri=True)) as connection:
        return float(connection.execute(statement).fetchone()[0] or 0.0)
