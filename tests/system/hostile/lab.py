"""A Terminal's station, its inner node, and a good pilot that sends trial data all the time, each timed."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pilotage import Net_Node, Outcome, Receipt, Terminal_Station, prefs
from tests.system.hostile.attacks import ATTACKS, VICTIM

ROWS_A_SECOND = 100.0


@dataclass
class Rows:
    """What one stretch of sending has given: how long each row took until it was settled."""

    sent: list[int] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def p99_s(self) -> float:
        return statistics.quantiles(self.took_s, n=100)[98]

    @property
    def p50_s(self) -> float:
        return statistics.median(self.took_s)


class Lab:
    """What is attacked, and what must go on meanwhile."""

    host = "127.0.0.1"
    late = "late"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marker = folder / "pwned"
        self.got: list[tuple[str, Any]] = []
        self._numbers = itertools.count()
        sounds = folder / "sounds"
        sounds.mkdir()
        settings = replace(
            prefs.snapshot(),
            sounddir=sounds,
            pushport=0,
            terminalport=0,
            datadir=folder / "data",
            **self._prefs(),
        )
        self.station = Terminal_Station({VICTIM: {}}, settings)
        self.station.start()
        keys = ("DATA", "CONTINUOUS", "STATE", "HANDSHAKE", "PEER", "AUDIT", "EVENT")
        listens = {key: lambda value, key=key: self.got.append((key, value)) for key in keys}
        self.boss = Net_Node("_T", "T", self.station.listen_port, listens, journal=None)
        self.pilot = self.node(f"_{VICTIM}")
        self.holder = self.node(VICTIM)
        for node in (self.boss, self.pilot, self.holder):
            node.wait_connected(20)

    def _prefs(self) -> dict[str, Any]:
        """Give what is peculiar to this lab's Terminal."""
        return {}

    def node(self, name: str) -> Net_Node:
        """Make a node of the good pilot's."""
        return Net_Node(name, "T", self.station.listen_port, {}, journal=None)

    def close(self) -> None:
        for node in (self.pilot, self.holder, self.boss):
            node.release()
        self.station.release()

    def rows(self, *, until: threading.Event | None = None, seconds: float = 0.0) -> Rows:
        """Send rows at a steady rate, for a while or until something is over, and wait until all have settled."""
        rows, done = Rows(), threading.Condition()
        end = time.monotonic() + seconds
        pause = threading.Event()
        due = time.monotonic()
        while time.monotonic() < end or (until is not None and not until.is_set()):
            number = next(self._numbers)
            began = time.perf_counter()

            def over(receipt: Receipt, began: float = began) -> None:
                with done:
                    rows.took_s.append(time.perf_counter() - began)
                    if receipt.settlement is None or receipt.settlement.outcome is not Outcome.DELIVERED:
                        rows.failed.append(str(receipt.settlement))
                    done.notify_all()

            rows.sent.append(number)
            self.pilot.send("_T", "DATA", {"pilot": VICTIM, "row": number}).add_callback(over)
            due += 1 / ROWS_A_SECOND
            pause.wait(max(0.0, due - time.monotonic()))
        with done:
            assert done.wait_for(lambda: len(rows.took_s) == len(rows.sent), 60), "rows did not settle"
        return rows

    def let_somebody_in(self) -> None:
        """See that a newcomer still gets in."""
        with self.node(f"{self.late}_{next(self._numbers)}") as late:
            late.wait_connected(10)

    def stored(self) -> list[int]:
        """Give the good pilot's rows as they arrived at the Terminal's node."""
        return [
            value["row"]
            for key, value in self.got
            if key == "DATA" and isinstance(value, dict) and "row" in value
        ]

    @contextmanager
    def attacked(self, name: str, count: int, *, is_measured: bool) -> Iterator[subprocess.Popen[str]]:
        """Have a stranger's process attack; it is ended at the end, if it hasn't by itself.

        A stranger brings a computer along. Here it has our two cores, and its own work must not be measured: then it
        gets the time that nobody else wants, and so sends as fast as the station lets it.
        """
        command = ["chrt", "--idle", "0"] if is_measured else []
        command += [sys.executable, "-m", "tests.system.hostile.attacks", name, self.host]
        stranger = subprocess.Popen(
            [*command, str(self.station.listen_port), str(self.marker), str(count)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            yield stranger
        finally:
            if stranger.poll() is None:
                stranger.kill()
            _, said = stranger.communicate()
            assert not said, f"the attack itself failed: {said}"

    def suffer(self, name: str, *, is_heavy: bool = False, seconds: float = 1.0) -> Rows:
        """Send rows through an attack, and a little longer."""
        count = ATTACKS[name].count[is_heavy]
        over = threading.Event()
        with self.attacked(name, count, is_measured=is_heavy) as stranger:

            def watch() -> None:
                if name == "half_open":
                    assert stranger.stdout is not None
                    stranger.stdout.readline()  # it holds them now
                else:
                    stranger.wait()
                over.set()

            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            during = self.rows(until=over)
            after = self.rows(seconds=seconds)
            self.let_somebody_in()
        return Rows(during.sent + after.sent, during.took_s + after.took_s, during.failed + after.failed)


L = TypeVar("L", bound=Lab)


@contextmanager
def open_lab(folder: Path, kind: type[L] = Lab) -> Iterator[L]:
    lab = kind(folder)
    try:
        yield lab
    finally:
        lab.close()
