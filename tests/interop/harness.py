"""Real peers of the original, each a process of its own under its own interpreter, driven from a test.

An `OriginalPeer` is one Net_Node, Station, Terminal_Station or Pilot_Station of auto-pi-lot 0.5.1. Its home
is a scratch folder. Waits are for a condition and have a deadline; ports are picked by the machine.

    with OriginalPeer.terminal(python, tmp_path / "T", port=free_port()) as terminal:
        with OriginalPeer.node(python, tmp_path / "n", "_T", "T", terminal.port, listens=["DATA"]) as node:
            node.send(None, "PING", None)
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ORIGINAL = Path(__file__).parent / "original"
START_TIMEOUT_S = 30.0
REPLY_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 10.0
POLL_S = 0.01
ERROR_MARKS = ("ERROR", "CRITICAL", "Traceback")

Entry = dict[str, Any]


class PeerFailed(AssertionError):
    """A peer did not start, did not answer, or reported an error; its log is in the text."""


def free_port() -> int:
    """Return a TCP port that was free a moment ago, for a peer that can't be told to bind port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Block until `condition()` holds.

    Raises:
        AssertionError: it did not hold within `timeout_s` seconds; the text names `what`.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain for {what}")
        time.sleep(POLL_S)


class OriginalPeer:
    """One object of the original in its own process; a context manager.

    Args:
        python: the interpreter that `original/make_venv.py` made.
        home: a folder for its preferences and logs; made if missing.
        role: "node", "station", "terminal" or "pilot".
        options: constructor arguments of the original's class, as JSON.
        prefs: preferences to set before, such as NAME, MSGPORT, PUSHPORT, TERMINALIP.
        listens: keys to listen to, beside those that the class has by itself.

    Raises:
        PeerFailed: it did not start; for example its port is in use.
    """

    def __init__(
        self,
        python: Path,
        home: Path,
        role: str,
        options: dict[str, Any],
        prefs: dict[str, Any] | None = None,
        listens: Iterable[str] = (),
    ) -> None:
        self.home = home
        self.port = int(options.get("listen_port") or (prefs or {}).get("MSGPORT") or 0)
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._errors = self._open_home()
        self._process = self._spawn(python)
        self._reader = threading.Thread(target=self._read_answers, daemon=True)
        self._reader.start()
        what = {"role": role, "options": options, "prefs": prefs or {}, "listens": [*listens]}
        self._write({"op": "open", **what})
        self._started: Entry | None = None
        self._killed = False
        self.name = str(options.get("id") or (prefs or {}).get("NAME") or "T")
        self._what = f"original {role} {self.name}"

    @classmethod
    def node(
        cls,
        python: Path,
        home: Path,
        name: str,
        upstream: str,
        port: int,
        listens: Iterable[str] = (),
        prefs: dict[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Make a Net_Node with a loop of its own, connected to `upstream` on loopback at `port`."""
        own_loop = {"instance": False, "upstream_ip": "127.0.0.1"}
        named = {"id": name, "upstream": upstream, "port": port}
        return cls(python, home, "node", {**own_loop, **named, **options}, prefs, listens)

    @classmethod
    def station(
        cls,
        python: Path,
        home: Path,
        name: str,
        port: int,
        upstream: tuple[str, int] | None = None,
        listens: Iterable[str] = (),
    ) -> Self:
        """Make a Station that listens at `port`, with a pusher to `upstream` (its id and port) if given."""
        options: dict[str, Any] = {"id": name, "listen_port": port}
        if upstream is not None:
            push = {"pusher": True, "push_ip": "127.0.0.1", "push_id": upstream[0], "push_port": upstream[1]}
            options |= push
        return cls(python, home, "station", options, {}, listens)

    @classmethod
    def terminal(
        cls,
        python: Path,
        home: Path,
        port: int,
        pilots: Sequence[str] = (),
        prefs: dict[str, Any] | None = None,
    ) -> Self:
        """Make a Terminal_Station, `T`, that listens at `port` and knows `pilots` from the start."""
        known: dict[str, dict[str, Any]] = {name: {} for name in pilots}
        return cls(python, home, "terminal", {"pilots": known}, {"MSGPORT": port, **(prefs or {})})

    @classmethod
    def pilot(
        cls,
        python: Path,
        home: Path,
        name: str,
        port: int,
        terminal_port: int,
        prefs: dict[str, Any] | None = None,
    ) -> Self:
        """Make a Pilot_Station that listens at `port` and pushes to a terminal on loopback."""
        places = {"NAME": name, "MSGPORT": port, "PUSHPORT": terminal_port, "TERMINALIP": "127.0.0.1"}
        return cls(python, home, "pilot", {}, {**places, **(prefs or {})})

    def send(self, to: str | list[str] | None, key: str, *values: Any, **options: Any) -> None:
        """Send one message for each of `values` with the original's `send`; arrays as `array_spec`.

        Args:
            options: the original's `repeat`, `flags`, and for a node `force_to`, `blosc`.

        Raises:
            PeerFailed: the original raised.
        """
        self._ask({"op": "send", "to": to, "key": key, "values": [*values], **options})

    def push(self, to: str | None, key: str, *values: Any, **options: Any) -> None:
        """Do the same with a Station's `push`, through its pusher.

        Raises:
            PeerFailed: the original raised.
        """
        self._ask({"op": "push", "to": to, "key": key, "values": [*values], **options})

    def open_stream(self, name: str, key: str, min_size: int = 5, **options: Any) -> None:
        """Call a node's `get_stream` and keep its queue under `name`.

        Raises:
            PeerFailed: the original raised.
        """
        arguments = {"key": key, "min_size": min_size, **options}
        self._ask({"op": "open_stream", "name": name, "options": arguments})

    def put_stream(self, name: str, *items: Any) -> None:
        """Put items into a stream's queue; "END" ends it.

        Raises:
            PeerFailed: the original raised.
        """
        self._ask({"op": "put_stream", "name": name, "items": [*items]})

    def set_attribute(self, name: str, value: Any) -> None:
        """Set a plain attribute in the peer's process, for example a Station's `repeat_interval`.

        Raises:
            PeerFailed: the original raised.
        """
        self._ask({"op": "set", "name": name, "value": value})

    def state(self) -> Entry:
        """Return msgs_received, outbox, send_outbox, push_outbox, senders, threads and pid.

        Raises:
            PeerFailed: the peer did not answer.
        """
        state: Entry = self._ask({"op": "state"})
        return state

    def received(self, key: str | None = None) -> list[Entry]:
        """Return what the listens got so far: key, value, and for a Station the message's other fields.

        The original calls each listen in a thread of its own: the order is nearly that of arrival, no more.

        Raises:
            PeerFailed: the peer did not answer.
        """
        entries: list[Entry] = self._ask({"op": "received", "since": 0})
        return [entry for entry in entries if key is None or entry["key"] == key]

    def wait_for(self, predicate: Callable[[list[Entry]], bool], timeout_s: float = 5.0) -> list[Entry]:
        """Block until `predicate` holds for all that was received, and return that.

        Raises:
            PeerFailed: it did not hold within `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            entries = self.received()
            if predicate(entries):
                return entries
            if time.monotonic() > deadline:
                raise self._failure(f"got only {entries} within {timeout_s} s")
            time.sleep(POLL_S)

    def wait_values(self, key: str, count: int, timeout_s: float = 5.0) -> list[Any]:
        """Block until `count` messages of `key` came, and return the values of all of them.

        Raises:
            PeerFailed: fewer came within `timeout_s` seconds.
        """
        enough = self.wait_for(lambda entries: sum(e["key"] == key for e in entries) >= count, timeout_s)
        return [entry["value"] for entry in enough if entry["key"] == key]

    def meet(self, station: OriginalPeer) -> None:
        """Block until `station` knows this node: before, what is sent to it vanishes.

        It sends an empty CONFIRM, which every station takes without a word; it counts in `msgs_received`.

        Raises:
            AssertionError: the station did not come to know it.
        """
        self.send(None, "CONFIRM", "hello")
        wait_until(
            lambda: self.name in station.state()["senders"], REPLY_TIMEOUT_S, f"{station} to know {self}"
        )

    def confirms(self) -> list[str]:
        """Return the ids that were confirmed to this peer.

        Raises:
            PeerFailed: the peer did not answer.
        """
        return [entry["value"] for entry in self.received("CONFIRM")]

    def log(self) -> str:
        """Return all that the peer logged, in its files and on its standard error."""
        files = [self.home / "stderr.txt", *sorted(self.home.glob("autopilot/logs/*.log"))]
        return "\n".join(file.read_text(errors="replace") for file in files if file.exists())

    def log_errors(self) -> list[str]:
        """Return the lines of the log that tell of an error."""
        return [line for line in self.log().splitlines() if any(mark in line for mark in ERROR_MARKS)]

    def wait_started(self) -> Self:
        """Block until the object runs and its sockets are bound; peers may start side by side before.

        Raises:
            PeerFailed: it did not start.
        """
        if self._started is None:
            self._started = self._read_answer(START_TIMEOUT_S)
        return self

    def close(self) -> None:
        """End the peer as the original ends: `release`, then the process. Do nothing for one that was killed.

        Raises:
            PeerFailed: it did not end cleanly by itself; it is gone all the same.
        """
        if self._killed:
            return
        self._close_stdin()
        try:
            code = self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self._failure(f"did not end within {CLOSE_TIMEOUT_S} s") from None
        self._let_go()
        if code != 0:
            raise self._failure(f"ended with exit code {code}")

    def kill(self) -> None:
        """End the peer's processes as a power cut would, the Station's own process included."""
        self._killed = True
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(CLOSE_TIMEOUT_S)
        self._close_stdin()
        self._let_go()

    def __str__(self) -> str:
        return self._what

    def __enter__(self) -> Self:
        return self.wait_started()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _close_stdin(self) -> None:
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def _let_go(self) -> None:
        self._reader.join(CLOSE_TIMEOUT_S)
        self._errors.close()

    def _open_home(self) -> Any:
        self.home.mkdir(parents=True, exist_ok=True)
        return (self.home / "stderr.txt").open("w")

    def _spawn(self, python: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(python), str(ORIGINAL / "peer.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            start_new_session=True,
            env={**os.environ, "HOME": str(self.home), "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def _read_answers(self) -> None:
        if self._process.stdout is not None:
            with self._process.stdout as lines:
                for line in lines:
                    self._answers.put(line)
        self._answers.put(None)

    def _write(self, request: Entry) -> None:
        if self._process.stdin is None:
            raise self._failure("has no standard input")
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise self._failure("has ended") from error

    def _ask(self, request: Entry) -> Any:
        self.wait_started()
        self._write(request)
        return self._read_answer(REPLY_TIMEOUT_S)

    def _read_answer(self, timeout_s: float) -> Any:
        try:
            line = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise self._failure(f"gave no answer within {timeout_s} s") from None
        if line is None:
            raise self._failure("ended")
        answer = json.loads(line)
        if not answer["ok"]:
            raise self._failure(answer["error"])
        return answer["result"]

    def _failure(self, text: str) -> PeerFailed:
        return PeerFailed(f"{self._what}: {text}\n--- its log:\n{self.log()[-3000:]}")


def make_original_python() -> Path:
    """Return the interpreter of the original's environment, built now if it is missing.

    Raises:
        subprocess.CalledProcessError: no suitable Python, or pip failed; standard error says which.
    """
    script = [sys.executable, str(ORIGINAL / "make_venv.py")]
    made = subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    return Path(made.stdout.strip())
