"""The embedded store as the agents' archive."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy.typing as npt

from pilotage.agents.ports import NoRoom, TrialRow
from pilotage.net.listens import Origin
from pilotage.protocol.coverage import Holding
from pilotage.protocol.errors import Closed, StoreError
from pilotage.services.store import (
    Abandoned,
    Entry,
    Event,
    MessageId,
    Parameter,
    Provenance,
    QueueFull,
    SessionReader,
    SessionStore,
    Stamp,
    State,
    StoreConfig,
    StreamItems,
    TrialData,
    Trouble,
)

PART_SHIFT = 40
"""Parts of one message are told apart by the bits of the flow's number above these."""
REMOVALS, REMOVED_AGAIN_S = 20, 0.05
"""How often an empty session's folder is tried to be removed, and how long after one another."""


class FolderArchive:
    """One session's folder, as `agents.ports.Archive`.

    Args:
        store: the open store.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    @property
    def place(self) -> str:
        """The folder."""
        return str(self._store.folder)

    @property
    def trouble(self) -> str:
        """Why the disk refuses what waits for it; empty if it doesn't."""
        return self._store.statistics().trouble

    def add_trial(
        self,
        pilot: str,
        subject: str | None,
        trial_num: int | None,
        values: Mapping[str, Any],
        origin: Origin | None,
        source: str = "",
        row_num: int | None = None,
    ) -> Future[None]:
        """Keep columns of a trial, once for each number of a source."""
        return self._submit(
            TrialData(pilot, subject, trial_num, values, _id(origin), _stamp(origin), source, row_num)
        )

    def add_trials(self, rows: Sequence[TrialRow]) -> Future[list[Exception | None]]:
        """Keep the columns of many messages."""
        received = time.time()
        entries = [
            TrialData(
                row.pilot,
                row.subject,
                row.trial_num,
                row.values,
                _id(row.origin),
                Stamp(received, _sent(row.origin)),
                row.source,
                row.row_num,
            )
            for row in rows
        ]
        future: Future[list[Exception | None]] = Future()
        try:
            self._store.submit_all(entries, lambda ends: future.set_result([_told(end) for end in ends]))
        except QueueFull as error:
            raise NoRoom(str(error)) from error
        return future

    def add_items(
        self,
        pilot: str,
        subject: str | None,
        stream: str,
        timestamps: Sequence[Any],
        data: npt.NDArray[Any],
        origin: Origin | None,
        part: int,
        source: str = "",
        first: int | None = None,
    ) -> Future[None]:
        """Keep items of a stream."""
        ids = _id(origin, part), _stamp(origin)
        return self._submit(StreamItems(pilot, subject, stream, timestamps, data, *ids, source, first))

    def add_event(
        self, pilot: str, name: str, values: Mapping[str, Any], origin: Origin | None = None
    ) -> Future[None]:
        """Keep something that happened."""
        return self._submit(Event(pilot, name, values, _id(origin), _stamp(origin)))

    def add_state(self, pilot: str, state: str, origin: Origin | None = None) -> Future[None]:
        """Keep a pilot's new state."""
        return self._submit(State(pilot, state, _id(origin), _stamp(origin)))

    def add_parameter(self, pilot: str, name: str, value: Any, source: str) -> Future[None]:
        """Keep a parameter's new value."""
        return self._submit(Parameter(pilot, name, value, source, None, _stamp(None)))

    def add_fact(self, key: str, value: Any) -> Future[None]:
        """Keep a fact about the session as a whole."""
        return self._submit(Provenance(key, value))

    def holdings(self) -> list[Holding]:
        """Give what it holds of trials' messages and streams, by sender: counts, digests, numbers."""
        return self._store.holdings()

    def row_digests(self, pilot: str, source: str, first: int, last: int) -> dict[int, str]:
        """Give the digests of rows, by number."""
        return self._store.row_digests(pilot, source, first, last)

    def next_row(self, pilot: str, source: str) -> int:
        """Give the number after the last one that it holds of a pilot's rows from a source; 0 if it holds none."""
        return self._store.next_row(pilot, source)

    def facts(self) -> dict[str, Any]:
        """Give the facts that it holds."""
        with SessionReader(self._store.folder) as reader:
            return reader.provenance()

    def next_trial(self, pilot: str, subject: str) -> int:
        """Give the number after the last trial that it holds of a pilot and subject; 0 if it holds none."""
        with SessionReader(self._store.folder) as reader:
            return reader.next_trial(pilot, subject)

    def holds_data(self) -> bool:
        """Tell whether it holds anything of a trial or a stream."""
        with SessionReader(self._store.folder) as reader:
            summary = reader.summary()
            return bool(summary.data_messages or summary.streams)

    def close(self, timeout_s: float) -> None:
        """Write everything and let go.

        Raises:
            StoreError: the disk doesn't take it in time.
        """
        self._store.close(timeout_s)

    def discard(self, timeout_s: float) -> None:
        """Let go, and remove the folder.

        Raises:
            StoreError: it can't be closed or removed.
        """
        self._store.close(timeout_s)
        for left in reversed(range(REMOVALS)):
            try:
                shutil.rmtree(self._store.folder)
            except OSError as error:
                # Whoever reads the database right now makes files of SQLite's beside it, and takes them away again.
                if not left or error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                    raise StoreError(f"the empty session {self.place!r} can't be removed: {error}") from error
                time.sleep(REMOVED_AGAIN_S)
            else:
                return

    def _submit(self, entry: Entry) -> Future[None]:
        future: Future[None] = Future()
        try:
            self._store.submit(entry, _finisher(future))
        except QueueFull as error:
            raise NoRoom(str(error)) from error
        return future


