"""One run of a task, from its build to its end, in the thread that calls it.

Law: whatever happens, sources are joined, the task's ``end`` is called and the outputs are safe before
``live`` returns.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.agents.guard import OutputGuard, TaskStopped
from pilotage.agents.outputs import Wiring, wire_outputs
from pilotage.agents.rows import TrialRows
from pilotage.agents.start import TaskStart
from pilotage.agents.states import State
from pilotage.agents.task import TRIAL_END, Item, Source, StageBlock, Task, TaskSetting
from pilotage.net.stimuli import missing_files
from pilotage.protocol.errors import MachineError, TaskError


@dataclass(frozen=True, slots=True)
class RunnerPorts:
    """What a runner tells the outside; called from the task's threads.

    Args:
        on_data: takes a row of the trial. May block (the task waits with it); if it raises, the task ends
            in ERROR.
        on_state: takes the new state and its reason, in order, one at a time. It must not block or call the
            runner's methods; posting to a mailbox is what it is for. If it raises, that is logged.
        on_error: takes a text (task, stage, trial, error) and a traceback; the same terms as ``on_state``.
        put: takes a stream's name and an item, from its source's thread; the same terms as ``on_data``.
        prepare: fetches missing files (relative paths) while the state is PREPARING; is given an event that
            is set on STOP; raises if they can't be had. None: missing files are an error.
    """

    on_data: Callable[[dict[str, Any]], None]
    on_state: Callable[[State, str], None]
    on_error: Callable[[str, str], None]
    put: Callable[[str, Item], None]
    prepare: Callable[[Sequence[str], threading.Event], None] | None = None


@dataclass(frozen=True, slots=True)
class Rig:
    """What a pilot has: its tasks' files, where its file outputs lie, how its outputs are wired."""

    folder: Path
    outputs_folder: Path
    wiring: Mapping[str, Wiring]


