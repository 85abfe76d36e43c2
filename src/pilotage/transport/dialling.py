"""Dialling: the link up the tree, which is dialled again whenever it ends.

Law of this room: it is looked first who is there, and he is dialled in his dialect; a door of this machine that doesn't
hold is not tried again; what hinders is told once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from pilotage.protocol.doors import Door
from pilotage.protocol.errors import Locked, MalformedFrame
from pilotage.protocol.exchange import Exchange
from pilotage.protocol.instructions import Arrival, Card, Instruction, Level, Note
from pilotage.transport.lines import Lines, Places
from pilotage.transport.ports import Wires

FIRST_REDIAL_S, LAST_REDIAL_S = 0.02, 1.0


class Driving(Protocol):
    """What dialling asks of the driver. All on the loop's thread."""

    def carry_out(self, instructions: Sequence[Instruction]) -> None:
        """Carry instructions of the exchange out."""

    def turn(self) -> None:
        """Do what there is to do."""

    def turn_for(self, alone: Arrival, /) -> bool:
        """Do what a message that has come by itself brings about; see `OnAlone`."""


class Dialling:
    """Keeps the link up the tree.

    Args:
        exchange: is told when the link is up, and when it has ended.
        wires: the network.
        places: whom to dial.
        lines: where the dialled socket is put while it is there.
        driver: carries out what comes of it.
        note: is told what hinders.

    Attributes:
        locked_out: why the station up the tree and we have no lock in common; "" if we have, or don't know yet.
    """

    def __init__(
        self,
        exchange: Exchange,
        wires: Wires,
        places: Places,
        lines: Lines,
        driver: Driving,
        note: Callable[[Note], None],
    ) -> None:
        self.locked_out = ""
        self._exchange = exchange
        self._wires = wires
        self._places = places
        self._lines = lines
        self._driver = driver
        self._note = note
        self._door: Door | None = None
        self._hung_up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to dial."""
        self._task = loop.create_task(self._keep_dialled(loop))

    def stop(self) -> None:
        """Dial no more; a link that is there ends."""
        if self._task is not None:
            self._task.cancel()

    def hang_up(self) -> None:
        """End the link, and dial again."""
        self._hung_up.set()

    def follow(self, door: Door | None) -> None:
        """Dial a door of this machine instead of the station, when the link ends; None to stay."""
        self._door = door

    async def _keep_dialled(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look who is there, dial, stay until the link ends, and begin anew."""
        places, me = self._places, self._exchange.config.me
        host, wait_s, said = str(places.dial_host), FIRST_REDIAL_S, ""
        while True:
            await self._stay_behind_door(loop)
            began = time.monotonic()
            try:
                card = await self._wires.peek(host, places.dial_port, places.upstream)
                await self._stay_dialled(loop, host, places.dial_port, card)
                said = self.locked_out = ""
            except (OSError, ValueError, MalformedFrame, Locked) as error:
                is_locked = isinstance(error, Locked)
                self.locked_out = str(error) if is_locked else ""
                text = (
                    f"{me} can't reach {places.upstream or 'a station'} at {host}:{places.dial_port}: {error}"
                )
                if text != said:
                    self._note(Note(Level.WARNING if is_locked else Level.INFO, text))
                said = text
            else:
                wait_s = FIRST_REDIAL_S if time.monotonic() - began > LAST_REDIAL_S else wait_s
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.6, LAST_REDIAL_S)

    async def _stay_behind_door(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go through the door that we were told of, if we were; one that doesn't hold is not tried again."""
        door, self._door = self._door, None
        if door is None:
            return
        began, text = time.monotonic(), "its link ended"
        try:
            card = await self._wires.peek(door.host, door.port, "")
            if card.boot == door.boot:
                await self._stay_dialled(loop, door.host, door.port, card)
            else:
                text = f"{card.name} answers there"
        except (OSError, ValueError, MalformedFrame, Locked) as error:
            text = str(error)
        if time.monotonic() - began < LAST_REDIAL_S:
            self._exchange.doors.shunned = door.told()
            note = f"{self._exchange.config.me} goes by its station: {door.host} is no straight way ({text})"
            self._note(Note(Level.INFO, note))

    async def _stay_dialled(self, loop: asyncio.AbstractEventLoop, host: str, port: int, card: Card) -> None:
        lines, config = self._lines, self._exchange.config
        self._hung_up.clear()
        wire = self._wires.dial(config.upstream, host, port, card, config.me, config.boot)
        lines.have(lines.listener, wire)
        try:
            wire.watch(loop, self._driver.turn, lambda: self._changed(card), self._driver.turn_for)
            self._changed(card)
            await self._hung_up.wait()
            if wire.is_refused:
                raise Locked(
                    f"the key of {config.me} is not known there (any more): pair with it by `pilotage join`"
                )
        finally:
            # What was to go by this link is for nobody else.
            lines.forget(wire.link)
            if lines.dialer is wire:
                lines.have(lines.listener, None)
                wire.close()

    def _changed(self, card: Card) -> None:
        """The link is up, or has ended."""
        dialer = self._lines.dialer
        if dialer is None:
            return
        for is_up in dialer.changes():
            if is_up:
                self.locked_out = ""
                self._driver.carry_out(self._exchange.link_up(dialer.link, card, time.monotonic()))
            else:
                self._lines.forget(dialer.link)
                self._driver.carry_out(self._exchange.link_down(dialer.link, time.monotonic()))
                self.hang_up()
                break
        self._driver.turn()
