"""Our side of an interoperation test: nodes and stations that a test opens, and what their listens got."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pilotage import Net_Node, Pilot_Station, Station, Terminal_Station
from pilotage.net.prefs import Preferences

from .harness import wait_until
from .original.arrays import describe

MEETING_TIMEOUT_S = 10.0


class Got:
    """What the listens of one node got, in order; arrays as `original.arrays.describe` says."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: list[tuple[str, Any]] = []

    def take(self, key: str, value: Any) -> None:
        """Note one value."""
        described = describe(value)
        with self._lock:
            self._seen.append((key, described))

    def values(self, key: str) -> list[Any]:
        """Return the values of `key` so far."""
        with self._lock:
            return [value for seen, value in self._seen if seen == key]

    def wait(self, key: str, count: int, timeout_s: float = 5.0) -> list[Any]:
        """Block until `count` values of `key` came, and return all.

        Raises:
            AssertionError: fewer came within `timeout_s` seconds.
        """
        wait_until(lambda: len(self.values(key)) >= count, timeout_s, f"{count} {key} (got {self._seen})")
        return self.values(key)


class ReportingStation(Station):
    """A station whose DATA and FRAME are reported to the node `probe`, wherever it is, as SEEN."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.listens.update(DATA=self.l_report, FRAME=self.l_report)

    def l_report(self, msg: Any) -> None:
        """Tell the probe what came."""
        self.send("probe", "SEEN", {"key": msg.key, "value": msg.value, "sender": msg.sender})


class Ours:
    """Open our objects; all end with the test, last opened first."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack

    def node(
        self, name: str, upstream: str, port: int, listens: Iterable[str] = (), **options: Any
    ) -> tuple[Net_Node, Got]:
        """Open a Net_Node that records the keys of `listens`; it is connected when this returns."""
        got = Got()
        recording = {key: lambda value, key=key: got.take(key, value) for key in listens}
        node = Net_Node(name, upstream, port, recording | options.pop("also", {}), **options)
        self._stack.callback(node.release)
        if port:
            node.wait_connected(MEETING_TIMEOUT_S)
        return node, got

    def station(self, name: str, upstream: tuple[str, int] | None = None, **options: Any) -> Station:
        """Open a Station at a free port, with a pusher to `upstream` (its id and port) if given."""
        if upstream is not None:
            where = {"pusher": True, "push_ip": "127.0.0.1", "push_id": upstream[0], "push_port": upstream[1]}
            options |= where
        return self._started(ReportingStation(id=name, listen_port=0, **options))

    def terminal(self, pilots: Iterable[str] = ()) -> Terminal_Station:
        """Open a Terminal_Station at a free port."""
        settings = self._settings("terminal", PUSHPORT=0)
        return self._started(Terminal_Station({name: {} for name in pilots}, settings=settings))

    def pilot(self, name: str, terminal_port: int) -> Pilot_Station:
        """Open a Pilot_Station at a free port, below the terminal at that port."""
        places = {"NAME": name, "PUSHPORT": terminal_port, "TERMINALIP": "127.0.0.1", "MSGPORT": 0}
        return self._started(Pilot_Station(self._settings(name, **places)))

    def _settings(self, who: str, **values: Any) -> Any:
        preferences = Preferences(environ={}, file=None)
        preferences.set("DATADIR", os.environ["PILOTAGE_DATADIR"])
        sounds = self._folder / who / "sounds"
        sounds.mkdir(parents=True)
        for name, value in {**values, "SOUNDDIR": str(sounds)}.items():
            preferences.set(name, value)
        return preferences.snapshot()

    def _started(self, station: Any) -> Any:
        station.start()
        self._stack.callback(station.release)
        return station