class TaskRun:
    """Builds one task, calls its stages, drains its sources, and ends it."""

    def __init__(
        self,
        cls: type[Task[Any]],
        params: Any,
        start: TaskStart,
        ports: RunnerPorts,
        on_step: Callable[[State], None],
        rig: Rig,
        guard: OutputGuard,
    ) -> None:
        """Take a class, its validated parameters and the order; nothing is built yet.

        ``on_step`` is called with RUNNING, PAUSED and STOPPING, when these begin; perhaps more than once.
        """
        self.start = start
        self.task: Task[Any] | None = None
        self.where = "while preparing"
        self.reason = ""
        self.failed = False
        self.items: dict[str, int] = {}
        self.rows_reported = 0
        self.stopping = threading.Event()
        self.pauses = cls.on_disk_full == "pause"
        self._going = threading.Event()
        self._going.set()
        self.stage_block = StageBlock()
        self.rows = TrialRows(cls.TrialData, start.pilot, start.subject, start.current_trial)
        self._cls, self._params, self._ports, self._on_step = cls, params, ports, on_step
        self._rig, self._guard = rig, guard
        self._halting = threading.Lock()
        self._threads: list[threading.Thread] = []

    def halt(self, reason: str) -> None:
        """Ask everything to end; the first reason given stands. Any thread may call it."""
        with self._halting:
            self.reason = self.reason or reason
            self.stopping.set()
            self.stage_block.open_for_good()
            self._going.set()

    def pause(self) -> None:
        """Let no further stage begin, and ask no source for more. Any thread may call it; it doesn't wait."""
        with self._halting:
            if not self.stopping.is_set():
                self._going.clear()

    def go_on(self) -> None:
        """Go on after a pause."""
        self._going.set()

    def fail(self, error: Exception | SystemExit, where: str) -> None:
        """Report an error by task, place and trial, and ask everything to end; any thread may call it."""
        text = f"task {self.start.task_type!r} failed {where}, trial {self.rows.trial_num}: "
        text += f"{type(error).__name__}: {error}"
        self.failed = True
        self.halt(text)
        self.make_safe()
        self._on_step(State.STOPPING)
        self._ports.on_error(text, "".join(traceback.format_exception(error)))

    def make_safe(self) -> None:
        """Enter the outputs' safe values; what can't be set is reported, and the run counts as failed."""
        try:
            self._guard.make_safe()
        except MachineError as error:
            self.failed = True
            self._ports.on_error(
                f"task {self.start.task_type!r}: {error}", "".join(traceback.format_exception(error))
            )

    def live(self) -> None:
        """Run the task to its end; what it raises is reported, not raised."""
        try:
            self._build()
            self._check_stop()
            self._on_step(State.RUNNING)
            if not self._going.is_set():
                self._on_step(State.PAUSED)
            self._start_sources()
            self._call_stages()
            self.halt("exhausted")
        except TaskStopped as stop:
            self.halt(str(stop) or "stopped by the task")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a task raises is reported
            self.fail(error, self.where)
        finally:
            self.make_safe()
            self._on_step(State.STOPPING)
            self._finish()

    def _check_stop(self) -> None:
        if self.stopping.is_set():
            raise TaskStopped(self.start.task_type)

    def _build(self) -> None:
        self._fetch_files()
        self._check_stop()
        outputs = self._guard.arm(
            wire_outputs(self._cls.declared_outputs, self._rig.wiring, self._rig.outputs_folder)
        )
        setting = TaskSetting(
            name=self.start.task_type,
            folder=self._rig.folder,
            outputs=outputs,
            stage_block=self.stage_block,
            stopping=self.stopping,
            current_trial=self.start.current_trial,
        )
        self._check_stop()
        task = self._cls(self._params, setting)
        self.task = task
        task.begin()
        if not task.stage_methods and not task.sources() and type(task).stages is Task.stages:
            raise TaskError(
                f"{self._cls.__name__} has neither stages nor sources: set stage_methods or mark a @source"
            )

    def _fetch_files(self) -> None:
        missing = missing_files(self._cls.files(self._params), self._rig.folder)
        if missing and self._ports.prepare:
            self._ports.prepare(missing, self.stopping)
            self._check_stop()
            missing = missing_files(missing, self._rig.folder)
        if missing:
            raise TaskError(
                f"these files aren't in {self._rig.folder}: {', '.join(missing)}; put them there first"
            )

    def _call_stages(self) -> None:
        if self.task is None:
            raise TaskError("the task was not built")
        for stage in self.task.stages:
            self._wait_while_paused()
            self._check_stop()
            self.where = f"in stage {getattr(stage, '__name__', repr(stage))!r}"
            part = stage()
            if part is not None:
                self._report(part)
            self.stage_block.wait()
        self.where = "while its sources run"
        if self._has_stages():
            return
        for thread in self._threads:
            thread.join()

    def _has_stages(self) -> bool:
        task = self.task
        return task is not None and bool(task.stage_methods or type(task).stages is not Task.stages)

    def _wait_while_paused(self) -> None:
        """Wait where nothing of the task runs; its outputs are safe meanwhile, for nobody is in charge of them."""
        if self._going.is_set():
            return
        self._guard.hold()
        self._going.wait()
        if not self.stopping.is_set():
            self._guard.go_on()

    def _report(self, part: Mapping[str, Any]) -> None:
        row = self.rows.complete(part)
        self._ports.on_data(row)
        self.rows_reported += 1
        if TRIAL_END in row:
            self.rows.next_trial()
            if self.task is not None:
                self.task.trial_num = self.rows.trial_num

    def _start_sources(self) -> None:
        if self.task is None:
            return
        for stream, method in self.task.sources().items():
            self.items[stream] = 0
            thread = threading.Thread(
                target=self._drain, args=(stream, method), name=f"source-{stream}", daemon=True
            )
            self._threads.append(thread)
        for thread in self._threads:
            thread.start()

    def _drain(self, stream: str, method: Source) -> None:
        try:
            items = method()
            try:
                self._hand_over(stream, items)
            finally:
                close = getattr(items, "close", None)
                if close:
                    close()
        except TaskStopped:
            self._note_stopped_source(stream)
        except Exception as error:  # noqa: BLE001 - whatever a source raises is reported
            self.fail(error, f"in source {stream!r} after {self.items[stream]} items")

    def _note_stopped_source(self, stream: str) -> None:
        if not self.stopping.is_set():
            self.fail(
                TaskError("TaskStopped was raised though nobody stopped the task"), f"in source {stream!r}"
            )

    def _hand_over(self, stream: str, items: Iterable[object]) -> None:
        for item in items:
            if not isinstance(item, dict) or "timestamp" not in item:
                raise TaskError(
                    f"a source yields dictionaries with 'timestamp', not {type(item).__name__} {item!r:.60}"
                )
            if not self._going.is_set():
                self._hold_source()
                if self.stopping.is_set():
                    return
            self._ports.put(stream, item)
            self.items[stream] += 1
            if self.stopping.is_set():
                return

    def _hold_source(self) -> None:
        """Keep a source waiting while the task is paused; where there are stages, these see to the outputs."""
        if self._has_stages():
            self._going.wait()
        else:
            self._wait_while_paused()

    def lagging(self) -> str:
        """Name what hasn't ended yet, for the text of an error."""
        alive = [thread.name for thread in self._threads if thread.is_alive()]
        return ", ".join([f"{self.where} of trial {self.rows.trial_num}", *alive])

    def _finish(self) -> None:
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        if self.task is None:
            return
        try:
            self.where = "in end()"
            self.task.end()
        except Exception as error:  # noqa: BLE001 - whatever a task raises is reported
            self.fail(error, self.where)
