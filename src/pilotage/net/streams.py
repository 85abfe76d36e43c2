"""Streams: a queue to put items into, which leave in batches on a socket of their own.

A batch leaves when it has `min_size` items or enough bytes, when its first item has waited long enough, or at "END".
Law of this room: the record lane drops and reorders nothing; who puts faster than the network takes is made to wait,
or what he puts waits on the disk. The preview lane makes nobody wait: it drops the oldest, and counts each.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from queue import Queue
from typing import TYPE_CHECKING, Any

from pilotage.net.compression import Compression, Squeezer, unsqueezed
from pilotage.net.items import weight_of
from pilotage.net.loops import run_on
from pilotage.net.messenger import Messenger, MessengerConfig
from pilotage.net.receipt import Receipt
from pilotage.net.security import Security
from pilotage.net.spool import Spool
from pilotage.protocol.container import NO_BLOSC
from pilotage.protocol.errors import Closed, MachineError, MisuseError, PilotageError
from pilotage.protocol.message import Flag, Message
from pilotage.protocol.settlement import Outcome
from pilotage.transport.lines import Places

if TYPE_CHECKING:
    from tornado.ioloop import IOLoop

    from pilotage.net.messenger import Statistics

END = "END"
MAX_WAIT_S = 0.1
MAX_BATCH_BYTES = 1024 * 1024
MAX_ON_THE_WAY = 10_000
MAX_BYTES = 64 * 2**20
SPOOL_BYTES = 4 * 2**30
GATHERED_BEYOND = 2
"""With so many batches on their way, the next one gathers more than `min_size` items: it would only queue."""

GATHERED_BYTES = 1024 * 1024
GATHERED_ITEMS = 1024
PREVIEW_BATCHES = 2
"""Batches of a preview that may be on their way: one that is drawn, and one that comes."""


class Lane(StrEnum):
    """What becomes of a stream's items when their recipient is too slow."""

    RECORD = "record"
    PREVIEW = "preview"


