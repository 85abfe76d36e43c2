"""Listens: what a listen may declare about itself, and how one is called.

    a plain function   runs on a worker thread, in the order of its sender and key
    @on_loop           runs on the loop itself: must be quick and must not block
    @passes_on         runs on the loop; the message itself goes on to the inner node, which settles it
    @takes_batches     is given the whole list of a stream's batch, not item by item
    @takes_origin      is given, as second argument, the message's `Origin`: what tells it from all others
    @takes_many        is given all messages of one sender and key that wait, as a list of (value, `Origin`)

What a `takes_many` listen returns, or what its Future ends with, settles all of them; a list of errors and None
settles each by itself.

A listen that returns nothing settles its message as delivered; what it returns otherwise is the answer; a Receipt
or a Future settles it when it ends itself; an error settles it as refused, with the error's text.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import msgspec

from pilotage.net.receipt import Receipt
from pilotage.protocol.bodies import encode_value
from pilotage.protocol.errors import DeliveryError, PilotageError, Refused
from pilotage.protocol.instructions import Service
from pilotage.protocol.settlement import DELIVERED, Outcome, Reason, Settlement, refused

Listen = Callable[..., Any]
Finish = Callable[[Settlement, bytes], None]
_LATER = (Receipt, Future)
"""What a listen may return that says itself when the message ends."""
Marked = TypeVar("Marked", bound=Listen)

URGENT = frozenset(("STOP", "STOPALL", "KILL", "PING", "CONFIRM", "FILE"))
"""Keys that never wait behind another listen (promise D4)."""

MAX_ANSWER_BYTES = 256 * 1024


def _mark(listen: Listen, mark: str) -> None:
    """Mark a function, or the function of a bound method."""
    setattr(getattr(listen, "__func__", listen), mark, True)


def on_loop(listen: Marked) -> Marked:
    """Declare that a listen is quick and runs on the loop."""
    _mark(listen, "pilotage_on_loop")
    return listen


def passes_on(listen: Marked) -> Marked:
    """Declare that a station's listen only looks at a message which goes on to its inner node."""
    _mark(listen, "pilotage_passes_on")
    return on_loop(listen)


def takes_batches(listen: Marked) -> Marked:
    """Declare that a listen takes a stream's items as a list."""
    _mark(listen, "pilotage_takes_batches")
    return listen


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Where a message came from; (boot, flow, seq) tells it from all others, also after restarts.

    Attributes:
        boot: the sender's life.
        flow: its number for recipient and key.
        seq: place in the flow.
        timestamp: the sender's ISO stamp of the message.
        trail: names of the peers it came through.
    """

    boot: int
    flow: int
    seq: int
    timestamp: str | None
    trail: tuple[str, ...]


def takes_origin(listen: Marked) -> Marked:
    """Declare that a listen is also given the message's `Origin`, to store a thing exactly once."""
    _mark(listen, "pilotage_takes_origin")
    return listen


def takes_many(listen: Marked) -> Marked:
    """Declare that a listen takes all messages that wait in one call: what is stored together is stored sooner."""
    _mark(listen, "pilotage_takes_many")
    return listen


def wants_many(listen: Listen) -> bool:
    """Tell whether a listen was declared `takes_many`."""
    return getattr(listen, "pilotage_takes_many", False)


def wants_origin(listen: Listen) -> bool:
    """Tell whether a listen was declared `takes_origin`."""
    return getattr(listen, "pilotage_takes_origin", False)


def runs_on_loop(listen: Listen) -> bool:
    """Tell whether a listen was declared `on_loop`."""
    return getattr(listen, "pilotage_on_loop", False)


def wants_batches(listen: Listen) -> bool:
    """Tell whether a listen was declared `takes_batches`."""
    return getattr(listen, "pilotage_takes_batches", False)


class Manner(msgspec.Struct, frozen=True):
    """How a listen is called.

    Attributes:
        listen: None where a key has none.
        on_loop: on the loop's thread.
        takes_many: with many messages at once.
        takes_values: with the value and nothing else.
        service: what is done with its key.
    """

    listen: Listen | None
    on_loop: bool = False
    takes_many: bool = False
    takes_values: bool = False
    service: Service = Service.NONE

    @classmethod
    def of(cls, listen: Listen, *, gives_values: bool) -> Manner:
        """Look at what a listen was declared to be."""
        many = wants_many(listen)
        takes_values = gives_values and not many and not wants_origin(listen)
        is_passing = getattr(listen, "pilotage_passes_on", False)
        service = Service.PASS_ON if is_passing else Service.HANDLE
        return cls(listen, runs_on_loop(listen), many, takes_values, service)


NO_MANNER = Manner(None)
"""Of a key that has no listen."""


def finish_with(result: object, finish: Finish) -> None:
    """Settle a message with what its listen returned, now or when that ends.

    Raises:
        InvalidMessage: it can't be sent as an answer.
    """
    if result is None:
        finish(DELIVERED, b"")
    elif isinstance(result, Receipt):
        result.add_callback(lambda receipt: _finish_like(receipt, finish))
    elif isinstance(result, Future):
        result.add_done_callback(lambda future: _finish_future(future, finish))
    elif isinstance(result, list) and ends_later(result):
        finish_with(join_results(result), finish)
    else:
        finish(DELIVERED, encode_answer(result))


