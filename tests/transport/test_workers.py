"""The pool: order within a lane, nobody delayed by another lane, and bounds."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pilotage.transport.workers import Workers
from tests.conftest import Eventually

Job = tuple[str, int]


class Bench:
    """Jobs that note themselves; those of a blocked lane wait for its gate."""

    def __init__(self) -> None:
        self.done: list[Job] = []
        self.calls: list[int] = []
        self.running: set[str] = set()
        self.most_at_once = 0
        self.gates: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self.together = 1
        self.workers: Workers[Job] = Workers(
            "bench", self._run, max_threads=8, together=lambda job: self.together
        )

    def submit(self, lane: str, number: int) -> None:
        self.workers.submit(lane, (lane, number))

    def block(self, lane: str) -> None:
        self.gates[lane] = threading.Event()

    def of(self, lane: str) -> list[int]:
        return [number for name, number in list(self.done) if name == lane]

    def _run(self, jobs: list[Job]) -> None:
        job = jobs[0]
        with self._lock:
            assert job[0] not in self.running, "two threads in one lane"
            self.running.add(job[0])
            self.most_at_once = max(self.most_at_once, len(self.running))
        if job[0] in self.gates:
            self.gates[job[0]].wait(10)
        with self._lock:
            self.running.discard(job[0])
        self.done += jobs
        self.calls.append(len(jobs))


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    for gate in bench.gates.values():
        gate.set()
    bench.workers.close(2.0)


def test_a_lane_keeps_its_order(bench: Bench, eventually: Eventually) -> None:
    for number in range(2000):
        bench.submit(f"lane {number % 5}", number)
    eventually(lambda: len(bench.done) == 2000)
    for lane in range(5):
        assert bench.of(f"lane {lane}") == list(range(lane, 2000, 5))


def test_a_blocked_lane_holds_only_itself(bench: Bench, eventually: Eventually) -> None:
    bench.block("slow")
    bench.submit("slow", 0)
    bench.submit("slow", 1)
    for number in range(300):
        bench.submit(f"quick {number}", number)
    eventually(lambda: len(bench.done) == 300)
    assert bench.of("slow") == []
    bench.gates["slow"].set()
    eventually(lambda: bench.of("slow") == [0, 1])


def test_a_blocked_lane_never_takes_the_thread_that_was_meant_for_the_next(
    bench: Bench, eventually: Eventually
) -> None:
    # Two lanes submitted at the moment at which one idle thread wakes up.
    for turn in range(100):
        slow = f"slow {turn}"
        bench.block(slow)
        bench.submit(slow, 0)
        bench.submit(f"next {turn}", 0)
        eventually(lambda turn=turn: bench.of(f"next {turn}") == [0], timeout_s=2)
        bench.gates[slow].set()
        eventually(lambda slow=slow: bench.of(slow) == [0], timeout_s=2)


def test_what_is_submitted_together_is_begun_by_one_thread(bench: Bench, eventually: Eventually) -> None:
    bench.workers.submit_all([(lane, (lane, 0)) for lane in "abcdef"])
    eventually(lambda: len(bench.done) == 6)
    assert [lane for lane, _ in bench.done] == list("abcdef")
    assert bench.workers.threads() == 1 and not bench.workers.help_out()


def test_where_that_thread_does_not_get_on_more_and_more_help(bench: Bench, eventually: Eventually) -> None:
    lanes = "abcdefg"
    for lane in lanes:
        bench.block(lane)
    bench.workers.submit_all([(lane, (lane, 0)) for lane in lanes])
    eventually(lambda: bench.running == {"a"})

    def all_run() -> bool:
        return not bench.workers.help_out() and bench.running == set(lanes)

    eventually(all_run)


def test_there_are_never_more_threads_than_allowed(bench: Bench, eventually: Eventually) -> None:
    for lane in range(20):
        bench.block(f"lane {lane}")
        bench.submit(f"lane {lane}", lane)
    eventually(lambda: bench.workers.threads() == 8 and len(bench.running) == 8)
    assert bench.workers.waiting() == 12
    assert not bench.workers.help_out(), "nobody is left who could"
    for gate in bench.gates.values():
        gate.set()
    eventually(lambda: len(bench.done) == 20)
    assert bench.most_at_once == 8


def test_threads_go_when_idle_and_come_again(
    bench: Bench, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotage.transport.workers.IDLE_S", 0.001)
    for turn in range(200):
        bench.submit("lane", turn)
        eventually(lambda turn=turn: len(bench.done) == turn + 1, timeout_s=2)
    eventually(lambda: bench.workers.threads() == 0)


def test_closing_does_not_wait_for_a_blocked_listen(bench: Bench, eventually: Eventually) -> None:
    bench.block("slow")
    bench.submit("slow", 0)
    bench.submit("slow", 1)
    eventually(lambda: bench.running == {"slow"})
    bench.workers.close(0.05)
    bench.gates["slow"].set()
    eventually(lambda: bench.done == [("slow", 0)])
    assert bench.workers.waiting() == 0


def test_what_waits_in_a_lane_may_be_done_together(bench: Bench, eventually: Eventually) -> None:
    bench.together = 4
    bench.block("a")
    bench.submit("a", 0)
    eventually(lambda: "a" in bench.running)
    for number in range(1, 8):
        bench.submit("a", number)
    bench.gates["a"].set()
    eventually(lambda: len(bench.done) == 8)
    assert bench.of("a") == list(range(8)) and bench.calls == [1, 4, 3]


def test_threads_that_light_traffic_does_not_need_come_to_their_end(
    bench: Bench, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotage.transport.workers.IDLE_S", 0.3)
    for lane in "abcdef":
        bench.block(lane)
        bench.submit(lane, 0)
    eventually(lambda: len(bench.running) == 6)
    for gate in bench.gates.values():
        gate.set()
    eventually(lambda: len(bench.done) == 6)
    begun = iter(range(10**6))

    def one_is_left_while_there_is_traffic() -> bool:
        bench.submit("light", next(begun))
        return bench.workers.threads() == 1

    eventually(one_is_left_while_there_is_traffic)
