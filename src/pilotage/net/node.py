"""Net_Node: messages for any object, behind a station or on its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
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
from pilotage.net.compression import Compression
from pilotage.net.items import headers_from_prefs
from pilotage.net.listens import Listen, Origin, takes_origin
from pilotage.net.loops import LoopThread, run_on, running_loop, shared_loop
from pilotage.net.messenger import Messenger, MessengerConfig, Statistics
from pilotage.net.prefs import journal_folder, prefs
from pilotage.net.receipt import Receipt
from pilotage.net.security import Security
from pilotage.net.spool import Spool
from pilotage.net.streams import SPOOL_BYTES, Lane, Stream
from pilotage.protocol.errors import Closed, MalformedFrame, MisuseError
from pilotage.protocol.exchange import STREAM_VERBS
from pilotage.protocol.late import load_numpy
from pilotage.protocol.message import Flag, Message
from pilotage.protocol.news import UNWATCHED_WITHIN_S
from pilotage.protocol.sends import DeliveryRules
from pilotage.transport.lines import Places
from pilotage.transport.lookout import is_standing_in

if TYPE_CHECKING:
    import itertools

    import zmq
    from tornado.ioloop import IOLoop

    from pilotage.transport.journal import Trouble


LOCAL_HOSTS = frozenset(("localhost", "127.0.0.1", "::1"))

CLOSING_S = 0.6
"""What sockets may take to get rid of what they queued."""

LAST_ENDS_S = 2 * UNWATCHED_WITHIN_S
"""What is sent last may take to end, where nobody could ask for it and it is asked for in the end."""


class Net_Node:
    """Drop-in networking for any object.

    It dials the ROUTER of a station and speaks through it with everybody in the tree. All methods may be called
    from any thread; listens run on worker threads, in order for each sender and key.

    Args:
        id: what it is known as.
        upstream: the name of the station that it dials; what is sent without `to` goes there.
        port: the station's port.
        listens: what to call for each key, with the message's value.
        instance: share one loop thread with the process's other nodes (or join the loop that runs in the calling
            thread); otherwise it has a loop and thread of its own.
        upstream_ip: where the station is.
        daemon: its own thread does not keep the process alive.
        expand_on_receive: unpack the arrays in messages from original peers.
        router_port: also listen on this port (0 for any free one), so that others can dial this node directly.
        journal: the folder in which durable messages (DATA, and what is sent with `durable=True`) are kept until
            they are settled, so that they outlive this process; `journal` in DATADIR if not given, None to keep
            nothing. The next node of this name goes on with what it finds there.
        direct: of the inner node of a station that passes streams on to it: streams of this machine may come
            straight to it. The station sees nothing of them then, so that plots are this node's task.
        security: where its keys lie, and whether it may speak in clear with other machines; from KEYDIR and INSECURE if
            not given. Without a key, `router_port` is open to this machine only.

    Attributes:
        on_journal: called with what goes wrong with the journal's disk, and when it is right again (`.text`,
            `.is_over`), on a thread of the journal's; it is logged if nobody listens.

    Raises:
        PortInUse: another program listens on `router_port`.
        InvalidKey: a file of its keys can't be used.

    Example:
        >>> got = []
        >>> with Net_Node("rig", "", 0, {"HELLO": got.append}, router_port=0) as rig:
        ...     with Net_Node("cam", "rig", rig.router_port, {}) as cam:
        ...         cam.send("rig", "HELLO", "there").wait_settled(5).outcome.value
        'delivered'
    """

    repeat_interval = 5.0

    def __init__(
        self,
        id: str,
        upstream: str,
        port: int | str,
        listens: Mapping[str, Listen] | None = None,
        instance: bool = True,
        upstream_ip: str = "localhost",
        daemon: bool = True,
        expand_on_receive: bool = True,
        router_port: int | None = None,
        journal: str | Path | None = "",
        direct: bool = False,
        security: Security | None = None,
    ) -> None:
        self.id = checked_name(id)
        self.upstream = upstream
        self.port = checked_port(port, "port")
        self.upstream_ip = upstream_ip
        self.router_port = None if router_port is None else checked_port(router_port, "router_port")
        self.daemon = daemon
        self.logger = logging.getLogger(f"pilotage.node.{id}")
        self.listens: dict[str, Listen] = {"CONFIRM": self.l_confirm, **checked_listens(listens, id)}
        self._instance = instance
        self._expands = expand_on_receive
        self._own_thread: LoopThread | None = None
        self._streams: list[Stream] = []
        self._released = self._is_leaving = False
        self._journals = journal_folder(journal)
        self._direct = direct
        self.security = security or Security.of(prefs.snapshot())
        self.init_networking()

    # Life

    def init_networking(self) -> None:
        """Make the sockets and the loop, and connect. Called by the constructor."""
        load_numpy()
        places = Places(
            listen_address="*" if self.router_port is not None else None,
            listen_port=self.router_port or 0,
            dial_host=self.upstream_ip if self.port else None,
            dial_port=self.port,
            upstream=self.upstream,
            has_door=self._direct,
        )
        config = MessengerConfig(
            self.id,
            places,
            expands=self._expands,
            journals=self._journals,
            shares_threads=self.router_port is None and not self._direct,
            delivery=DeliveryRules(repeat_interval_s=self.repeat_interval),
            security=self.security,
        )
        self._messenger = Messenger(config, self.listens, self.logger)
        self._messenger.look_for_left()
        self.loop = self._choose_loop()
        self._messenger.posting.open.may_be_late = self.loop_thread is not threading.current_thread()
        try:
            run_on(self.loop, self.loop_thread, lambda: self._messenger.start(self.loop))
        except BaseException:
            self.release()
            raise
        listener = self._messenger.driver.listener
        if listener is not None and listener.port:
            self.router_port = listener.port

    def threaded_loop(self) -> None:
        """Keep a loop of the node's own running; returns at once where the loop runs already."""
        if self._own_thread is None and self._instance is False:
            self._own_thread = LoopThread(f"pilotage-{self.id}", daemon=self.daemon)

    def release(self, timeout_s: float = 2.0) -> None:
        """Say goodbye and close. What has not settled by then ends as *refused: interrupted*. May be repeated.

        What may have ended without our having been told, for nobody can ask for it, is asked for before that; it has
        `LAST_ENDS_S` at most. Not so on the loop's own thread, which can't wait.

        Args:
            timeout_s: how long it may take, in seconds.
        """
        # A finalizer may come in the middle of a send of the same thread, for which the loop waits.
        if is_standing_in():
            threading.Thread(target=self.release, args=(timeout_s,), name=f"{self.id}-release").start()
            return
        if self._is_leaving:
            return
        self._is_leaving = True
        deadline = time.monotonic() + timeout_s
        try:
            for stream in self._streams:
                stream.flush()
            for stream in self._streams:
                stream.close(max(0.0, deadline - timeout_s / 2 - time.monotonic()))
            if self.loop_thread is not threading.current_thread():
                self._messenger.wait_for_ends(min(max(0.0, deadline - time.monotonic()), LAST_ENDS_S))
        except BaseException:
            self._is_leaving = False
            raise
        self._released = True
        run_on(self.loop, self.loop_thread, self._messenger.stop)
        if self._own_thread is not None:
            self._own_thread.stop(max(0.1, deadline - time.monotonic()))
        self._messenger.close_workers(max(0.0, deadline - CLOSING_S - time.monotonic()))

    def close(self, timeout_s: float = 2.0) -> None:
        """Do the same as `release`."""
        self.release(timeout_s)

    def __enter__(self) -> Self:
        """Use it as a context that releases it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Release it."""
        self.release()

    def _choose_loop(self) -> IOLoop:
        here = running_loop() if self._instance else None
        if here is not None:
            self.loop_thread = threading.current_thread()
            return here
        self.threaded_loop()
        thread = self._own_thread or shared_loop()
        self.loop_thread = thread.thread
        return thread.loop

    # Sending

    def prepare_message(
        self,
        to: Recipient,
        key: str,
        value: object,
        repeat: bool = True,
        flags: Mapping[str, Any] | None = None,
    ) -> Message:
        """Make a message with an id and the rest of its fields, without sending it.

        Args:
            to: the recipient, or the names on the way with the recipient last.
            key: what the message is about.
            value: anything JSON can say, and numpy arrays.
            repeat: False adds the flag NOREPEAT.
            flags: see `Flag`.

        Raises:
            InvalidMessage: no key, or a recipient that is no name.
        """
        names = list(to) if isinstance(to, tuple) else to
        return self._messenger.posting.prepare(names or self.upstream, key, value, repeat=repeat, flags=flags)

    def send(
        self,
        to: Recipient = None,
        key: str | None = None,
        value: object = None,
        msg: Message | None = None,
        repeat: bool = True,
        flags: Mapping[str, Any] | None = None,
        force_to: bool = False,
        durable: bool | None = None,
        deadline_s: float | None = None,
    ) -> Receipt:
        """Send a message; it goes to the station, which passes it on.

        Args:
            to: the recipient, or all names on the way with the recipient last; the station if not given.
            key: what the message is about; it selects the recipient's listen.
            value: anything JSON can say, and numpy arrays.
            msg: a message made before, instead of key and value.
            repeat: resend it until it is received, `ttl` times at most.
            flags: see `Flag`.
            force_to: the recipient is the very peer we are connected to, whatever it calls itself.
            durable: keep it in the journal and send it until it is settled, also after a crash of this process;
                if not given, DATA are.
            deadline_s: seconds after which a durable message is given up; None for never.

        Returns:
            A receipt: wait for it, ask it, or ignore it.

        Raises:
            InvalidMessage: neither key nor msg, or a value that can't be sent.
            Closed: the node was released.
        """
        if self._released:
            raise Closed(f"{self.id} was released; make a new Net_Node to send {key or msg!r}")
        if msg is None:
            recipient = to if isinstance(to, str) and to else path_of(to) or self.upstream
            return self._messenger.posting.post(
                recipient, key or "", value, repeat, flags, durable, deadline_s, force_to
            )
        message = checked_message(msg)
        path = path_of(message.to if to is None else to) or (self.upstream,)
        repeat = repeat and Flag.NOREPEAT not in message.flags
        return self._messenger.posting.send(
            message, ("",) if force_to else path, repeat=repeat, durable=durable, deadline_s=deadline_s
        )

    def get_stream(
        self,
        id: str,
        key: str,
        min_size: int = 5,
        upstream: str | None = None,
        port: int | None = None,
        ip: str | None = None,
        subject: str | None = None,
        pilot: str | None = None,
        lane: str = "record",
        spool: str | Path | None = None,
        spool_bytes: int = SPOOL_BYTES,
        compression: str | None = "auto",
    ) -> Stream:
        """Make a queue; what is put into it is sent in batches, on a socket of its own.

        Args:
            id: the stream's name; it is known as `{node}_{id}`.
            key: the key that each item is handled with.
            min_size: items in a batch.
            upstream: the station it goes to; the node's if not given.
            port: that station's port.
            ip: where that station is.
            subject: who is recorded; the pref SUBJECT if not given.
            pilot: under whose name it is recorded; from the prefs if not given.
            lane: "record" loses nothing: `put` blocks while too much is on its way. "preview" keeps the newest and
                drops the oldest, which `statistics().counts["items dropped"]` tells.
            spool: a folder in which a record's items wait instead of making `put` block; gone with the process.
            spool_bytes: that they may take there, about; beyond it `put` blocks.
            compression: "auto" compresses arrays while that gets more of them through, measured, if blosc2 is
                installed; "blosc2" always, where it makes them smaller; None never.

        Returns:
            A queue: put items (or "END" to flush) from any thread. It blocks while too much is on its way.

        Raises:
            Closed: the node was released.
            MisuseError: there is no such lane or compression, or a preview is to be spooled.
        """
        if self._released:
            raise Closed(f"{self.id} was released; make a new Net_Node to stream {id!r}")
        if lane not in list(Lane) or (spool and lane != Lane.RECORD):
            raise MisuseError(
                f"stream {id!r}: lane is 'record', or 'preview' without a spool, not {lane!r:.40}"
            )
        places = Places(
            dial_host=ip or self.upstream_ip,
            dial_port=int(port or self.port),
            upstream=upstream or self.upstream,
            follows_doors=min_size > 1 or key in STREAM_VERBS,
        )
        where = (self.loop, self.loop_thread)
        stream = Stream(
            f"{self.id}_{id}",
            str(id),
            key,
            places,
            where,
            min_size,
            headers_from_prefs(subject, pilot),
            lane=Lane(lane),
            spool=Spool(Path(spool), spool_bytes) if spool else None,
            compression=_compression_of(compression, places),
            security=self.security,
        )
        self._streams = [*(open_one for open_one in self._streams if not open_one.is_closed), stream]
        return stream

    def repeat(self) -> None:
        """Look at what is unconfirmed now instead of when it is due: resend or expire what is due."""
        self._messenger.ask(self._messenger.look_at_due)

    # Receiving

    def handle_listen(self, msg: object) -> None:
        """Treat a message as if it had arrived: call its listen. For tests and bridges.

        Args:
            msg: a Message, its JSON, or the frames of an original peer.

        Raises:
            MalformedFrame: it is no message.
        """
        message = msg if isinstance(msg, Message) else _read(msg, self._expands)
        self._messenger.call_listen(message)

    @takes_origin
    def l_confirm(self, value: str, origin: Origin | None = None) -> None:
        """Confirm that a message was received.

        Args:
            value: the id of the message that is confirmed.
            origin: where it came from; only the message's recipient is believed.
        """
        self._messenger.confirm(str(value), origin)

    def l_stream(self, msg: Message) -> None:
        """Hand each item of a STREAM to the listen of its inner key.

        Raises:
            InvalidMessage: no stream, or no listen for its inner key.
        """
        self._messenger.unpack_stream(msg)

    # State

    @property
    def on_journal(self) -> Callable[[Trouble], None]:
        """Who is told about the journal's disk."""
        return self._messenger.on_journal

    @on_journal.setter
    def on_journal(self, told: Callable[[Trouble], None]) -> None:
        self._messenger.on_journal = told

    @property
    def context(self) -> zmq.Context[zmq.Socket[bytes]]:
        """ZeroMQ's context, made when it is first needed; nodes of a process that don't listen share it."""
        context: zmq.Context[zmq.Socket[bytes]] = self._messenger.context
        return context

    @property
    def sock(self) -> Any:
        """What speaks as DEALER, None while there is no connection. It belongs to the loop's thread.

        It has a `type`, may be `closed`, and sends by `send_multipart`; where the station wants a key it is a
        `zmq.Socket`.
        """
        return self._messenger.dialled_socket

    @property
    def router(self) -> Any:
        """What speaks as ROUTER, like `sock`, if `router_port` was given. It belongs to the loop's thread."""
        return self._messenger.listening_socket

    @property
    def outbox(self) -> dict[str, Message]:
        """Messages that were sent and have not settled, by id."""
        return self._messenger.unsettled()

    @property
    def timers(self) -> dict[str, float]:
        """Seconds until each message of the outbox is looked at again, by id."""
        return self._messenger.due()

    @property
    def senders(self) -> dict[str, str]:
        """Names of the peers that dialled us directly, and the state that each last told."""
        return self._messenger.senders()

    @property
    def msg_counter(self) -> itertools.count[int]:
        """What numbers our messages."""
        return self._messenger.posting.drafting.counter

    @property
    def msgs_received(self) -> int:
        """How many messages and confirmations arrived (no heartbeats, greetings or relayed confirmations)."""
        return self._messenger.received

    @property
    def locked_out(self) -> str:
        """Why the station and we have no lock in common; "" if we have, or don't know yet."""
        return self._messenger.locked_out

    def wait_connected(self, timeout_s: float = 5.0) -> None:
        """Wait until the station has welcomed us.

        Raises:
            TimeoutError: it has not within that time.
            NameTaken: it refused us: a live peer has our name.
        """
        self._messenger.wait_connected(timeout_s)

    def statistics(self) -> Statistics:
        """Tell what was done so far."""
        return self._messenger.statistics()


def _compression_of(wanted: str | None, places: Places) -> Compression | None:
    """Give what a stream does with its arrays: on this machine nothing pays."""
    if wanted is not None and wanted not in list(Compression):
        raise MisuseError(f"a stream's compression is 'auto', 'blosc2' or None, not {wanted!r:.40}")
    is_here = places.dial_host in LOCAL_HOSTS
    return None if wanted is None or (wanted == Compression.AUTO and is_here) else Compression(wanted)


def _read(msg: object, expands: bool) -> Message:
    frames = msg if isinstance(msg, list | tuple) else [msg]
    if not frames:
        raise MalformedFrame("no frames")
    return Message(frames[-1], expand_arrays=expands)
