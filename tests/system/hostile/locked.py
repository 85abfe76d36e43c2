"""The attacked lab, locked: strangers are on another address, and the attackers have got hold of three good keys."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pilotage import Net_Node
from pilotage.net.keys import KeyFolder, KnownKey, make_pair
from pilotage.net.security import Security
from tests.system.hostile.attacks import ASKED, ORDERS, VICTIM
from tests.system.hostile.lab import Lab, Rows
from tests.transport.locks import OUTSIDE

STOLEN = {"office": "viewer", "rig_b": "pilot", "cam": "node"}


class LockedLab(Lab):
    """What is attacked, with keys.

    Attributes:
        obeyed: orders that reached somebody, which none of the attackers may give.
    """

    host = OUTSIDE
    late = f"{VICTIM}_late"

    def __init__(self, folder: Path) -> None:
        self.obeyed: list[tuple[str, str]] = []
        super().__init__(folder)
        for node in (self.boss, self.pilot, self.holder):
            for verb in (*ORDERS, *ASKED):
                node.listens[verb] = lambda value, verb=verb, who=node.id: self.obeyed.append((who, verb))

    def keys(self, name: str) -> KeyFolder:
        return KeyFolder(self.folder / "keys" / name)

    def _prefs(self) -> dict[str, Any]:
        station, loot = make_pair("T"), KeyFolder(self.folder / "loot")
        self.keys("T").keep(station)
        for name, role in {VICTIM: "pilot", **STOLEN}.items():
            pair = make_pair(name)
            self.keys("T").know(KnownKey(name, pair.public, role))
            for folder in (self.keys(name), *([loot] if name in STOLEN else [])):
                folder.keep(pair)
                folder.know(KnownKey("T", station.public, "admin"))
        return {"keydir": self.keys("T").folder}

    def node(self, name: str, owner: str = VICTIM, port: int = 0) -> Net_Node:
        """Make a node that comes from another machine with somebody's key; through a relay, if a port is given."""
        security = Security(self.keys(owner).folder)
        port, host = port or self.station.listen_port, "127.0.0.1" if port else self.host
        return Net_Node(name, "T", port, {}, upstream_ip=host, journal=None, security=security)

    @contextmanager
    def working(self) -> Iterator[Rows]:
        """Have the good pilot send rows meanwhile; all of them must have arrived, in order, at the end."""
        over, rows, before = threading.Event(), Rows(), len(self.stored())

        def work() -> None:
            found = self.rows(until=over)
            rows.sent, rows.took_s, rows.failed = found.sent, found.took_s, found.failed

        worker = threading.Thread(target=work)
        worker.start()
        try:
            yield rows
        finally:
            over.set()
            worker.join(60)
        assert rows.sent and not rows.failed
        assert self.stored()[before:] == rows.sent, "each row once, in order"


class Recorder:
    """Stands between a node and the station, and keeps what each connection of the node's has sent, byte for byte."""

    def __init__(self, host: str, port: int) -> None:
        self.recorded: list[bytearray] = []
        self.refused = 0
        self._target = (host, port)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                try:
                    far = socket.create_connection(self._target)
                except OSError:
                    near.close()
                    continue
                self._pairs.append((near, far))
                self.recorded.append(bytearray())
                for given in ((near, far, self.recorded[-1]), (far, near, None)):
                    threading.Thread(target=self._carry, args=given, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, kept: bytearray | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if kept is not None:
                    kept += data
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def repeat(self, last: int) -> None:
        """Send the end of what the newest connection has sent once more, on that connection."""
        with contextlib.suppress(OSError):
            self._pairs[-1][1].sendall(bytes(self.recorded[-1][-last:]))

    def replay(self) -> None:
        """Send what each connection has sent once more, each on a new connection, and wait for what is answered."""
        for said in list(self.recorded):
            with contextlib.suppress(OSError), socket.create_connection(self._target, timeout=5) as again:
                again.sendall(bytes(said))
                while again.recv(65536):
                    pass
            self.refused += 1

    def close(self) -> None:
        self._server.close()
        for pair in self._pairs:
            for one in pair:
                one.close()
