"""Terminal: the agent that controls the pilots and keeps what they send. It has a station `T` and a node `_T`."""

from __future__ import annotations

import contextlib
import logging
import platform
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any, Self

from pilotage.agents.acquaintances import Acquaintances
from pilotage.agents.coherence import Coherence
from pilotage.agents.deeds import Deeds
from pilotage.agents.desk import Controls, Desk
from pilotage.agents.intake import Intake
from pilotage.agents.keeper import Keeper
from pilotage.agents.ports import Archive, Archives, Audit
from pilotage.agents.roster import Roster
from pilotage.agents.sessions import Sessions
from pilotage.agents.speakers import Speakers
from pilotage.agents.successors import TerminalSuccessors
from pilotage.net.listens import Listen, Origin, takes_origin
from pilotage.net.node import Net_Node
from pilotage.net.plots import Plots
from pilotage.net.pref_keys import TERMINAL_ID, Prefs, public_values
from pilotage.net.prefs import prefs
from pilotage.net.receipt import Receipt
from pilotage.net.security import Security
from pilotage.net.terminal_station import Terminal_Station
from pilotage.protocol.errors import InvalidMessage, Refused, StoreError, TaskError

log = logging.getLogger(__name__)

CHANGE_TIMEOUT_S = 15.0
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
ENDED = ("IDLE", "ERROR", "INTERRUPTED", "")


