"""What agents need from others, as small Protocols. Whoever composes the program joins them to real services."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy.typing as npt

from pilotage.net.listens import Origin
from pilotage.protocol.coverage import Holding
from pilotage.protocol.errors import StoreError


class TrialRow(msgspec.Struct, frozen=True, gc=False):
    """One message of trial data: whose it is, its columns, which message it was, and its number."""

    pilot: str
    subject: str | None
    trial_num: int | None
    values: Mapping[str, Any]
    origin: Origin | None
    source: str = ""
    row_num: int | None = None


class NoRoom(StoreError):
    """So much waits for a record's disk that nothing more is taken for now."""


class Archive(Protocol):
    """One session's record. Each future ends when the entry is safe on disk, or with what went wrong.

    That is `Closed` if the record was closed before the disk took it. Any thread may call, and doesn't wait: each
    `add_...` raises `NoRoom` while too much waits for the disk, and `Closed` once the record is closed. An entry that
    carries the origin of one stored before is not stored again.
    """

    @property
    def place(self) -> str:
        """Where the data lie."""

    @property
    def trouble(self) -> str:
        """Why the disk refuses what waits for it; empty if it doesn't."""

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

    def add_trials(self, rows: Sequence[TrialRow]) -> Future[list[Exception | None]]:
        """Keep the columns of many messages; the future ends with an error or None for each."""

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
        """Keep items of a stream; `part` numbers the streams of one message, the last of which is 0.

        `first` is the first item's number among those of the source.
        """

    def add_event(
        self, pilot: str, name: str, values: Mapping[str, Any], origin: Origin | None = None
    ) -> Future[None]:
        """Keep something that happened."""

    def add_state(self, pilot: str, state: str, origin: Origin | None = None) -> Future[None]:
        """Keep a pilot's new state."""

    def add_parameter(self, pilot: str, name: str, value: Any, source: str) -> Future[None]:
        """Keep a parameter's new value, and who set it."""

    def add_fact(self, key: str, value: Any) -> Future[None]:
        """Keep a fact about the session as a whole."""

    def holdings(self) -> list[Holding]:
        """Give what it holds of trials' messages and streams, by sender: counts, digests, numbers."""

    def row_digests(self, pilot: str, source: str, first: int, last: int) -> dict[int, str]:
        """Give the digests of rows, by number."""

    def next_row(self, pilot: str, source: str) -> int:
        """Give the number after the last one that it holds of a pilot's rows from a source; 0 if it holds none."""

    def facts(self) -> dict[str, Any]:
        """Give the facts that it holds."""

    def next_trial(self, pilot: str, subject: str) -> int:
        """Give the number after the last trial that it holds of a pilot and subject; 0 if it holds none."""

    def holds_data(self) -> bool:
        """Tell whether it holds anything of a trial or a stream."""

    def close(self, timeout_s: float) -> None:
        """Write everything and let go."""

    def discard(self, timeout_s: float) -> None:
        """Let go, and remove all of it."""


class Archives(Protocol):
    """Where sessions are kept."""

    def create(self, session: str, facts: Mapping[str, Any]) -> Archive:
        """Begin a session's record."""

    def open(self, session: str) -> Archive:
        """Go on with a session's record."""

    def look(self, session: str) -> tuple[str, dict[str, Any]]:
        """Tell where a session's record lies, and the facts that it holds, without opening it for writing."""

    def names(self) -> list[str]:
        """Give the names of all sessions, oldest first."""

    def watch(self, told: Callable[[str, str, bool], object]) -> None:
        """Have somebody told when the disk refuses what is to be kept, and when it takes it again.

        Args:
            told: called with the record's place, what is wrong, and whether it is over; from any thread. It must not
                wait for a record.
        """


class Who(NamedTuple):
    """Who has asked for something, as far as it is known; "" for what isn't.

    Attributes:
        key: the public key by which it came in, or else the station that vouches for it.
        name: the name that it goes by.
        address: where that connected from.
        via: names of the peers that its message came through.
    """

    key: str
    name: str
    address: str
    via: tuple[str, ...]


class Audit(Protocol):
    """Where it is kept who did what. Any thread may call, and doesn't wait."""

    def note(self, fields: Mapping[str, Any]) -> None:
        """Add an entry."""

    def anchor(self) -> dict[str, Any] | None:
        """Give the newest entry's `number` and `digest`, once all that was noted is written; None if that fails."""

    def close(self, timeout_s: float) -> None:
        """Write what waits, and let go."""
