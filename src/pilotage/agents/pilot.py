"""Pilot: the agent beside an animal or an instrument. It has a station, a node `_{NAME}`, and runs tasks."""

from __future__ import annotations

import contextlib
import logging
import platform
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any, Self

from pilotage.agents.account import TRIALS, Accounts, data_of, marks_to_wire, values_of
from pilotage.agents.assignment import Assignment
from pilotage.agents.continuous import ITEM_NUM, SENT_BY, split_items
from pilotage.agents.diary import Diary
from pilotage.agents.disk import DiskTrouble, DiskWatch
from pilotage.agents.keeper import Keeper
from pilotage.agents.lives import NOTE_EVERY_S, source_of
from pilotage.agents.outputs import Wiring
from pilotage.agents.record import Record, RecordedRow
from pilotage.agents.refetch import answer_fetch
from pilotage.agents.registry import find_task, task_code_hash
from pilotage.agents.run import RunnerPorts
from pilotage.agents.runner import TaskRunner
from pilotage.agents.start import TaskStart, parse_start
from pilotage.agents.states import State
from pilotage.agents.successors import PilotSuccessors
from pilotage.net.node import Net_Node
from pilotage.net.pilot_station import Pilot_Station
from pilotage.net.pref_keys import TERMINAL_ID, Prefs
from pilotage.net.pref_values import Lineage
from pilotage.net.prefs import prefs
from pilotage.net.receipt import Receipt
from pilotage.net.security import Security
from pilotage.net.streams import Stream
from pilotage.protocol.errors import Closed, MachineError, PilotageError, TaskError
from pilotage.protocol.message import Message

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 10.0
FETCH_TIMEOUT_S = 30.0
FETCH_LOOK_S = 0.02
BEGIN_TIMEOUT_S = 45.0
COHERE_TIMEOUT_S = 30.0
SETTLE_TIMEOUT_S = 2.0
END_TIMEOUT_S = STOP_TIMEOUT_S + SETTLE_TIMEOUT_S + 1.0
"""How long a START waits for the end of the last task to be told."""
TOLD_TIMEOUT_S = 0.3


