"""Replay a recorded signal at its sampling rate: a numeric column of a CSV file, or an .npy array.

Law: each sample leaves once, unchanged and in order. All items of one stream have the same shape; the
samples that don't fill a last chunk leave one by one on the stream ``{name}_tail``, so nothing is padded or
cut.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pilotage.agents.task import Fixed, Item, Source, Task, TaskParams
from pilotage.agents.tasks.signals import read_signal
from pilotage.net.jail import inside


class ReplayParams(TaskParams):
    """What to replay, and how fast."""

    path: Annotated[str, Fixed(), Field(description="CSV or .npy file, relative to the folder of task files")]
    column: Annotated[
        str | int | None,
        Fixed(),
        Field(description="column by name or number (from 0); none if there is but one"),
    ] = None
    sampling_rate_hz: Annotated[float, Fixed(), Field(gt=0, description="samples per second, in Hz")]
    name: Annotated[str, Fixed(), Field(pattern=r"^[A-Za-z]\w*$", description="name of stream and data")] = (
        "signal"
    )
    chunk_samples: Annotated[int, Fixed(), Field(ge=1, le=1_000_000, description="samples per item")] = 1
    max_samples: Annotated[
        int | None,
        Fixed(),
        Field(ge=1, description="end after so many samples; none: at the recording's end"),
    ] = None
    loop: Annotated[bool, Fixed(), Field(description="begin again at the end")] = False
    speed: Annotated[float, Fixed(), Field(gt=0, description="1 is real time")] = 1.0


class Replay(Task[ReplayParams]):
    """Replay one signal until it is exhausted or the task is stopped.

    Items are ``{timestamp, sample_index, name}``: the time at which the item's first sample is due (seconds
    since 1970), that sample's number from 0, and the samples: float64 of shape (chunk_samples,), or one
    float if ``chunk_samples`` is 1.
    """

    Params = ReplayParams

    @classmethod
    def files(cls, params: ReplayParams) -> list[str]:
        """Name the recording."""
        return [params.path]

    def begin(self) -> None:
        """Read the whole recording, so that what is wrong with it shows before the first sample leaves."""
        self._samples = read_signal(inside(self.folder, self.params.path), self.params.column)
        self._began_at = time.monotonic()

    def sources(self) -> dict[str, Source]:
        """Offer one stream under the signal's name, and one for its tail if it will have one."""
        name = self.params.name
        streams: dict[str, Source] = {name: self._chunks}
        if self._total() is None or self._total() == self._whole():
            return streams
        return {**streams, f"{name}_tail": self._tail}

    def _total(self) -> int | None:
        limit = self.params.max_samples
        if self.params.loop:
            return limit
        return min(len(self._samples), limit) if limit else len(self._samples)

    def _whole(self) -> int:
        total = self._total() or 0
        return total - total % self.params.chunk_samples

    def _take(self, start: int, count: int) -> npt.NDArray[np.float64]:
        return self._samples[np.arange(start, start + count) % len(self._samples)]

    def _chunks(self) -> Iterator[Item]:
        total, size, start = self._total(), self.params.chunk_samples, 0
        while total is None or start + size <= total:
            yield self._item(self.params.name, start, size)
            start += size

    def _tail(self) -> Iterator[Item]:
        for start in range(self._whole(), self._total() or 0):
            yield self._item(f"{self.params.name}_tail", start, 1)

    def _item(self, name: str, start: int, count: int) -> Item:
        """Wait until the last of these samples would have been measured, counted from the start: no drift."""
        pace = self.params.sampling_rate_hz * self.params.speed
        self.sleep_until(self._began_at + (start + count) / pace)
        samples = self._take(start, count)
        data = samples if self.params.chunk_samples > 1 and not name.endswith("_tail") else float(samples[0])
        return {"timestamp": self.wall_time(self._began_at + start / pace), "sample_index": start, name: data}
