"""Messenger: what a node and a station's process have in common. It joins an exchange, a driver and workers.

Nodes and stations differ in configuration only: what a listen is given, whether arrays are unpacked, where they
listen and dial.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pilotage.net.bundle import ACCEPTED, RECEIVED
from pilotage.net.dispatch import Dispatch
from pilotage.net.keeping import Keeping
from pilotage.net.key_following import KeyFollower
from pilotage.net.listens import (
    Listen,
    Origin,
)
from pilotage.net.notes import NoteLog
from pilotage.net.open_sends import free_name
from pilotage.net.posting import Posting
from pilotage.net.security import Security
from pilotage.protocol.authority import Authority
from pilotage.protocol.errors import Closed
from pilotage.protocol.exchange import Exchange, ExchangeConfig
from pilotage.protocol.inbox import Handled
from pilotage.protocol.instructions import HandOver, Note, PeerChanged, PeerState
from pilotage.protocol.liveness import LivenessRules
from pilotage.protocol.message import Message
from pilotage.protocol.patience import PatienceRules
from pilotage.protocol.records import Parcel
from pilotage.protocol.sends import DeliveryRules, Kept, Part, Pending, Place
from pilotage.protocol.settlement import Reason, Settlement, refused
from pilotage.transport.driver import Driver
from pilotage.transport.journal import JournalStatistics, Trouble
from pilotage.transport.lines import Places
from pilotage.transport.lookout import refuse_standing_in
from pilotage.transport.network import ZmqWires
from pilotage.transport.ports import PassOn, Wires

if TYPE_CHECKING:
    from tornado.ioloop import IOLoop

T = TypeVar("T")

LAST_SYNC_S = 1.0
"""What the disk is given, at least, to take what waits when we are released."""


@dataclass(frozen=True, slots=True)
class MessengerConfig:
    """How a messenger behaves.

    Attributes:
        name: what it is known as.
        places: where it listens and dials.
        gives_values: listens are given the message's value (a node's) instead of the message (a station's).
        expands: arrays in original JSON messages are unpacked.
        delivery: patience of its sends.
        liveness: judgement of silence.
        journals: the folder of the journals, in which its durable sends are kept; None to keep nothing.
        max_workers: threads for its listens at most.
        shares_threads: ZeroMQ's threads serve it and all others of this process that share them; where it only dials.
        security: where its keys lie, and what it lets in without.
        patience: with links that send what can't be used, or too much.
    """

    name: str
    places: Places
    gives_values: bool = True
    expands: bool = True
    delivery: DeliveryRules = field(default_factory=DeliveryRules)
    liveness: LivenessRules = field(default_factory=LivenessRules)
    journals: Path | None = None
    max_workers: int = 64
    shares_threads: bool = False
    security: Security = field(default_factory=Security)
    patience: PatienceRules = field(default_factory=PatienceRules)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a messenger has done so far.

    Attributes:
        name: whose.
        peers: neighbours by name, with their state.
        sent: sends taken.
        settled: ends by outcome.
        resent: transmissions beyond the first.
        received: messages and confirmations that arrived.
        duplicates: messages that arrived more than once and were handled once.
        unsettled: sends that have not ended.
        waiting: messages held for recipients that aren't connected.
        journal: what the journal of durable sends did; None where there is none.
        counts: everything else that was counted, by what it was.
    """

    name: str
    peers: dict[str, str]
    sent: int
    settled: dict[str, int]
    resent: int
    received: int
    duplicates: int
    unsettled: int
    waiting: int
    journal: JournalStatistics | None
    counts: dict[str, int]


class Messenger:
    """One sender and receiver of messages.

    Args:
        config: how it behaves.
        listens: what to call for each key; may be changed while it runs.
        logger: where to tell about it.
        wires: the network; ZeroMQ's if not given.

    Raises:
        InvalidKey: a file of its keys can't be used.
    """

    def __init__(
        self,
        config: MessengerConfig,
        listens: Mapping[str, Listen],
        logger: logging.Logger,
        wires: Wires | None = None,
    ) -> None:
        self.config = config
        self.listens = listens
        self.logger = logger
        self.on_peer: Callable[[PeerChanged], None] = lambda change: None
        self.on_refused: Callable[[Note], None] = lambda note: None
        self.on_journal: Callable[[Trouble], None] = self._say_trouble
        self._keeping = Keeping(
            config.journals, config.name, self._persisted, self._troubled, self._found_late
        )
        self._left: list[Kept] = []
        keyring = config.security.keyring(config.name)
        self._authority = Authority(keyring.grants, keyring.originals, keyring.roles)
        self._wires: Wires = wires or ZmqWires(
            None, keyring, self._authority, shares_threads=config.shares_threads
        )
        self._keys: KeyFollower | None = None
        if isinstance(self._wires, ZmqWires):
            self._keys = KeyFollower(config.security, config.name, self._wires, self._authority)
        self._notes = NoteLog(logger)
        self.posting = Posting(config.name, self._notes, has_journal=self._keeping.file is not None)
        self._dispatch = Dispatch(
            config.name,
            listens,
            self._finished,
            self._notes,
            gives_values=config.gives_values,
            expands=config.expands,
            max_workers=config.max_workers,
        )
        self.turn_over = self._dispatch.turn_over
        self._driver: Driver | None = None
        self._loop_thread = 0
        self._parent = threading.Condition()
        self._parent_state: PeerChanged | None = None
        dials = config.places.dial_host is not None
        self.exchange = Exchange(
            ExchangeConfig(
                config.name,
                secrets.randbits(62) + 1,
                "pusher" if dials else "",
                config.delivery,
                config.liveness,
                config.patience,
            ),
            self._dispatch.service_of,
            self._authority,
        )

    # Life

    def look_for_left(self) -> None:
        """Read what earlier lives have left in the journal, if there is one. Before `start`, on any thread."""
        self._left = self._keeping.left()
        self.posting.drafting.begin_behind(name for kept in self._left for name in kept.names)

    def start(self, loop: IOLoop) -> None:
        """Listen and dial, on the loop's own thread.

        Raises:
            PortInUse: another program listens on our port.
        """
        self._loop_thread = threading.get_ident()
        self._driver = Driver(self.exchange, self, self._wires, self.config.places, loop)
        self.posting.begin(self._driver)
        if self._left:
            count = sum(len(kept.names) for kept in self._left)
            self.logger.info("goes on with %d messages of an earlier life", count)
            self._driver.restore(self._left, self.posting.resume)
            self._left = []
        if self._keys is not None:
            self._keys.start(self._driver, listens=self.config.places.listen_address is not None)
        self._driver.start()

    def stop(self) -> None:
        """Say goodbye and close, on the loop's own thread."""
        driver, self._driver = self._driver, None
        self.posting.end()
        if self._keys is not None:
            self._keys.close()
        if driver is not None:
            driver.stop()
        self.posting.open.interrupt_all()

    def wait_for_ends(self, timeout_s: float) -> None:
        """Give what may be told late so long to be told, before `stop`. Not on the loop's thread."""
        began = time.monotonic()
        if len(self.posting.open):
            with suppress(TimeoutError, Closed):
                self.ask(self.driver.ask_for_ends, timeout_s)
            self.posting.open.wait_unwatched(timeout_s - (time.monotonic() - began))

    def close_workers(self, timeout_s: float) -> None:
        """Let listens end, then let go of the network and the disk. Not on the loop's thread."""
        self._dispatch.close(timeout_s)
        self._keeping.close(max(timeout_s, LAST_SYNC_S))
        self._wires.close()

    @property
    def driver(self) -> Driver:
        """The running driver.

        Raises:
            Closed: it is not running.
        """
        if self._driver is None:
            raise Closed(f"{self.config.name} is not running (any more): make a new one")
        return self._driver

    # What was sent

    def confirm(self, message_id: str, origin: Origin | None = None) -> None:
        """Settle a send of ours by its id; by the wire only its recipient may say so."""
        self.posting.open.confirm(
            message_id, origin.trail[0] if origin is not None and origin.trail else None
        )

    def unsettled(self) -> dict[str, Message]:
        """Give the sends that have not ended, by id."""
        return self.posting.open.messages()

    def due(self) -> dict[str, float]:
        """Tell, for each send that has not ended, in how many seconds it is looked at again."""
        now = time.monotonic()
        return self.ask(lambda: self._due(now))

    def _due(self, now: float) -> dict[str, float]:
        found: dict[str, float] = {}
        for pending in self.exchange.outbox.unsettled():
            for name in pending.names:
                found[free_name(name, found)] = max(0.0, pending.due - now)
        return found

    def look_at_due(self) -> None:
        """Resend or expire what is due. On the loop's thread."""
        self.driver.tick()

    def call_listen(self, message: Message) -> None:
        """Call the listen for a message that came some other way; its result is not sent anywhere.

        Raises:
            InvalidMessage: there is none for its key.
        """
        self._dispatch.call(message)

    def unpack_stream(self, message: Message) -> object:
        """Call the inner listen of a STREAM for each of its items.

        Raises:
            InvalidMessage: no stream, or no listen for its inner key.
        """
        return self._dispatch.unpack_stream(message)

    def look_when(self, wants_look: Callable[[Parcel], bool]) -> None:
        """Have what is passed on opened, for the listens that only look at it, where that is wanted."""
        self._dispatch.wants_look = wants_look

    # Asking

    def ask(self, question: Callable[[], T], timeout_s: float = 5.0) -> T:
        """Have something answered on the loop's thread, where the tables live.

        Raises:
            Closed: we were released.
            TimeoutError: the loop doesn't answer.
            MisuseError: asked by what a send had Python clear away, which the loop waits for.
        """
        refuse_standing_in()
        if threading.get_ident() == self._loop_thread:
            return question()
        future: Future[T] = Future()
        self.driver.call(lambda: _answer(future, question))
        return future.result(timeout_s)

    def wait_connected(self, timeout_s: float) -> None:
        """Wait until the station up the tree has welcomed us.

        Raises:
            TimeoutError: it has not within that time.
            NameTaken: it refused us: a live peer has our name.
        """
        deadline = time.monotonic() + timeout_s
        with self._parent:
            while True:
                refusal = self.exchange.admission.refusal
                if refusal:
                    error = refused(Reason.NAME_TAKEN, refusal).error()
                    raise error if error else Closed(refusal)
                if self._parent_state is not None and self._parent_state.state is PeerState.ALIVE:
                    return
                if (
                    not self._parent.wait(max(0.0, deadline - time.monotonic()))
                    and time.monotonic() >= deadline
                ):
                    places, locked = self.config.places, self.locked_out
                    raise TimeoutError(
                        f"{self.config.name} is not connected to {places.upstream or 'its station'} at "
                        f"{places.dial_host}:{places.dial_port} after {timeout_s:g} s{locked and f': {locked}'}"
                    )

    @property
    def received(self) -> int:
        """How many messages and confirmations have arrived. Any thread."""
        return self.exchange.received

    @property
    def locked_out(self) -> str:
        """Why the station up the tree and we have no lock in common; "" if we have, or don't know yet. Any thread."""
        driver = self._driver
        return driver.locked_out if driver is not None else ""

    def senders(self) -> dict[str, str]:
        """Give the names of the peers that dialled us, and the state that each last told."""
        routing = self.exchange.routing
        return self.ask(lambda: {peer.name: peer.value for peer in routing if peer.card.dials})

    def knows(self, name: str) -> bool:
        """Tell whether a neighbour of that name is connected. Any thread."""
        return name in self.exchange.routing.names

    def is_ours(self, name: str) -> bool:
        """Tell whether a neighbour of that name is connected and speaks our wire. Any thread."""
        peer = self.exchange.routing.names.get(name)
        return peer is not None and peer.is_ours

    def leads_to(self, name: str) -> bool:
        """Tell whether a neighbour of that name is connected, or a way to it was learned. Any thread."""
        routing = self.exchange.routing
        return name in routing.names or name in routing.through()

    def seen_as(self, name: str) -> dict[str, str]:
        """Tell by which key and from where a neighbour has come; nothing of what isn't known. Any thread."""
        peer = self.exchange.routing.names.get(name)
        if peer is None:
            return {}
        told = {"key": peer.card.key, "address": peer.card.address or peer.card.host}
        return {what: text for what, text in told.items() if text}

    def keep_value(self, name: str, value: str) -> None:
        """Keep the state that a neighbour told, for `senders`. Any thread."""
        peer = self.exchange.routing.names.get(name)
        if peer is not None:
            peer.value = value

    def routes(self) -> dict[str, str]:
        """Give the names that were learned from what came through neighbours, each with its neighbour."""
        return self.ask(self.exchange.routing.through)

    @property
    def context(self) -> Any:
        """ZeroMQ's context."""
        return getattr(self._wires, "context", None)

    @property
    def dialled_socket(self) -> Any:
        """The DEALER, while there is a connection."""
        return getattr(self._driver and self._driver.dialer, "socket", None)

    @property
    def listening_socket(self) -> Any:
        """The ROUTER, if there is one."""
        return getattr(self._driver and self._driver.listener, "socket", None)

    def statistics(self) -> Statistics:
        """Tell what was done so far; after `stop` what was done until then."""
        if self._driver is None:
            return self._statistics()
        return self.ask(self._statistics)

    def _statistics(self) -> Statistics:
        exchange = self.exchange
        counts = {**exchange.counts, **self._notes.counts}
        if self._driver is not None:
            counts.update(self._driver.counts)
        counts["listens waiting"] = self._dispatch.waiting()
        return Statistics(
            self.config.name,
            {peer.name: str(peer.state) for peer in exchange.routing},
            exchange.sent,
            dict(self.posting.open.settled),
            exchange.outbox.resent,
            exchange.received,
            exchange.inbox.duplicates + exchange.edge.duplicates,
            len(self.posting.open),
            len(exchange.waiting),
            self._keeping.statistics(),
            counts,
        )

    # The driver's shell (on the loop's thread)

    def hand_over(self, messages: HandOver) -> tuple[list[Handled], list[PassOn]]:
        """Give messages to their listens."""
        results, passing = self._dispatch.hand_over(messages), messages.passing
        return results, [(parcel, self.exchange.routing.inner) for parcel in passing] if passing else []

    def taken(self, requests: Sequence[Pending]) -> None:
        """See for which of our sends nobody can ask any more."""
        self.posting.open.look_at(requests)

    def settle(self, ended: list[tuple[Any, Settlement]]) -> None:
        """Tell senders how their sends ended."""
        self.posting.open.settle(ended)

    def progress(self, handles: list[Any]) -> None:
        """Tell senders that their message was received."""
        self.posting.open.reach(handles, RECEIVED)

    def keep(self, sends: list[Kept]) -> None:
        """Put sends into the journal."""
        self._keeping.keep(sends)

    def drop(self, places: list[Place], parts: list[Part]) -> None:
        """Take sends out of the journal, or some of those at a place."""
        self._keeping.drop(places, parts)

    def accepted(self, handles: list[Any]) -> None:
        """Tell senders that the journal has their message."""
        self.posting.open.reach(handles, ACCEPTED)

    def peer_changed(self, change: PeerChanged) -> None:
        """Tell about a neighbour."""
        self._notes.peer(change)
        peer = self.exchange.routing.names.get(change.name)
        if self._keys is not None and peer is not None and change.state is PeerState.ALIVE:
            self._keys.note(peer.card.key)
        if change.is_parent:
            with self._parent:
                self._parent_state = change
                self._parent.notify_all()
        self.on_peer(change)

    def note(self, note: Note) -> None:
        """Log, at a bounded rate."""
        self._notes.write(note)
        if note.verb:
            self.on_refused(note)

    def _persisted(self, places: list[Place]) -> None:
        """The journal has these sends; on its own thread."""
        driver = self._driver
        if driver is not None:
            driver.persisted(places)

    def _found_late(self, left: list[Kept]) -> None:
        """The journal opened after we had started; on a thread of its own."""
        driver = self._driver
        if driver is not None:
            driver.call(lambda: driver.restore(left, self.posting.resume))

    def _troubled(self, trouble: Trouble) -> None:
        self.on_journal(trouble)

    def _say_trouble(self, trouble: Trouble) -> None:
        self.logger.log(logging.INFO if trouble.is_over else logging.ERROR, "%s", trouble.text)

    def _finished(self, results: list[Handled], is_last: bool = False, may_wait: bool = False, /) -> None:
        """Listens have ended; see `Finished`."""
        driver = self._driver
        if driver is not None:
            driver.handled_all(results, at_once=is_last, may_wait=may_wait)


def _answer(future: Future[T], question: Callable[[], T]) -> None:
    try:
        future.set_result(question())
    except Exception as error:  # noqa: BLE001 - raised again where the asker waits
        future.set_exception(error)
