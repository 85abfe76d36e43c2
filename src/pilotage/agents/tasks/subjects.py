"""Who answers in a trial: a real subject at the ports of a rig, or a simulated one.

Law: a simulated subject says so; every row of its trials carries ``simulated: true``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar, Protocol

import numpy as np

from pilotage.protocol.errors import MachineError

CENTRE, LEFT, RIGHT = "C", "L", "R"
Poke = Callable[[str], None]


class Subject(Protocol):
    """What a choice task asks for pokes; ``poke(port)`` may come from any thread, and more than once."""

    simulated: ClassVar[bool]

    def ask(self, ports: tuple[str, ...], target: str, trial_num: int, poke: Poke) -> None:
        """Begin to report pokes into these ports; ``target`` is the side that would be correct."""

    def cancel(self) -> None:
        """Report nothing more until asked again."""

    def close(self) -> None:
        """Release the hardware."""


class SimulatedSubject:
    """Answers by chance: with a given accuracy for each side, after a log-normal reaction time.

    Its draws depend on the seed and the trial's number alone, so a resumed session goes on as it would have.
    """

    simulated: ClassVar[bool] = True

    def __init__(
        self, accuracy: Mapping[str, float], rt_median_ms: float, rt_sigma: float, seed: int
    ) -> None:
        """Make a subject.

        Args:
            accuracy: probability of a correct answer by target side, 0 to 1.
            rt_median_ms: median reaction time in milliseconds.
            rt_sigma: standard deviation of its logarithm; 0 makes it constant.
            seed: seed of the draws.
        """
        self._accuracy = dict(accuracy)
        self._median_ms = rt_median_ms
        self._sigma = rt_sigma
        self._seed = seed
        self._timer: threading.Timer | None = None

    def draw(self, ports: tuple[str, ...], target: str, trial_num: int) -> tuple[str, float]:
        """Draw the port and the reaction time in milliseconds for one question."""
        rng = np.random.default_rng([self._seed, trial_num, len(ports)])
        rt_ms = self._median_ms * float(np.exp(rng.normal(0.0, self._sigma)))
        wrong = [port for port in ports if port != target]
        if target in ports and (not wrong or rng.random() < self._accuracy[target]):
            return target, rt_ms
        return wrong[int(rng.integers(len(wrong)))], rt_ms

    def ask(self, ports: tuple[str, ...], target: str, trial_num: int, poke: Poke) -> None:
        """Poke one of the ports after the reaction time."""
        self.cancel()
        port, rt_ms = self.draw(ports, target, trial_num)
        self._timer = threading.Timer(rt_ms / 1000, poke, (port,))
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """Forget the poke that is due."""
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """Forget the poke that is due."""
        self.cancel()


class GpioSubject:
    """A subject at three nose-poke ports on GPIO pins (``pip install 'pilotage[gpio]'``)."""

    simulated: ClassVar[bool] = False

    def __init__(self, pins: Mapping[str, int | str]) -> None:
        """Claim the pins.

        Args:
            pins: pin (BCM number or gpiozero name) by port: C, L, R; a poke pulls it to ground.

        Raises:
            MachineError: gpiozero isn't installed, or can't use these pins.
        """
        try:
            gpiozero = import_module("gpiozero")
        except ImportError as error:
            raise MachineError(
                "nose-poke ports need gpiozero: pip install 'pilotage[gpio]', or simulate the subject"
            ) from error
        self._buttons: dict[str, Any] = {}
        try:
            for port, pin in pins.items():
                self._buttons[port] = gpiozero.Button(pin)
        except (gpiozero.GPIOZeroError, OSError, RuntimeError) as error:
            self.close()
            raise MachineError(f"the nose-poke ports {dict(pins)} can't be used: {error}") from error

    def ask(self, ports: tuple[str, ...], target: str, trial_num: int, poke: Poke) -> None:
        """Report pokes into these ports as they come."""
        self.cancel()
        for port in ports:
            self._buttons[port].when_pressed = lambda port=port: poke(port)

    def cancel(self) -> None:
        """Stop reporting."""
        for button in self._buttons.values():
            button.when_pressed = None

    def close(self) -> None:
        """Give the pins back."""
        for button in self._buttons.values():
            button.close()
