"""Lines: the sockets of one driver, the one that others dial and the one that it dialled, and what waits for them.

Law of this room: what can't leave now waits behind what waits already, within a bound; what was to go by a link that
has ended goes by no other.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from pilotage.protocol.instructions import Arrival, Link
from pilotage.protocol.records import Frame
from pilotage.transport.ports import DialledWire, ListeningWire

MAX_WAITING = 10_000
"""Transmissions that wait for room on one link."""


class Places(msgspec.Struct, frozen=True):
    """Where a driver listens and dials.

    Attributes:
        listen_address: to bind, "*" for all; None not to listen.
        listen_port: 0 for any free one.
        dial_host: the station up the tree; None not to dial.
        dial_port: its port.
        upstream: its name, as far as we know it.
        has_door: there must be a door for this machine's processes, of which the station up the tree is told: a path,
            or where there are none a port of its own.
        follows_doors: leave the station for the door of who takes in what it would pass on, where there is one.
    """

    listen_address: str | None = None
    listen_port: int = 0
    dial_host: str | None = None
    dial_port: int = 0
    upstream: str = ""
    has_door: bool = False
    follows_doors: bool = False


class Lines:
    """What a driver reads from and writes to. On the loop's thread, or in its seat.

    Args:
        counts: where it is counted what was dropped.
        lost: is told of a link of others' that can't be written to, while the exchange is busy.

    Attributes:
        listener: the socket that others dial; None where we don't listen.
        dialer: the socket by which we dialled up the tree; None while there is none.
        waiting: transmissions that wait for room, by their link.
        is_plain: all of them are plain sockets, of which the system tells whatever may be read.
    """

    def __init__(self, counts: Counter[str], lost: Callable[[Link, str], None]) -> None:
        self.listener: ListeningWire | None = None
        self.dialer: DialledWire | None = None
        self.waiting: dict[Link, deque[Sequence[Frame]]] = {}
        self.is_plain = True
        self._counts = counts
        self._lost = lost

    def have(self, listener: ListeningWire | None, dialer: DialledWire | None) -> None:
        """Read from these and write to them from now on."""
        self.listener, self.dialer = listener, dialer
        self.is_plain = all(one is None or one.is_plain for one in (listener, dialer))

    def drain(self, most: int) -> list[Arrival]:
        """Read up to so many transmissions from each socket."""
        arrivals = self.listener.drain(most) if self.listener is not None else []
        if self.dialer is not None:
            arrivals += self.dialer.drain(most)
        return arrivals

    def readable(self) -> bool:
        """Tell whether there is something to be read."""
        return (self.listener is not None and self.listener.readable()) or (
            self.dialer is not None and self.dialer.readable()
        )

    def transmit(self, batch: Iterable[tuple[Link, Sequence[Frame]]]) -> None:
        """Send transmissions, each by its link; what there is no room for waits."""
        dialer = self.dialer
        for link, frames in batch:
            if self.waiting and (queue := self.waiting.get(link)) is not None:
                self._queue(queue, frames)
                continue
            wire = dialer if dialer is not None and link == dialer.link else self.listener
            try:
                if wire is not None:
                    wire.send(link, frames)
            except BlockingIOError:
                self._queue(self.waiting.setdefault(link, deque()), frames)
            except ConnectionError as error:
                self._end(link, str(error))

    def send_waiting(self) -> None:
        """Send what waits, as far as there is room."""
        for link, queue in list(self.waiting.items()):
            wire = self._wire_of(link)
            try:
                while queue:
                    if wire is not None:
                        wire.send(link, queue[0])
                    queue.popleft()
                del self.waiting[link]
            except BlockingIOError:
                continue
            except ConnectionError as error:
                self._end(link, str(error))

    def forget(self, link: Link) -> None:
        """Drop what waits for a link, which has ended."""
        self.waiting.pop(link, None)

    def close(self) -> None:
        """Send what waits, if it can leave at once, and let go of the sockets."""
        for link, queue in self.waiting.items():
            wire = self._wire_of(link)
            if wire is not None:
                for frames in queue:
                    wire.send_last(link, frames)
        for one in (self.listener, self.dialer):
            if one is not None:
                one.close()
        self.have(None, None)

    def _wire_of(self, link: Link) -> ListeningWire | DialledWire | None:
        return self.dialer if self.dialer is not None and link == self.dialer.link else self.listener

    def _queue(self, queue: deque[Sequence[Frame]], frames: Sequence[Frame]) -> None:
        if len(queue) < MAX_WAITING:
            queue.append(frames)
        else:
            self._counts["transmissions dropped"] += 1

    def _end(self, link: Link, text: str) -> None:
        self.forget(link)
        if self.dialer is not None and link == self.dialer.link:
            return  # its end is told once everything that came by it was taken
        if self.listener is None or not self.listener.leave(link):
            self._lost(link, text)
