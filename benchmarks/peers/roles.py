"""What runs inside a measured process: it answers JSON lines on its standard streams and measures.

Standard library only: the original's interpreter runs it too. A role gets one line with the addresses so far,
answers with those it adds, then answers each request; it closes at the end of standard input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, Protocol

Addresses = dict[str, Any]
GRACE_S = 2.0
TICK_S = 0.001
LATE_S = 0.1
LANE_SHIFT = 40
"""A message's number tells above these bits which of many senders it is from."""
STREAM_LANE = 4096 << LANE_SHIFT
"""The lane of what streams while something else is sent."""


class Role(Protocol):
    """One process of a peer."""

    addresses: Addresses

    @property
    def request(self) -> Callable[..., Any]:
        """Answer what the coordinator asks, named by its first argument: a method of the role."""

    def close(self) -> None:
        """Let go of sockets and child processes."""


def serve(open_role: Callable[[Addresses], Role]) -> None:
    """Run one role until standard input ends; whatever it prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    role = open_role(json.loads(sys.stdin.readline()))
    answer(role.addresses)
    for line in sys.stdin:
        answer(role.request(**json.loads(line)))
    role.close()
    os._exit(0)


def allow_many_sockets() -> None:
    """Raise this process's limit of open files as far as it goes; where there is no such limit, do nothing."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def payload(n: int) -> dict[str, Any]:
    """Return the measured value: a trial's row of about 200 bytes as JSON, with its number."""
    return {
        "n": n,
        "pilot": "rig_a",
        "subject": "mouse_0042",
        "trial_num": n,
        "session": 12,
        "response": "L",
        "correct": True,
        "target_frequency": 45255.0,
        "timestamp": "2026-03-01T23:52:16.995387",
        "reward_ms": 20.5,
    }


