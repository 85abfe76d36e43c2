"""A disk that fills up under load and is cleared later: what was confirmed stays, what wasn't comes later."""

from __future__ import annotations

import errno
import json
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import wait_eventually
from tests.system.faults.conftest import seeded
from tests.system.faults.rig import TERMINAL, Plan, Rig

pytestmark = [pytest.mark.only_on("linux"), pytest.mark.timeout(180)]

BLOCK = 65536
TOLD_S = 15.0
FULL_WORDS = ("full", "no space left", "enospc")


class Ballast:
    """A file that takes all that is left of a disk."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "ballast"

    def fill(self) -> None:
        """Write until nothing more goes, by the block and then by the byte."""
        with self._path.open("ab", buffering=0) as file:
            size = BLOCK
            while size:
                try:
                    file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def clear(self) -> None:
        self._path.unlink()


@seeded(fast=1, slow=5)
def test_the_terminals_disk_is_full(
    small_disk: Path, tmp_path: Path, seed: int, chance: random.Random
) -> None:
    ballast = Ballast(small_disk)
    with Rig(tmp_path, Plan(prefs={TERMINAL: {"DATADIR": str(small_disk)}})) as rig:
        rig.begin(rate_hz=100.0, text_chars=2000)
        time.sleep(chance.uniform(0, 0.5))
        ballast.fill()
        wait_eventually(lambda: says_full(rig.agents[TERMINAL].log), TOLD_S, 0.1)
        time.sleep(chance.uniform(0, 1))
        # The rest works on: the Terminal answers, the pilots are there.
        assert all(known["link"] == "alive" for known in rig.pilots().values())
        ballast.clear()
        rig.wait_more_rows()
        rig.finish_and_check(f"the Terminal's disk was full, seed {seed}")


@seeded(fast=1, slow=5)
def test_a_pilots_disk_is_full(small_disk: Path, tmp_path: Path, seed: int, chance: random.Random) -> None:
    """The Terminal is told by name; by default the task waits, so that nothing goes unrecorded."""
    ballast = Ballast(small_disk)
    with Rig(tmp_path, Plan(prefs={"rig_a": {"DATADIR": str(small_disk)}})) as rig:
        rig.begin(rate_hz=100.0, text_chars=2000)
        time.sleep(chance.uniform(0, 0.5))
        ballast.fill()
        told = wait_eventually(lambda: events_of(rig.place, "rig_a"), TOLD_S, 0.1)
        assert any(word in json.dumps(told).lower() for word in FULL_WORDS), told
        time.sleep(chance.uniform(0, 1))
        ballast.clear()
        rig.wait_more_rows()
        rig.finish_and_check(f"rig_a's disk was full, seed {seed}")


def says_full(log: Path) -> bool:
    """Tell whether an agent's log names the full disk."""
    return any(word in log.read_text(errors="replace").lower() for word in FULL_WORDS)


def events_of(place: Path, pilot: str) -> list[str]:
    """Give what was reported by a pilot, as it is stored."""
    return [text for (text,) in _query(place, 'SELECT "values" FROM events WHERE pilot = ?', pilot)]


def _query(place: Path, statement: str, *arguments: object) -> list[tuple[str]]:
    database = f"{(place / 'session.sqlite').as_uri()}?mode=ro"
    with closing(sqlite3.connect(database, uri=True, timeout=10)) as connection:
        return connection.execute(statement, arguments).fetchall()
