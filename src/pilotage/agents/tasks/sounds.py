"""Sounds: read from WAV files with the standard library, and played through a sound card, or in silence.

Law: a player only starts and stops; how long a sound lasts is the sound's own property.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pilotage.protocol.errors import MachineError, TaskError


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """A sound in memory: float32 samples of shape (n, channels), −1 to 1, and its rate in Hz."""

    path: str
    samples: npt.NDArray[np.float32]
    rate_hz: int

    @property
    def duration_s(self) -> float:
        """How long it lasts, in seconds."""
        return len(self.samples) / self.rate_hz


def read_wav(file: Path, path: str) -> Sound:
    """Read a WAV file of 8, 16, 24 or 32 bits (PCM).

    Args:
        file: where it lies.
        path: the name under which trials report it.

    Returns:
        The sound.

    Raises:
        TaskError: the file can't be read, isn't PCM, or holds no samples; the text names it.
    """
    try:
        with wave.open(str(file), "rb") as reader:
            width, channels, rate = reader.getsampwidth(), reader.getnchannels(), reader.getframerate()
            data = reader.readframes(reader.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise TaskError(
            f"sound {path}: is no readable WAV file: {str(error) or 'it ends too early'}"
        ) from error
    whole = len(data) - len(data) % (width * channels)
    if not whole or not rate:
        raise TaskError(f"sound {path}: holds no samples")
    return Sound(path, _to_float(data[:whole], width).reshape(-1, channels), rate)


def _to_float(data: bytes, width: int) -> npt.NDArray[np.float32]:
    if width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    # Each sample goes to the upper bytes of an int32, so that all widths share one scale.
    padded = np.zeros((len(data) // width, 4), np.uint8)
    padded[:, 4 - width :] = np.frombuffer(data, np.uint8).reshape(-1, width)
    return (padded.view("<i4").ravel() / 2**31).astype(np.float32)


class Player(Protocol):
    """What makes a sound audible."""

    def play(self, sound: Sound) -> None:
        """Start a sound, and return at once; one that still plays is cut."""

    def stop(self) -> None:
        """Cut what plays."""


class SilentPlayer:
    """Plays nothing; the trial keeps its timing. For tests, and for rigs whose sounds come from elsewhere."""

    def play(self, sound: Sound) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


class CardPlayer:
    """Plays through the default sound card (``pip install 'pilotage[sound]'``)."""

    def __init__(self) -> None:
        """Load the sound library.

        Raises:
            MachineError: the package sounddevice or the PortAudio library isn't there.
        """
        try:
            self._library: Any = import_module("sounddevice")
        except (ImportError, OSError) as error:
            raise MachineError(
                "playing sounds needs sounddevice and PortAudio: pip install 'pilotage[sound]', "
                "or set player='silent'"
            ) from error

    def play(self, sound: Sound) -> None:
        """Start a sound; raises MachineError if the card refuses it."""
        try:
            self._library.play(sound.samples, sound.rate_hz)
        except self._library.PortAudioError as error:
            raise MachineError(f"sound {sound.path} can't be played: {error}") from error

    def stop(self) -> None:
        """Cut what plays."""
        self._library.stop()
