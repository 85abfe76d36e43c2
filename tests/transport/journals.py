"""What the journal's tests share: entries, and a journal with a memory of what it told."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from msgspec.structs import replace

from pilotage.transport.journal import Entry, Journal, JournalRules, Place, Trouble

HOLDS = count(1)
BOOT = 2**63 - 25
QUICK = JournalRules(retry_s=0.02)


def make_entry(seq: int, body: bytes | None = None, flow: int = 2**62 + 1) -> Entry:
    """An entry whose content follows from its place, so that it can be checked."""
    return Entry(
        boot=BOOT,
        flow=flow,
        seq=seq,
        path=("station", "terminal"),
        verb="DATA",
        names=(f"rig_{seq}",),
        marks=3,
        bodies=(f"body {seq} ".encode() * (seq % 30) if body is None else body,),
        frames=() if seq % 5 or body is not None else (b"", bytes(range(256)) * (seq % 7)),
        deadline=1_800_000_000.25 + seq if seq % 2 else None,
    )


def make_entries(first: int, count: int, size: int | None = None) -> list[Entry]:
    return [make_entry(seq, None if size is None else bytes(size)) for seq in range(first, first + count)]


def make_run(seq: int) -> Entry:
    """An entry of one to four messages, which follows from its place."""
    count = 1 + seq % 4
    names = tuple(f"rig_{seq + at}" for at in range(count))
    bodies = tuple(f"body {seq + at} ".encode() * (seq % 30) for at in range(count))
    return replace(make_entry(seq, b""), names=names, bodies=bodies)


def places_of(entries: Iterable[Entry]) -> list[Place]:
    return [entry.place for entry in entries]


class Kept(Journal):
    """A journal that remembers what it told; its writer can be held fast in `kept`."""

    def __init__(self, file: Path, rules: JournalRules = QUICK) -> None:
        self.told: list[list[Place]] = []
        self.troubles: list[Trouble] = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.is_held = threading.Event()
        self.is_open = False
        super().__init__(file, rules, self._remember, self.troubles.append)
        self.is_open = True

    @property
    def places(self) -> list[Place]:
        return [place for places in self.told for place in places]

    def hold_writer(self) -> Place:
        """Keep an entry of its own, whose place is given, and hold the writer in the call that tells so."""
        self.goes_on.clear()
        self.is_held.clear()
        entry = make_entry(next(HOLDS), b"", flow=1)
        self.keep([entry])
        assert self.is_held.wait(10)
        return entry.place

    def close(self, timeout_s: float = 20) -> None:
        self.goes_on.set()
        super().close(timeout_s)
        assert not self._thread.is_alive()

    def _remember(self, places: list[Place]) -> None:
        self.told.append(places)
        self.is_held.set()
        assert self.goes_on.wait(30)


def read_left(file: Path) -> list[Entry]:
    """What a next life would find."""
    with Kept(file) as journal:
        assert journal.note == ""
        return journal.left
