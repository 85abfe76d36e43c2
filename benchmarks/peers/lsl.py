"""Lab Streaming Layer: outlet to inlet, straight, as it always is; a second stream goes back and confirms.

    python -m benchmarks.peers.lsl --mode frames_direct --seconds 3

Needs `pylsl` (`pip install -e '.[bench]'`); its wheel for x86_64 carries liblsl. A frame is one sample of 76,800
float channels, pushed and pulled as numpy arrays without a list in between; the sample's time stamp carries its
number. An outlet drops the oldest when its buffer is full and says nothing: so the inlet's side confirms every so often
how many came, and at most a window of them is on its way.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.modes import FRAME_BYTES

from .bulk import Arrays, BulkArrivals
from .common import Peer, main, role_commands
from .roles import Addresses, Counting, Pipeline, Sending

MEETING_TIMEOUT_S = 20.0
CREDIT_EVERY = 8
BUFFER_HUNDREDS = 5
CHANNELS = FRAME_BYTES // 4
FRAMES, CREDITS = "frames", "credits"
FLUSH = 1e15
CONFIG = """
[multicast]
ResolveScope = machine
[lab]
KnownPeers = {127.0.0.1}
SessionID = pilotage-bench-%s
"""


def what_is_missing() -> str:
    """Say what this peer needs and how to get it; nothing if it is there."""
    if importlib.util.find_spec("pylsl") is None:
        return "pylsl is not installed (pip install -e '.[bench]')"
    try:
        _library(Path(os.devnull))
    except Exception as error:  # noqa: BLE001 (it raises RuntimeError where there is no liblsl, others elsewhere)
        return f"pylsl finds no liblsl ({str(error).splitlines()[0]})"
    return ""


def _library(config: Path) -> Any:
    """Import pylsl, which reads its configuration then."""
    os.environ.setdefault("LSLAPICFG", str(config))
    import pylsl

    return pylsl


PEER = Peer(
    "lsl",
    lambda: role_commands("lsl", "receiver", "sender"),
    modes=("frames_direct",),
    promise="received, in memory",
    missing=what_is_missing,
)


def open_library() -> Any:
    """Have LSL look on this machine only, and for the streams of this run only."""
    config = Path.home() / "lsl_api.cfg"
    config.write_text(CONFIG % Path.home().name)
    return _library(config)


def make_outlet(lsl: Any, name: str, channels: int, kind: int) -> Any:
    """Offer a stream."""
    info = lsl.StreamInfo(name, "bench", channels, lsl.IRREGULAR_RATE, kind, f"pilotage-{name}")
    return lsl.StreamOutlet(info, max_buffered=BUFFER_HUNDREDS)


def open_inlet(lsl: Any, name: str) -> Any:
    """Find a stream and connect to it.

    Raises:
        TimeoutError: nobody offers it.
    """
    found = lsl.resolve_byprop("name", name, timeout=MEETING_TIMEOUT_S)
    if not found:
        raise TimeoutError(f"no stream {name} was found within {MEETING_TIMEOUT_S} s")
    inlet = lsl.StreamInlet(found[0], max_buflen=BUFFER_HUNDREDS)
    inlet.open_stream(MEETING_TIMEOUT_S)
    return inlet


class Receiver(Counting):
    """Pull frames into one buffer, check each there, and say every so often how many came."""

    def __init__(self, _addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        self._arrivals = BulkArrivals()
        self._lsl = open_library()
        self._credits = make_outlet(self._lsl, CREDITS, 1, self._lsl.cf_double64)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        inlet = open_inlet(self._lsl, FRAMES)
        buffer = np.empty((1, CHANNELS), np.float32)
        uncredited = 0
        while True:
            _, stamps = inlet.pull_chunk(1.0, 1, dest_obj=buffer)
            if not stamps:
                continue
            if stamps[0] < FLUSH:
                self._arrivals.note_array(int(stamps[0]) - 1, buffer)
                uncredited += 1
            if stamps[0] >= FLUSH or uncredited >= CREDIT_EVERY:
                self._credits.push_sample([float(uncredited)])
                uncredited = 0

    def close(self) -> None:
        """Leave it to the end of the process."""


class Sender(Sending):
    """Push frames, and pull what confirms them, in one thread."""

    def __init__(self, _addresses: Addresses) -> None:
        self.addresses: Addresses = {}
        lsl = open_library()
        self._outlet = make_outlet(lsl, FRAMES, CHANNELS, lsl.cf_float32)
        self._credits = open_inlet(lsl, CREDITS)
        if not self._outlet.wait_for_consumers(MEETING_TIMEOUT_S):
            raise TimeoutError(f"no receiver came within {MEETING_TIMEOUT_S} s")

    def _bulk(self, size: int, window: int, direct: bool, hz: float) -> Pipeline:
        if not direct or size != FRAME_BYTES:
            raise ValueError(f"LSL is measured with frames of {FRAME_BYTES} bytes, sent directly")
        arrays = Arrays(size)
        # A stamp of 0 would mean now.
        return Pipeline(
            lambda n: self._push(arrays[n], n + 1.0),
            self._pull_credits,
            window,
            lambda: self._push(arrays[0], FLUSH),
            hz,
        )

    def _push(self, array: np.ndarray[Any, Any], stamp: float) -> None:
        self._outlet.push_chunk(array.view(np.float32)[np.newaxis], stamp)

    def _pull_credits(self, timeout_s: float) -> int:
        samples, _ = self._credits.pull_chunk(timeout_s, 64, min_samples=1)
        return sum(int(sample[0]) for sample in samples)

    def close(self) -> None:
        """Leave it to the end of the process."""


if __name__ == "__main__":
    main(PEER, {"receiver": Receiver, "sender": Sender})
