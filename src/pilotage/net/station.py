"""Station: an independent messaging process, one for each piece of hardware.

The object lives twice: in the process that made it, and in the station's own, where `run` is. A method called in
the first asks the second.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pilotage.net.checks import (
    Recipient,
    checked_listens,
    checked_message,
    checked_name,
    checked_port,
    path_of,
)
from pilotage.net.control import ChildEnd, ParentEnd, make_line
from pilotage.net.easing import ease_process
from pilotage.net.listens import Listen, Origin, takes_origin
from pilotage.net.loops import finish_tasks, new_event_loop, tornado_loop
from pilotage.net.messenger import Messenger, MessengerConfig, Statistics
from pilotage.net.prefs import journal_folder, prefs
from pilotage.net.receipt import Receipt
from pilotage.net.security import Security
from pilotage.protocol.errors import Closed, InvalidMessage, ListenNotPicklable, MisuseError, PilotageError
from pilotage.protocol.message import Flag, Message
from pilotage.protocol.patience import Buckets, PatienceRules
from pilotage.protocol.sends import DeliveryRules
from pilotage.protocol.settlement import Reason, Settlement, refused
from pilotage.transport.descriptors import raise_limit
from pilotage.transport.lines import Places

if TYPE_CHECKING:
    from tornado.ioloop import IOLoop

START_TIMEOUT_S = 30.0
ASK_TIMEOUT_S = 5.0
LAST_WORDS_S = 0.1
MAX_STATE_CHARS = 40
ROOT_PATIENCE_S = 5.0
REFUSALS_AT_ONCE, REFUSALS_A_SECOND = 50.0, 5.0
"""What of a flood of refusals is told on."""
ORPHAN_GRACE_S = 0.4


class Station(multiprocessing.Process):
    """A messaging process between computers, with a ROUTER that others dial and, if it wants, a DEALER up the tree.

    Messages that are not for it are passed on unopened. Listens are given the Message.

    Args:
        id: what it is known as.
        push_ip: the station up the tree, if it has a pusher.
        push_port: that station's port.
        push_id: that station's name.
        pusher: whether it dials a station up the tree.
        listen_port: its own port; 0 for any free one (read it from `listen_port` after `start`).
        listens: what to call for each key, beside CONFIRM and STREAM.
        journal: the folder in which durable messages of its own are kept; see `Net_Node`.
        security: where its keys lie, and what it lets in without; from the preferences if not given. With a key it is
            open to this machine in clear and to all others encrypted, without one to this machine only.

    Example:
        >>> with Station(id="T", listen_port=0) as station:
        ...     station.start()
        ...     station.statistics().name
        'T'
    """

    repeat_interval = 5.0

    def __init__(
        self,
        id: str | None = None,
        push_ip: str | None = None,
        push_port: int | str | None = None,
        push_id: str = "",
        pusher: bool = False,
        listen_port: int | str | None = None,
        listens: Mapping[str, Listen] | None = None,
        journal: str | Path | None = "",
        security: Security | None = None,
    ) -> None:
        if not id:
            raise MisuseError("a station needs an id: the name that others reach it by")
        id = checked_name(id)
        super().__init__(name=f"station-{id}", daemon=True)
        if pusher and not (push_ip and push_port):
            raise MisuseError(f"station {id}: a pusher needs push_ip and push_port, the station to dial")
        self.id = id
        self.push_ip = push_ip
        self.push_port = checked_port(push_port, "push_port") if push_port is not None else None
        self.push_id = push_id or ""
        self.has_pusher = bool(pusher)
        self.listen_port = checked_port(listen_port, "listen_port") if listen_port is not None else 0
        self.child = False
        self.ip = self.get_ip()
        self.logger = logging.getLogger(f"pilotage.station.{id}")
        self.listens: dict[str, Listen] = {
            "CONFIRM": self.l_confirm,
            "STREAM": self.l_stream,
            **checked_listens(listens, id),
        }
        self.msgs_received = multiprocessing.Value("i", 0)
        self.loop: IOLoop | None = None
        self.on_died: Callable[[], None] | None = None
        self._messenger: Messenger | None = None
        self.security = security or Security.of(prefs.snapshot())
        self._journals = journal_folder(journal)
        self._pushed: set[str] = set()
        self._refusals: Buckets[str] = Buckets(REFUSALS_AT_ONCE, REFUSALS_A_SECOND)
        self._maker_pid = os.getpid()
        self._child_line: Any = None
        self._control: ParentEnd | None = None
        self._file_block: threading.Event | None = None
        self.openness = ""

    # Life, in the parent

    def start(self) -> None:
        """Start the process and wait until it listens.

        Raises:
            PortInUse: another program listens on its port.
            ListenNotPicklable: a listen can't be handed to a process that isn't forked; the text names its key.
            InvalidKey: a file of its keys can't be used.
            StationDied: the process ended at once.
            TimeoutError: it does not come up.
        """
        if self._control is not None:
            raise MisuseError(f"station {self.id} was started before; make a new one")
        self._check_listens()
        self._check_keys()
        ours, self._child_line = make_line()
        control = ParentEnd(ours, self.id)
        try:
            super().start()
        finally:
            self._child_line.close()
            self._child_line = None
        self._control = control
        control.listen(self._ended)
        try:
            self.listen_port = control.ready.result(START_TIMEOUT_S)
        except BaseException:
            self.release()
            raise

    def release(self, timeout_s: float = 1.8) -> None:
        """End the process. In the station's own process: leave its loop. May be repeated."""
        if self._messenger is not None:
            self._leave()
            return
        control, self.on_died = self._control, None
        if control is None or os.getpid() != self._maker_pid:
            return
        if self.is_alive():
            try:
                control.ask("stop")
            except Closed:
                self.logger.debug("the station %s was ending already", self.id)
            self.join(timeout_s)
        if self.is_alive():
            self.kill()  # its loop is stuck, so that it would not see a gentler signal
            self.join(1.0)
        control.close()
        if not self.is_alive():
            # What `Process.close` gives back too, but a released station may still be asked whether it lives. A station
            # refers to itself, by its listens, so that its handles would stay until the collector comes by.
            self._popen.close()  # type: ignore[attr-defined]

    def close(self, timeout_s: float = 1.8) -> None:
        """Do the same as `release`."""
        self.release(timeout_s)

    def __enter__(self) -> Self:
        """Use it as a context that releases it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Release it."""
        self.release()

    def _check_listens(self) -> None:
        method = multiprocessing.get_start_method()
        if method == "fork":
            return
        for key, listen in self.listens.items():
            if getattr(listen, "__self__", None) is self:
                continue
            try:
                pickle.dumps(listen)
            except Exception as error:
                raise ListenNotPicklable(
                    f"station {self.id}: the listen for {key!r} can't be handed to a process started by {method!r} "
                    f"({error}); make it a function of a module, or a method of a Station subclass"
                ) from error

    def _check_keys(self) -> None:
        """See that its keys can be used, here, where an error is seen; and warn of what travels in clear."""
        self.openness = self.security.openness(self.id)
        if self.security.insecure:
            self.logger.warning(
                "%s is INSECURE: it speaks in clear with other machines, and lets in whoever comes", self.id
            )

    def _ended(self) -> None:
        if self.on_died is not None:
            self.on_died()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to the process that made it."""
        return {**self.__dict__, "_control": None, "on_died": None, "loop": None}

    # Life, in the station's process

    def run(self) -> None:
        """Be the station: listen, dial, and pass messages on until released. Called in the new process."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise_limit()
        asyncio.set_event_loop(new_event_loop())
        self.loop = tornado_loop()
        signal.signal(signal.SIGTERM, lambda *_: self._leave())
        method = multiprocessing.get_start_method(allow_none=True) or ""
        line = ChildEnd(self._child_line, self._maker_pid, method)
        self._file_block = threading.Event()
        messenger = self._messenger = Messenger(self._how(), self.listens, self.logger)
        self._count(messenger)
        messenger.look_for_left()
        try:
            messenger.start(self.loop)
        except PilotageError as error:
            line.reply(0, error)
            return
        listener = messenger.driver.listener
        self.listen_port = listener.port if listener is not None else 0
        ease_process()
        line.serve(self._answer, self._orphaned)
        self.started()
        line.reply(0, self.listen_port)
        self.loop.start()
        messenger.stop()
        finish_tasks(self.loop)
        messenger.close_workers(0.5)

    def started(self) -> None:
        """Do what is to be done once the station listens, on its loop's thread. For subclasses."""

    def _how(self) -> MessengerConfig:
        places = Places(
            listen_address="*",
            listen_port=self.listen_port,
            dial_host=self.push_ip if self.has_pusher else None,
            dial_port=self.push_port or 0,
            upstream=self.push_id,
        )
        rules = DeliveryRules(repeat_interval_s=self.repeat_interval)
        if not self.has_pusher:
            # The root has nobody to ask: what it can't reach for that long is not there.
            rules = replace(rules, patience_s=ROOT_PATIENCE_S)
        return MessengerConfig(
            self.id,
            places,
            gives_values=False,
            expands=False,
            delivery=rules,
            journals=self._journals,
            security=self.security,
            patience=PatienceRules(most_a_second=self.security.max_rate),
        )

    def _leave(self) -> None:
        if self.loop is not None:
            inner: asyncio.AbstractEventLoop = self.loop.asyncio_loop  # type: ignore[attr-defined]
            inner.call_soon_threadsafe(self.loop.stop)

    def _orphaned(self) -> None:
        """Our parent has gone: leave, and leave also if a listen holds us up."""
        self._leave()
        end = threading.Timer(ORPHAN_GRACE_S, os._exit, (1,))
        end.daemon = True
        end.start()

    def _leave_soon(self) -> None:
        """Leave once what is being answered has gone out."""
        loop = self.loop
        if loop is not None:
            loop.add_callback(loop.call_later, LAST_WORDS_S, self._leave)

    def is_inner(self, origin: Origin | None) -> bool:
        """Tell whether a message came straight from our own inner node, by the connection, not by what it says.

        What has no trail comes from the process that made us, or from an original, whose name the edge has checked.
        """
        return origin is None or not origin.trail or origin.trail == (f"_{self.id}",)

    def asked_by(self, msg: Message, origin: Origin | None) -> str:
        """Tell who is at the far end of a message's way; "" for our own agent, or this station itself.

        What came through nobody, or through a station that stands in for an original, is its sender's, as it says.
        """
        trail = origin.trail if origin is not None else ()
        name = trail[0] if len(trail) > 1 or (trail and trail[0] != self.push_id) else str(msg.sender)
        return "" if name in (self.id, f"_{self.id}") else name

    def _count(self, messenger: Messenger) -> None:
        """Keep the count of what is received where other processes see it."""
        # Past the lock: one thread writes, and a whole number is written at once.
        shown, exchange, turn_over = self.msgs_received.get_obj(), messenger.exchange, messenger.turn_over

        def count_and_turn_over() -> bool:
            shown.value = exchange.received
            return turn_over()

        messenger.turn_over = count_and_turn_over

    def _answer(self, name: str, arguments: dict[str, Any], put: Callable[[Any], None]) -> None:
        """Answer the parent."""
        if name == "stop":
            put(None)
            self._leave()
        elif name in ("send", "push"):
            receipt: Receipt = getattr(self, name)(**arguments)
            receipt.add_callback(lambda ended: put((ended.message, ended.settlement)))
        elif name == "call":
            put(getattr(self, arguments["method"])(*arguments["arguments"]))
        else:
            put(getattr(self, name))

    # Asking, from either process

    @property
    def _here(self) -> Messenger:
        if self._messenger is None:
            raise Closed(f"station {self.id} isn't running in this process")
        return self._messenger

    def _ask(self, name: str, **arguments: Any) -> Any:
        if self._control is None:
            raise Closed(f"station {self.id} wasn't started")
        return self._control.ask(name, **arguments).result(ASK_TIMEOUT_S)

    def _look(self, name: str, here: Callable[[Messenger], Any], otherwise: Any) -> Any:
        """Read something that lives in the station's process."""
        if self._messenger is not None:
            return here(self._messenger)
        return otherwise if self._control is None else self._ask(name)

    def statistics(self) -> Statistics:
        """Tell what the station has done so far.

        Raises:
            Closed: it wasn't started.
            StationDied: its process has ended.
        """
        if self._messenger is not None:
            return self._messenger.statistics()
        answer: Statistics = self._ask("call", method="statistics", arguments=())
        return answer

    @property
    def senders(self) -> dict[str, str]:
        """Names of the peers that dialled it directly, and the state that each last told."""
        return dict(self._look("senders", Messenger.senders, {}))

    @property
    def routes(self) -> dict[str, str]:
        """Names that were learned from what came through neighbours, each with its neighbour."""
        return dict(self._look("routes", Messenger.routes, {}))

    @property
    def push_outbox(self) -> dict[str, Message]:
        """Messages that were pushed and have not settled, by id."""
        return dict(
            self._look("push_outbox", lambda m: _those(m.unsettled(), self._pushed, pushed_ones=True), {})
        )

    @property
    def send_outbox(self) -> dict[str, Message]:
        """Messages that were sent and have not settled, by id."""
        return dict(
            self._look("send_outbox", lambda m: _those(m.unsettled(), self._pushed, pushed_ones=False), {})
        )

    @property
    def outbox(self) -> dict[str, Message]:
        """All messages of its own that have not settled, by id."""
        return dict(self._look("outbox", Messenger.unsettled, {}))

    @property
    def timers(self) -> dict[str, float]:
        """Seconds until each message of the outbox is looked at again, by id."""
        return dict(self._look("timers", Messenger.due, {}))

    @property
    def ctx(self) -> Any:
        """ZeroMQ's context; None outside the station's process."""
        return self._messenger.context if self._messenger is not None else None

    @property
    def listener(self) -> Any:
        """What speaks as ROUTER (see `Net_Node.sock`); None outside the station's process."""
        return self._messenger.listening_socket if self._messenger is not None else None

    @property
    def pusher(self) -> Any:
        """What speaks as DEALER (see `Net_Node.sock`), in the station's process, while connected; else None."""
        return self._messenger.dialled_socket if self._messenger is not None else None

    @property
    def msg_counter(self) -> itertools.count[int]:
        """What numbers its messages, in the station's process."""
        return self._here.posting.drafting.counter

    @property
    def file_block(self) -> threading.Event:
        """Set when no file is on its way to us; in the station's process."""
        if self._file_block is None:
            raise Closed(f"station {self.id} isn't running in this process")
        return self._file_block

    # Sending

    def prepare_message(
        self,
        to: Recipient,
        key: str,
        value: object,
        repeat: bool = True,
        flags: Mapping[str, Any] | None = None,
    ) -> Message:
        """Make a message with an id and the rest of its fields, without sending it. In the station's process.

        Raises:
            InvalidMessage: no key.
            Closed: called in another process.
        """
        names = list(to) if isinstance(to, tuple) else to
        return self._here.posting.prepare(names, key, value, repeat=repeat, flags=flags)

    def send(
        self,
        to: Recipient = None,
        key: str | None = None,
        value: object = None,
        msg: Message | None = None,
        repeat: bool = True,
        flags: Mapping[str, Any] | None = None,
        durable: bool | None = None,
    ) -> Receipt:
        """Send a message down the tree, or wherever its recipient is.

        Args:
            to: the recipient, or all names on the way with the recipient last.
            key: what the message is about.
            value: anything JSON can say, and numpy arrays.
            msg: a message made before, instead of key and value.
            repeat: resend it until it is received, `ttl` times at most.
            flags: see `Flag`.
            durable: keep it in the journal and send it until it is settled; if not given, DATA are.

        Raises:
            InvalidMessage: no recipient, no key, or a value that can't be sent.
            Closed: the station isn't running.
        """
        path = path_of(to if to is not None or msg is None else checked_message(msg).to)
        if not path:
            raise InvalidMessage(f"{self.id}: send() needs `to`; push() goes up the tree without")
        return self._dispatch("send", path, to, key, value, msg, repeat, flags, durable)

    def push(
        self,
        to: Recipient = None,
        key: str | None = None,
        value: object = None,
        msg: Message | None = None,
        repeat: bool = True,
        flags: Mapping[str, Any] | None = None,
        durable: bool | None = None,
    ) -> Receipt:
        """Send a message up the tree, to the station that we push to, or through it to `to`.

        Raises:
            InvalidMessage: no pusher, no key, or a value that can't be sent.
            Closed: the station isn't running.
        """
        if not self.has_pusher:
            raise InvalidMessage(f"{self.id} has no pusher: use send(), or make it with pusher=True")
        target = path_of(to if to is not None or msg is None else checked_message(msg).to)
        return self._dispatch(
            "push",
            self._way_up(target),
            to if to is not None else self.push_id,
            key,
            value,
            msg,
            repeat,
            flags,
            durable,
        )

    def relay(self, to: str, key: str, value: object) -> Receipt:
        """Push what somebody else answers for: sent until it is settled, but kept on the disk by its originator alone.

        Raises:
            InvalidMessage: a value that can't be sent.
            Closed: called in another process than the station's.
        """
        message = self.prepare_message(to, key, value)
        return self._here.posting.send(message, self._way_up((to,)), repeat=True, durable=True, kept=False)

    def _way_up(self, target: tuple[str, ...]) -> tuple[str, ...]:
        path = target or (self.push_id,)
        return (self.push_id, *path) if self.push_id and path[0] != self.push_id else path

    def _dispatch(
        self,
        how: str,
        path: tuple[str, ...],
        to: Recipient,
        key: str | None,
        value: object,
        msg: Message | None,
        repeat: bool,
        flags: Mapping[str, Any] | None,
        durable: bool | None,
    ) -> Receipt:
        if self._messenger is None:
            arguments = {
                "to": to, "key": key, "value": value, "msg": msg, "repeat": repeat, "flags": flags,
                "durable": durable,
            }  # fmt: skip
            return self._send_from_parent(how, arguments)
        message = msg if msg is not None else self.prepare_message(to, key or "", value, repeat, flags)
        repeat = repeat and Flag.NOREPEAT not in message.flags
        receipt = self._messenger.posting.send(message, path, repeat=repeat, durable=durable)
        if how == "push":
            self._pushed.add(str(message.id))
            receipt.add_callback(lambda ended: self._pushed.discard(str(ended.message.id)))
        return receipt

    def _send_from_parent(self, how: str, arguments: dict[str, Any]) -> Receipt:
        if self._control is None:
            raise Closed(f"station {self.id} wasn't started: call start() before sending")
        receipt = Receipt.alone(
            arguments["msg"] or Message(to=arguments["to"], sender=self.id, key=arguments["key"] or "")
        )
        future = self._control.ask(how, **arguments)
        future.add_done_callback(lambda done: _settle_from_child(receipt, done))
        return receipt

    def repeat(self) -> None:
        """Look at what is unconfirmed now instead of when it is due: resend or expire what is due."""
        if self._messenger is not None:
            self._messenger.ask(self._messenger.look_at_due)
        else:
            self._ask("call", method="repeat", arguments=())

    # Receiving

    def handle_listen(self, msg: Message | str | bytes) -> None:
        """Treat a message as if it had arrived: call its listen. For tests and bridges.

        Raises:
            MalformedFrame: it is no message.
            InvalidMessage: there is no listen for its key.
        """
        self._here.call_listen(msg if isinstance(msg, Message) else Message(msg))

    @takes_origin
    def l_confirm(self, msg: Message, origin: Origin | None = None) -> None:
        """Confirm that a message was received: its id is the value. Only the message's recipient is believed."""
        self._here.confirm(str(msg.value), origin)

    def l_stream(self, msg: Message) -> object:
        """Hand each item of a STREAM to the listen of its inner key.

        Raises:
            InvalidMessage: no stream, or no listen for its inner key.
        """
        return self._here.unpack_stream(msg)

    def get_ip(self) -> str:
        """Find the IPv4 address under which others would reach this machine, without asking the network."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                # Connecting a UDP socket sends nothing; it only chooses a route. The address is a documentation one.
                probe.connect(("192.0.2.1", 9))
                return str(probe.getsockname()[0])
            except OSError:
                return "127.0.0.1"


def checked_state(value: object) -> str:
    """Give the state that a STATE carries: one of a pilot's, or a word of a lab's own task.

    Raises:
        InvalidMessage: it is no short word.
    """
    if not isinstance(value, str) or not 0 < len(value) <= MAX_STATE_CHARS or not value.isprintable():
        raise InvalidMessage(f"STATE needs a word of at most {MAX_STATE_CHARS} letters, not {value!r:.60}")
    return value


def _those(messages: dict[str, Message], pushed: set[str], *, pushed_ones: bool) -> dict[str, Message]:
    return {name: message for name, message in messages.items() if (name in pushed) is pushed_ones}


def _settle_from_child(receipt: Receipt, done: Any) -> None:
    error = done.exception()
    if error is None:
        message, settlement = done.result()
        receipt.message = message
        receipt.settle(settlement)
    elif isinstance(error, PilotageError):
        receipt.settle(_as_settlement(error))
    else:
        receipt.settle(refused(Reason.INVALID, f"{type(error).__name__}: {error}"))


def _as_settlement(error: PilotageError) -> Settlement:
    reason = Reason.INVALID if isinstance(error, MisuseError) else Reason.INTERRUPTED
    return refused(reason, str(error))
