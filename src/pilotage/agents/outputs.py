"""Outputs of a rig (valves, lasers, lamps): what they are, which value is safe, what sets them.

Law: opening an output sets its safe value. This module imports the standard library alone, since the
watchdog's process loads it and must be up quickly.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from pilotage.protocol.errors import MachineError, TaskError


@dataclass(frozen=True, slots=True)
class Output:
    """Declare an output of a task.

    Args:
        driver: ``"file"`` or ``"gpio"``.
        address: a pin's number (BCM) or name for gpio; for file a path, relative to the outputs' folder.
        safe: the value entered on STOP, on an error and on the death of the process, 0 to 1 (valve shut: 0).
    """

    driver: str
    address: str
    safe: float

    def __post_init__(self) -> None:
        if self.driver not in DRIVERS:
            raise TaskError(f"no output driver {self.driver!r}; there are: {', '.join(DRIVERS)}")
        _check_value(self.safe, f"the safe value of {self.driver} {self.address}")


@dataclass(frozen=True, slots=True)
class Wiring:
    """Say where an output is connected on this rig; its safe value stays as the task declared it."""

    driver: str
    address: str


class Driver(Protocol):
    """What sets one output."""

    def write(self, value: float) -> None:
        """Set the output, 0 to 1; raises OSError, MachineError or TaskError if it can't."""

    def close(self) -> None:
        """Let go of the hardware."""


class FileOutput:
    """An output whose value stands in a file, as text: for machines without GPIO pins, and for tests.

    The file is replaced as a whole, so that a reader never sees half a number.
    """

    def __init__(self, address: str, safe: float) -> None:
        """Open the file and write its safe value.

        Args:
            address: path of the file; its folder is made if need be.
            safe: value to begin with.

        Raises:
            OSError: the file can't be written.
        """
        self.path = Path(address)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.write(safe)

    def write(self, value: float) -> None:
        """Replace the file's text by the value."""
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}.{threading.get_ident()}")
        draft.write_text(f"{float(value)!r}\n", encoding="ascii")
        draft.replace(self.path)

    def close(self) -> None:
        """Do nothing: no file stays open between two writes."""


class GpioOutput:
    """A digital output pin, through gpiozero (``pip install 'pilotage[gpio]'``)."""

    def __init__(self, address: str, safe: float) -> None:
        """Claim the pin and drive it to its safe value.

        Args:
            address: the pin, as gpiozero names it (``"17"``, ``"GPIO17"``, ``"BOARD11"``).
            safe: 0 or 1.

        Raises:
            MachineError: gpiozero isn't installed, or it can't drive this pin.
            TaskError: the safe value is neither 0 nor 1.
        """
        self.address = address
        level = self._level(safe)
        pin = int(address) if address.isdecimal() else address
        try:
            gpiozero = import_module("gpiozero")
        except ImportError as error:
            raise MachineError(
                f"output pin {address} needs gpiozero: pip install 'pilotage[gpio]', "
                "or wire the output to the driver 'file'"
            ) from error
        try:
            self._device: Any = gpiozero.DigitalOutputDevice(pin, initial_value=level)
        except (gpiozero.GPIOZeroError, OSError, RuntimeError) as error:
            raise MachineError(f"output pin {address} can't be driven: {error}") from error

    def _level(self, value: float) -> bool:
        if value not in (0, 1):
            raise TaskError(f"output pin {self.address} takes 0 or 1, not {value!r}")
        return bool(value)

    def write(self, value: float) -> None:
        """Drive the pin high (1) or low (0)."""
        self._device.value = self._level(value)

    def close(self) -> None:
        """Give the pin back; gpiozero turns it into an input."""
        self._device.close()


DRIVERS: Mapping[str, Callable[[str, float], Driver]] = MappingProxyType(
    {"file": FileOutput, "gpio": GpioOutput}
)
# Two processes may write the same file at any time; a pin belongs to one of them.
SHARED_DRIVERS = frozenset({"file"})


def open_output(output: Output) -> Driver:
    """Open an output; it has its safe value when this returns.

    Raises:
        MachineError: the hardware or its library isn't there.
        OSError: the file can't be written.
        TaskError: the driver can't take the safe value.
    """
    return DRIVERS[output.driver](output.address, output.safe)


def wire_outputs(
    declared: Mapping[str, Output], wiring: Mapping[str, Wiring], folder: Path
) -> dict[str, Output]:
    """Join what a task declares with what this rig has.

    Args:
        declared: the task's outputs by name.
        wiring: driver and address by output name, where they differ on this rig; other names are ignored,
            since one rig's wiring serves all its tasks.
        folder: where relative addresses of file outputs begin.

    Returns:
        Outputs with final addresses.

    Raises:
        TaskError: the wiring names a driver that doesn't exist.
    """
    wired = {}
    for name, output in declared.items():
        place = wiring.get(name, Wiring(output.driver, output.address))
        address = str(folder.absolute() / place.address) if place.driver == "file" else place.address
        wired[name] = Output(place.driver, address, output.safe)
    return wired


def to_plain(outputs: Mapping[str, Output]) -> dict[str, dict[str, Any]]:
    """Turn outputs into plain values, for the watchdog's pipe."""
    return {name: asdict(output) for name, output in outputs.items()}


def from_plain(plain: Mapping[str, Mapping[str, Any]]) -> dict[str, Output]:
    """Turn plain values back into outputs; raises TaskError for an unknown driver."""
    return {name: Output(**fields) for name, fields in plain.items()}


def _check_value(value: float, what: str) -> None:
    if not 0 <= value <= 1:
        raise TaskError(f"{what} must be between 0 and 1, not {value!r}")