class Arrivals:
    """Count what a receiver got, and see whether each number came once, in its sender's order, and undamaged."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.seen: set[int] = set()
        self.received = 0
        self.out_of_order = 0
        self.corrupt = 0
        self._last: dict[int, int] = {}

    def note(self, n: int, *, is_sound: bool = True) -> None:
        """Take message number `n`."""
        self.received += 1
        lane = n >> LANE_SHIFT
        self.out_of_order += n < self._last.get(lane, -1)
        self._last[lane] = n
        self.seen.add(n)
        self.corrupt += not is_sound

    def report(self) -> dict[str, int]:
        """Return the counts since the last report, and begin anew."""
        counts = {
            "received": self.received,
            "duplicates": self.received - len(self.seen),
            "out_of_order": self.out_of_order,
            "corrupt": self.corrupt,
        }
        self._begin()
        return counts


class Counting:
    """A receiver: it is asked what has arrived, and nothing else. Its arrivals may have a lock."""

    _arrivals: Any
    _lock: Any = nullcontext()

    def request(self, what: str) -> dict[str, int]:
        """Return what arrived (`count`)."""
        if what != "count":
            raise ValueError(f"the receiver can't {what}")
        with self._lock:
            return self._arrivals.report()


class Pipeline:
    """Send for `seconds` with at most `window` messages unconfirmed, then wait for the rest.

    Args:
        send: sends message number n; must not block for long.
        collect: waits up to so many seconds for confirmations and returns how many came.
        window: how many may be unconfirmed.
        flush: asks for the confirmations that the receiver still gathers.
        hz: at most so many a second; 0 for as many as go.
    """

    def __init__(
        self,
        send: Callable[[int], None],
        collect: Callable[[float], int],
        window: int,
        flush: Callable[[], None] = lambda: None,
        hz: float = 0.0,
    ) -> None:
        self._send = send
        self._collect = collect
        self._window = window
        self._flush = flush
        self._hz = hz

    def run(self, seconds: float, first: int) -> dict[str, Any]:
        """Measure once, numbering from `first`, and return sent, confirmed and the seconds it took."""
        began = time.perf_counter()
        sent = confirmed = lost = 0
        while (now_s := time.perf_counter() - began) < seconds:
            due = int(now_s * self._hz) + 1 if self._hz else sent + self._window
            while sent - confirmed - lost < self._window and sent < due:
                self._send(first + sent)
                sent += 1
            is_ahead = sent >= due and self._hz
            got = self._collect(TICK_S if is_ahead else GRACE_S)
            confirmed += got
            if not got and not is_ahead:
                lost = sent - confirmed
        in_time, elapsed_s = confirmed, time.perf_counter() - began
        self._flush()
        while confirmed < sent and (got := self._collect(GRACE_S)):
            confirmed += got
        return {"sent": sent, "confirmed": confirmed, "in_time": in_time, "elapsed_s": elapsed_s}


class Schedule:
    """Who is to send what and when: `senders` at `hz` messages a second each, their moments spread evenly.

    What isn't sent when the time is over isn't sent any more; it counts as not delivered. Latency is counted from
    the moment at which a message was due, so that a sender which falls behind can't hide it.
    """

    def __init__(self, seconds: float, first: int, senders: int, hz: float) -> None:
        self._seconds = seconds
        self._first = first
        self._senders = senders
        self._rate = senders * hz
        self._counted = 0
        self._due_at: dict[int, float] = {}
        self._latency_s: deque[float] = deque()
        self.wanted = int(seconds * self._rate)
        self.sent = 0
        self._began = time.perf_counter()
        self.came_at = self._began

    @property
    def is_on(self) -> bool:
        """Tell whether there is still something to send."""
        return self.sent < self.wanted and time.perf_counter() - self._began < self._seconds + LATE_S

    def due(self) -> Iterator[tuple[int, int]]:
        """Give sender and number of each message that is due now."""
        until = min(self.wanted, int((time.perf_counter() - self._began) * self._rate) + 1)
        while self.sent < until:
            lane = self.sent % self._senders
            n = (lane << LANE_SHIFT) + self._first + self.sent
            self._due_at[n] = self._began + self.sent / self._rate
            self.sent += 1
            yield lane, n

    def confirm(self, n: int) -> None:
        """Take note that message number `n` was confirmed; from any thread, and only its first time counts."""
        due_at = self._due_at.pop(n, None)
        if due_at is not None:
            self.came_at = time.perf_counter()
            self._latency_s.append(self.came_at - due_at)

    def count(self, confirmed: int) -> None:
        """Take note that so many were confirmed so far, of which not each one was told."""
        if confirmed > self._counted:
            self._counted, self.came_at = confirmed, time.perf_counter()

    @property
    def _confirmed(self) -> int:
        return max(self._counted, len(self._latency_s))

    @property
    def is_waiting(self) -> bool:
        """Tell whether confirmations are due and one came lately."""
        last = max(self.came_at, self._began + self._seconds)
        return self._confirmed < self.sent and time.perf_counter() - last < GRACE_S

    def result(self) -> dict[str, Any]:
        """Return the counts and each latency in µs."""
        times = [round(t * 1e6, 1) for t in self._latency_s]
        return {"wanted": self.wanted, "sent": self.sent, "confirmed": self._confirmed, "latency_us": times}


def round_trips(once: Callable[[int], None], seconds: float, first: int) -> dict[str, Any]:
    """Call `once`, which returns when its answer is there, for `seconds`; return each time in µs."""
    times: deque[float] = deque()
    end = time.perf_counter() + seconds
    n = first
    while (began := time.perf_counter()) < end:
        once(n)
        times.append((time.perf_counter() - began) * 1e6)
        n += 1
    return {"sent": len(times), "confirmed": len(times), "rtt_us": [round(t, 1) for t in times]}


class Sending:
    """What a sender that runs in plain threads is asked; a peer fills in how it sends and hears of confirmations."""

    def request(self, what: str, seconds: float, first: int, **how: Any) -> dict[str, Any]:
        """Measure one slice; `what` names one of the methods below."""
        measured: dict[str, Any] = getattr(self, f"measure_{what}")(seconds, first, **how)
        return measured

    def measure_acked(self, seconds: float, first: int, window: int) -> dict[str, Any]:
        """Send small messages, at most `window` unconfirmed."""
        return Pipeline(self._send, self._collect, window).run(seconds, first)

    def measure_rtt(self, seconds: float, first: int) -> dict[str, Any]:
        """Send a message and wait for its answer, again and again."""
        return round_trips(self._once, seconds, first)

    def measure_bulk(
        self, seconds: float, first: int, window: int, size: int, direct: bool
    ) -> dict[str, Any]:
        """Send arrays of `size` bytes, at most `window` unconfirmed."""
        return self._bulk(size, window, direct, 0.0).run(seconds, first)

    def measure_paced(self, seconds: float, first: int, senders: int, hz: float) -> dict[str, Any]:
        """Send from many at a fixed rate."""
        self._open_lanes(senders)
        schedule = self._schedule = Schedule(seconds, first, senders, hz)
        while schedule.is_on:
            for lane, n in schedule.due():
                self._send_from(lane, n)
            self._turn(TICK_S)
        while schedule.is_waiting:
            self._turn(10 * TICK_S)
        return schedule.result()

    def measure_loaded(self, seconds: float, first: int, window: int, size: int, hz: float) -> dict[str, Any]:
        """Time round trips, first with nothing else going on, then while arrays are sent `hz` times a second."""
        idle = round_trips(self._once, seconds / 2, first)
        first += idle["sent"]
        stream = self._bulk(size, window, False, hz)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(stream.run, seconds / 2, first + STREAM_LANE)
            loaded = round_trips(self._once, seconds / 2, first)
            streamed = running.result()
        parts = (idle, loaded, streamed)
        return {
            **{count: sum(part[count] for part in parts) for count in ("sent", "confirmed")},
            "idle_us": idle["rtt_us"],
            "loaded_us": loaded["rtt_us"],
            "stream_mb_per_s": streamed["in_time"] * size / streamed["elapsed_s"] / 1e6,
        }

    def _send(self, n: int) -> None:
        """Send the small message number n."""
        raise NotImplementedError

    def _collect(self, timeout_s: float) -> int:
        """Wait so long for confirmations of what `_send` sent; return how many came."""
        raise NotImplementedError

    def _once(self, n: int) -> None:
        """Send message number n and wait for its answer."""
        raise NotImplementedError

    def _bulk(self, size: int, window: int, direct: bool, hz: float) -> Pipeline:
        """Make what sends arrays."""
        raise NotImplementedError

    def _open_lanes(self, senders: int) -> None:
        """Have so many senders, each with a connection of its own."""
        raise NotImplementedError

    def _send_from(self, lane: int, n: int) -> None:
        """Send message number n from one of them; its confirmation goes to `self._schedule.confirm`."""
        raise NotImplementedError

    def _turn(self, timeout_s: float) -> None:
        """Wait so long, and look after confirmations if nobody else does."""
        time.sleep(timeout_s)
