"""A two-alternative choice: the subject asks for a trial, hears a sound, and pokes left or right.

Law: which side is correct in trial n follows from ``seed`` and n alone, so that a resumed session goes on
where it was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from secrets import randbits
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pilotage.agents.outputs import Output
from pilotage.agents.task import TRIAL_END, Fixed, Task, TaskParams, TrialRow
from pilotage.agents.tasks.sounds import CardPlayer, Player, SilentPlayer, Sound, read_wav
from pilotage.agents.tasks.subjects import CENTRE, LEFT, RIGHT, GpioSubject, SimulatedSubject, Subject
from pilotage.net.jail import inside
from pilotage.net.stimuli import FILE_TYPES

Side = Literal["L", "R"]
Milliseconds = Annotated[float, Field(ge=0, le=600_000)]
Probability = Annotated[float, Field(ge=0, le=1)]


class SoundFile(BaseModel):
    """One sound of a side; only sounds that lie in files can be played."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    type: Literal["File", "Speech"]
    path: str = Field(min_length=1, description="WAV file, relative to the folder of sounds")


class SoundGroup(BaseModel):
    """Sounds of both sides that belong together, as a stimulus manager lists them."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    sounds: dict[Side, list[SoundFile]] = {}


class Stim(SoundGroup):
    """The stimuli: ``sounds`` by side, or ``groups`` of such (``manager`` is read and not needed)."""

    manager: str | None = None
    groups: list[SoundGroup] = []

    @model_validator(mode="after")
    def _has_both_sides(self) -> Self:
        missing = [side for side in (LEFT, RIGHT) if not self.of_side(side)]
        if missing:
            raise ValueError(
                f"no sound of type {' or '.join(sorted(FILE_TYPES))} for side {', '.join(missing)}"
            )
        return self

    def of_side(self, side: str) -> list[SoundFile]:
        """List the sounds that mean this side."""
        return [
            sound
            for group in (self, *self.groups)
            for key, all_ in group.sounds.items()
            for sound in all_
            if key == side
        ]


class SimulatedParams(BaseModel):
    """How a simulated subject answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accuracy: dict[Side, Probability] = Field(
        default={"L": 0.8, "R": 0.8}, description="correct answers by target"
    )
    rt_median_ms: Milliseconds = Field(default=300.0, description="median reaction time in ms")
    rt_sigma: float = Field(default=0.3, ge=0, le=3, description="spread of the reaction time's logarithm")

    @model_validator(mode="after")
    def _has_both_sides(self) -> Self:
        if set(self.accuracy) != {LEFT, RIGHT}:
            raise ValueError("accuracy needs both sides, L and R")
        return self


class ChoiceParams(TaskParams):
    """Parameters of the choice; those without the mark Fixed can change while it runs."""

    stim: Annotated[Stim, Fixed()]
    reward_ms: Milliseconds = Field(default=20.0, description="how long the valve opens, in ms")
    punish_ms: Milliseconds = Field(default=1000.0, description="pause after a wrong answer, in ms")
    iti_ms: Milliseconds = Field(default=500.0, description="pause before each trial, in ms")
    response_timeout_ms: Milliseconds = Field(
        default=10_000.0, description="after which the trial is bailed, in ms"
    )
    bias: Probability = Field(default=0.5, description="probability that the target is on the right")
    max_trials: Annotated[
        int | None, Fixed(), Field(ge=1, description="end after so many trials of this run")
    ] = None
    seed: Annotated[
        int | None, Fixed(), Field(ge=0, description="seed of targets and sounds; none: by chance")
    ] = None
    player: Annotated[Literal["card", "silent"], Fixed()] = "card"
    simulated: Annotated[
        SimulatedParams | None, Fixed(), Field(description="simulate the subject; none: a real one")
    ] = None
    port_pins: Annotated[
        dict[Literal["C", "L", "R"], int | str] | None, Fixed(), Field(description="GPIO pins")
    ] = None

    @model_validator(mode="after")
    def _has_a_subject(self) -> Self:
        if (self.simulated is None) == (self.port_pins is None):
            raise ValueError("give either port_pins (C, L, R) for a real subject, or simulated")
        if self.port_pins is not None and set(self.port_pins) != {CENTRE, LEFT, RIGHT}:
            raise ValueError("port_pins needs the ports C, L and R")
        return self


class ChoiceTrial(TrialRow):
    """The columns of one trial; times are ISO 8601 in UTC."""

    target: Side
    sound: str = Field(description="the file that was played")
    request_time: str = Field(description="when the subject asked for the trial")
    stimulus_time: str = Field(description="when the sound began")
    response: Side | None = None
    response_time: str | None = None
    rt_ms: float | None = Field(default=None, description="from the sound's begin to the response, in ms")
    correct: bool
    bailed: bool = Field(description="no response came in time")
    reward_ms: float = Field(description="how long the valve was opened, in ms; 0: not")
    simulated: bool = Field(description="the subject was simulated")


