"""A TCP relay that a test may freeze or cut, to stand between two real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading


class Relay:
    """Passes bytes between whoever connects and a port, until told otherwise; `seen` is all that it has passed."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self.seen = bytearray()
        self._frozen = threading.Event()
        self._sockets: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Keep all connections open and carry nothing, as when the machine behind has lost power."""
        self._frozen.set()

    def thaw(self) -> None:
        """Carry again, on new connections; the old ones end."""
        self._frozen.clear()
        self.cut()

    def cut(self) -> None:
        """Close all connections; new ones are carried."""
        sockets, self._sockets = self._sockets, []
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def close(self) -> None:
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                try:
                    far = socket.create_connection(self._target)
                except OSError:
                    near.close()
                    continue
                self._sockets += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._frozen.is_set():
                    continue
                self.seen += data
                sink.sendall(data)
        if not self._frozen.is_set():
            for one in (source, sink):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
