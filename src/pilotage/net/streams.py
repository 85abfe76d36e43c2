"""Streams: a queue to put items into, which leave in batches on a socket of their own.

A batch leaves when it has `min_size` items or enough bytes, when its first item has waited long enough, or at "END".
Law of this room: nothing is dropped or reordered; who puts faster than the network takes is made to wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import Queue
from typing import TYPE_CHECKING, Any

import numpy as np

from pilotage.net.loops import run_on
from pilotage.net.messenger import Messenger, MessengerConfig
from pilotage.net.prefs import prefs
from pilotage.net.receipt import Receipt
from pilotage.protocol.errors import Closed, MisuseError
from pilotage.protocol.message import Flag
from pilotage.protocol.settlement import Outcome
from pilotage.transport.driver import Places

if TYPE_CHECKING:
    from tornado.ioloop import IOLoop

    from pilotage.net.messenger import Statistics

END = "END"
MAX_WAIT_S = 0.1
MAX_BATCH_BYTES = 1024 * 1024
MAX_ON_THE_WAY = 10_000
MAX_BYTES = 256 * 2**20


def headers_from_prefs(subject: str | None, pilot: str | None) -> dict[str, Any]:
    """Give the headers of a stream: who is recorded, and under whose name."""
    now = prefs.snapshot()
    owner = now.parentid if str(now.lineage) == "CHILD" and now.parentid else now.name
    return {"subject": subject or now.subject or "", "pilot": pilot or owner or "", "continuous": True}


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
    ) -> None:
        super().__init__(max_on_the_way)
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
        self._on_the_way = 0
        self._bytes_on_the_way = 0
        self._max_bytes = max_bytes
        self._began = 0.0
        self._watched = False
        self._max_wait_s = max_wait_s
        self._loop, self._thread = where
        self._closed = False
        logger = logging.getLogger(f"pilotage.stream.{name}")
        self._messenger = Messenger(MessengerConfig(name, places), {}, logger)
        self._started = False
        self._loop.add_callback(self._start)

    def _start(self) -> None:
        self._messenger.start(self._loop)
        with self.mutex:
            self._started = True
            self._flush()

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
        """Tell what was sent so far."""
        return self._messenger.statistics()

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
        run_on(self._loop, self._thread, self._messenger.stop)
        self._messenger.close_workers(timeout_s)

    # What Queue asks for, each under its mutex

    def _init(self, maxsize: int) -> None:
        """Nothing to make: the batch is the queue."""

    def _qsize(self) -> int:
        if self._bytes + self._bytes_on_the_way >= self._max_bytes:
            return self.maxsize  # full, however few they are
        return len(self._batch) + self._on_the_way

    def _put(self, item: Any) -> None:
        if self._closed:
            raise Closed(f"the stream {self.name} was closed; get another one")
        if isinstance(item, str) and item == END:
            self._flush()
            self.unfinished_tasks -= 1
            return
        if not self._batch:
            self._began = time.monotonic()
            self._watch()
        self._batch.append(item)
        self._bytes += _weight(item)
        if len(self._batch) >= self.min_size or self._bytes >= MAX_BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._batch or not self._started:
            return
        items, self._batch, self._bytes = self._batch, [], 0
        # More than one batch only where items were put before there was a socket.
        for begin in range(0, len(items), self.min_size):
            self._send_batch(items[begin : begin + self.min_size])

    def _send_batch(self, batch: list[Any]) -> None:
        together = self.min_size > 1
        try:
            if together:
                self._send_together(batch)
        except MisuseError:
            together = False  # one of them can't be sent; the others must not suffer for it
        for item in () if together else batch:
            self._send_alone(item)

    def _send_together(self, batch: list[Any]) -> None:
        value = {"inner_key": self.key, "headers": self.headers, "payload": batch}
        self._send("STREAM", value, len(batch), {})

    def _send_alone(self, item: Any) -> None:
        try:
            if self.min_size > 1:
                self._send_together([item])
            else:
                self._send(self.key, item, 1, self.headers)
        except MisuseError as error:
            self._over(1, failed=True)
            self._messenger.logger.error("an item of the stream %s can't be sent: %s", self.name, error)

    def _send(self, key: str, value: Any, items: int, extra: dict[str, Any]) -> None:
        flags = {Flag.NOREPEAT.value: True, Flag.MINPRINT.value: True}
        message = self._messenger.prepare(
            self._messenger.config.places.upstream, key, value, repeat=True, flags=flags
        )
        message.id = f"{self._stream_id}_{self._numbers}"
        self._numbers += 1
        for name, field in extra.items():
            message[name] = field
        receipt = self._messenger.send(message, ("",), repeat=True, durable=True, kept=False, hand_over=True)
        weight = _weight(value)
        self._on_the_way += items
        self._bytes_on_the_way += weight
        receipt.add_callback(lambda ended: self._ended(ended, items, weight))
        self.on_sent(receipt)

    def _ended(self, receipt: Receipt, items: int, weight: int) -> None:
        """Take note on the loop's thread: whoever puts holds the mutex, and a send may end at once."""
        if threading.current_thread() is self._thread:
            self._settled(receipt, items, weight)
        else:
            self._loop.add_callback(self._settled, receipt, items, weight)

    def _settled(self, receipt: Receipt, items: int, weight: int) -> None:
        refusal = receipt.settlement is not None and receipt.settlement.outcome is Outcome.REFUSED
        with self.mutex:
            self._on_the_way -= items
            self._bytes_on_the_way -= weight
            self._over(items, failed=refusal)

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
            if left <= 0 and self._started:
                self._flush()
            self._loop.call_later(max(left, 0.005) if self._batch else self._max_wait_s, self._look_after)


def _weight(item: Any) -> int:
    """Estimate an item's bytes: its arrays are what weighs."""
    if isinstance(item, np.ndarray):
        return item.nbytes
    if isinstance(item, dict):
        weight = 64
        for part in item.values():
            if isinstance(part, np.ndarray):
                weight += part.nbytes
            elif isinstance(part, dict | list | tuple | str | bytes):
                weight += _weight(part)
        return weight
    if isinstance(item, str | bytes):
        return len(item)
    if isinstance(item, list | tuple) and item and isinstance(item[0], np.ndarray | dict):
        return sum(_weight(part) for part in item)
    return 64