class Terminal:
    """The control computer's agent, without a window of its own.

    Sessions that an earlier life left open, here or on another machine, are open again, under their names.

    Args:
        archives: where sessions are kept.
        settings: preferences; those of this process if not given.
        audit: where it is kept who did what; nowhere if not given.

    Attributes:
        on_trouble: told when a disk refuses what is to be kept, and when it takes it again: what can't be written,
            why, and whether it is over. On any thread; it must not wait.
        plots_dropped: updates that plots have missed, of streams that come straight to us.

    Raises:
        InvalidKey: a file of its keys can't be used.
        PortInUse: another program listens on the Terminal's port.
        StoreError: the list of pilots can't be read.
    """

    def __init__(self, archives: Archives, settings: Prefs | None = None, audit: Audit | None = None) -> None:
        self.settings = settings or prefs.snapshot()
        self._known = Acquaintances(TERMINAL_ID)
        self._deeds = Deeds(audit, self._known)
        security = Security.of(self.settings)
        self._speakers = Speakers(security, self._deeds)
        self.roster = Roster(self.settings.pilot_db)
        self.sessions = Sessions(archives, self._facts())
        self.on_trouble: Callable[[str, str, bool], object] = lambda place, text, is_over: None
        self._troubles: dict[str, tuple[str, float]] = {}
        self.sessions.on_trouble = self._troubled
        archives.watch(self._troubled)
        self.plots_dropped = 0
        self.plots = Plots(self._send_to_plot, self._plot_dropped, 1.0 / self.settings.drawfps)
        self.intake = Intake(self.sessions, self.roster, self.plots, self._speakers)
        self._helpers = ThreadPoolExecutor(8, thread_name_prefix="terminal")
        self._keeper = Keeper(self._make_station, self._station_restarted)
        try:
            self._begin(security)
        except BaseException:
            self._speakers.close()
            self._keeper.close()
            self._helpers.shutdown(wait=False)
            with contextlib.suppress(StoreError):
                self.sessions.close(STOP_TIMEOUT_S)
            raise

    def _begin(self, security: Security) -> None:
        """Open what was left open, and listen."""
        self._speakers.follow()
        self.sessions.resume()
        self._keeper.start()
        journal = self.settings.datadir / "journal"
        successors = TerminalSuccessors(security, self._connected_pilots, self._helpers.submit)
        controls = Controls(self.start, self.stop, self.stop_all, self.change, self.end_session, self._status)
        listens: dict[str, Listen] = {
            **self.intake.listens(),
            **Desk(controls, self.roster, self._deeds, self._known, self._helpers).listens(),
            "PEER": self.l_peer,
            "REKEY": successors.l_rekey,
        }
        self.node = Net_Node(
            f"_{TERMINAL_ID}",
            TERMINAL_ID,
            self.port,
            listens,
            journal=journal,
            direct=True,
            security=security,
        )
        successors.node = self.node
        self._coherence = Coherence(self.node, self.sessions)
        self._ask_all()

    @property
    def port(self) -> int:
        """The port on which the station listens."""
        return self._keeper.station.listen_port

    @property
    def openness(self) -> str:
        """To whom the station is open, in a few words."""
        return self._keeper.station.openness

    # Life

    def close(self, timeout_s: float = 10.0) -> None:
        """End the station, write everything, and let go. Pilots are left running."""
        self.roster.close()
        self.node.release()
        self._speakers.close()
        self._keeper.close()
        self._helpers.shutdown(wait=False, cancel_futures=True)
        self.sessions.close(timeout_s)

    def __enter__(self) -> Self:
        """Use it as a context that closes it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def _make_station(self, port: int | None) -> Terminal_Station:
        settings = self.settings if port is None else replace(self.settings, terminalport=port)
        return Terminal_Station(self.roster.snapshot(), settings)

    def _station_restarted(self) -> None:
        """Nobody is connected to a new station; who comes again is told of."""
        self.roster.lose_all()
        self._known.lose_all()
        self.plots.lose_all()
        self._ask_all()

    def _ask_all(self) -> None:
        """Ask to be told who comes and goes, and all pilots to tell that they are alive."""
        self.node.send(TERMINAL_ID, "WATCH")
        self.node.send(TERMINAL_ID, "INIT")

    def _facts(self) -> dict[str, Any]:
        told = public_values(self.settings)
        software = {
            "pilotage": version("pilotage"),
            "python": platform.python_version(),
            "machine": platform.platform(),
        }
        return {"software": software, "prefs": told, "begun": time.time()}

    def _send_to_plot(self, plot: str, key: str, value: object) -> Receipt:
        return self.node.send(plot, key, value, repeat=False)

    def _plot_dropped(self) -> None:
        """A plot has missed something."""
        self.plots_dropped += 1

    @takes_origin
    def l_peer(self, value: Any, origin: Origin | None = None) -> None:
        """Take note of how a pilot's connection is, as our station or one on the way to it says.

        Raises:
            InvalidMessage: it doesn't come from our station, which checks what others say, or is no such value.
        """
        if origin is not None and origin.trail != (TERMINAL_ID,):
            raise InvalidMessage(f"PEER is told to the station {TERMINAL_ID}, not to us")
        if not isinstance(value, dict):
            raise InvalidMessage("PEER needs a dictionary with name and link")
        self._known.note(value)
        self.plots.note(str(value.get("name")), is_there=value.get("link") != "gone")
        self.roster.note_link(str(value.get("name")), str(value.get("link")), str(value.get("via") or ""))

    def _troubled(self, place: str, text: str, is_over: bool) -> None:
        """A record can't be written for now, or can again. On any thread, the store's own among them."""
        if not is_over:
            self._troubles[place] = (text, time.time())
            log.error("%s: %s", place, text)
        elif (begun := self._troubles.pop(place, None)) is not None:
            log.warning("%s: %s", place, text)
            with contextlib.suppress(RuntimeError):  # we are ending: nobody is left to note it
                self._helpers.submit(self._note_trouble, place, *begun)
        self.on_trouble(place, text, is_over)

    def _note_trouble(self, place: str, text: str, began: float) -> None:
        """Keep in the record that it had to wait for the disk."""
        fact = {"text": text, "began": began, "ended": time.time()}
        for session in self.sessions.opened():
            if self.sessions.archive(session).place == place:
                self._keep_fact(session, f"disk:{began:.3f}", fact)

    def _keep_fact(self, session: str, key: str, fact: Mapping[str, Any]) -> None:
        self.sessions.keep(session, lambda archive: archive.add_fact(key, fact))

    def _keep_parameters(self, session: str, pilot: str, values: Mapping[str, Any], source: str) -> None:
        """Keep what parameters are, and who set them."""
        for name, value in values.items():
            self.sessions.keep(
                session, partial(_add_parameter, pilot=pilot, name=name, value=value, source=source)
            )

    # What operators ask

    def l_pilots(self, value: Any) -> dict[str, Any]:
        """Answer with all pilots."""
        return self.roster.snapshot()

    def _connected_pilots(self) -> list[str]:
        return [name for name, record in self.roster.snapshot().items() if record["link"] == "alive"]

    def start(
        self,
        pilot: str,
        task_type: str,
        params: Mapping[str, Any] | None = None,
        subject: str = "",
        session: str = "",
        parent: str = "",
        current_trial: int | None = None,
    ) -> dict[str, Any]:
        """Start a task on a pilot, in the given session or the current one.

        Args:
            pilot: its name.
            task_type: the task, as the pilot's registry knows it.
            params: the task's parameters.
            subject: who is run.
            session: its name; the current one if not given, a new one if there is none.
            parent: the pilot whose child this is: the task is sent through it, and its data come under its name.
            current_trial: number that the first trial gets; if not given, the one after the last that the session
                holds of this pilot and subject, so that a task which is started again goes on counting.

        Returns:
            The session's name and where it lies, and what the pilot says that it runs.

        Raises:
            Refused: the pilot can't: the text says why.
            Expired: nobody confirmed it.
            StoreError: the session can't be made.
        """
        session = session or self.sessions.current
        detail = {"task_type": task_type, "subject": subject, "parent": parent, "params": dict(params or {})}
        with self._deeds.doing("START", pilot, session, detail):
            return self._start(pilot, task_type, params, subject, session, parent, current_trial)

    def _start(
        self,
        pilot: str,
        task_type: str,
        params: Mapping[str, Any] | None,
        subject: str,
        session: str,
        parent: str,
        current_trial: int | None,
    ) -> dict[str, Any]:
        before, current = self.sessions.opened(), self.sessions.current
        session = self.sessions.begin(session)
        archive = self.sessions.archive(session)
        self.sessions.join(session, pilot)
        asked = {
            **(params or {}),
            "task_type": task_type,
            "subject": subject,
            "session": session,
            "pilot": parent or pilot,
            "current_trial": archive.next_trial(parent or pilot, subject)
            if current_trial is None
            else current_trial,
        }
        if following := archive.next_row(parent or pilot, pilot):
            asked["next_row"] = following
        if parent:
            self.sessions.join(session, parent)
            asked["child"] = {"parent": parent, "subject": subject, "id": pilot}
            receipt = self.node.send(parent, "CHILD", asked)
        else:
            receipt = self.node.send(pilot, "START", asked)
        try:
            runs = receipt.result(START_TIMEOUT_S)
        except Refused:
            if session not in before and set(self.sessions.agents(session)) <= {pilot, parent}:
                # Nothing runs in it: it was opened for this alone.
                try:
                    self.sessions.discard(session, current, STOP_TIMEOUT_S)
                except StoreError as error:
                    # What was refused, and why, is what matters.
                    log.error("after START was refused: %s", error)
            raise
        self.roster.note_subject(pilot, subject)
        self._keep_parameters(session, pilot, params or {}, "START")
        self._keep_fact(session, f"task:{pilot}:{time.time():.3f}", {"asked": asked, "runs": runs})
        return {"session": session, "place": archive.place, "runs": runs}

    def stop(self, pilot: str) -> None:
        """Stop a pilot's task and wait until it has ended.

        Raises:
            Refused: it could not be stopped in time; its outputs are safe all the same.
            Expired: nobody confirmed it.
            TimeoutError: it has not ended in time.
        """
        with self._deeds.doing("STOP", pilot, self.sessions.current):
            self.node.send(pilot, "STOP").result(STOP_TIMEOUT_S)
            self.roster.wait_state(pilot, ENDED, STOP_TIMEOUT_S)

    def stop_all(self) -> None:
        """Stop all pilots' tasks and wait until they have ended.

        Raises:
            TimeoutError: one has not.
        """
        with self._deeds.doing("STOPALL", "", self.sessions.current):
            self.node.send(TERMINAL_ID, "STOPALL").result(STOP_TIMEOUT_S)
            for name, known in self.roster.snapshot().items():
                if known["link"] == "alive":
                    self.roster.wait_state(name, ENDED, STOP_TIMEOUT_S)

    def change(self, pilot: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Change parameters of a pilot's running task.

        Returns:
            What they are now.

        Raises:
            Refused: no task runs there, or a name or value doesn't fit; nothing has changed then.
        """
        with self._deeds.doing("CHANGE", pilot, self.sessions.current, dict(params)):
            asked = {**params, "pilot": pilot}
            answer = self.node.send(TERMINAL_ID, "CHANGE", asked).result(CHANGE_TIMEOUT_S)
        if current := self.sessions.current:
            self._keep_parameters(current, pilot, answer or {}, "PARAM")
        return dict(answer or {})

    def cohere(self, session: str) -> dict[str, Any]:
        """Compare what the pilots say that they sent with what is stored, and keep the result in the session.

        Args:
            session: an open session's name.

        Returns:
            The certificate: `complete`, what is missing, different or not judged, and each agent's account.

        Raises:
            TaskError: no such session is open.
        """
        if session not in self.sessions.opened():
            raise TaskError(f"session {session!r} isn't open, so that it can't be compared")
        return self._coherence.certify(session)

    def end_session(self, session: str = "") -> dict[str, Any]:
        """Compare both sides, then close the session's record.

        Raises:
            TaskError: no such session is open.
            StoreError: its disk refuses what came for it: it stays open.
        """
        session = session or self.sessions.current
        with self._deeds.doing("END", "", session):
            self.sessions.check_endable(session)
            certificate = self.cohere(session)
            if (anchor := self._deeds.anchor()) is not None:
                self._keep_fact(session, "audit", anchor)
            return {**certificate, "place": self.sessions.end(session, STOP_TIMEOUT_S)}

    def _status(self, session: str) -> dict[str, Any]:
        answer = {
            "port": self.port,
            "current": self.sessions.current,
            "open": self.sessions.opened(),
            "sessions": self.sessions.names(),
            "pilots": self.roster.snapshot(),
            "restarts": self._keeper.restarts,
            "openness": self._keeper.station.openness,
            "troubles": {place: text for place, (text, _) in self._troubles.copy().items()},
        }
        if session:
            place, facts = self.sessions.look(session)
            answer["session"] = {"name": session, "place": place, "facts": facts}
        return answer


def _add_parameter(archive: Archive, pilot: str, name: str, value: Any, source: str) -> object:
    return archive.add_parameter(pilot, name, value, source)
