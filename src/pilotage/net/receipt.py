"""Receipt: what a send gives back. Ask it, wait for it, await it, attach a callback, or ignore it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Generator
from typing import Any

import msgspec

from pilotage.net.bundle import Bundle, lock
from pilotage.net.drafting import Draft
from pilotage.protocol.errors import MisuseError
from pilotage.protocol.message import Message
from pilotage.protocol.settlement import Outcome, Settlement, Stage
from pilotage.transport.lookout import refuse_standing_in

log = logging.getLogger(__name__)

DELIVERED = Outcome.DELIVERED
"""Looked up once: Python looks for a member of an enumeration as long as for ten other names."""

Callback = Callable[["Receipt"], None]


class Receipt(msgspec.Struct, eq=False):
    """The state of one send. Any thread may hold it."""

    _message: Message | Draft
    _bundle: Bundle
    _at: int
    _gate: threading.Lock | None = None
    _accepted: threading.Event | None = None
    _callbacks: list[Callback] | None = None

    @classmethod
    def alone(cls, message: Message, settled_by: int = 0) -> Receipt:
        """Make one for a message that goes by itself."""
        return cls(message, Bundle(str(message.key), message, settled_by), 0)

    @property
    def settlement(self) -> Settlement | None:
        """Its end, or None while it is open."""
        entry = self._bundle.entries[self._at]
        return entry if type(entry) is Settlement else None

    @property
    def stage(self) -> Stage:
        """How far it has come."""
        return self._bundle.stage(self._at)

    @property
    def message(self) -> Message:
        """What was sent."""
        message = self._message
        if isinstance(message, tuple):
            message = self._message = self._bundle.message(self._at, message)
        return message

    @message.setter
    def message(self, message: Message) -> None:
        self._message = message

    def __repr__(self) -> str:
        """Show the message and how far it is."""
        return f"<Receipt {self.message.id} {self.settlement.outcome if self.settlement else self.stage}>"

    @property
    def is_settled(self) -> bool:
        """Tell whether it has ended."""
        return self.settlement is not None

    @property
    def answer(self) -> Any:
        """What the recipient's listen returned; None while open, or if it returned nothing."""
        return self.settlement.answer if self.settlement else None

    def wait_settled(self, timeout_s: float | None = None) -> Settlement:
        """Wait for the end. Not from a listen that runs on the loop.

        Args:
            timeout_s: seconds to wait at most; None for ever.

        Raises:
            TimeoutError: it is still open then.
            MisuseError: called on the very thread that would settle it; `await` the receipt there.
        """
        entries, at = self._bundle.entries, self._at
        if type(entries[at]) is not Settlement:
            self._refuse_loop()
            with lock:
                if type(entry := entries[at]) is Settlement:
                    return entry
                gate = self._gate
                if gate is None:
                    gate = self._gate = threading.Lock()
                    gate.acquire()
                    self._bundle.watch(at, self)
            if gate.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s)):
                gate.release()  # for whoever waits beside us
        settlement = entries[at]
        if type(settlement) is not Settlement:
            raise TimeoutError(f"{self.message.id} ({self.message.key}) has not settled within {timeout_s} s")
        return settlement

    @property
    def is_accepted(self) -> bool:
        """Tell whether the journal has it on the disk: it is sent until it is settled, whoever dies meanwhile."""
        return self._bundle.is_accepted(self._at)

    def wait_accepted(self, timeout_s: float | None = None) -> None:
        """Wait until the journal has it, or it is delivered before that. Not from a listen that runs on the loop.

        Args:
            timeout_s: seconds to wait at most; None for ever.

        Raises:
            TimeoutError: neither has happened by then, for example since it isn't durable.
            MisuseError: called on the very thread that would be told.
            Expired: nothing confirmed it.
            Refused: somebody refused it; the text says who and why.
        """
        if self.settlement is None:
            self._refuse_loop()
        with lock:
            if self._accepted is None and self.settlement is None and not self.is_accepted:
                self._accepted = threading.Event()
                self._bundle.watch(self._at, self)
            event = self._accepted
        if event is not None and not event.wait(timeout_s):
            raise TimeoutError(
                f"{self.message.id} ({self.message.key}) is not on the disk within {timeout_s} s"
            )
        error = self.settlement.error() if self.settlement is not None and not self.is_accepted else None
        if error is not None:
            raise error

    def _refuse_loop(self) -> None:
        """See that whoever waits for an end, which isn't there, doesn't keep it from coming."""
        refuse_standing_in()
        if threading.get_ident() == self._bundle.settled_by:
            raise MisuseError(
                f"{self.message.id}: waiting on the loop's own thread would last for ever; await it"
            )

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for the end and give the answer.

        Raises:
            TimeoutError: it is still open after `timeout_s` seconds.
            Expired: nothing confirmed it.
            Refused: somebody refused it; the text says who and why.
        """
        settlement = self.wait_settled(timeout_s)
        if settlement.outcome is not DELIVERED and (error := settlement.error()):
            raise error
        return settlement.answer

    def add_callback(self, callback: Callback) -> None:
        """Call with this receipt once it has ended: on the loop's thread, or at once if it has already."""
        with lock:
            if self.settlement is None:
                self._callbacks = [*(self._callbacks or ()), callback]
                self._bundle.watch(self._at, self)
                return
        callback(self)

    def __await__(self) -> Generator[Any, None, Settlement]:
        """Await the settlement in asyncio code."""
        loop, thread = asyncio.get_running_loop(), threading.get_ident()
        future: asyncio.Future[Settlement] = loop.create_future()

        def resolve() -> None:
            if not future.done() and self.settlement is not None:
                future.set_result(self.settlement)

        def settled(_: Receipt) -> None:
            if threading.get_ident() == thread:
                resolve()
            else:
                loop.call_soon_threadsafe(resolve)

        self.add_callback(settled)
        return future.__await__()

    def settle(self, settlement: Settlement) -> None:
        """End it; what comes later is ignored."""
        _, watchers = self._bundle.settle(self._at, self._at + 1, settlement)
        for watcher in watchers:
            watcher.tell_end()

    # What the bundle tells whoever watches

    def tell_accepted(self) -> None:
        """Tell whoever waits for the journal, which has it."""
        if self._accepted is not None:
            self._accepted.set()

    def tell_end(self) -> None:
        """Tell whoever waits for the end, which is there."""
        callbacks, self._callbacks = self._callbacks, None
        if self._gate is not None:
            self._gate.release()
        if self._accepted is not None:
            self._accepted.set()
        for callback in callbacks or ():
            try:
                callback(self)
            except Exception:
                # Somebody else's code must not keep the sends that end beside this one from being told.
                log.exception("a callback of %r failed", self)
