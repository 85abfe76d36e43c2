"""Terminal_Station: the station of a Terminal, the root of the tree."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pilotage.net.checks import checked_name
from pilotage.net.files import read_file
from pilotage.net.listens import Origin, passes_on, takes_origin
from pilotage.net.notes import gist
from pilotage.net.plots import Plots
from pilotage.net.pref_keys import TERMINAL_ID, Prefs
from pilotage.net.prefs import prefs
from pilotage.net.receipt import Receipt
from pilotage.net.security import Security
from pilotage.net.station import Station, checked_state
from pilotage.protocol.authority import belongs_to
from pilotage.protocol.errors import InvalidMessage, PilotageError
from pilotage.protocol.instructions import Note, PeerChanged, PeerState
from pilotage.protocol.message import Flag, Message
from pilotage.protocol.records import Parcel

QUIET = {Flag.NOLOG.value: True}
MAX_PILOTS = 10_000


class Terminal_Station(Station):
    """The station that a Terminal brings. It has no pusher: everybody else dials it.

    What is meant for the Terminal itself (DATA, CONTINUOUS, STREAM) is passed on to its inner node `_T`, which
    settles it; plots (`P_{pilot}`) get a copy, of continuous data at most DRAWFPS times a second.

    Args:
        pilots: the Terminal's pilots, by name; their `state` is kept up to date in the station's process.
        settings: preferences; those of this process if not given.
        id: its name.
    """

    def __init__(
        self, pilots: dict[str, Any] | None = None, settings: Prefs | None = None, id: str = TERMINAL_ID
    ) -> None:
        settings = settings or prefs.snapshot()
        super().__init__(
            id=id,
            listen_port=settings.terminal_listen_port,
            journal=settings.datadir / "journal",
            security=Security.of(settings),
        )
        self.pilots: dict[str, Any] = {name: dict(pilot or {}) for name, pilot in (pilots or {}).items()}
        self.settings = settings
        self.plot_timer: float = 0.0
        self._plots = Plots(self._send_to_plot, self._count_dropped)
        self.listens.update(
            {
                "PING": self.l_ping,
                "INIT": self.l_init,
                "CHANGE": self.l_change,
                "PARAM": self.l_change,
                "STOPALL": self.l_stopall,
                "KILL": self.l_kill,
                "DATA": self.l_data,
                "CONTINUOUS": self.l_continuous,
                "STREAM": self.l_stream,
                "STATE": self.l_state,
                "HANDSHAKE": self.l_handshake,
                "FILE": self.l_file,
                "WATCH": self.l_watch,
                "PEER": self.l_peer,
            }
        )

    @property
    def inner(self) -> str:
        """The Terminal's own node."""
        return f"_{self.id}"

    @property
    def sent_plot(self) -> dict[str, float]:
        """When each pilot's plot was last given continuous data, by the clock of `time.monotonic`."""
        return self._plots.sent

    def start_plot_timer(self) -> None:
        """Set how many seconds lie between two updates of a plot with continuous data, from DRAWFPS."""
        self.plot_timer = self._plots.every_s = 1.0 / self.settings.drawfps

    def started(self) -> None:
        """Begin with plots due at once."""
        self.start_plot_timer()
        self._here.on_peer = self._note_plot
        self._here.look_when(self._wants_look)
        self._here.on_refused = self._tell_refused

    @takes_origin
    def l_watch(self, msg: Message, origin: Origin | None = None) -> None:
        """The inner node wants to be told who comes and goes (an original's doesn't know how to ask).

        Raises:
            InvalidMessage: somebody else asked.
        """
        with self._recorded(msg, origin):
            if not self.is_inner(origin):
                raise InvalidMessage(f"only {self.inner} is told who comes and goes, not {msg.sender}")
        here = self._here

        def watch() -> None:
            # On the loop's thread, so that nothing changes between what is told now and what is told from now on.
            here.on_peer = self._tell_peer_and_note
            for peer in list(here.exchange.routing):
                self._tell_peer(PeerChanged(peer.name, peer.state, "", is_parent=False))

        here.ask(watch)

    @takes_origin
    def l_peer(self, msg: Message, origin: Origin | None = None) -> Receipt:
        """A station below us tells how somebody behind it is connected: tell the inner node, with who says so.

        Raises:
            InvalidMessage: no such value, or it speaks for a station that isn't behind it.
        """
        value = msg.value
        if not isinstance(value, dict) or not isinstance(value.get("via"), str):
            raise InvalidMessage("PEER needs a dictionary with name, link and via, the station that says so")
        said_by = origin.trail[0] if origin is not None and origin.trail else str(msg.sender)
        if said_by != value["via"] and self._here.routes().get(value["via"]) != said_by:
            raise InvalidMessage(f"{said_by} can't speak for the station {value['via']!r:.60}")
        return self.send(to=self.inner, key="PEER", value=value, flags=QUIET)

    def _tell_peer(self, change: PeerChanged) -> None:
        if change.name != self.inner and self._here.knows(self.inner):
            told = {"name": change.name, "link": str(change.state), "text": change.text}
            told |= self._here.seen_as(change.name)
            self.send(to=self.inner, key="PEER", value=told, flags=QUIET)

    def l_ping(self, msg: Message) -> None:
        """We are asked to confirm that we are alive: respond with a blank STATE."""
        self.send(to=str(msg.sender), key="STATE", value=None, flags=QUIET)

    def l_init(self, msg: Message) -> None:
        """Ask all pilots to confirm that they are alive."""
        for pilot in self.pilots:
            self.send(to=pilot, key="PING", flags=QUIET, repeat=False)

    @takes_origin
    def l_change(self, msg: Message, origin: Origin | None = None) -> Receipt:
        """Change a parameter on a pilot; the running task's answer is the answer.

        Raises:
            InvalidMessage: the value names no pilot, or one that isn't connected.
        """
        value = msg.value
        with self._recorded(msg, origin, _pilot_of(value), value):
            if not isinstance(value, dict) or not isinstance(value.get("pilot"), str):
                raise InvalidMessage(
                    "CHANGE needs a dictionary with the pilot's name and the parameters to change"
                )
            if not self._here.leads_to(value["pilot"]):
                raise InvalidMessage(f"{value['pilot']} is not connected to {self.id}: nothing was changed")
        changes = {name: item for name, item in value.items() if name != "pilot"}
        return self.send(to=value["pilot"], key="PARAM", value=changes)

    @takes_origin
    def l_stopall(self, msg: Message, origin: Origin | None = None) -> None:
        """Stop all pilots and plots."""
        with self._recorded(msg, origin):
            self._stop_all()

    def _stop_all(self) -> None:
        for pilot in self.pilots:
            self.send(to=pilot, key="STOP")
            if self._here.knows(f"P_{pilot}"):
                self.send(to=f"P_{pilot}", key="STOP")

    @takes_origin
    def l_kill(self, msg: Message, origin: Origin | None = None) -> None:
        """The Terminal wants us to end: stop the loop.

        Raises:
            InvalidMessage: somebody else than our own Terminal asked.
        """
        with self._recorded(msg, origin):
            if not self.is_inner(origin):
                raise InvalidMessage(f"only {self.inner} may end the station {self.id}, not {msg.sender}")
        self._leave_soon()

    @passes_on
    def l_data(self, msg: Message) -> None:
        """Stash incoming data: the inner node gets them (that is the station's way), the pilot's plot a copy."""
        if isinstance(msg.value, dict) and msg.value.get("continuous"):
            self._plots.draw_newest(_pilot_of(msg.value), [msg.value])
        else:
            self._plots.draw(_pilot_of(msg.value), "DATA", msg.value)

    @passes_on
    def l_continuous(self, msg: Message) -> None:
        """Handle continuous data: the inner node gets all, the pilot's plot as much as it can draw."""
        self._plots.draw_newest(_pilot_of(msg.value) or msg.__dict__.get("pilot"), [msg.value])

    @passes_on
    def l_stream(self, msg: Message) -> None:
        """Handle a batch of continuous data: the inner node gets it whole, the pilot's plot its newest item."""
        value = msg.value if isinstance(msg.value, dict) else {}
        headers = value["headers"] if isinstance(value.get("headers"), dict) else {}
        self._plots.draw_newest(headers.get("pilot"), value.get("payload") or [], headers)

    def l_state(self, msg: Message) -> Receipt:
        """A pilot has changed state: keep it, and tell the inner node and the pilot's plot.

        Raises:
            InvalidMessage: the value is no state, or there are too many pilots.
        """
        state = checked_state(msg.value)
        sender = str(msg.sender)
        pilot = sender[1:] if sender.startswith("_") and sender[1:] in self.pilots else sender
        self._pilot(pilot)["state"] = state
        self._here.keep_value(pilot, state)
        if self._here.knows(f"P_{pilot}"):
            self.send(to=f"P_{pilot}", key="STATE", value=msg.value, repeat=False)
        told = {"state": state, "pilot": pilot}
        if "reason" in msg:
            told["reason"] = msg["reason"]
        return self.send(to=self.inner, key="STATE", value=told, flags=QUIET)

    def l_handshake(self, msg: Message) -> Receipt:
        """A pilot tells us that it is alive, and where: note it, and tell the inner node.

        Raises:
            InvalidMessage: its name can't be one, or is another's, or there are too many pilots.
        """
        if isinstance(msg.value, dict) and isinstance(msg.value.get("pilot"), str):
            if not belongs_to(str(msg.sender), msg.value["pilot"]):
                raise InvalidMessage(f"HANDSHAKE: {msg.sender} can't speak for {msg.value['pilot']!r:.80}")
            self._pilot(msg.value["pilot"]).update(ip=msg.value.get("ip"), state=msg.value.get("state"))
        return self.send(to=self.inner, key="HANDSHAKE", value=msg.value)

    @takes_origin
    def l_file(self, msg: Message, origin: Origin | None = None) -> Receipt:
        """A pilot needs a file of SOUNDDIR: send it back in base64, or say why not.

        Raises:
            InvalidMessage: a path that leads out of SOUNDDIR.
            MachineError: there is no such file.
        """
        try:
            with self._recorded(msg, origin, msg.value):
                found = read_file(self.settings.sounddir, msg.value)
        except PilotageError as error:
            self.send(to=str(msg.sender), key="FILE", value={"path": msg.value, "error": str(error)})
            raise
        return self.send(to=str(msg.sender), key="FILE", value=found)

    @contextmanager
    def _recorded(
        self, msg: Message, origin: Origin | None, target: object = "", detail: object = None
    ) -> Iterator[None]:
        """Have the Terminal's audit log keep what somebody else than our own agent had us do, or was refused."""
        by = self.asked_by(msg, origin)
        told = {"name": by, "verb": str(msg.key), "target": str(gist(target) or "")}
        try:
            yield
        except PilotageError as error:
            self._record(by, {**told, "refused": str(error)})
            raise
        self._record(by, {**told, "detail": gist(detail)})

    def _record(self, by: str, told: dict[str, Any]) -> None:
        if by and self._here.is_ours(self.inner):
            self.send(to=self.inner, key="AUDIT", value=told, flags=QUIET)

    def _tell_refused(self, note: Note) -> None:
        """The core has refused somebody something. On the loop's thread; of a flood some are enough."""
        if self._refusals.take("", 1.0, time.monotonic()):
            who = note.who or "a stranger"
            told = {"name": who, "verb": note.verb, "target": note.target, "refused": note.text}
            self._record(who, told)

    def _tell_peer_and_note(self, change: PeerChanged) -> None:
        self._note_plot(change)
        self._tell_peer(change)

    def _note_plot(self, change: PeerChanged) -> None:
        self._plots.note(change.name, is_there=change.state is not PeerState.GONE)

    def _wants_look(self, parcel: Parcel) -> bool:
        """Tell whether a plot may want a parcel: if not, it need not be opened."""
        if parcel.verb == "DATA":
            return bool(self._plots)
        return self._plots.want(parcel.trail[0] if parcel.trail else "")

    def _pilot(self, name: str) -> dict[str, Any]:
        """Give what is known of a pilot; nothing yet for a new one."""
        if name not in self.pilots:
            checked_name(name)
            if len(self.pilots) >= MAX_PILOTS:
                raise InvalidMessage(f"{name} is one pilot too many: a Terminal keeps {MAX_PILOTS}")
        known: dict[str, Any] = self.pilots.setdefault(name, {})
        return known

    def _send_to_plot(self, plot: str, key: str, value: object) -> Receipt:
        return self.send(to=plot, key=key, value=value, repeat=False)

    def _count_dropped(self) -> None:
        self._here.exchange.counts["plots dropped"] += 1


def _pilot_of(value: object) -> object:
    return value.get("pilot") if isinstance(value, dict) else None