class Stream(Queue[Any]):
    """A queue whose items are sent. Put from any thread; `join` waits until all have settled.

    Args:
        name: what its socket is known as.
        stream_id: what its messages are numbered with.
        key: the key that each item is handled with.
        places: the station it dials.
        where: the loop, and its thread, to which its socket belongs.
        min_size: items in a batch; 1 sends each by itself.
        headers: fields that each item gets.
        max_on_the_way: items that may be on their way before `put` blocks.
        max_bytes: bytes of their arrays that may be.
        max_wait_s: seconds that an item waits for its batch at most.
        lane: what becomes of items when their recipient is too slow.
        spool: where a record's batches wait that don't fit into memory; None to have `put` wait.
        compression: what is done with its arrays.
    """

    def __init__(
        self,
        name: str,
        stream_id: str,
        key: str,
        places: Places,
        where: tuple[IOLoop, threading.Thread],
        min_size: int,
        headers: dict[str, Any],
        max_on_the_way: int = MAX_ON_THE_WAY,
        max_bytes: int = MAX_BYTES,
        max_wait_s: float = MAX_WAIT_S,
        lane: Lane = Lane.RECORD,
        spool: Spool | None = None,
        compression: Compression | None = None,
        security: Security | None = None,
    ) -> None:
        super().__init__(max_on_the_way if lane is Lane.RECORD else 0)
        self.name = name
        self.key = key
        self.min_size = max(1, int(min_size))
        self.headers = headers
        self.failed = 0
        self.on_sent: Callable[[Receipt], None] = lambda receipt: None
        self._stream_id = stream_id
        self._numbers = 0
        self._batch: list[Any] = []
        self._bytes = 0
        self._lane = lane
        self._spool = spool
        self._spool_failed = False
        self._abandoned = False
        self._draining: threading.Thread | None = None
        self._squeezer = Squeezer(compression)
        self._counts = Counter[str]()
        self._endings: deque[tuple[Receipt, int, int]] = deque()
        self._settles = False
        self._batches_on_the_way = 0
        self._on_the_way = 0
        self._bytes_on_the_way = 0
        self._max_bytes = max_bytes
        self._began = 0.0
        self._watched = False
        self._max_wait_s = max_wait_s
        self._loop, self._thread = where
        self._closed = False
        logger = logging.getLogger(f"pilotage.stream.{name}")
        config = MessengerConfig(name, places, security=security or Security())
        self._messenger = Messenger(config, {}, logger)
        self._started = False
        self._loop.add_callback(self._start)

    def _start(self) -> None:
        self._messenger.start(self._loop)
        with self.mutex:
            self._started = True
            self._flush(apart=True)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item. While there is no room, wait, if need be for `timeout` seconds.

        Raises:
            queue.Full: there was none, and no waiting for it.
            Closed: the stream was closed.
        """
        with self.mutex:
            has_room = self.maxsize <= 0 or self._qsize() < self.maxsize
            if has_room:  # nobody waits for items here, whom `Queue.put` would have to tell
                self._put(item)
                self.unfinished_tasks += 1
        if not has_room:
            super().put(item, block, timeout)

    def append(self, item: Any) -> None:
        """Do the same as `put`."""
        self.put(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Refuse: items leave by the network.

        Raises:
            MisuseError: always.
        """
        raise MisuseError(f"the stream {self.name} is read by its recipient; listen for {self.key!r} there")

    def flush(self) -> None:
        """Send what waits for its batch now."""
        with self.mutex:
            self._flush()

    @property
    def is_closed(self) -> bool:
        """Tell whether it was closed."""
        return self._closed

    def statistics(self) -> Statistics:
        """Tell what was sent so far; `counts` has the items that were dropped or spooled, and are spooled now."""
        found = self._messenger.statistics()
        spooled = {"items in the spool": self._spool.items} if self._spool is not None else {}
        squeezed = {"arrays compressed": self._squeezer.squeezed, "bytes saved": self._squeezer.saved_bytes}
        counts = {**found.counts, **self._counts, **spooled, **(squeezed if self._squeezer.squeezed else {})}
        return replace(found, counts=counts)

    def close(self, timeout_s: float = 5.0) -> None:
        """Send the rest, wait for it, and close. What has not settled by then ends as interrupted."""
        if self._closed:
            return
        self._closed = True
        self.flush()
        deadline = time.monotonic() + timeout_s
        with self.all_tasks_done:
            while self.unfinished_tasks and (left := deadline - time.monotonic()) > 0:
                self.all_tasks_done.wait(left)
        self._abandon()
        run_on(self._loop, self._thread, self._messenger.stop)
        self._settle_all()
        self._messenger.close_workers(timeout_s)

    # What Queue asks for, each under its mutex

    def _init(self, maxsize: int) -> None:
        """Nothing to make: the batch is the queue."""

    def _qsize(self) -> int:
        if self._lane is Lane.PREVIEW:
            return len(self._batch)
        if self._spool is not None and not self._spool_failed:
            return self.maxsize if self._spool.is_full else 0
        if self._spool:
            return self.maxsize
        if self._bytes + self._bytes_on_the_way >= self._max_bytes:
            return self.maxsize  # full, however few they are
        return len(self._batch) + self._on_the_way

    @property
    def _is_busy(self) -> bool:
        """Tell whether as much is on its way as may be."""
        if self._lane is Lane.PREVIEW:
            return self._batches_on_the_way >= PREVIEW_BATCHES
        return self._bytes_on_the_way >= self._max_bytes or self._on_the_way >= self.maxsize > 0

    def _put(self, item: Any) -> None:
        if self._closed:
            raise Closed(f"the stream {self.name} was closed; get another one")
        if isinstance(item, str) and item == END:
            self._flush()
            self.unfinished_tasks -= 1
            return
        if not self._batch:
            self._began = time.monotonic()
        self._batch.append(item)
        self._bytes += weight_of(item)
        if self._is_ready:
            self._flush()
        if self._lane is Lane.PREVIEW and len(self._batch) > self.min_size:
            self._drop_oldest()
        if self._batch:
            self._watch()

    @property
    def _is_ready(self) -> bool:
        """Tell whether the batch may leave; one that would only queue behind others gathers some more first."""
        if len(self._batch) < self.min_size or self.min_size == 1 or self._lane is Lane.PREVIEW:
            return self._bytes >= MAX_BATCH_BYTES or len(self._batch) >= self.min_size
        is_free = self._batches_on_the_way < GATHERED_BEYOND or self._spool is not None
        return is_free or self._bytes >= GATHERED_BYTES or len(self._batch) >= GATHERED_ITEMS

    def _flush(self, *, apart: bool = False) -> None:
        """Send what there is; `apart` in batches of `min_size`, where it was put before there was a socket."""
        if not self._batch or not self._started:
            return
        if self._lane is Lane.PREVIEW:
            if not self._is_busy:
                self._send_batch(*self._take_batch())
            return
        if self._spool and self._spool_failed:
            return  # nothing overtakes what is on the disk; meanwhile `put` waits
        items, weight = self._take_batch()
        step = self.min_size if apart else len(items)
        for begin in range(0, len(items), step):
            batch = items[begin : begin + step]
            if not self._overflows:
                self._send_batch(batch, weight * len(batch) // len(items))
            elif not self._put_aside(batch):
                left = batch + items[begin + step :]
                self._batch, self._bytes = left, weight_of(left)
                return

    @property
    def _overflows(self) -> bool:
        """Tell whether what is put goes to the disk now: there is no room for it, or it has to queue there."""
        return self._spool is not None and not self._spool_failed and (bool(self._spool) or self._is_busy)

    def _take_batch(self) -> tuple[list[Any], int]:
        taken = self._batch, self._bytes
        self._batch, self._bytes = [], 0
        return taken

    def _drop_oldest(self) -> None:
        self._bytes -= weight_of(self._batch.pop(0))
        self._counts["items dropped"] += 1
        self._over(1, failed=False)

    # The spool

    def _put_aside(self, batch: list[Any]) -> bool:
        """Spool a batch; False if the disk doesn't take it, which isn't tried again: who puts waits from then on."""
        assert self._spool is not None
        try:
            self._spool.put(batch)
        except MisuseError as error:
            return self._put_aside_alone(batch, error)
        except MachineError as error:
            self._messenger.logger.error("%s; what is put into %s waits from now on", error, self.name)
            self._spool_failed = True
            return False
        self._counts["items spooled"] += len(batch)
        if self._draining is None:
            self._draining = threading.Thread(target=self._drain, name=f"{self.name}-spool", daemon=True)
            self._draining.start()
        return True

    def _put_aside_alone(self, batch: list[Any], error: MisuseError) -> bool:
        """One of these items can't be sent; the others must not suffer for it."""
        if len(batch) == 1:
            self._refuse(error)
            return True
        while batch and self._put_aside(batch[:1]):
            del batch[:1]
        return not batch

    def _drain(self) -> None:
        """Send what was spooled, as far as there is room on the way; on a thread of its own, which ends with it."""
        spool = self._spool
        with self.mutex:
            while spool and not self._abandoned:
                if self._is_busy:
                    self.not_full.wait()
                    continue
                left = spool.items
                try:
                    batch = spool.take()
                    self._send_batch(batch, weight_of(batch))
                except PilotageError as error:
                    self._messenger.logger.error("%s: %s", self.name, error)
                    self._over(left - spool.items, failed=True)
                self.not_full.notify_all()
            self._draining = None
            self._flush_if_due()

    def _abandon(self) -> None:
        """Give up what is still spooled: we are closing, and its time is over."""
        with self.mutex:
            self._abandoned = True
            if self._spool is not None:
                self._over(self._spool.items, failed=True)
                self._spool.close()
            self.not_full.notify_all()

    # Sending

    def _send_batch(self, items: list[Any], weight: int) -> None:
        is_held_up = self._bytes_on_the_way * 2 >= self._max_bytes
        batch = self._squeezer.apply(items, is_held_up=is_held_up)
        together = self.min_size > 1
        try:
            if together:
                self._send_together(batch, weight if batch is items else weight_of(batch))
        except MisuseError:
            together = False  # one of them can't be sent; the others must not suffer for it
        for item in () if together else batch:
            self._send_alone(item)

    def _send_together(self, batch: list[Any], weight: int) -> None:
        value = {"inner_key": self.key, "headers": self.headers, "payload": batch}
        self._send("STREAM", value, len(batch), {}, weight)

    def _send_alone(self, item: Any) -> None:
        try:
            if self.min_size > 1:
                self._send_together([item], weight_of(item))
            else:
                self._send(self.key, item, 1, self.headers, weight_of(item))
        except MisuseError as error:
            self._refuse(error)

    def _refuse(self, error: MisuseError) -> None:
        self._over(1, failed=True)
        self._messenger.logger.error("an item of the stream %s can't be sent: %s", self.name, error)

    def _send(self, key: str, value: Any, items: int, extra: dict[str, Any], weight: int) -> None:
        flags = {Flag.NOREPEAT.value: True, Flag.MINPRINT.value: True}
        message = self._messenger.posting.prepare(
            self._messenger.config.places.upstream, key, value, repeat=True, flags=flags
        )
        message.id = f"{self._stream_id}_{self._numbers}"
        self._numbers += 1
        for name, field in extra.items():
            message[name] = field
        durable = self._lane is Lane.RECORD
        receipt = self._messenger.posting.send(
            message, ("",), repeat=True, durable=durable, kept=False, hand_over=True
        )
        self._batches_on_the_way += 1
        self._on_the_way += items
        self._bytes_on_the_way += weight
        receipt.add_callback(lambda ended: self._ended(ended, items, weight))
        self.on_sent(receipt)

    def _ended(self, receipt: Receipt, items: int, weight: int) -> None:
        """Leave it for the loop's next turn: whoever puts holds the mutex, and many end in one turn."""
        self._endings.append((receipt, items, weight))
        if not self._settles:
            self._settles = True
            self._loop.add_callback(self._settle_all)

    def _settle_all(self) -> None:
        """Take note of all that has ended."""
        with self.mutex:
            self._settles = False
            while self._endings:
                self._settled(*self._endings.popleft())
            if not self._overflows:  # the loop waits for no disk
                self._flush_if_due()
            if not self.unfinished_tasks:
                self.all_tasks_done.notify_all()
            self.not_full.notify_all()

    def _settled(self, receipt: Receipt, items: int, weight: int) -> None:
        ended = receipt.settlement.outcome if receipt.settlement is not None else None
        refusal = ended is Outcome.REFUSED
        self._batches_on_the_way -= 1
        self._on_the_way -= items
        self._bytes_on_the_way -= weight
        self._squeezer.moved(weight, is_busy=self._on_the_way > 0)
        if refusal and NO_BLOSC in str(receipt.settlement):
            self._send_uncompressed(receipt.message)
            return
        self.failed += items * refusal
        self.unfinished_tasks = max(0, self.unfinished_tasks - items)
        if self._lane is Lane.PREVIEW:
            self._counts["items unconfirmed"] += items * (ended is not Outcome.DELIVERED)

    def _send_uncompressed(self, message: Message) -> None:
        """Send again, as it was put, what its recipient can't read; its listen has seen nothing of it."""
        self._squeezer.give_up()
        if message.key == "STREAM":
            batch = [unsqueezed(item) for item in message.value["payload"]]
            self._send_together(batch, weight_of(batch))
        else:
            self._send_alone(unsqueezed(message.value))

    def _flush_if_due(self) -> None:
        """Send a batch that has had to wait, if it is a whole one; its time is looked after elsewhere."""
        if self._batch and self._is_ready:
            self._flush()

    def _over(self, items: int, *, failed: bool) -> None:
        """Count items that are over, under the mutex."""
        self.failed += items * failed
        self.unfinished_tasks = max(0, self.unfinished_tasks - items)
        if not self.unfinished_tasks:
            self.all_tasks_done.notify_all()
        self.not_full.notify_all()

    def _watch(self) -> None:
        """Have the loop look after the batch's age; only while there is a batch, so that idling costs nothing."""
        if not self._watched:
            self._watched = True
            self._loop.add_callback(self._look_after)

    def _look_after(self) -> None:
        with self.mutex:
            if not self._batch or self._closed:
                self._watched = False
                return
            left = self._began + self._max_wait_s - time.monotonic()
            if left <= 0 and self._started and not self._overflows:  # the loop waits for no disk
                self._flush()
            self._loop.call_later(max(left, 0.005) if self._batch else self._max_wait_s, self._look_after)
