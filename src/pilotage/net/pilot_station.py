"""Pilot_Station: the station of a Pilot, or of a pilot's child."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any

from pilotage.net.files import Fetcher
from pilotage.net.listens import Origin, takes_origin
from pilotage.net.notes import gist
from pilotage.net.pref_keys import TERMINAL_ID, Prefs
from pilotage.net.pref_values import Lineage
from pilotage.net.prefs import prefs
from pilotage.net.receipt import Receipt
from pilotage.net.security import Security
from pilotage.net.station import Station, checked_state
from pilotage.net.stimuli import missing_files, stimulus_files
from pilotage.protocol.errors import InvalidMessage, MachineError, TaskError
from pilotage.protocol.instructions import Note, PeerChanged, PeerState
from pilotage.protocol.message import Flag, Message

FETCH_DEADLINE_S = 30.0
BUSY_STATES = frozenset(("PREPARING", "RUNNING", "PAUSED", "STOPPING"))
FORWARDED = ("CALIBRATE_PORT", "CALIBRATE_RESULT", "BANDWIDTH", "STREAM_VIDEO")
QUIET = {Flag.NOLOG.value: True}


class Pilot_Station(Station):
    """The station that a Pilot brings: it pushes to the Terminal, or to the parent where the pilot is a child.

    Args:
        settings: preferences; those of this process if not given.

    Raises:
        InvalidPref: NAME is not set, or a child's PARENTID.
    """

    def __init__(self, settings: Prefs | None = None) -> None:
        settings = settings or prefs.snapshot()
        push_id, push_ip, push_port = settings.upstream()
        super().__init__(
            id=settings.require("NAME"),
            pusher=True,
            push_ip=push_ip,
            push_port=push_port,
            push_id=push_id,
            listen_port=settings.msgport,
            journal=settings.datadir / "journal",
            security=Security.of(settings),
        )
        self.settings = settings
        self.child = settings.lineage is Lineage.CHILD
        self.parent_id = settings.parentid or ""
        self.subject = settings.subject or ""
        self.state = "IDLE"
        self.reason = ""
        self.fetch_deadline_s = FETCH_DEADLINE_S
        self._fetcher: Fetcher | None = None
        self._cancel_fetch: threading.Event | None = None
        self.listens.update(
            {
                "STATE": self.l_state,
                "COHERE": self.l_cohere,
                "FETCH": self.l_fetch,
                "PING": self.l_ping,
                "START": self.l_start,
                "STOP": self.l_stop,
                "PARAM": self.l_change,
                "FILE": self.l_file,
                "CONTINUOUS": self.l_continuous,
                "CHILD": self.l_child,
                "KILL": self.l_kill,
                "HANDSHAKE": self.l_noop,
                "PEER": self.l_peer,
                **dict.fromkeys(FORWARDED, self.l_forward),
            }
        )

    @property
    def inner(self) -> str:
        """The pilot's own node."""
        return f"_{self.id}"

    def started(self) -> None:
        """Be ready to ask for files, and to tell who comes and goes."""
        self._here.on_peer = self._peer_changed
        self._here.on_refused = self._tell_refused
        self._starting = threading.Lock()
        self._fetcher = Fetcher(self.settings.sounddir, self._ask_for, self.file_block)

    def _peer_changed(self, change: PeerChanged) -> None:
        """Tell up the tree who is here, and the pilot whether the way up is there. On the loop's thread."""
        if not change.is_parent:
            self._tell_peer(change.name, change.state, change.text)
            return
        if change.state is PeerState.ALIVE:
            for peer in list(self._here.exchange.routing):
                if peer.card.dials:
                    self._tell_peer(peer.name, peer.state)
        if self._here.knows(self.inner):
            told = {"name": change.name, "link": str(change.state), "text": change.text}
            self.send(to=self.inner, key="PEER", value=told, flags=QUIET)

    def _tell_peer(self, name: str, state: PeerState, text: str = "") -> None:
        # Our own pilot's process stands for us: it is what the Terminal knows by our name.
        told = {"name": self.id if name == self.inner else name, "link": str(state), "text": text}
        told |= self._here.seen_as(name)
        if self._way_up_is_ours():
            self.push(key="PEER", value={**told, "via": self.id}, flags=QUIET)

    def _way_up_is_ours(self) -> bool:
        """Tell whether the station up the tree is one of ours: an original knows nothing of PEER."""
        return any(peer.is_ours and not peer.card.dials for peer in self._here.exchange.routing)

    def l_peer(self, msg: Message) -> Receipt | None:
        """A station below us tells how somebody behind it is connected: pass it on up."""
        if not self._here.ask(self._way_up_is_ours):
            return None
        return self.push(key="PEER", value=msg.value, flags=QUIET)

    def l_noop(self, msg: Message) -> None:
        """Take note, and do nothing."""

    @takes_origin
    def l_state(self, msg: Message, origin: Origin | None = None) -> Receipt:
        """The pilot has changed state: keep it, and alert the Terminal.

        Raises:
            InvalidMessage: somebody else than our own pilot told it, or it is no state.
        """
        if not self.is_inner(origin):
            raise InvalidMessage(f"only {self.inner} tells the state of {self.id}, not {msg.sender}")
        return self._tell(checked_state(msg.value), str(msg["reason"]) if "reason" in msg else "")

    def l_cohere(self, msg: Message) -> Receipt:
        """Give our side's account of the data, so that the Terminal can compare it with its own."""
        return self.send(to=self.inner, key="COHERE", value=msg.value)

    def l_fetch(self, msg: Message) -> Receipt:
        """The Terminal lacks rows that our side has sent: have them sent again."""
        return self.send(to=self.inner, key="FETCH", value=msg.value)

    def l_ping(self, msg: Message) -> None:
        """The Terminal wants to know our state: push it back."""
        self._tell(self.state, self.reason, repeat=False)

    @takes_origin
    def l_start(self, msg: Message, origin: Origin | None = None) -> Future[Any]:
        """We are sent a task: fetch the files that it needs, then give it to the pilot.

        Raises:
            TaskError: no description of a task, or one runs or is being prepared already.
        """
        value = msg.value
        self._report(msg, origin)
        if not isinstance(value, dict) or not isinstance(value.get("task_type"), str):
            raise TaskError("START needs a dictionary that describes the task, with its task_type")
        stim = value.get("stim")
        missing = missing_files(stimulus_files(stim), self.settings.sounddir) if stim else []
        with self._starting:
            if self._cancel_fetch is not None or self.state in BUSY_STATES:
                raise TaskError(
                    f"{self.id} is {self.state} already; stop it before starting {value['task_type']!r}"
                )
            cancel = self._cancel_fetch = threading.Event()
        self._remember(value)
        started: Future[Any] = Future()
        work = (value, missing, started, cancel)
        threading.Thread(target=self._prepare, args=work, name="prepare", daemon=True).start()
        return started

    def _remember(self, value: dict[str, Any]) -> None:
        self.subject = str(value.get("subject") or "")
        child = value.get("child")
        if isinstance(child, dict):
            self.child = True
            self.parent_id = str(child.get("parent") or self.parent_id)
            self.subject = str(child.get("subject") or self.subject)

    def _prepare(
        self, value: dict[str, Any], missing: list[str], started: Future[Any], cancel: threading.Event
    ) -> None:
        """Fetch files, in state PREPARING, and pass START on. On a thread of its own."""
        try:
            if missing:
                self._tell("PREPARING", f"fetching {len(missing)} files")
            self._fetch(missing, cancel)
            with self._starting:
                if cancel.is_set():
                    raise TaskError("it was stopped before it began")
                self._cancel_fetch = None
                receipt = self.send(to=self.inner, key="START", value=value)
            receipt.add_callback(lambda ended: self._passed_on(started, ended))
        except Exception as error:  # noqa: BLE001 - whatever it is, the START ends with it
            self._cancel_fetch = None
            self._tell("IDLE", str(error))
            started.set_exception(TaskError(f"{self.id} can't start {value['task_type']!r}: {error}"))

    def _passed_on(self, started: Future[Any], receipt: Receipt) -> None:
        error = receipt.settlement.error() if receipt.settlement else None
        if error is None:
            started.set_result(receipt.answer)
            return
        if self.state == "PREPARING":
            self._tell("IDLE", str(error))
        started.set_exception(error)

    def _fetch(self, missing: list[str], cancel: threading.Event) -> None:
        fetcher = self._fetcher
        if fetcher is None:
            raise MachineError(f"station {self.id} isn't running yet")
        end = time.monotonic() + self.fetch_deadline_s
        for path in missing:
            fetcher.fetch(path, lambda: end - time.monotonic(), cancel)

    def _ask_for(self, path: str) -> Receipt:
        return self.push(to=TERMINAL_ID, key="FILE", value=path)

    def _tell(self, state: str, reason: str = "", *, repeat: bool = True) -> Receipt:
        """Keep our state and tell the Terminal; the reason travels beside the value, which originals read."""
        self.state, self.reason = state, reason
        message = self.prepare_message(TERMINAL_ID, "STATE", state, repeat, QUIET)
        if reason:
            message["reason"] = reason
        return self.push(msg=message, repeat=repeat)

    @takes_origin
    def l_stop(self, msg: Message, origin: Origin | None = None) -> Receipt | None:
        """Stop the task, or its preparation."""
        self._report(msg, origin)
        with self._starting:
            if self._cancel_fetch is not None:
                self._cancel_fetch.set()
                return None
        return self.send(to=self.inner, key="STOP", value=msg.value)

    @takes_origin
    def l_change(self, msg: Message, origin: Origin | None = None) -> Receipt:
        """The Terminal changes a parameter: the running task answers."""
        self._report(msg, origin)
        return self.send(to=self.inner, key="PARAM", value=msg.value)

    @takes_origin
    def l_file(self, msg: Message, origin: Origin | None = None) -> Future[Any] | None:
        """We receive a file: keep it in SOUNDDIR. Or our own pilot asks for one: fetch it.

        Raises:
            InvalidMessage: a path that leads out of SOUNDDIR, or no such value.
            MachineError: it can't be written.
        """
        if self._fetcher is None:
            raise MachineError(f"station {self.id} isn't running yet")
        if not isinstance(msg.value, str):
            self._fetcher.arrived(msg.value)
            return None
        if not self.is_inner(origin):
            raise InvalidMessage(f"only {self.inner} may have {self.id} fetch a file, not {msg.sender}")
        fetched: Future[Any] = Future()
        threading.Thread(target=self._fetch_one, args=(msg.value, fetched), name="fetch", daemon=True).start()
        return fetched

    def _fetch_one(self, path: str, fetched: Future[Any]) -> None:
        try:
            self._fetch([path], threading.Event())
            fetched.set_result(None)
        except Exception as error:  # noqa: BLE001 - whatever it is, the FILE ends with it
            fetched.set_exception(error)

    def l_continuous(self, msg: Message) -> Receipt:
        """A child sent continuous data: pass them on to the Terminal, under our name and subject."""
        value = msg.value if isinstance(msg.value, dict) else {"data": msg.value}
        owner = {
            "pilot": self.parent_id if self.child else self.id,
            "subject": self.subject,
            "continuous": True,
        }
        return self.relay(TERMINAL_ID, "DATA", {**value, **owner})

    @takes_origin
    def l_child(self, msg: Message, origin: Origin | None = None) -> list[Receipt] | Receipt:
        """Tell our children to run a task (or whatever KEY says).

        Raises:
            InvalidMessage: no dictionary, or no children in CHILDID.
        """
        value = msg.value
        self._report(msg, origin)
        if not isinstance(value, dict):
            raise InvalidMessage("CHILD needs a dictionary that describes the child's task")
        named = value.get("child", {}).get("id") if isinstance(value.get("child"), dict) else None
        children = (named,) if named else self.settings.childid
        if not children:
            raise InvalidMessage(f"{self.id} has no children: put their names into CHILDID")
        key = str(value.get("KEY", "START"))
        passed = {name: item for name, item in value.items() if name != "KEY"}
        receipts = [self.send(to=child, key=key, value=passed) for child in children]
        return receipts[0] if len(receipts) == 1 else receipts

    @takes_origin
    def l_kill(self, msg: Message, origin: Origin | None = None) -> None:
        """The pilot wants us to end.

        Raises:
            InvalidMessage: somebody else than our own pilot asked.
        """
        if not self.is_inner(origin):
            text = f"only {self.inner} may end the station {self.id}, not {msg.sender}"
            self._report(msg, origin, refused=text)
            raise InvalidMessage(text)
        self._leave_soon()

    def _report(self, msg: Message, origin: Origin | None, refused: str = "") -> None:
        """Tell the Terminal's audit log of what somebody else than the Terminal has us do, or is refused."""
        by = self.asked_by(msg, origin)
        if by in ("", self.push_id, TERMINAL_ID, f"_{TERMINAL_ID}") or not self._here.ask(
            self._way_up_is_ours
        ):
            return
        told = {"name": by, "verb": str(msg.key), "target": self.id, "refused": refused}
        self._record({**told, "detail": gist(msg.value)})

    def _tell_refused(self, note: Note) -> None:
        """The core has refused somebody something. On the loop's thread; of a flood some are enough."""
        if self._way_up_is_ours() and self._refusals.take("", 1.0, time.monotonic()):
            told = {"name": note.who or "a stranger", "verb": note.verb, "target": note.target}
            self._record({**told, "refused": note.text})

    def _record(self, told: dict[str, Any]) -> None:
        self.push(to=f"_{TERMINAL_ID}", key="AUDIT", value=told, flags=QUIET)

    def l_forward(self, msg: Message) -> Receipt:
        """Pass the message on to the pilot."""
        return self.send(to=self.inner, key=str(msg.key), value=msg.value)
