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
from collections.abc import Callable
from typing import Any, Protocol

Addresses = dict[str, Any]
WINDOW = 512
DURABLE_WINDOW = 2048
GRACE_S = 2.0


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
    """Count what a receiver got, and see whether each number came once and in order."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.received = 0
        self.out_of_order = 0
        self._last = -1

    def note(self, n: int) -> None:
        """Take message number `n`."""
        self.received += 1
        self.out_of_order += n < self._last
        self._last = n
        self.seen.add(n)

    def report(self) -> dict[str, int]:
        """Return the counts since the last report, and begin anew."""
        counts = {
            "received": self.received,
            "duplicates": self.received - len(self.seen),
            "out_of_order": self.out_of_order,
        }
        self.__init__()  # type: ignore[misc]
        return counts


class Pipeline:
    """Send for `seconds` with at most `window` messages unconfirmed, then wait for the rest.

    Args:
        send: sends message number n; must not block for long.
        collect: waits up to so many seconds for confirmations and returns how many came.
    """

    def __init__(self, send: Callable[[int], None], collect: Callable[[float], int], window: int) -> None:
        self._send = send
        self._collect = collect
        self._window = window

    def run(self, seconds: float, first: int) -> dict[str, Any]:
        """Measure once, numbering from `first`, and return sent, confirmed and the seconds it took."""
        began = time.perf_counter()
        sent = confirmed = lost = 0
        while time.perf_counter() - began < seconds:
            while sent - confirmed - lost < self._window:
                self._send(first + sent)
                sent += 1
            got = self._collect(GRACE_S)
            confirmed += got
            if not got:
                lost = sent - confirmed
        in_time, elapsed_s = confirmed, time.perf_counter() - began
        while confirmed < sent and (got := self._collect(GRACE_S)):
            confirmed += got
        return {"sent": sent, "confirmed": confirmed, "in_time": in_time, "elapsed_s": elapsed_s}


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
