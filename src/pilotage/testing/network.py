"""The simulated network: connections that lose, repeat, reorder and delay transmissions, and end.

Law of this room: every misfortune is drawn from the world's seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from pilotage.protocol.instructions import Card, Link
from pilotage.protocol.records import Frame
from pilotage.testing.agenda import Agenda
from pilotage.testing.recorder import Recorder

RESET_AFTER_S = 15.0


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad the network is, while it is bad.

    Attributes:
        loss: share of transmissions lost.
        duplicate: share of transmissions that arrive twice.
        reorder: share of transmissions that later ones may overtake.
        delay_s: longest ordinary delay.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay_s: float = 0.01


class End(Protocol):
    """A process, as the network knows it."""

    name: str
    alive: bool

    def card(self, *, dials: bool) -> Card:
        """Tell who it is."""

    def routing_id(self, number: int) -> bytes:
        """Give its routing id."""

    def arrived(self, connection: Connection, frames: Sequence[Frame]) -> None:
        """Take a transmission."""

    def connected(self, connection: Connection) -> None:
        """Its dialling has succeeded."""

    def ended(self, connection: Connection) -> None:
        """A connection has ended."""


class Connection:
    """One connection between a dialler and a listener."""

    def __init__(self, dialler: End, listener: End, number: int) -> None:
        self.dialler = dialler
        self.listener = listener
        self.is_cut = False
        self.open_at: list[End] = [dialler, listener]
        self.last: dict[str, float] = {}
        self._listener_link: Link = ("listener", dialler.routing_id(number))
        self._cards = (dialler.card(dials=True), listener.card(dials=False))

    @property
    def pair(self) -> frozenset[str]:
        """The names of both ends."""
        return frozenset((self.dialler.name, self.listener.name))

    def link_at(self, end: End) -> Link:
        """Give the connection's name at one end."""
        return ("pusher", b"") if end is self.dialler else self._listener_link

    def card_at(self, end: End) -> Card:
        """Tell one end who the other is."""
        return self._cards[1] if end is self.dialler else self._cards[0]

    def other(self, end: End) -> End:
        """Give the other end."""
        return self.listener if end is self.dialler else self.dialler


class Network:
    """All connections of a world.

    Args:
        agenda: virtual time.
        chance: the seed's stream of chance.
        recorder: keeps count of the faults.
    """

    def __init__(self, agenda: Agenda, chance: Random, recorder: Recorder) -> None:
        self.weather = Weather()
        self.connections: list[Connection] = []
        self._agenda = agenda
        self._chance = chance
        self._recorder = recorder
        self._blocked: dict[frozenset[str], float] = {}
        self._numbers = 0

    def connect(self, dialler: End, listener: End) -> Connection | None:
        """Make a connection, unless the way is blocked."""
        if not listener.alive or self.is_blocked(frozenset((dialler.name, listener.name))):
            return None
        self._numbers += 1
        connection = Connection(dialler, listener, self._numbers)
        self.connections.append(connection)
        return connection

    def transmit(self, connection: Connection, sender: End, frames: Sequence[Frame]) -> None:
        """Carry frames to the other end, as well as the weather lets it."""
        chance, weather, faults = self._chance, self.weather, self._recorder.faults
        if sender not in connection.open_at or connection.is_cut:
            return
        if self.is_blocked(connection.pair) or (weather.loss and chance.random() < weather.loss):
            faults["lost"] += 1
            return
        copies = 1
        if weather.duplicate and chance.random() < weather.duplicate:
            copies = 2
            faults["duplicated"] += 1
        for _ in range(copies):
            self._agenda.after(self._delay(connection, sender), self._arrive, connection, sender, frames)

    def _delay(self, connection: Connection, sender: End) -> float:
        weather, now = self.weather, self._agenda.now
        delay = 0.0001 + self._chance.random() * weather.delay_s
        if weather.reorder and self._chance.random() < weather.reorder:
            self._recorder.faults["reordered"] += 1
            return delay + self._chance.random()
        at = max(connection.last.get(sender.name, 0.0), now + delay)
        connection.last[sender.name] = at
        return at - now

    def _arrive(self, connection: Connection, sender: End, frames: Sequence[Frame]) -> None:
        receiver = connection.other(sender)
        if not receiver.alive:
            # A machine that comes back resets the connections of its former life.
            self._agenda.after(RESET_AFTER_S, self._end, connection, sender)
        elif receiver in connection.open_at and not connection.is_cut:
            receiver.arrived(connection, frames)

    def cut(self, connection: Connection) -> None:
        """End a connection; what is under way is lost, both ends notice sooner or later."""
        connection.is_cut = True
        for end in list(connection.open_at):
            self._agenda.after(self._chance.random() * 1.5, self._end, connection, end)

    def close(self, connection: Connection, by: End) -> None:
        """One end closes its socket: what it has sent still arrives, then the other end notices."""
        if by in connection.open_at:
            connection.open_at.remove(by)
            delay = 0.01 + self.weather.delay_s + self._chance.random() * 0.2
            self._agenda.after(delay, self._end, connection, connection.other(by))

    def vanish(self, end: End, *, noticed: bool) -> None:
        """A process is gone: killed, which others notice, or without power, which they don't."""
        for connection in [one for one in self.connections if end in one.open_at]:
            if noticed:
                self.close(connection, end)
            else:
                connection.open_at.remove(end)

    def block(self, pair: frozenset[str], for_s: float) -> None:
        """Make a black hole of a way: nothing arrives, nobody is told."""
        self._blocked[pair] = max(self._blocked.get(pair, 0.0), self._agenda.now + for_s)

    def is_blocked(self, pair: frozenset[str]) -> bool:
        """Tell whether a way is a black hole now."""
        return bool(self._blocked) and self._blocked.get(pair, 0.0) > self._agenda.now

    def _end(self, connection: Connection, end: End) -> None:
        if end not in connection.open_at or (self.is_blocked(connection.pair) and not connection.is_cut):
            return
        connection.open_at.remove(end)
        if not connection.open_at and connection in self.connections:
            self.connections.remove(connection)
        if end.alive:
            end.ended(connection)