def ends_later(result: object) -> bool:
    """Tell whether what a listen returned says itself when it ends."""
    if isinstance(result, list):
        return bool(result) and all(isinstance(one, _LATER) for one in result)
    return isinstance(result, _LATER)


def finish_many_with(result: object, finish: Callable[[list[Settlement]], None], count: int) -> None:
    """Settle many messages with what their listen returned, now or when that ends."""
    if isinstance(result, Future):
        result.add_done_callback(lambda future: finish(_ends_of_future(future, count)))
    else:
        finish(_ends(result, count))


def _ends(result: object, count: int) -> list[Settlement]:
    if result is None:
        return [DELIVERED] * count
    if isinstance(result, BaseException):
        return [failure(result)] * count
    if isinstance(result, list) and len(result) == count:
        return [DELIVERED if one is None else failure(one) for one in result]
    text = f"a listen for many messages must return None, a Future, or {count} errors or None, not {result!r:.80}"
    return [refused(Reason.LISTEN_FAILED, text)] * count


def _ends_of_future(future: Future[Any], count: int) -> list[Settlement]:
    if future.cancelled():
        return _ends(DeliveryError("the listen was cancelled"), count)
    return _ends(future.exception() or future.result(), count)


class Ends:
    """The ends of many messages, gathered until all have ended. Any thread.

    Args:
        count: how many messages.

    Attributes:
        future: ends, when all have, with a list: for each its error or None.
    """

    def __init__(self, count: int) -> None:
        self.future: Future[list[BaseException | None]] = Future()
        self._ends: list[BaseException | None] = [None] * count
        self._left = count
        self._lock = threading.Lock()
        self._end(0)

    def put(self, at: int, error: BaseException | None) -> None:
        """Note how one message has ended."""
        self._ends[at] = error
        self._end(1)

    def follow(self, places: Sequence[int], result: object) -> None:
        """Have messages end as a result does, now or later: a Future may give a list of errors and None for them."""
        if isinstance(result, Future):
            result.add_done_callback(
                lambda future: self._put_all(places, _ends_of_future(future, len(places)))
            )
        elif isinstance(result, Receipt):
            result.add_callback(
                lambda receipt: self._put_all(places, [_settlement_of(receipt)] * len(places))
            )
        else:
            self._put_all(places, _ends(result, len(places)))

    def _put_all(self, places: Sequence[int], ends: Sequence[Settlement]) -> None:
        for at, end in zip(places, ends, strict=True):
            self._ends[at] = end.error()
        self._end(len(places))

    def _end(self, count: int) -> None:
        with self._lock:
            self._left -= count
            is_last = not self._left and not self.future.done()
        if is_last:
            self.future.set_result(self._ends)


def failed(error: BaseException) -> Future[Any]:
    """Give the result of a listen that has raised."""
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def join_results(results: list[Any]) -> object:
    """Make one result of many: it ends when all have ended, and badly if one did."""
    open_ones = [result for result in results if isinstance(result, _LATER)]
    if not open_ones:
        return None
    if len(open_ones) == 1:
        return open_ones[0]
    joined: Future[None] = Future()
    left = [len(open_ones)]
    failures: list[Settlement] = []
    lock = threading.Lock()

    def one_ended(settlement: Settlement, answer: bytes) -> None:
        with lock:
            left[0] -= 1
            if settlement.outcome is not Outcome.DELIVERED:
                failures.append(settlement)
            is_last = not left[0]
        if is_last:
            error = failures[0].error() if failures else None
            joined.set_exception(error) if error else joined.set_result(None)

    for result in open_ones:
        finish_with(result, one_ended)
    return joined


def encode_answer(answer: object) -> bytes:
    """Encode what a listen returned.

    Raises:
        InvalidMessage: it can't be sent, or is larger than an answer may be.
    """
    body, _ = encode_value(answer, beside_from=2**62)
    if len(body) > MAX_ANSWER_BYTES:
        raise PilotageError(
            f"an answer of {len(body)} bytes is too long (at most {MAX_ANSWER_BYTES}); send a message"
        )
    return body


def failure(error: BaseException) -> Settlement:
    """Give the settlement that an error in a listen stands for."""
    if isinstance(error, Refused) and error.reason is not None:
        return refused(Reason(error.reason), error.told)
    text = str(error) if isinstance(error, PilotageError) else f"{type(error).__name__}: {error}"
    return refused(Reason.LISTEN_FAILED, text)


def _settlement_of(receipt: Receipt) -> Settlement:
    if receipt.settlement is None:
        raise AssertionError("a callback of a receipt runs after its settlement")
    return receipt.settlement


def _finish_like(receipt: Receipt, finish: Finish) -> None:
    settlement = _settlement_of(receipt)
    try:
        answer = encode_answer(settlement.answer) if settlement.answer is not None else b""
    except PilotageError as error:
        finish(failure(error), b"")
    else:
        finish(Settlement(settlement.outcome, settlement.reason, settlement.text), answer)


def _finish_future(future: Future[Any], finish: Finish) -> None:
    error = future.exception() if not future.cancelled() else DeliveryError("the listen was cancelled")
    if error is not None:
        finish(failure(error), b"")
        return
    try:
        finish_with(future.result(), finish)
    except PilotageError as unsendable:
        finish(failure(unsendable), b"")
