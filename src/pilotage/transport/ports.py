"""What a driver needs: a shell that is told, and wires that carry. Real ones and those in memory fulfil the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from pilotage.protocol.inbox import Handled
from pilotage.protocol.instructions import Arrival, Card, HandOver, Link, Note, PeerChanged
from pilotage.protocol.records import Frame, Parcel
from pilotage.protocol.sends import Kept, Part, Pending, Place
from pilotage.protocol.settlement import Settlement

PassOn = tuple[Parcel, str]
"""A parcel that goes on, and to whom."""

OnAlone = Callable[[Arrival], bool]
"""Takes a transmission that has come by itself, with nothing before it; False leaves it to be drained."""


class Shell(Protocol):
    """What the objects on the floor above do with an exchange's word. All on the loop's thread."""

    def hand_over(self, messages: HandOver) -> tuple[list[Handled], list[PassOn]]:
        """Give messages to their listens; return what was handled or passed on at once."""

    def turn_over(self) -> bool:
        """The loop is about to rest: now is the time to wake other threads; True to be called again soon."""

    def taken(self, requests: Sequence[Pending]) -> None:
        """These sends of ours go out now."""

    def settle(self, ended: list[tuple[Any, Settlement]]) -> None:
        """Tell senders how their sends ended."""

    def progress(self, handles: list[Any]) -> None:
        """Tell senders that their message was received."""

    def keep(self, sends: list[Kept]) -> None:
        """Put sends into the journal, and say `Driver.persisted` with the place of each once it is synced."""

    def drop(self, places: list[Place], parts: list[Part]) -> None:
        """Take sends out of the journal, or some of those at a place: they are over."""

    def accepted(self, handles: list[Any]) -> None:
        """Tell senders that the journal has their message."""

    def peer_changed(self, change: PeerChanged) -> None:
        """A neighbour came, went, or fell silent."""

    def note(self, note: Note) -> None:
        """Something is worth the log."""


class Wire(Protocol):
    """A socket, or what stands for one. All on the loop's thread."""

    def watch(
        self,
        loop: asyncio.AbstractEventLoop,
        on_ready: Callable[[], object],
        on_change: Callable[[], object],
        on_alone: OnAlone,
    ) -> None:
        """Have the loop call when there may be something to read, or a connection has changed.

        Where a transmission comes by itself, a wire may offer it instead; it need not.
        """

    def readable(self) -> bool:
        """Tell whether something is there to be read."""

    def drain(self, most: int) -> list[Arrival]:
        """Read up to so many transmissions."""

    def send(self, link: Link, frames: Sequence[Frame]) -> None:
        """Send a transmission; raises BlockingIOError where there is no room, ConnectionError where nobody is there."""

    def send_last(self, link: Link, frames: Sequence[Frame]) -> None:
        """Take a transmission that is to leave before the close, if it can."""

    def close(self) -> None:
        """Let go of it."""


class SendsLast:
    """A wire whose last words are sent like all others: there is room for them, or not."""

    def send(self, link: Link, frames: Sequence[Frame]) -> None:
        """Send a transmission; see `Wire`."""
        raise NotImplementedError

    def send_last(self, link: Link, frames: Sequence[Frame]) -> None:
        """Take a transmission that is to leave before the close, if there is room for it."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self.send(link, frames)


class ListeningWire(Wire, Protocol):
    """A socket that others dial.

    Attributes:
        port: on which it listens, 0 for none.
        door: host and port of its door.
        is_plain: the system tells whatever may be read; of ZeroMQ's sockets it has to be asked for after each call.
    """

    port: int
    door: tuple[str, int]
    is_plain: bool

    def more_comes(self) -> bool:
        """Tell whether more may have happened in this moment than was told yet."""

    def leave(self, link: Link) -> bool:
        """Have a link end that can't be written to; False if it is none of ours, or has ended."""

    def gone(self) -> list[Link]:
        """Give the links whose connections have ended."""


class DialledWire(Wire, Protocol):
    """A socket that dialled.

    Attributes:
        link: what it is called by.
        is_refused: the other end has not let our key in.
        is_plain: whoever is in the loop's seat may send by it, from any thread; else as for `ListeningWire`.
    """

    link: Link
    is_refused: bool
    is_plain: bool

    def changes(self) -> list[bool]:
        """Give what has happened to the connection: True for up, False for down."""


class Wires(Protocol):
    """A network: one of sockets, or one in memory."""

    machine: str

    def listen(
        self, address: str | None, port: int, name: str, boot: int, *, has_door: bool = False
    ) -> ListeningWire:
        """Bind; raises PortInUse."""

    def peek(self, host: str, port: int, upstream: str) -> Coroutine[Any, Any, Card]:
        """Look who listens; raises OSError, MalformedFrame, Locked or TimeoutError."""

    def dial(self, name: str, host: str, port: int, card: Card, me: str, boot: int) -> DialledWire:
        """Dial, in the dialect of whoever listens."""

    def close(self) -> None:
        """Let go of it."""
