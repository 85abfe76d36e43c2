"""Stream the frames of a video file, or of a camera, through PyAV (``pip install 'pilotage[video]'``).

Law: frames leave in order, each once, as they were decoded, at the recording's own times or at ``speed``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib import import_module
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from pilotage.agents.task import Fixed, Item, Source, Task, TaskParams
from pilotage.net.jail import inside
from pilotage.protocol.errors import MachineError, TaskError

Frame = npt.NDArray[np.uint8]


class CameraParams(TaskParams):
    """Which frames to stream, and how fast; either ``path`` or ``device`` with its ``device_format``."""

    path: Annotated[
        str | None, Fixed(), Field(description="video file, relative to the folder of task files")
    ] = None
    device: Annotated[
        str | None,
        Fixed(),
        Field(
            pattern=r"^(/dev/video\d+|video=[\w #.()-]+|\d+)$", description="/dev/video0, 0, or video=NAME"
        ),
    ] = None
    device_format: Annotated[Literal["v4l2", "avfoundation", "dshow"] | None, Fixed()] = None
    name: Annotated[str, Fixed(), Field(pattern=r"^[A-Za-z]\w*$", description="name of stream and data")] = (
        "camera"
    )
    grayscale: Annotated[bool, Fixed(), Field(description="one channel, shape (h, w), instead of three")] = (
        False
    )
    max_frames: Annotated[int | None, Fixed(), Field(ge=1, description="end after so many frames")] = None
    loop: Annotated[bool, Fixed(), Field(description="begin again at the file's end")] = False
    speed: Annotated[float, Fixed(), Field(gt=0, description="1 is real time; files only")] = 1.0

    @model_validator(mode="after")
    def _has_one_input(self) -> Self:
        if (self.path is None) == (self.device is None):
            raise ValueError("give either path (a video file) or device (a camera)")
        if (self.device is None) != (self.device_format is None):
            raise ValueError("device and device_format belong together")
        return self


class Camera(Task[CameraParams]):
    """Stream frames until they are exhausted or the task is stopped.

    Items are ``{timestamp, frame_index, name}``: when the frame was handed over (seconds since 1970), its
    number from 0, and the frame: uint8 of shape (height, width, 3), RGB, or (height, width) if ``grayscale``.
    """

    Params = CameraParams

    @classmethod
    def files(cls, params: CameraParams) -> list[str]:
        """Name the video file, if it isn't a device."""
        return [] if params.path is None else [params.path]

    def begin(self) -> None:
        """Open the input, so that a missing camera or a broken file shows before the first frame."""
        self._container = self._open()

    def end(self) -> None:
        """Close the input."""
        container = getattr(self, "_container", None)
        if container is not None:
            container.close()

    def sources(self) -> dict[str, Source]:
        """Offer one stream under the camera's name."""
        return {self.params.name: self._items}

    def _open(self) -> Any:
        av = _load_av()
        params = self.params
        source = str(inside(self.folder, params.path)) if params.path else str(params.device)
        try:
            container = av.open(source, format=params.device_format)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise TaskError(
                f"camera {params.name!r}: {params.path or source} can't be opened: {error}"
            ) from error
        if not container.streams.video:
            container.close()
            raise TaskError(f"camera {params.name!r}: {params.path or source} holds no video")
        return container

    def _items(self) -> Iterator[Item]:
        limit = self.params.max_frames
        for index, (due_s, frame) in enumerate(self._timed_frames()):
            if index == limit:
                return
            self.sleep_until(due_s)
            yield {"timestamp": self.wall_time(), "frame_index": index, self.params.name: frame}

    def _timed_frames(self) -> Iterator[tuple[float, Frame]]:
        """Yield frames with the monotonic time at which each is due; a device's frame is due at once."""
        began_s = time.monotonic()
        while True:
            last_s = began_s
            for offset_s, frame in self._decode():
                last_s = began_s + offset_s / self.params.speed
                yield (began_s if self.params.device else last_s), frame
            if not self.params.loop or self.params.device:
                return
            self._container.seek(0)
            began_s = last_s + self._frame_time_s() / self.params.speed

    def _decode(self) -> Iterator[tuple[float, Frame]]:
        pixels = "gray" if self.params.grayscale else "rgb24"
        first_s: float | None = None
        for number, frame in enumerate(self._decoded()):
            at_s = frame.time if frame.time is not None else number * self._frame_time_s()
            first_s = at_s if first_s is None else first_s
            yield at_s - first_s, frame.to_ndarray(format=pixels)

    def _decoded(self) -> Iterator[Any]:
        av = _load_av()
        try:
            yield from self._container.decode(video=0)
        except av.FFmpegError as error:
            raise TaskError(f"camera {self.params.name!r}: a frame can't be decoded: {error}") from error

    def _frame_time_s(self) -> float:
        rate = self._container.streams.video[0].average_rate
        return 1 / float(rate) if rate else 1 / 30


def _load_av() -> Any:
    try:
        return import_module("av")
    except ImportError as error:
        raise MachineError("the camera task needs PyAV: pip install 'pilotage[video]'") from error
