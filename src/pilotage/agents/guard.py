"""The outputs of the task that runs, and the watchdog process that outlives it (promise L4).

Law: once made safe, an output takes no other value until it is armed for the next task. What this process
fails to set, the watchdog sets; what both fail to set is raised by name.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, cast

from pilotage.agents.outputs import SHARED_DRIVERS, Driver, Output, open_output, to_plain
from pilotage.protocol.errors import Closed, MachineError, PilotageError, TaskError

_READY = 0
_START_TIMEOUT_S = 15.0


class TaskStopped(Exception):
    """Leave a stage or source because the task was stopped; not an error, and not to be caught by tasks."""


class OutputHandle:
    """One armed output, as a task holds it; any thread of the task may use it."""

    def __init__(self, name: str, output: Output) -> None:
        """Open the output; it has its safe value when this returns."""
        self.name = name
        self.output = output
        self._driver: Driver = open_output(output)
        self._value = float(output.safe)
        self._lock = threading.Lock()
        self._latched = threading.Event()
        self._is_held = False

    @property
    def value(self) -> float:
        """The value that was set last, 0 to 1; while the task is paused, the one to which it goes back."""
        return self._value

    def set(self, value: float) -> None:
        """Set the output.

        Args:
            value: 0 to 1; a digital pin takes 0 and 1.

        Raises:
            TaskStopped: the outputs were made safe, and this isn't the safe value.
            TaskError: the value is out of range.
            OSError, MachineError: the hardware refused.
        """
        if not 0 <= value <= 1:
            raise TaskError(f"output {self.name!r} takes 0 to 1, not {value!r}")
        with self._lock:
            if self._latched.is_set() and value != self.output.safe:
                raise TaskStopped(f"output {self.name!r} was made safe")
            if not self._is_held or value == self.output.safe:
                self._driver.write(value)
            self._value = float(value)

    def hold(self) -> None:
        """Enter the safe value and stay there, whatever is set meanwhile; raises what the driver raises."""
        with self._lock:
            self._is_held = True
            self._driver.write(self.output.safe)

    def go_on(self) -> None:
        """Go back to the value that was set last; raises what the driver raises."""
        with self._lock:
            if self._is_held:
                self._is_held = False
                if not self._latched.is_set():
                    self._driver.write(self._value)

    def pulse(self, duration_ms: float, value: float = 1.0) -> None:
        """Set the output to a value for a time, then to its safe value; blocks meanwhile.

        Args:
            duration_ms: how long, in milliseconds.
            value: value during the pulse, 0 to 1.

        Raises:
            TaskStopped: the outputs were made safe before the pulse was over.
        """
        self.set(value)
        try:
            if self._latched.wait(duration_ms / 1000):
                raise TaskStopped(f"output {self.name!r} was made safe during a pulse")
        finally:
            self.set(self.output.safe)

    def latch(self) -> None:
        """Enter the safe value, and refuse any other from now on; raises what the driver raises."""
        self._latched.set()
        self.set(self.output.safe)

    def close(self) -> None:
        """Let go of the hardware."""
        with self._lock:
            self._driver.close()


class OutputGuard:
    """Arms outputs, makes them safe, and keeps a watchdog process that does so when this process dies.

    One guard serves all tasks of a process, one after the other. Any thread may call it. ``on_lost`` is
    called from the guard's own thread when the watchdog itself died while outputs were armed.
    """

    def __init__(self, on_lost: Callable[[str], None] | None = None) -> None:
        """Make a guard; its process starts when outputs are armed first."""
        self._on_lost = on_lost
        self._orders = threading.Lock()
        self._answers = threading.Condition()
        self._answered: dict[int, dict[str, str]] = {}
        self._serial = _READY
        self._process: subprocess.Popen[bytes] | None = None
        self._handles: dict[str, OutputHandle] = {}
        self._latched = True
        self._closed = False
        _guards.add(self)

    @property
    def pid(self) -> int | None:
        """Process id of the watchdog; None before outputs were armed first."""
        return self._process.pid if self._process else None

    def on_lost(self, call: Callable[[str], None]) -> None:
        """Set whom to tell when the watchdog dies while outputs are armed."""
        self._on_lost = call

    def arm(
        self, outputs: Mapping[str, Output], timeout_s: float = _START_TIMEOUT_S
    ) -> dict[str, OutputHandle]:
        """Open outputs at their safe values, the watchdog watching them before the first is opened.

        Args:
            outputs: final outputs by name (see ``wire_outputs``).
            timeout_s: how long the watchdog may take to start and to take over the list.

        Returns:
            A handle by name.

        Raises:
            Closed: the guard was closed.
            MachineError: the watchdog doesn't start, or an output's hardware isn't there.
            TaskError: an output can't take its safe value.
        """
        if self._closed:
            raise Closed("the guard of outputs was closed; make a new one")
        self._close_handles()
        if outputs:
            self._ensure_watchdog(timeout_s)
            self._order({"do": "watch", "outputs": to_plain(outputs)}, timeout_s)
        self._latched = not outputs
        try:
            for name, output in outputs.items():
                self._handles[name] = self._open(name, output)
        except PilotageError:
            self._disarm(timeout_s)
            raise
        return dict(self._handles)

    def _disarm(self, timeout_s: float) -> None:
        """Give up after one output could not be opened: the others have their safe values already."""
        self._latched = True
        self._close_handles()
        self._order({"do": "watch", "outputs": {}}, timeout_s)

    def _open(self, name: str, output: Output) -> OutputHandle:
        try:
            return OutputHandle(name, output)
        except OSError as error:
            raise MachineError(f"output {name!r} at {output.driver} {output.address}: {error}") from error

    def make_safe(self, timeout_s: float = 1.0) -> None:
        """Enter the safe value of every armed output, here and through the watchdog, and latch it.

        Args:
            timeout_s: how long the watchdog may take to confirm.

        Raises:
            MachineError: an output could be set neither here nor by the watchdog, or the watchdog, though
                it lives, doesn't confirm; the text names each output.
        """
        self._latched = True
        failed = self._latch_all()
        armed = list(self._handles.items())
        names = [name for name, held in armed if held.output.driver in SHARED_DRIVERS or name in failed]
        if not names or not self._alive():
            still = failed
        else:
            answer = self._order({"do": "safe", "names": names}, timeout_s)
            still = {
                name: f"{failed[name]}; watchdog: {why}" for name, why in answer.items() if name in failed
            }
        if still:
            texts = "; ".join(f"{name!r}: {why}" for name, why in still.items())
            raise MachineError(f"outputs could not be set safe, switch them off by hand: {texts}")

    def hold(self) -> None:
        """Keep every armed output at its safe value while the task is paused, whatever it sets meanwhile.

        Raises:
            MachineError: an output can't be set; the text names it.
        """
        self._each(OutputHandle.hold)

    def go_on(self) -> None:
        """Give the outputs the values that the task set last.

        Raises:
            MachineError: an output can't be set; the text names it.
        """
        self._each(OutputHandle.go_on)

    def _each(self, do: Callable[[OutputHandle], None]) -> None:
        for name, handle in list(self._handles.items()):
            try:
                do(handle)
            except OSError as error:
                raise MachineError(f"output {name!r} can't be set: {error}") from error

    def _latch_all(self) -> dict[str, str]:
        failed = {}
        for name, handle in list(self._handles.items()):
            try:
                handle.latch()
            except (OSError, PilotageError) as error:
                failed[name] = f"{type(error).__name__}: {error}"
                if handle.output.driver not in SHARED_DRIVERS:
                    handle.close()
        return failed

    def _alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _ensure_watchdog(self, timeout_s: float) -> None:
        if self._alive():
            return
        command = [sys.executable, "-P", "-m", "pilotage.agents.watchdog", str(os.getpid())]
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        self.close_pipe()
        with self._answers:
            self._answered.clear()
        # A session of its own: a Ctrl-C or a group's SIGTERM reaches the task, not the watchdog.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=os.name == "posix",
            creationflags=flags,
        )
        threading.Thread(
            target=self._read, args=(self._process,), name="watchdog-answers", daemon=True
        ).start()
        self._await(_READY, timeout_s)

    def _order(self, order: dict[str, Any], timeout_s: float) -> dict[str, str]:
        with self._orders:
            self._serial += 1
            serial = self._serial
            data = json.dumps({**order, "serial": serial}).encode() + b"\n"
            process = self._process
            if process is None or process.stdin is None:
                raise MachineError("the watchdog of outputs isn't running")
            try:
                while data:
                    data = data[os.write(process.stdin.fileno(), data) :]
            except OSError as error:
                raise MachineError(f"the watchdog of outputs died: {error}") from error
        return self._await(serial, timeout_s)

    def _await(self, serial: int, timeout_s: float) -> dict[str, str]:
        deadline = time.monotonic() + timeout_s
        with self._answers:
            while serial not in self._answered:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise MachineError(f"the watchdog of outputs gave no answer within {timeout_s} s")
                if not self._alive():
                    raise MachineError("the watchdog of outputs died; start the task again")
                self._answers.wait(left)
            return self._answered.pop(serial)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        with io.BufferedReader(cast(io.FileIO, process.stdout)) as answers:
            for line in answers:
                answer = json.loads(line)
                with self._answers:
                    self._answered[answer["serial"]] = answer["failed"]
                    self._answers.notify_all()
        code = process.wait()
        with self._answers:
            self._answers.notify_all()
        if not self._latched and not self._closed and self._on_lost:
            self._on_lost(f"the watchdog of outputs (process {process.pid}) ended with code {code}")

    def close_pipe(self) -> None:
        """Close this end of the pipe: to a watchdog that died, or in a child that would keep it open."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def _close_handles(self) -> None:
        for handle in self._handles.values():
            handle.close()
        self._handles = {}

    def close(self, timeout_s: float = 5.0) -> None:
        """Make all outputs safe and end the watchdog; may be called twice.

        Args:
            timeout_s: how long the watchdog may take to confirm, and to end.

        Raises:
            MachineError: an output could not be set safe, or the watchdog doesn't end.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.make_safe(timeout_s)
        finally:
            self._close_handles()
            self._end_watchdog(timeout_s)

    def _end_watchdog(self, timeout_s: float) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise MachineError(f"the watchdog of outputs (process {process.pid}) doesn't end") from error


_guards: weakref.WeakSet[OutputGuard] = weakref.WeakSet()


def _forget_guards() -> None:
    for guard in list(_guards):
        guard.close_pipe()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_guards)
