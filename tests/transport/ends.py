"""Ends of conversations: real exchanges on real drivers, each with a loop of its own, over any wires."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pilotage.net.loops import LoopThread, run_on
from pilotage.protocol.exchange import Exchange, ExchangeConfig
from pilotage.protocol.inbox import Handled
from pilotage.protocol.instructions import HandOver, Note, PeerChanged, PeerState, Service
from pilotage.protocol.liveness import LivenessRules
from pilotage.protocol.records import Attached
from pilotage.protocol.sends import DeliveryRules, Kept, Part, Pending, Place
from pilotage.protocol.settlement import Outcome, Settlement
from pilotage.transport.driver import Driver
from pilotage.transport.lines import Places
from pilotage.transport.ports import PassOn, Wires

PATIENT = DeliveryRules(repeat_interval_s=0.2)
LIVELY = LivenessRules(heartbeat_s=0.2, suspect_after_s=0.5, gone_after_s=1.0, probe_s=0.2)
CALM = LivenessRules()

MakeWires = Callable[[str], Wires]
"""Makes the wires of an end of that name."""


@dataclass(eq=False)
class Sent:
    """A send, and its end."""

    settlement: Settlement | None = None
    accepted: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def is_delivered(self) -> bool:
        return self.settlement is not None and self.settlement.outcome is Outcome.DELIVERED


class End:
    """One life of a station: it keeps what arrives, in order."""

    def __init__(
        self, name: str, wires: Wires, places: Places, boot: int, liveness: LivenessRules = CALM
    ) -> None:
        self.name = name
        self.got: list[tuple[str, bytes, list[bytes]]] = []
        self.changes: list[PeerChanged] = []
        self.notes: list[str] = []
        self.kept: list[Kept] = []
        self.wires = wires
        upstream = "pusher" if places.dial_host is not None else ""
        config = ExchangeConfig(name, boot, upstream, PATIENT, liveness)
        authority = getattr(wires, "authority", None)
        self.exchange = Exchange(config, lambda key: Service.HANDLE, authority)
        self.thread = LoopThread(f"end-{name}")
        self.looks_wanted = 0
        self.driver = Driver(self.exchange, self, wires, places, self.thread.loop)
        try:
            self._do(self.driver.start)
        except BaseException:
            self._do(self.driver.stop)
            self.thread.stop(2.0)
            wires.close()
            raise

    @property
    def port(self) -> int:
        assert self.driver.listener is not None
        return self.driver.listener.port

    def send(
        self,
        to: str,
        body: bytes = b"",
        key: str = "KEY",
        frames: list[bytes] | None = None,
        *,
        durable: bool = True,
        kept: bool = False,
    ) -> Sent:
        sent = Sent()
        attached = Attached(frames) if frames else 0
        self.driver.send(Pending((to,), key, [body], attached, sent, [""], durable=durable, kept=kept))
        return sent

    def peer(self, name: str) -> PeerState | None:
        """Tell the last that was heard of a neighbour."""
        return next((change.state for change in reversed(self.changes) if change.name == name), None)

    def is_alive(self, name: str) -> Callable[[], bool]:
        return lambda: self.peer(name) is PeerState.ALIVE

    def is_gone(self, name: str) -> Callable[[], bool]:
        return lambda: self.peer(name) is PeerState.GONE

    def bodies(self, key: str = "KEY") -> list[bytes]:
        return [body for verb, body, _ in self.got if verb == key]

    def stop(self, *, silently: bool = False) -> None:
        """End; silently, as a killed process would: without goodbye."""
        self._do(self._die if silently else self.driver.stop)
        self.thread.stop(2.0)
        self.wires.close()

    def _die(self) -> None:
        self.exchange.release = lambda now: []  # type: ignore[method-assign]
        self.driver.stop()

    def _do(self, work: Callable[[], None]) -> None:
        run_on(self.thread.loop, self.thread.thread, work)

    # The driver's shell

    def hand_over(self, messages: HandOver) -> tuple[list[Handled], list[PassOn]]:
        for parcel in messages.parcels:
            frames = [bytes(frame) for frame in parcel.frames]
            self.got += [(parcel.verb, bytes(body), frames) for body in parcel.bodies]
        return [Handled(parcel.place, messages=len(parcel.bodies)) for parcel in messages.parcels], []

    def turn_over(self) -> bool:
        self.looks_wanted = max(0, self.looks_wanted - 1)
        return self.looks_wanted > 0

    def keep(self, sends: list[Kept]) -> None:
        self.kept += sends
        self.driver.persisted([one.place for one in sends])

    def drop(self, places: list[Place], parts: list[Part]) -> None:
        over = set(places)
        self.kept = [one for one in self.kept if one.place not in over]

    def accepted(self, handles: list[Any]) -> None:
        for sent in handles:
            sent.accepted = True

    def settle(self, ended: list[tuple[Any, Settlement]]) -> None:
        for sent, settlement in ended:
            assert sent.settlement is None, "settled twice"
            sent.settlement = settlement
            sent.ended.set()

    def taken(self, requests: Sequence[Pending]) -> None:
        pass

    def progress(self, handles: list[Any]) -> None:
        pass

    def peer_changed(self, change: PeerChanged) -> None:
        self.changes.append(change)

    def note(self, note: Note) -> None:
        self.notes.append(note.text)


class Ends:
    """Makes ends on one network and puts them away."""

    def __init__(self, make_wires: MakeWires, address: str = "127.0.0.1", host: str = "127.0.0.1") -> None:
        self._make_wires = make_wires
        self._address = address
        self._host = host
        self._made: list[End] = []
        self._boots = 0

    def listening(self, name: str, port: int = 0, liveness: LivenessRules = CALM) -> End:
        return self._make(name, Places(self._address, port), liveness)

    def dialling(
        self,
        name: str,
        port: int,
        upstream: str = "hub",
        liveness: LivenessRules = CALM,
        host: str | None = None,
    ) -> End:
        return self._make(name, Places(None, 0, host or self._host, port, upstream), liveness)

    def stop(self, end: End, *, silently: bool = False) -> None:
        self._made.remove(end)
        end.stop(silently=silently)

    def close(self) -> None:
        for end in reversed(self._made):
            end.stop()

    def _make(self, name: str, places: Places, liveness: LivenessRules) -> End:
        self._boots += 1
        end = End(name, self._make_wires(name), places, self._boots, liveness)
        self._made.append(end)
        return end


@contextmanager
def ends_over(make_wires: MakeWires, address: str = "127.0.0.1", host: str = "127.0.0.1") -> Iterator[Ends]:
    ends = Ends(make_wires, address, host)
    try:
        yield ends
    finally:
        ends.close()