class Pilot:
    """A pilot, or a pilot's child (LINEAGE=CHILD).

    Args:
        settings: preferences; those of this process if not given.
        wiring: which driver and address each output of a task has on this rig.
        batch_items: items of a stream in one message.

    Attributes:
        on_state: called with each new state and its reason, on a thread of the pilot's.

    Raises:
        InvalidPref: NAME is not set.
        PortInUse: another program listens on MSGPORT.
    """

    def __init__(
        self, settings: Prefs | None = None, wiring: Mapping[str, Wiring] | None = None, batch_items: int = 10
    ) -> None:
        self.settings = settings or prefs.snapshot()
        self.name: str = self.settings.require("NAME")
        self._batch_items = batch_items
        self._run: Assignment | None = None
        self._streams_lock = threading.Lock()
        self._closed = threading.Event()
        self._closing_s = STOP_TIMEOUT_S
        self._ending: Future[None] | None = None
        self._told: Receipt | None = None
        self._last_told = (State.IDLE, "")
        self._life = secrets.token_hex(8)
        self.on_state: Callable[[State, str], None] = lambda state, reason: None
        self._diary = Diary(self.settings.datadir / f"{self.name}.running.json")
        self._record = Record(self.settings.datadir, self.name, self._life)
        self.accounts = Accounts(self._record, self.name, self._life)
        self._helpers = ThreadPoolExecutor(8, thread_name_prefix="pilot")
        self._keeper = Keeper(self._make_station, self._greet)
        self._keeper.start()
        station = self._keeper.station
        listens = {"START": self.l_start, "STOP": self.l_stop, "PARAM": self.l_param, "COHERE": self.l_cohere}
        listens |= {"FETCH": self.l_fetch, "PEER": self.l_peer}
        journal = self.settings.datadir / "journal"
        security = Security.of(self.settings)
        listens["REKEY"] = PilotSuccessors(security).l_rekey
        self.node = Net_Node(
            f"_{self.name}", self.name, station.listen_port, listens, journal=journal, security=security
        )
        ports = RunnerPorts(self._send_trial, self._tell_state, self._tell_error, self._put, self._fetch)
        outputs = self.settings.datadir / "outputs"
        self.runner = TaskRunner(ports, self.settings.sounddir, outputs, wiring)
        self._disk = DiskWatch(self.runner.pause, self.runner.resume, self._tell_event)
        self.node.on_journal = self.on_journal
        self._own_up()
        self._greet()
        threading.Thread(target=self._keep_telling, name="pilot-alive", daemon=True).start()
        threading.Thread(target=self._keep_noting, name="pilot-lives", daemon=True).start()

    @property
    def port(self) -> int:
        """The port on which the station listens."""
        return self._keeper.station.listen_port

    @property
    def openness(self) -> str:
        """To whom the station is open, in a few words."""
        return self._keeper.station.openness

    @property
    def link(self) -> str:
        """How the connection to the Terminal, or to the parent, is: alive, suspect or gone."""
        station = self._keeper.station
        try:
            return str(station.statistics().peers.get(station.push_id, "gone"))
        except (PilotageError, TimeoutError):
            return "gone"

    # Life

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop the task, send what is left, and end."""
        if self._closed.is_set():
            return
        self._closing_s = timeout_s
        self._closed.set()
        try:
            self.runner.close(timeout_s)
        finally:
            self._wait_told(timeout_s)
            self._close_streams(self._run, timeout_s)
            self.node.release()
            self._keeper.close()
            self._helpers.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        """Use it as a context that closes it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def _wait_told(self, timeout_s: float) -> None:
        """Wait until the Terminal knows our last state; a Terminal that has gone is not waited for long."""
        wait([self._ending] if self._ending else [], timeout_s)
        if self._told is not None:
            with contextlib.suppress(TimeoutError):
                self._told.wait_settled(TOLD_TIMEOUT_S)

    def _make_station(self, port: int | None) -> Pilot_Station:
        settings = self.settings if port is None else replace(self.settings, msgport=port)
        return Pilot_Station(settings)

    def _greet(self) -> None:
        """Tell the Terminal who and where we are, and in what state."""
        state, reason = self._last_told
        told: dict[str, Any] = {
            "pilot": self.name,
            "ip": self._keeper.station.ip,
            "state": str(state),
            "reason": reason,
        }
        if self.settings.lineage is Lineage.CHILD:
            told["parent"] = self.settings.parentid
        self.node.send(TERMINAL_ID, "HANDSHAKE", told)
        self._told = self.node.send(msg=self._state_message(state, reason))

    def _keep_telling(self) -> None:
        """Tell our state every PING_INTERVAL, so that the Terminal's view is never older (promise L2)."""
        while not self._closed.wait(self.settings.ping_interval):
            with contextlib.suppress(Closed):
                self.node.send(msg=self._state_message(*self._last_told, repeat=False), repeat=False)

    def _own_up(self) -> None:
        """Report a task that an earlier life of ours was running: it is resumed only on request."""
        left = self._diary.left()
        if left is not None:
            # A row is recorded before the diary turns its page; we may have died between the two.
            left = {**left, "trial": self._record.trial_after(left)}
            where = f"trial {left['trial']} of session {left.get('session')}"
            text = f"{left.get('task_type')} was interrupted in {where}"
            self.runner.interrupted(text)
            self._tell_event("interrupted", {**left, "text": text})
            self._diary.close()

    def l_peer(self, value: Any) -> None:
        """Our station tells how the way up is: whoever is there now, perhaps anew, is told who we are."""
        if isinstance(value, dict) and value.get("link") == "alive":
            self._greet()

    def on_journal(self, trouble: DiskTrouble) -> None:
        """Take note that what we send can't be kept on our disk, or can again. Any thread; it doesn't wait.

        The Terminal gets an EVENT `disk` when it begins and when it is over, the latter with the rows that were sent
        without being kept; a task pauses meanwhile, unless its `on_disk_full` says otherwise.
        """
        self._disk.note(trouble)

    # Orders

    def l_start(self, value: Any) -> Future[Any]:
        """Run a task; settled when it runs (its files are here, it was built), and the answer tells what runs.

        The end of the last one is told first. An order that is refused changes nothing.

        Raises:
            TaskError: one runs already, the task is unknown, or its parameters don't fit.
        """
        start = parse_start(value)
        child = start.child or {}
        owner = {"pilot": child.get("parent") or self.name, "subject": child.get("subject") or start.subject}
        start = start.model_copy(update=owner)
        task_class = find_task(start.task_type)
        if self._ending is not None:
            wait([self._ending], END_TIMEOUT_S)
        taken: list[Assignment] = []
        self.runner.start(start, task_class, lambda: taken.append(self._take(start)))
        runs = {
            "task_type": start.task_type,
            "task_code_sha256": task_code_hash(task_class),
            "pilotage": version("pilotage"),
            "python": platform.python_version(),
            "machine": platform.platform(),
            "life": self._life,
        }
        return self._helpers.submit(self._wait_begun, taken[0], runs)

    def _take(self, start: TaskStart) -> Assignment:
        """Make an order that the runner takes the present one.

        Raises:
            TaskError: the end of the last one isn't told yet.
        """
        if self._ending is not None and not self._ending.done():
            raise TaskError(
                f"task {start.task_type!r} can't start: the end of the last one isn't told yet; try again in a moment"
            )
        run = self._run = Assignment(start, self.accounts.of(start.session_name))
        run.account.begin_rows(start.pilot, start.next_row)
        self._diary.note(start, start.current_trial)
        return run

    def _wait_begun(self, run: Assignment, runs: dict[str, Any]) -> dict[str, Any]:
        if not run.begun.wait(BEGIN_TIMEOUT_S):
            raise TaskError(f"{runs['task_type']!r} is still being prepared after {BEGIN_TIMEOUT_S:g} s")
        if run.error and run.state is State.ERROR:
            raise TaskError(run.error)
        return runs

    def l_stop(self, value: Any) -> Future[Any]:
        """Stop the task; settled when it has really ended and its data are sent."""
        self.runner.request_stop("STOP from the Terminal")
        return self._helpers.submit(self._stop, self._run)

    def _stop(self, run: Assignment | None) -> None:
        self.runner.stop(STOP_TIMEOUT_S, "STOP from the Terminal")
        self._close_streams(run, STOP_TIMEOUT_S)

    def l_param(self, value: Any) -> dict[str, Any]:
        """Change parameters of the running task; the answer is what they are now.

        Raises:
            TaskError: no task runs, or a name or value doesn't fit; nothing has changed then.
        """
        if not isinstance(value, dict):
            raise TaskError(f"PARAM needs a dictionary of parameters, not {type(value).__name__}")
        return self.runner.change(value)

    def l_cohere(self, value: Any) -> Future[Any]:
        """Give our account of a session, once what it sent has settled."""
        session = str(value.get("session", "")) if isinstance(value, dict) else ""
        return self._helpers.submit(self._account, session)

    def _account(self, session: str) -> dict[str, Any]:
        resent = {TRIALS: self.node.statistics().resent}
        if (run := self._run) is not None and run.session == session:
            for name, stream in list(run.streams.items()):
                stream.flush()
                resent[name] = stream.statistics().resent
        account = self.accounts.of(session)
        account.wait_settled(SETTLE_TIMEOUT_S)
        record = str(self._record.place(session))
        told = {"pilot": self.name, "session": session, "record": record, "life": self._life}
        return {**account.report(resent), **told}

    def l_fetch(self, value: Any) -> Future[Any]:
        """Send rows again that the Terminal lacks, from our record; settled when they have."""
        return self._helpers.submit(answer_fetch, self._record, self.name, value, self._send_row)

    def _send_row(self, value: dict[str, Any]) -> Receipt:
        return self.node.send(TERMINAL_ID, "DATA", value)

    # Reports (on the task's threads)

    def _send_trial(self, row: dict[str, Any]) -> None:
        run = self._present("a row")
        pilot, subject, trial = str(row["pilot"]), str(row["subject"]), int(row["trial_num"])
        numbered = RecordedRow(pilot, run.account.number_row(pilot), subject, trial, values_of(row))
        self._record.add_row(run.session, numbered)
        run.account.add_row(numbered)
        run.account.follow(self._send_row(data_of(numbered, run.session, self.name)))
        self._disk.note_row(trial)
        if "TRIAL_END" in row:
            self._diary.note(run.start, trial + 1)

    def _put(self, name: str, item: dict[str, Any]) -> None:
        run, series = self._present(f"an item of stream {name!r}"), split_items([item], name)
        number = run.account.number_items(run.start.pilot, series)
        self._stream(name, run).put({**item, ITEM_NUM: number, SENT_BY: source_of(self.name, self._life)})
        run.account.add_series(run.start.pilot, series)

    def _present(self, what: str) -> Assignment:
        if self._run is None:
            raise TaskError(f"{what} came while no task runs")
        return self._run

    def _stream(self, name: str, run: Assignment) -> Stream:
        with self._streams_lock:
            stream = run.streams.get(name)
            if stream is None:
                stream = self.node.get_stream(
                    name,
                    "CONTINUOUS",
                    min_size=self._batch_items,
                    upstream=TERMINAL_ID,
                    port=self.settings.terminal_listen_port,
                    ip=self.settings.terminalip,
                    subject=run.start.subject,
                    pilot=run.start.pilot,
                )
                stream.headers.update(stream=name, session=run.session)
                stream.on_sent = partial(run.account.follow, channel=name)
                run.streams[name] = stream
            return stream

    def _tell_state(self, state: State, reason: str) -> None:
        """Report a state; the end of a task is told when what it sent has settled, or can't for now."""
        run = self._run
        if run is not None:
            run.state = state
            if state is State.PREPARING:
                self._begin_record(run)
            elif state is not State.STOPPING:
                run.begun.set()
            if state in (State.IDLE, State.ERROR) and self._record.running is not None:
                self._ending = self._helpers.submit(self._settle_then_tell, run, state, reason)
                return
        self._send_state(state, reason)

    def _begin_record(self, run: Assignment) -> None:
        fields = {"task_type", "pilot", "subject", "current_trial", "params"}
        self._record.begin(run.session, run.start.model_dump(mode="json", include=fields))
        run.account.begin_life()

    def _keep_noting(self) -> None:
        """Note every second how far the streams are, for a later life that has to account for them."""
        while not self._closed.wait(NOTE_EVERY_S):
            run = self._run
            if run is not None:
                run.account.note_life(is_open=True)  # ignored once it has ended

    def _settle_then_tell(self, run: Assignment, state: State, reason: str) -> None:
        self._close_streams(run, self._closing_s if self._closed.is_set() else STOP_TIMEOUT_S)
        run.account.wait_settled(min(SETTLE_TIMEOUT_S, self._closing_s))
        marks = marks_to_wire(run.account.marks())
        self._record.end({"state": str(state), "reason": reason, "marks": marks})
        run.account.note_life(is_open=False)
        self._send_state(state, reason)

    def _send_state(self, state: State, reason: str) -> None:
        if state in (State.IDLE, State.ERROR):
            self._diary.close()
        self.on_state(state, reason)
        self._last_told = (state, reason)
        self._told = self.node.send(msg=self._state_message(state, reason))

    def _state_message(self, state: State, reason: str, *, repeat: bool = True) -> Message:
        message = self.node.prepare_message(self.name, "STATE", str(state), repeat, {"NOLOG": True})
        if reason:
            message["reason"] = reason
        return message

    def _tell_error(self, text: str, trace: str) -> None:
        if self._run is not None:
            self._run.error = text
        self._tell_event("error", {"text": text, "traceback": trace})

    def _tell_event(self, name: str, values: Mapping[str, Any]) -> None:
        session = self._run.session if self._run else ""
        told = {"pilot": self.name, "name": name, "session": session, **values}
        self.node.send(f"_{TERMINAL_ID}", "EVENT", told)

    def _fetch(self, paths: Sequence[str], stopping: threading.Event) -> None:
        """Have our station fetch files from the Terminal, while the task is PREPARING.

        Raises:
            MachineError: they can't be had.
        """
        for path in paths:
            receipt = self.node.send(self.name, "FILE", path)
            deadline = time.monotonic() + FETCH_TIMEOUT_S
            while not receipt.is_settled and not stopping.wait(FETCH_LOOK_S):
                if time.monotonic() > deadline:
                    raise MachineError(
                        f"{path!r} did not come from the Terminal within {FETCH_TIMEOUT_S:g} s"
                    )
            error = receipt.settlement.error() if receipt.settlement else None
            if error is not None:
                raise MachineError(str(error))

    def _close_streams(self, run: Assignment | None, timeout_s: float) -> None:
        if run is None:
            return
        # Held while they close: a stream of the next run may not claim a name that is still in use.
        with self._streams_lock:
            for name, stream in run.streams.items():
                stream.close(timeout_s)
                run.account.note_resent(name, stream.statistics().resent)
            run.streams = {}
