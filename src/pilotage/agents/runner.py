"""Runs tasks, one at a time, each in a thread of its own, and reports their states.

Law: a final state is reported only after the task has really ended and its outputs are safe. A stop or an
error makes the outputs safe first and talks about it afterwards.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pilotage.agents.guard import OutputGuard
from pilotage.agents.outputs import Wiring
from pilotage.agents.params import checked_params
from pilotage.agents.registry import find_task
from pilotage.agents.run import Rig, RunnerPorts, TaskRun
from pilotage.agents.start import TaskStart
from pilotage.agents.states import STARTABLE, State, move
from pilotage.agents.task import Task
from pilotage.protocol.errors import Closed, TaskError

_log = logging.getLogger(__name__)

STOPPABLE = (State.PREPARING, State.RUNNING, State.PAUSED)


@dataclass(frozen=True, slots=True)
class RunnerStatistics:
    """What a runner did; the counts are those of the present or last run."""

    state: State
    reason: str
    task: str
    current_trial: int
    rows_reported: int
    items: Mapping[str, int] = field(default_factory=dict)


class TaskRunner:
    """Runs one task at a time; every method may be called from any thread but a task's own."""

    def __init__(
        self,
        ports: RunnerPorts,
        folder: Path,
        outputs_folder: Path,
        wiring: Mapping[str, Wiring] | None = None,
    ) -> None:
        """Make a runner that is IDLE.

        Args:
            ports: whom to tell.
            folder: folder of the tasks' files (sounds, recordings).
            outputs_folder: where file outputs with relative addresses lie.
            wiring: driver and address of outputs by name, where this rig differs from the tasks'
                declarations.
        """
        self._ports = ports
        self._rig = Rig(folder, outputs_folder, dict(wiring or {}))
        self._guard = OutputGuard()
        self._lock = threading.RLock()
        self._state = State.IDLE
        self._reason = ""
        self._pause = ""
        self._run: TaskRun | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def state(self) -> State:
        """The state now; never waits."""
        return self._state

    @property
    def current_trial(self) -> int:
        """Number of the trial that runs, or that the next START should begin with."""
        return self._run.rows.trial_num if self._run else 0

    def start(
        self,
        start: TaskStart,
        task_class: type[Task[Any]] | None = None,
        taken: Callable[[], object] = lambda: None,
    ) -> None:
        """Begin a task; returns when its thread has started, in state PREPARING.

        Args:
            start: the order (see ``parse_start``).
            task_class: the task; by default the one that the registry knows as ``start.task_type``.
            taken: called when nothing refuses the order any more, before its first state is told; if it raises, the
                order isn't taken. It must not call the runner's methods.

        Raises:
            TaskError: a task runs already, the task is unknown, or its parameters don't fit. What goes wrong
                later, from missing files on, is told to ``on_error``.
            Closed: the runner was closed.
        """
        cls = task_class or find_task(start.task_type)
        params = checked_params(cls.Params, start.params, start.task_type)
        with self._lock:
            self._check_startable(start)
            ports = replace(self._ports, on_error=self._tell_error)
            run = TaskRun(cls, params, start, ports, self._step, self._rig, self._guard)
            taken()
            self._guard.on_lost(lambda text: run.fail(TaskError(text), "beside its stages"))
            self._run = run
            if self._pause and run.pauses:
                run.pause()
            self._move(State.PREPARING, f"starting {start.task_type}")
            self._thread = threading.Thread(target=self._live, args=(run,), name="task", daemon=True)
            self._thread.start()

    def _check_startable(self, start: TaskStart) -> None:
        if self._closed:
            raise Closed("the runner was closed; make a new one")
        if self._state not in STARTABLE and self._run is not None:
            raise TaskError(
                f"task {start.task_type!r} can't start: {self._run.start.task_type!r} "
                f"is {self._state}; stop it first"
            )

    def change(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Change parameters of the running task: all, or none.

        Args:
            values: new values by name.

        Returns:
            The new values as they were taken, in plain (JSON) types.

        Raises:
            TaskError: no task runs, or a name or value doesn't fit.
        """
        run = self._run
        if run is None or run.task is None or self._state not in (State.RUNNING, State.PAUSED):
            raise TaskError(f"no parameter can be changed: the pilot is {self._state}, no task runs")
        return run.task.change(values)

    def pause(self, reason: str) -> None:
        """Pause the task that runs, and each that is started, until ``resume``; but those that are to go on.

        Args:
            reason: why, for the state's report.
        """
        with self._lock:
            self._pause = self._pause or reason
            if self._run is not None and self._run.pauses:
                self._run.pause()
                self._step(State.PAUSED)

    def resume(self) -> None:
        """Let a task that was paused go on; does nothing if none was."""
        with self._lock:
            self._pause = ""
            if self._run is not None:
                self._run.go_on()
                self._step(State.RUNNING)

    def request_stop(self, reason: str = "stopped") -> None:
        """Make the outputs safe and ask the task to end, without waiting; does nothing if none runs."""
        run = self._run
        if run is None or self._state not in STOPPABLE:
            return
        run.halt(reason)
        run.make_safe()
        self._step(State.STOPPING)

    def stop(self, timeout_s: float = 5.0, reason: str = "stopped") -> None:
        """Make the outputs safe, end the task and wait until it has ended; does nothing if none runs.

        Args:
            timeout_s: how long to wait, in seconds.
            reason: why, for the state's report.

        Raises:
            TaskError: the task has not ended in time. Its outputs are safe, and the state stays STOPPING
                until it does end. Or a task's own thread called this: it may call ``request_stop``.
        """
        thread, run = self._thread, self._run
        if thread is threading.current_thread():
            raise TaskError("a task's thread can't wait for its own end; call request_stop()")
        self.request_stop(reason)
        if thread is None or run is None:
            return
        thread.join(timeout_s)
        if thread.is_alive():
            raise TaskError(
                f"task {run.start.task_type!r} has not ended within {timeout_s} s "
                f"({run.lagging()}); its outputs are safe, and the state stays STOPPING until it ends"
            )

    def wait_ended(self, timeout_s: float) -> State:
        """Wait until no task runs, without stopping it.

        Args:
            timeout_s: how long to wait, in seconds.

        Returns:
            The state in which it ended.

        Raises:
            TaskError: the task still runs.
        """
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                raise TaskError(f"the task still runs after {timeout_s} s")
        return self._state

    def interrupted(self, reason: str) -> None:
        """Report INTERRUPTED, after a crash of the pilot; raises TaskError while a task runs."""
        with self._lock:
            self._move(State.INTERRUPTED, reason)

    def statistics(self) -> RunnerStatistics:
        """Return what the runner does and did."""
        run = self._run
        if run is None:
            return RunnerStatistics(self._state, self._reason, "", 0, 0)
        name, trial = run.start.task_type, run.rows.trial_num
        return RunnerStatistics(self._state, self._reason, name, trial, run.rows_reported, dict(run.items))

    def _live(self, run: TaskRun) -> None:
        try:
            run.live()
        finally:
            with self._lock:
                self._step(State.STOPPING)
                self._move(State.ERROR if run.failed else State.IDLE, run.reason)

    def _step(self, to: State) -> None:
        with self._lock:
            run = self._run
            if run is None:
                return
            starts = to is State.RUNNING and self._state in (State.PREPARING, State.PAUSED)
            pauses = to is State.PAUSED and self._state is State.RUNNING and bool(self._pause)
            stops = to is State.STOPPING and self._state in STOPPABLE
            if starts or pauses or stops:
                reasons = {State.RUNNING: run.start.task_type, State.PAUSED: self._pause}
                self._move(to, reasons.get(to, run.reason))

    def _move(self, to: State, reason: str) -> None:
        self._state = move(self._state, to)
        self._reason = reason
        try:
            self._ports.on_state(to, reason)
        except Exception:  # noqa: BLE001 - a report that fails must not stop what keeps outputs safe
            _log.exception("on_state raised for state %s (%s)", to, reason)

    def _tell_error(self, text: str, trace: str) -> None:
        _log.error("%s", text)
        try:
            self._ports.on_error(text, trace)
        except Exception:  # noqa: BLE001 - as for on_state
            _log.exception("on_error raised for: %s", text)

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop what runs, make the outputs safe and end their watchdog; may be called twice.

        Args:
            timeout_s: how long the task, and then the watchdog, may take.

        Raises:
            TaskError: the task doesn't end. MachineError: an output can't be set safe.
        """
        self._closed = True
        try:
            self.stop(timeout_s, "the pilot closes")
        finally:
            self._guard.close(timeout_s)

    def __enter__(self) -> Self:
        """Return the runner."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()
