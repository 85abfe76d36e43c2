"""What a lab writes to run an experiment: parameters, the columns of a trial, stages, sources, outputs.

Law: a task knows nothing of the network. It is given its parameters and outputs, and hands back rows and
items.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, NoReturn, TypeVar, cast

from pilotage.agents.guard import OutputHandle, TaskStopped
from pilotage.agents.outputs import Output
from pilotage.agents.params import Fixed, P, TaskParams, TrialRow, changed_params
from pilotage.net.stimuli import stimulus_files

__all__ = [
    "Fixed",
    "Item",
    "Stage",
    "StageBlock",
    "Task",
    "TaskParams",
    "TaskSetting",
    "TaskStopped",
    "TrialRow",
    "source",
]

TRIAL_END = "TRIAL_END"
Row = Mapping[str, Any]
Item = dict[str, Any]
Stage = Callable[[], Row | None]
Source = Callable[[], Iterable[Item]]
_M = TypeVar("_M", bound=Callable[..., Iterable[Item]])


def source(stream: str) -> Callable[[_M], _M]:
    """Declare a method as a source of continuous data.

    The method yields items, dictionaries with ``timestamp`` (seconds since 1970) and data whose shape and
    dtype stay the same; it runs in its own thread. It waits with ``self.sleep_until`` or ``self.wait``, never
    with ``time.sleep``, so that it stops promptly.

    Args:
        stream: name of the stream in the data.

    Returns:
        A decorator.
    """

    def declare(method: _M) -> _M:
        method.__dict__["pilotage_stream"] = stream
        return method

    return declare


class StageBlock(threading.Event):
    """The event that a task's stages wait on; once opened for good, clearing it has no effect."""

    def __init__(self) -> None:
        """Begin open: a stage that doesn't clear it is followed by the next at once."""
        super().__init__()
        self._for_good = False
        self._latch = threading.Lock()
        self.set()

    def clear(self) -> None:
        """Make the runner wait after this stage, until a trigger calls ``set()``."""
        with self._latch:
            if not self._for_good:
                super().clear()

    def open_for_good(self) -> None:
        """Let whoever waits go on, now and ever after: the task stops."""
        with self._latch:
            self._for_good = True
            self.set()


@dataclass(frozen=True, slots=True)
class TaskSetting:
    """What the runner gives a task besides its parameters."""

    name: str
    folder: Path
    outputs: Mapping[str, OutputHandle] = field(default_factory=dict)
    stage_block: StageBlock = field(default_factory=StageBlock)
    stopping: threading.Event = field(default_factory=threading.Event)
    current_trial: int = 0


class Task(Generic[P]):
    """The base of every task.

    A subclass sets ``Params`` and ``TrialData``, names its stages in ``stage_methods`` (they are called in
    turn, again and again) and marks its sources with ``@source``. Stages run in one thread, sources in one
    each.

    Attributes:
        on_disk_full: what a pilot does while its disk refuses what it sends durably. "pause": no further stage begins
            and no source is asked for more until there is room; outputs are kept at their safe values as soon as the
            stage that runs, with the trigger it waits for, is over. "go on": what is sent meanwhile isn't kept on the
            pilot's disk and would be lost if its process died before the Terminal has it.
    """

    on_disk_full: ClassVar[Literal["pause", "go on"]] = "pause"
    Params: type[P] = cast(Any, TaskParams)
    TrialData: ClassVar[type[TrialRow]] = TrialRow
    stage_methods: ClassVar[tuple[str, ...]] = ()
    declared_outputs: ClassVar[Mapping[str, Output]] = {}

    def __init__(self, params: P, setting: TaskSetting) -> None:
        """Take parameters and setting; a subclass prepares its hardware in ``begin`` instead."""
        self._params = params
        self._params_lock = threading.Lock()
        self.name = setting.name
        self.folder = setting.folder
        self.outputs = setting.outputs
        self.stage_block = setting.stage_block
        self.stopping = setting.stopping
        self.trial_num = setting.current_trial
        self._monotonic0 = time.monotonic()
        self._wall0 = time.time()

    @property
    def params(self) -> P:
        """The parameters now, frozen: keep one copy for what must not change within a stage."""
        return self._params

    @classmethod
    def files(cls, params: P) -> list[str]:
        """List the files that must lie in the task's folder before it begins.

        Args:
            params: the validated parameters.

        Returns:
            Relative paths; by default those that a parameter ``stim`` names.

        Raises:
            TaskError: the description of the stimuli is no such thing.
        """
        stim = getattr(params, "stim", None)
        return (
            [] if stim is None else stimulus_files(stim.model_dump() if hasattr(stim, "model_dump") else stim)
        )

    def begin(self) -> None:
        """Prepare hardware and files, before the first stage; called once, in the task's thread."""

    def end(self) -> None:
        """Release hardware; called once, after stages and sources ended, also if ``begin`` failed."""

    @property
    def stages(self) -> Iterator[Stage]:
        """The stages to call, in order; by default ``stage_methods``, for ever. Read once.

        A stage clears ``stage_block`` if the next must wait for a trigger. It returns some of the trial's
        columns, or None; what the trial's last stage returns has the key TRIAL_END.
        """
        return cycle([getattr(self, name) for name in self.stage_methods])

    def sources(self) -> dict[str, Source]:
        """Return the sources by the name of their stream; by default the marked methods."""
        found: dict[str, Source] = {}
        for name in dir(type(self)):
            stream = getattr(getattr(type(self), name), "pilotage_stream", None)
            if isinstance(stream, str):
                found[stream] = getattr(self, name)
        return found

    def change(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Change parameters while the task runs: all of them, or none; any thread may call it.

        Args:
            values: new values by name.

        Returns:
            The new values as they were taken, in plain (JSON) types.

        Raises:
            TaskError: a name is unknown or fixed, or a value doesn't fit; nothing has changed then.
        """
        with self._params_lock:
            self._params = changed_params(self._params, values, self.name)
            return self._params.model_dump(mode="json", include=set(values))

    def finish(self, reason: str) -> NoReturn:
        """End the task from within a stage, without an error; ``reason`` is reported with its state."""
        raise TaskStopped(reason)

    def wait(self, duration_s: float) -> None:
        """Wait inside a stage or source.

        Args:
            duration_s: how long, in seconds.

        Raises:
            TaskStopped: the task was stopped meanwhile; let it pass.
        """
        if self.stopping.wait(max(duration_s, 0.0)):
            raise TaskStopped(self.name)

    def sleep_until(self, deadline_s: float) -> None:
        """Wait until ``time.monotonic()`` reaches a deadline; raises TaskStopped when the task stops."""
        self.wait(deadline_s - time.monotonic())

    def wall_time(self, monotonic_s: float | None = None) -> float:
        """Tell the wall-clock time of a monotonic one (now, if None), in seconds since 1970.

        The offset is taken once, so that a clock stepped during the task can't fold its timestamps.
        """
        at = time.monotonic() if monotonic_s is None else monotonic_s
        return self._wall0 + (at - self._monotonic0)
