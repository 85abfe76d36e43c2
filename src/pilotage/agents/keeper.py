"""Keeper: holds a station's process, and starts another if it dies (promise L3)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from pilotage.net.station import Station
from pilotage.protocol.errors import PilotageError, PortInUse

log = logging.getLogger(__name__)

FIRST_WAIT_S, LAST_WAIT_S = 0.05, 5.0
PORT_WAIT_S, LOOK_S = 2.0, 0.1


class Keeper:
    """A station that is started again when its process ends by itself.

    Args:
        make: makes a station that listens on the given port; None for whatever its preferences say.
        restarted: called, on a thread of the keeper's, after each restart.
    """

    def __init__(
        self, make: Callable[[int | None], Station], restarted: Callable[[], None] = lambda: None
    ) -> None:
        self.restarts = 0
        self._make = make
        self._restarted = restarted
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._station: Station | None = None

    @property
    def station(self) -> Station:
        """The station that runs now.

        Raises:
            RuntimeError: it wasn't started.
        """
        if self._station is None:
            raise RuntimeError("the keeper was not started")
        return self._station

    def start(self) -> Station:
        """Start the station.

        A port that is in use is tried again for two seconds: after a crash of ours the station of our last life still
        has it for a moment.

        Raises:
            PortInUse: another program listens on its port.
            StationDied: its process ended at once.
        """
        deadline = time.monotonic() + PORT_WAIT_S
        while True:
            try:
                return self._start(None)
            except PortInUse:
                if time.monotonic() > deadline or self._closing.wait(LOOK_S):
                    raise

    def close(self, timeout_s: float = 3.0) -> None:
        """End the station for good."""
        self._closing.set()
        with self._lock:
            if self._station is not None:
                self._station.release(timeout_s)

    def _start(self, port: int | None) -> Station:
        with self._lock:
            station = self._make(port)
            station.start()
            self._station = station
            station.on_died = lambda: self._died(station)
            return station

    def _died(self, station: Station) -> None:
        if not self._closing.is_set():
            log.error("the station %s has died; starting it again", station.id)
            threading.Thread(target=self._restart, args=(station,), name="keeper", daemon=True).start()

    def _restart(self, dead: Station) -> None:
        wait, port = FIRST_WAIT_S, dead.listen_port
        dead.release()
        while not self._closing.wait(wait):
            try:
                self._start(port)
            except (PilotageError, OSError, TimeoutError) as error:
                log.error("the station could not be started again: %s", error)
                wait = min(wait * 2, LAST_WAIT_S)
            else:
                self.restarts += 1
                self._restarted()
                return