class FolderArchives:
    """Sessions as folders below one, as `agents.ports.Archives`.

    Args:
        root: that folder; made if missing.
        config: bounds of what may wait for the disk, when the defaults don't fit.
    """

    def __init__(self, root: Path, config: StoreConfig | None = None) -> None:
        self._root = root
        self._told: Callable[[str, str, bool], object] = lambda place, text, is_over: None
        # Nobody waits for room here: the backlog does, however long, for all who have something to keep.
        self._config = replace(config or StoreConfig(), submit_timeout_s=0, on_trouble=self._tell)

    def watch(self, told: Callable[[str, str, bool], object]) -> None:
        """Have somebody told when the disk refuses, and when it takes again; see `agents.ports.Archives`."""
        self._told = told

    def _tell(self, trouble: Trouble) -> None:
        self._told(trouble.file, trouble.text, trouble.is_over)

    def create(self, session: str, facts: Mapping[str, Any]) -> FolderArchive:
        """Begin a session's folder.

        Raises:
            StoreError: it is there already, or can't be made.
        """
        return FolderArchive(SessionStore.create(self._root, session, dict(facts), self._config))

    def open(self, session: str) -> FolderArchive:
        """Go on with a session's folder.

        Raises:
            StoreError: it isn't there, or is being written by another process.
        """
        return FolderArchive(SessionStore.open(self._root / session, self._config))

    def look(self, session: str) -> tuple[str, dict[str, Any]]:
        """Tell where a session's folder lies, and the facts that it holds.

        Raises:
            StoreError: it can't be read.
        """
        folder = self._root / session
        with SessionReader(folder) as reader:
            return str(folder), reader.provenance()

    def names(self) -> list[str]:
        """Give the names of all sessions, oldest first."""
        found = [path.parent for path in self._root.glob("*/session.sqlite")]
        return [folder.name for folder in sorted(found, key=lambda folder: folder.stat().st_ctime)]


def _finisher(future: Future[None]) -> Callable[[StoreError | None], None]:
    def done(error: StoreError | None) -> None:
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(_told(error) or error)

    return done


def _told(error: StoreError | None) -> Exception | None:
    """Give a store's error as agents know it: what was closed isn't the entry's own fault."""
    return Closed(str(error)) if isinstance(error, Abandoned) else error


def _id(origin: Origin | None, part: int = 0) -> MessageId | None:
    if origin is None or not origin.boot:
        return None
    return MessageId(origin.boot, origin.flow | part << PART_SHIFT, origin.seq)


def _stamp(origin: Origin | None) -> Stamp:
    return Stamp(time.time(), _sent(origin))


def _sent(origin: Origin | None) -> float | None:
    if origin is None or not origin.timestamp:
        return None
    try:
        return datetime.fromisoformat(origin.timestamp).timestamp()
    except ValueError:
        return None
