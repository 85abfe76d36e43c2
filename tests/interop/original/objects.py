"""The original's objects, made to answer requests: their listens are recorded, nothing else is changed.

A Station is a process of its own; a thread in it takes requests through a pipe. (These classes can't live in
the script that is run: the original's logger fails for classes of `__main__`.)
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from arrays import build, describe
from autopilot.networking import Message, Pilot_Station, Station, Terminal_Station

Request = dict[str, Any]
LOOP_TIMEOUT_S = 10.0
MESSAGE_FIELDS = ("value", "serialized")


class Recorder:
    """Keep what the listens of one object got, in the order in which their threads ran."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: list[dict[str, Any]] = []

    def wrap(self, key: str, listen: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return `listen`, recorded under `key` each time it is called."""

        def recorded(argument: Any) -> None:
            self._note(key, argument)
            listen(argument)

        return recorded

    def _note(self, key: str, argument: Any) -> None:
        entry: dict[str, Any] = {"key": key, "at_s": time.monotonic()}
        if isinstance(argument, Message):
            envelope = {k: v for k, v in vars(argument).items() if k not in MESSAGE_FIELDS}
            entry |= {"value": describe(vars(argument).get("value")), "message": describe(envelope)}
        else:
            entry["value"] = describe(argument)
        with self._lock:
            self._seen.append(entry)

    def since(self, index: int) -> list[dict[str, Any]]:
        """Return what was recorded from number `index` on."""
        with self._lock:
            return self._seen[index:]


def ignore(_argument: Any) -> None:
    """Be the listen of a key that a test only wants to see."""


def on_loop(loop: Any, call: Callable[[], Any]) -> Any:
    """Run `call` in the loop's thread, where the original's sockets live, and return what it returned."""
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except Exception as error:  # noqa: BLE001 - it goes on to whoever asked
            outcome.set_exception(error)

    loop.add_callback(run)
    return outcome.result(LOOP_TIMEOUT_S)


class Requests:
    """Answer the requests that every object of the original understands."""

    def __init__(self, target: Any, recorder: Recorder) -> None:
        self._target = target
        self._recorder = recorder
        self._streams: dict[str, Any] = {}

    def answer(self, request: Request) -> dict[str, Any]:
        """Carry out one request; what it raises is reported, not raised."""
        arguments = {name: value for name, value in request.items() if name != "op"}
        try:
            return {"ok": True, "result": getattr(self, "do_" + request["op"])(**arguments)}
        except Exception:  # noqa: BLE001 - whatever the original raises is its answer
            return {"ok": False, "error": traceback.format_exc(limit=4)}

    def do_send(self, values: list[Any], **options: Any) -> None:
        for value in values:
            on_loop(self._target.loop, lambda v=value: self._target.send(value=build(v), **options))

    def do_push(self, values: list[Any], **options: Any) -> None:
        for value in values:
            on_loop(self._target.loop, lambda v=value: self._target.push(value=build(v), **options))

    def do_open_stream(self, name: str, options: dict[str, Any]) -> None:
        self._streams[name] = self._target.get_stream(id=name, **options)

    def do_put_stream(self, name: str, items: list[Any]) -> None:
        for item in items:
            self._streams[name].append(build(item))

    def do_received(self, since: int) -> list[dict[str, Any]]:
        return self._recorder.since(since)

    def do_set(self, name: str, value: Any) -> None:
        setattr(self._target, name, value)

    def do_state(self) -> dict[str, Any]:
        target = self._target
        count = target.msgs_received
        return {
            "msgs_received": count if isinstance(count, int) else count.value,
            "outbox": sorted(getattr(target, "outbox", {})),
            "send_outbox": sorted(getattr(target, "send_outbox", {})),
            "push_outbox": sorted(getattr(target, "push_outbox", {})),
            "senders": sorted({s.decode() if isinstance(s, bytes) else s for s in list(target.senders)}),
            "threads": threading.active_count(),
            "pid": os.getpid(),
        }


class PipedRequests:
    """Let a Station's process answer requests: `repeat` is the one thread that the original starts there."""

    def attach(self, recorder: Recorder) -> None:
        """Record all listens and lay the pipe; call it before `start`."""
        self._ours, self._theirs = multiprocessing.Pipe()
        self._recorder = recorder
        for key, listen in list(self.listens.items()):  # type: ignore[has-type]
            self.listens[key] = recorder.wrap(key, listen)

    def repeat(self) -> None:
        """Start answering, then do what the original does."""
        threading.Thread(target=self._serve, daemon=True).start()
        super().repeat()  # type: ignore[misc]

    def _serve(self) -> None:
        requests = Requests(self, self._recorder)
        while True:
            self._theirs.send(requests.answer(self._theirs.recv()))

    def answer(self, request: Request) -> dict[str, Any]:
        """Hand a request to the station's process, from the parent."""
        self._ours.send(request)
        while not self._ours.poll(0.05):
            if not self.is_alive():  # type: ignore[attr-defined]
                return {"ok": False, "error": "the station's process has ended"}
        reply: dict[str, Any] = self._ours.recv()
        return reply


class PipedStation(PipedRequests, Station):  # type: ignore[misc]
    """The original Station, answering requests."""


class PipedTerminal(PipedRequests, Terminal_Station):  # type: ignore[misc]
    """The original Terminal_Station, answering requests."""


class PipedPilot(PipedRequests, Pilot_Station):  # type: ignore[misc]
    """The original Pilot_Station, answering requests."""


STATIONS = {"station": PipedStation, "terminal": PipedTerminal, "pilot": PipedPilot}
