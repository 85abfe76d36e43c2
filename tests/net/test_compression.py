"""Compression of streams: where it pays, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pilotage import takes_batches
from pilotage.net.compression import FAST_LINK_BYTES_PER_S, LOOK_EVERY_S, Compression, Squeezer, _is_ready
from pilotage.protocol.container import NO_BLOSC
from pilotage.protocol.errors import MachineError, MisuseError
from pilotage.protocol.squeezed import Squeezed
from tests.conftest import Eventually
from tests.net.conftest import MakeNode

pytest.importorskip("blosc2")

SMOOTH = np.add.outer(np.arange(480), np.arange(640)).astype(np.uint8)
NOISE = np.random.default_rng(1).integers(0, 255, (480, 640), np.uint8)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def squeezer_on_a_link(rate: float, kind: Compression | None = Compression.AUTO) -> tuple[Squeezer, Clock]:
    """Give one whose link moves so many bytes a second."""
    clock = Clock()
    made = Squeezer(kind, clock)
    for _ in range(20):
        made.moved(int(rate / 10), is_busy=True)
        clock.now += 0.1
    return made, clock


@pytest.fixture(autouse=True)
def ready(eventually: Eventually) -> None:
    eventually(_is_ready, timeout_s=20)


def is_squeezed(made: Squeezer, array: Any, *, is_held_up: bool = True) -> bool:
    return isinstance(made.apply([{"frame": array, "n": 1}], is_held_up=is_held_up)[0]["frame"], Squeezed)


def test_a_slow_link_is_given_less_to_move() -> None:
    made, _ = squeezer_on_a_link(1e6)
    assert is_squeezed(made, SMOOTH) and made.saved_bytes > SMOOTH.nbytes / 2


def test_a_link_faster_than_the_compressor_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilotage.net.compression.FAST_LINK_BYTES_PER_S", 1e15)
    made, _ = squeezer_on_a_link(1e12)
    assert not is_squeezed(made, SMOOTH)


def test_a_quick_link_is_not_even_tried() -> None:
    made, _ = squeezer_on_a_link(FAST_LINK_BYTES_PER_S * 2)
    assert not is_squeezed(made, SMOOTH)


def test_a_stream_that_is_not_held_up_is_left_alone() -> None:
    made, _ = squeezer_on_a_link(1e6)
    assert not is_squeezed(made, SMOOTH, is_held_up=False)


def test_without_a_measured_link_nothing_is_decided() -> None:
    assert not is_squeezed(Squeezer(Compression.AUTO), SMOOTH)


def test_noise_is_never_compressed_and_ends_it_for_a_while() -> None:
    made, clock = squeezer_on_a_link(1e6)
    assert not is_squeezed(made, NOISE)
    clock.now += LOOK_EVERY_S
    assert is_squeezed(made, SMOOTH)
    assert not is_squeezed(made, NOISE)
    assert not is_squeezed(made, SMOOTH), "decided against for a while"
    clock.now += LOOK_EVERY_S
    assert is_squeezed(made, SMOOTH)


@pytest.mark.parametrize(("kind", "wanted"), [(Compression.BLOSC2, True), (None, False)])
def test_it_can_be_set(kind: Compression | None, wanted: bool) -> None:
    made = Squeezer(kind)
    assert is_squeezed(made, SMOOTH, is_held_up=False) is wanted
    assert not is_squeezed(made, NOISE) and not is_squeezed(made, np.zeros(100))
    assert is_squeezed(made, SMOOTH, is_held_up=False) is wanted


@pytest.mark.parametrize("min_size", [1, 4])
def test_frames_arrive_as_they_were_put(node: MakeNode, min_size: int) -> None:
    got: list[Any] = []

    @takes_batches
    def take(items: Any) -> None:
        got.extend(items if isinstance(items, list) else [items])

    sink = node("sink", router_port=0, listens={"K": take})
    cam = node("cam", sink)
    stream = cam.get_stream("s", "K", min_size=min_size, compression="blosc2")
    for number in range(12):
        stream.put({"n": number, "frame": NOISE if number % 3 == 2 else SMOOTH})
    stream.put("END")
    stream.join()
    assert [item["n"] for item in got] == list(range(12))
    for item in got:
        np.testing.assert_array_equal(item["frame"], NOISE if item["n"] % 3 == 2 else SMOOTH)
    assert stream.statistics().counts["arrays compressed"] == 8
    with pytest.raises(MisuseError, match="compression"):
        cam.get_stream("t", "K", compression="zip")


@pytest.mark.parametrize("min_size", [1, 4])
def test_a_recipient_without_blosc2_gets_everything_as_it_was_put(
    node: MakeNode, monkeypatch: pytest.MonkeyPatch, min_size: int
) -> None:
    def refuse(content: object, size: int) -> memoryview:
        raise MachineError(f"{NO_BLOSC}: pip install it")

    monkeypatch.setattr("pilotage.protocol.squeezed.decompress", refuse)
    got: list[Any] = []

    @takes_batches
    def take(items: Any) -> None:
        got.extend(items if isinstance(items, list) else [items])

    sink = node("sink", router_port=0, listens={"K": take})
    stream = node("cam", sink).get_stream("s", "K", min_size=min_size, compression="blosc2")
    for number in range(12):
        stream.put({"n": number, "frame": SMOOTH})
    stream.put("END")
    stream.join()
    assert sorted(item["n"] for item in got) == list(range(12)) and stream.failed == 0
    assert all(np.array_equal(item["frame"], SMOOTH) for item in got)
    squeezed = stream.statistics().counts["arrays compressed"]
    stream.put({"n": 12, "frame": SMOOTH})
    stream.join()
    assert stream.statistics().counts["arrays compressed"] == squeezed, "it isn't tried again"
