"""The demo's stimuli: tones and noise bursts as WAV files, or files that somebody names."""

from __future__ import annotations

import shutil
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pilotage.protocol.errors import MisuseError

RATE_HZ = 44_100
DURATION_S = 0.15
RAMP_S = 0.01
AMPLITUDE = 0.5
SEED = 1
TONES_HZ = {"L": (2_000, 3_000), "R": (8_000, 12_000)}
NOISES_HZ = {"L": (1_000, 4_000), "R": (6_000, 14_000)}

Samples = npt.NDArray[np.float64]


def write_sounds(folder: Path) -> dict[str, list[str]]:
    """Make two tones and a band of noise for each side, low for left and high for right.

    Args:
        folder: where the files go.

    Returns:
        Their paths, relative to the folder, by side.
    """
    rng = np.random.default_rng(SEED)
    sides: dict[str, list[str]] = {}
    for side in ("L", "R"):
        made = {f"tone_{hz}hz.wav": _tone(hz) for hz in TONES_HZ[side]}
        low, high = NOISES_HZ[side]
        made[f"noise_{low}_{high}hz.wav"] = _noise(rng, low, high)
        sides[side] = [f"{side}/{name}" for name in made]
        (folder / side).mkdir(parents=True, exist_ok=True)
        for name, samples in made.items():
            _write_wav(folder / side / name, samples)
    return sides


def copy_sounds(source: Path, folder: Path) -> dict[str, list[str]]:
    """Copy somebody's WAV files; in the order of their names, they mean left and right by turns.

    Raises:
        MisuseError: the folder holds fewer than two.
    """
    files = sorted(source.glob("*.wav")) if source.is_dir() else []
    if len(files) < 2:
        raise MisuseError(f"{source} needs two WAV files at least, one for each side")
    for file in files:
        shutil.copyfile(file, folder / file.name)
    return {"L": [file.name for file in files[0::2]], "R": [file.name for file in files[1::2]]}


def _times() -> Samples:
    return np.arange(int(DURATION_S * RATE_HZ)) / RATE_HZ


def _tone(hz: float) -> Samples:
    return np.sin(2 * np.pi * hz * _times())


def _noise(rng: np.random.Generator, low_hz: float, high_hz: float) -> Samples:
    """Make noise of one band: white noise without the other frequencies."""
    spectrum = np.fft.rfft(rng.standard_normal(len(_times())))
    at_hz = np.fft.rfftfreq(len(_times()), 1 / RATE_HZ)
    spectrum[(at_hz < low_hz) | (at_hz > high_hz)] = 0
    noise = np.fft.irfft(spectrum, len(_times()))
    loudest: Samples = noise / np.abs(noise).max()
    return loudest


def _write_wav(path: Path, samples: Samples) -> None:
    # Raised and lowered softly: a step would be heard as a click of all frequencies.
    ramp = np.clip(np.minimum(_times(), _times()[::-1]) / RAMP_S, 0, 1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((samples * ramp * AMPLITUDE * 32_767).astype("<i2").tobytes())
