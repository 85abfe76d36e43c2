"""The sources, read again: a video's frames, a signal's samples, in the order in which they must have been sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pilotage.agents.tasks.signals import read_signal
from pilotage.app.demo.findings import Finding
from pilotage.app.demo.layout import CHUNK_SAMPLES
from pilotage.protocol.errors import MachineError

Item = npt.NDArray[Any]
Items = Callable[[], Iterator[Item]]


class Source:
    """What a stream must be: runs of the same items, each from the first one on, without a gap.

    Args:
        items: gives the source's items from the beginning.
        indices: the numbers that were stored beside the stream's items.
        step: by how much the number grows from item to item.
        runs: how often the task was started.
        first: the number of each run's first item.
    """

    def __init__(self, items: Items, indices: Sequence[int], step: int, runs: int, first: int = 0) -> None:
        self._items = items
        self._indices = indices
        self._step = step
        self._runs_left = runs
        self._first = first
        self._at = 0
        self._next = -1
        self._left: Iterator[Item] = iter(())

    def compare(self, item: Item, finding: Finding) -> None:
        """Compare the stream's next item with the source's."""
        at, self._at = self._at, self._at + 1
        if at >= len(self._indices):
            finding.blame(f"item {at} has no number beside it")
            return
        index = self._indices[at]
        if index == self._first and self._runs_left:
            self._runs_left -= 1
            self._left, self._next = self._items(), self._first
        if index != self._next:
            finding.blame(f"item {at} is number {index} of its source, number {self._next} was due")
            return
        self._next += self._step
        expected = next(self._left, None)
        if expected is None:
            finding.blame(f"item {at} is number {index} of its source, which has ended before")
        elif item.dtype != expected.dtype or not np.array_equal(
            item, expected, equal_nan=item.dtype.kind == "f"
        ):
            finding.blame(f"item {at} (number {index}) differs from its source")

    def finish(self, finding: Finding) -> None:
        """See that no number is left without an item."""
        if self._at < len(self._indices):
            finding.blame(f"{len(self._indices) - self._at} numbers have no item beside them")


def frames_of(file: Path) -> Items:
    """Give a video's frames, decoded anew each time: uint8 of shape (height, width, 3), RGB."""

    def decode() -> Iterator[Item]:
        try:
            import av  # noqa: PLC0415 - heavy
        except ImportError as error:
            raise MachineError("frames are compared through PyAV: pip install 'pilotage[video]'") from error
        try:
            with av.open(str(file)) as container:
                for frame in container.decode(video=0):
                    yield frame.to_ndarray(format="rgb24")
        except (av.FFmpegError, OSError) as error:
            raise MachineError(f"the video {file} can't be decoded: {error}") from error

    return decode


def whole_samples(file: Path, column: str | int | None) -> int:
    """Count the samples that fill items of CHUNK_SAMPLES; the others are its tail."""
    count = len(read_signal(file, column))
    return count - count % CHUNK_SAMPLES


def tail_of(file: Path, column: str | int | None) -> Items:
    """Give the samples that fill no item of CHUNK_SAMPLES, one by one: float64."""

    def read() -> Iterator[Item]:
        yield from read_signal(file, column)[whole_samples(file, column) :]

    return read


def samples_of(file: Path, column: str | int | None) -> Items:
    """Give a signal's samples, read anew each time, in items of CHUNK_SAMPLES: float64."""

    def read() -> Iterator[Item]:
        samples = read_signal(file, column)
        for start in range(0, len(samples) - CHUNK_SAMPLES + 1, CHUNK_SAMPLES):
            yield samples[start : start + CHUNK_SAMPLES]

    return read
