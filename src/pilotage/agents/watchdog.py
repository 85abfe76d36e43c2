"""The process that sets outputs safe when the process that drives them dies (promise L4).

Law: it depends on nothing of the process it watches but the pipe between them. The end of that pipe, or
of that process, however it came about, means: enter every safe value, now.

Orders come as lines of JSON on the standard input, ``{"serial": n, "do": "watch" | "safe", …}``; each is
answered on the standard output by ``{"serial": n, "failed": {output: why}}``; the first line says ready
(serial 0).
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from typing import Any

from pilotage.agents.outputs import Driver, Output, from_plain, open_output
from pilotage.protocol.errors import PilotageError

RETRY_FOR_S = 5.0
PARENT_POLL_S = 0.2


class Watchdog:
    """Holds the list of outputs, and sets them safe when told or when its parent is gone."""

    def __init__(self, parent: int) -> None:
        """Prepare to watch the process ``parent``."""
        self._parent = parent
        self._outputs: dict[str, Output] = {}
        self._held: dict[str, Driver] = {}
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Obey the orders on the standard input until it ends, then set everything safe."""
        try:
            self._reply(0, {})
            for line in sys.stdin.buffer:
                order = json.loads(line)
                with self._lock:
                    failed = self._obey(order)
                self._reply(order["serial"], failed)
        except Exception:  # noqa: BLE001 - whatever is wrong here, the outputs come first
            traceback.print_exc()
        finally:
            self.parent_is_gone()

    def _obey(self, order: dict[str, Any]) -> dict[str, str]:
        if order["do"] == "safe":
            return self._set_safe(order["names"])
        self._let_go()
        self._outputs = from_plain(order["outputs"])
        return {}

    def _let_go(self) -> None:
        for driver in self._held.values():
            driver.close()
        self._held.clear()

    def _set_safe(self, names: list[str]) -> dict[str, str]:
        failed: dict[str, str] = {}
        for name in names:
            output = self._outputs[name]
            try:
                self._hold(name, output)
            except (OSError, PilotageError) as error:
                failed[name] = f"{type(error).__name__}: {error}"
        return failed

    def _hold(self, name: str, output: Output) -> None:
        if name in self._held:
            self._held[name].write(output.safe)
        else:
            self._held[name] = open_output(output)

    def parent_is_gone(self) -> None:
        """Set every output safe, trying again where a dying process still held it, and end this process."""
        with self._lock:
            deadline = time.monotonic() + RETRY_FOR_S
            left = self._set_safe(list(self._outputs))
            while left and time.monotonic() < deadline:
                time.sleep(0.02)
                left = self._set_safe(list(left))
            for name, why in left.items():
                os.write(2, f"pilotage watchdog: output {name!r} could not be set safe: {why}\n".encode())
            # No clean-up: closing a pin would turn it into an input, instead of leaving it at its safe level.
            os._exit(1 if left else 0)

    def watch_parent(self) -> None:
        """Wait until the parent is gone.

        The pipe's end isn't enough on POSIX: a process that the parent forked may hold the pipe open.
        """
        try:
            handle = os.pidfd_open(self._parent)
        except (AttributeError, OSError):
            handle = -1
        if os.getppid() == self._parent and handle >= 0:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            poll.poll()
        while os.getppid() == self._parent:
            time.sleep(PARENT_POLL_S)
        self.parent_is_gone()

    def _reply(self, serial: int, failed: dict[str, str]) -> None:
        try:
            sys.stdout.buffer.write(json.dumps({"serial": serial, "failed": failed}).encode() + b"\n")
            sys.stdout.buffer.flush()
        except OSError:
            self.parent_is_gone()


def ignore_signals() -> None:
    """Ignore what a terminal or a service manager sends to a whole group: only the parent's end counts."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK", "SIGQUIT"):
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, signal.SIG_IGN)


def main() -> None:
    """Watch the process whose id is the first argument."""
    ignore_signals()
    dog = Watchdog(int(sys.argv[1]))
    if os.name == "posix":
        threading.Thread(target=dog.watch_parent, name="watch-parent", daemon=True).start()
    dog.serve()


if __name__ == "__main__":
    main()