class Choice(Task[ChoiceParams]):
    """Stages: ``request`` → ``discrimination`` → ``reinforcement`` (reward or punishment)."""

    Params = ChoiceParams
    TrialData = ChoiceTrial
    stage_methods = ("request", "discrimination", "reinforcement")
    declared_outputs: ClassVar[Mapping[str, Output]] = {"reward": Output("file", "reward", safe=0)}

    def begin(self) -> None:
        """Read all sounds and claim the ports, so that what is missing shows before the first trial."""
        params = self.params
        self._seed = randbits(32) if params.seed is None else params.seed
        self._first_trial = self.trial_num
        self._poke_lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._question = 0
        self._pause_until_s = 0.0
        self._answer: tuple[str, float] | None = None
        self._player: Player = CardPlayer() if params.player == "card" else SilentPlayer()
        self._subject = self._make_subject()
        paths = [sound.path for side in (LEFT, RIGHT) for sound in params.stim.of_side(side)]
        self._sounds = {path: read_wav(inside(self.folder, path), path) for path in paths}

    def _make_subject(self) -> Subject:
        params = self.params
        if params.simulated is None:
            return GpioSubject({str(port): pin for port, pin in (params.port_pins or {}).items()})
        answer = params.simulated
        accuracy = {str(side): chance for side, chance in answer.accuracy.items()}
        return SimulatedSubject(accuracy, answer.rt_median_ms, answer.rt_sigma, self._seed)

    def end(self) -> None:
        """Fall silent and give the ports back."""
        self._disarm()
        if hasattr(self, "_subject"):
            self._player.stop()
            self._subject.close()

    def draw(self, trial_num: int) -> tuple[Side, str]:
        """Draw the target and the sound's path of a trial."""
        rng = np.random.default_rng([self._seed, trial_num])
        target: Side = "R" if rng.random() < self.params.bias else "L"
        sounds = self.params.stim.of_side(target)
        return target, sounds[int(rng.integers(len(sounds)))].path

    def request(self) -> dict[str, Any]:
        """Pause, choose target and sound, and wait for a poke into the centre port."""
        if (
            self.params.max_trials is not None
            and self.trial_num - self._first_trial >= self.params.max_trials
        ):
            self.finish("all trials done")
        self.sleep_until(self._pause_until_s)
        self.wait(self.params.iti_ms / 1000)
        self._target, path = self.draw(self.trial_num)
        self._sound: Sound = self._sounds[path]
        self._ask((CENTRE,), timeout_ms=None)
        return {"target": self._target, "sound": path, "simulated": self._subject.simulated}

    def discrimination(self) -> dict[str, Any]:
        """Play the sound, and wait for a poke left or right, or for the time to run out."""
        requested = self._answer
        self._player.play(self._sound)
        self._played_s = time.monotonic()
        self._ask((LEFT, RIGHT), timeout_ms=self.params.response_timeout_ms)
        request_s = requested[1] if requested else self._played_s
        return {"request_time": self._iso(request_s), "stimulus_time": self._iso(self._played_s)}

    def reinforcement(self) -> dict[str, Any]:
        """Reward a correct answer, or let a longer pause follow a wrong one; end the trial."""
        self._disarm()
        answer, params = self._answer, self.params
        correct = answer is not None and answer[0] == self._target
        if correct:
            self.outputs["reward"].pulse(params.reward_ms)
        else:
            self._player.stop()
            self._pause_until_s = time.monotonic() + params.punish_ms / 1000
        return {
            "response": answer[0] if answer else None,
            "response_time": self._iso(answer[1]) if answer else None,
            "rt_ms": (answer[1] - self._played_s) * 1000 if answer else None,
            "correct": correct,
            "bailed": answer is None,
            "reward_ms": params.reward_ms if correct else 0.0,
            TRIAL_END: True,
        }

    def _ask(self, ports: tuple[str, ...], timeout_ms: float | None) -> None:
        self._disarm()
        with self._poke_lock:
            self._question += 1
            self._answer = None
            self.stage_block.clear()
        question = self._question
        if timeout_ms is not None:
            self._timer = threading.Timer(timeout_ms / 1000, self._close_question, (question, None))
            self._timer.daemon = True
            self._timer.start()
        target = self._target if self._target in ports else CENTRE
        self._subject.ask(ports, target, self.trial_num, partial(self._close_question, question))

    def _close_question(self, question: int, port: str | None) -> None:
        """Take the first poke, or the end of time (None), and no more: a late one belongs to no trial."""
        now_s = time.monotonic()
        with self._poke_lock:
            if question == self._question:
                self._question += 1
                self._answer = (port, now_s) if port else None
                self.stage_block.set()

    def _disarm(self) -> None:
        if getattr(self, "_timer", None) is not None and self._timer is not None:
            self._timer.cancel()
        if hasattr(self, "_subject"):
            self._subject.cancel()

    def _iso(self, monotonic_s: float) -> str:
        return datetime.fromtimestamp(self.wall_time(monotonic_s), UTC).isoformat()
