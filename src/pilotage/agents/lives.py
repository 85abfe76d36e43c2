"""Lives: what each life of a pilot had sent, in a small file beside its record of the session.

Law: written when a task begins, every second while it runs, and when its streams have ended. A life that was killed is
known as far as its last note; a life whose streams have ended is known exactly.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.protocol.coverage import Claim
from pilotage.protocol.ledger import Kind, LedgerKey, Mark
from pilotage.protocol.ranges import Ranges, join

log = logging.getLogger(__name__)

NOTE_EVERY_S = 1.0
MAX_LIVES = 1000


@dataclass(frozen=True, slots=True)
class Life:
    """What is known of one life.

    Args:
        is_open: whether it had streams that had not ended when this was noted.
        marks: count and digest of each stream, and of its timestamps.
        rows: the numbers of its rows, by pilot. The record tells them too; these outlive it.
    """

    is_open: bool
    marks: Mapping[LedgerKey, Mark]
    rows: Mapping[str, Ranges]

    def claims(self) -> list[Claim]:
        """Give what can be said of its streams."""
        return [
            Claim(key, mark, ((0, mark.count - 1),) if mark.count else (), not self.is_open)
            for key, mark in self.marks.items()
        ]


class Lives:
    """The lives of one session of one agent. Any thread.

    Args:
        place: the file.
        agent: its name.
        life: what tells this life from others.
    """

    def __init__(self, place: Path, agent: str, life: str) -> None:
        self._place = place
        self._agent = agent
        self._life = life
        self._lock = threading.Lock()
        self._known: dict[str, Life] | None = None
        self._written: Life | None = None

    def earlier(self) -> dict[str, Life]:
        """Give the lives before this one, by life."""
        with self._lock:
            return {life: known for life, known in self._read().items() if life != self._life}

    def note(self, marks: Mapping[LedgerKey, Mark], rows: Mapping[str, Ranges], *, is_open: bool) -> None:
        """Write down how far this life is; a disk that fails is logged."""
        mine = Life(
            is_open, {key: mark for key, mark in marks.items() if key.kind is not Kind.TABLE}, dict(rows)
        )
        with self._lock:
            if mine == self._written:
                return
            lives = self._read()
            lives[self._life] = mine
            while len(lives) > MAX_LIVES:
                del lives[next(iter(lives))]
            try:
                self._place.parent.mkdir(parents=True, exist_ok=True)
                part = self._place.with_suffix(".part")
                part.write_text(json.dumps({life: _to_json(known) for life, known in lives.items()}))
                part.replace(self._place)
                self._written = mine
            except OSError as error:
                log.warning("%s can't be written: %s", self._place, error)

    def _read(self) -> dict[str, Life]:
        if self._known is None:
            self._known = self._load()
        return self._known

    def _load(self) -> dict[str, Life]:
        try:
            found = json.loads(self._place.read_text())
            return {life: self._from_json(life, known) for life, known in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning(
                "%s can't be read (%s): earlier lives' streams can't be accounted for", self._place, error
            )
            with contextlib.suppress(OSError):
                self._place.replace(self._place.with_suffix(".broken"))
            return {}

    def _from_json(self, life: str, known: Mapping[str, Any]) -> Life:
        source = source_of(self._agent, life)
        marks = {
            LedgerKey(pilot, Kind(kind), name, source): Mark(int(count), str(digest))
            for pilot, kind, name, count, digest in known["streams"]
        }
        rows = {
            str(pilot): join((first, last) for first, last in ranges)
            for pilot, ranges in known["rows"].items()
        }
        return Life(bool(known["open"]), marks, rows)


def source_of(agent: str, life: str) -> str:
    """Give what a stream's items of one life of an agent are numbered under."""
    return f"{agent}/{life}"


def _to_json(life: Life) -> dict[str, Any]:
    streams = [
        [key.pilot, str(key.kind), key.name, mark.count, mark.digest] for key, mark in life.marks.items()
    ]
    return {"open": life.is_open, "streams": streams, "rows": life.rows}
