"""Dispatch: gives each message to its listen, on a worker's thread or the loop's, and tells how it ended.

Laws of this room: whatever a listen does, its message ends once (law 4); urgent keys have threads of their own
(promise D4).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from hashlib import blake2b

from pilotage.net.listens import (
    URGENT,
    Listen,
    Origin,
    failed,
    failure,
    finish_many_with,
    finish_with,
    join_results,
    runs_on_loop,
    wants_batches,
    wants_many,
    wants_origin,
)
from pilotage.net.notes import NoteLog
from pilotage.protocol.bodies import decode_body, read_value
from pilotage.protocol.errors import InvalidMessage, PilotageError
from pilotage.protocol.exchange import HandlingResult
from pilotage.protocol.inbox import Token
from pilotage.protocol.instructions import Delivery
from pilotage.protocol.message import Message
from pilotage.protocol.records import Marks, Parcel
from pilotage.protocol.settlement import DELIVERED, Settlement
from pilotage.transport.workers import Workers

URGENT_WORKERS = 8
MANY = 256
"""Messages that a `takes_many` listen is given at once, at most."""

STREAM_HEADERS = ("subject", "pilot", "continuous", "stream", "session")


class Dispatch:
    """Calls the listens of one messenger.

    Args:
        name: whose.
        listens: what to call for each key; may be changed at any time.
        finished: is told, on any thread, how listens ended that did not end at once.
        notes: where failures and, at level DEBUG, all messages are told.
        gives_values: listens are given the value (a node's), not the message (a station's).
        expands: arrays in original JSON messages are unpacked.
        max_workers: threads at most.

    Attributes:
        wants_look: tells whether a parcel that is passed on need be opened for its listen.
    """

    def __init__(
        self,
        name: str,
        listens: Mapping[str, Listen],
        finished: Callable[[list[HandlingResult]], None],
        notes: NoteLog,
        *,
        gives_values: bool,
        expands: bool,
        max_workers: int,
    ) -> None:
        self._name = name
        self._listens = listens
        self._finished = finished
        self._notes = notes
        self._gives_values = gives_values
        self._expands = expands
        self.wants_look: Callable[[Parcel], bool] = lambda parcel: True
        self._urgent = Workers(f"{name}-urgent", self._work, self._done, URGENT_WORKERS)
        self._workers = Workers(f"{name}-listen", self._work, self._done, max_workers, self._together)
        self._jobs: list[tuple[Hashable, Delivery]] = []
        self._urgent_jobs: list[tuple[Hashable, Delivery]] = []

    # On the loop's thread

    def hand_over(self, deliveries: list[Delivery]) -> tuple[list[HandlingResult], list[Parcel]]:
        """Call the listens that run on the loop, and keep the rest for the workers.

        Returns:
            What was handled at once, and the parcels that are to be passed on.
        """
        results: list[HandlingResult] = []
        passed: list[Parcel] = []
        for delivery in deliveries:
            parcel = delivery.parcel
            if delivery.token is None:
                passed.append(parcel)
                self._look(delivery)
                continue
            listen = self._listens.get(parcel.verb)
            if listen is not None and runs_on_loop(listen):
                result = self._listen(delivery)
                if result is not None:
                    results.append(result)
            else:
                jobs = self._urgent_jobs if parcel.verb in URGENT else self._jobs
                jobs.append(((parcel.boot, parcel.flow), delivery))
        return results, passed

    def turn_over(self) -> None:
        """Give the workers what was kept for them: the loop lets go of the interpreter now."""
        if self._urgent_jobs:
            jobs, self._urgent_jobs = self._urgent_jobs, []
            self._urgent.submit_all(jobs)
        if self._jobs:
            jobs, self._jobs = self._jobs, []
            self._workers.submit_all(jobs)

    # From any thread

    def waiting(self) -> int:
        """Count the messages whose listen has not begun."""
        return self._workers.waiting() + self._urgent.waiting()

    def close(self, timeout_s: float) -> None:
        """Let running listens end for a while."""
        deadline = time.monotonic() + timeout_s
        self._urgent.close(timeout_s / 2)
        self._workers.close(max(0.0, deadline - time.monotonic()))

    def _together(self, delivery: Delivery) -> int:
        """Tell how many messages of a flow may be given to its listen at once."""
        listen = self._listens.get(delivery.parcel.verb)
        return MANY if listen is not None and wants_many(listen) else 1

    def _work(self, deliveries: list[Delivery]) -> list[HandlingResult]:
        """Call the listen of a flow, on a worker's thread; give what has ended."""
        listen = self._listens.get(deliveries[0].parcel.verb)
        if listen is not None and wants_many(listen):
            return self._listen_to_many(listen, deliveries)
        results = [self._listen(delivery) for delivery in deliveries]
        return [result for result in results if result is not None]

    def _listen_to_many(self, listen: Listen, deliveries: list[Delivery]) -> list[HandlingResult]:
        """Give a listen all these messages; what can't be read is refused by itself."""
        given: list[tuple[object, Origin]] = []
        tokens: list[Token] = []
        unread: list[HandlingResult] = []
        for delivery in deliveries:
            token = _token(delivery)
            try:
                given.append(self._given_of_many(delivery))
            except PilotageError as error:
                unread.append((token, failure(error), b""))
            else:
                tokens.append(token)

        def finish(ends: list[Settlement]) -> None:
            self._finished([(token, end, b"") for token, end in zip(tokens, ends, strict=True)])

        try:
            finish_many_with(listen(given) if given else [], finish, len(given))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - law 4
            if not isinstance(error, PilotageError):
                self._notes.listen_failed(self._name, deliveries[0].parcel.verb, error)
            finish([failure(error)] * len(given))
        return unread

    def _given_of_many(self, delivery: Delivery) -> tuple[object, Origin]:
        """Give one of many messages with its origin: a value needs no message made around it."""
        parcel = delivery.parcel
        if self._gives_values and not self._notes.tells_all and not parcel.marks & Marks.JSON:
            read = read_value(parcel.body, parcel.frames)
            if read is not None:
                origin = Origin(parcel.boot, parcel.flow, parcel.seq, read[1], tuple(parcel.trail))
                return read[0], origin
        message = self._message(delivery)
        if self._notes.tells_all:
            self._notes.passing("RECEIVED", message)
        return self._given(message), _origin(message, delivery)

    def _given(self, message: Message) -> object:
        return _value_with_headers(message) if self._gives_values else message

    def _listen(self, delivery: Delivery) -> HandlingResult | None:
        """Call a listen; None if it ends later."""
        token, parcel = _token(delivery), delivery.parcel
        try:
            result = self.call(self._message(delivery), delivery)
            if result is None:
                return token, DELIVERED, b""
            finish_with(result, lambda settlement, answer: self._finished([(token, settlement, answer)]))
        except (Exception, SystemExit) as error:  # noqa: BLE001
            # Law 4: whatever a listen does, it ends as one refused message.
            if parcel.verb in self._listens and not isinstance(error, PilotageError):
                self._notes.listen_failed(self._name, parcel.verb, error)
            return token, failure(error), b""
        return None

    def _message(self, delivery: Delivery) -> Message:
        parcel = delivery.parcel
        if parcel.marks & Marks.JSON:
            return Message(bytes(parcel.body), expand_arrays=self._expands)
        return decode_body(parcel.verb, parcel.body, parcel.frames)

    def call(self, message: Message, delivery: Delivery | None = None) -> object:
        """Call the listen for a message.

        Raises:
            InvalidMessage: there is none for its key.
        """
        key = str(message.key)
        if self._notes.tells_all:
            self._notes.passing("RECEIVED", message)
        listen = self._listens.get(key)
        if listen is None and key == "STREAM":
            return self.unpack_stream(message, delivery)
        if listen is None:
            raise InvalidMessage(
                f"{self._name} has no listen for key {key!r} (it has {', '.join(sorted(self._listens))})"
            )
        given = self._given(message)
        if wants_many(listen):
            return listen([(given, _origin(message, delivery))])
        return listen(given, _origin(message, delivery)) if wants_origin(listen) else listen(given)

    def unpack_stream(self, message: Message, delivery: Delivery | None = None) -> object:
        """Call the inner listen of a STREAM for each of its items; headers that an item lacks are added to it.

        Raises:
            InvalidMessage: no stream, or no listen for its inner key.
        """
        value = message.value
        if not isinstance(value, dict) or not isinstance(value.get("payload"), list):
            raise InvalidMessage("a STREAM's value needs inner_key, headers and a list as payload")
        inner, headers = value.get("inner_key"), value.get("headers") or {}
        if not isinstance(headers, dict):
            raise InvalidMessage(f"a STREAM's headers must be a dictionary, not {type(headers).__name__}")
        listen = self._listens.get(str(inner))
        if listen is None:
            raise InvalidMessage(f"{self._name} has no listen for the stream's key {inner!r}")
        items = [{**headers, **item} if isinstance(item, dict) else item for item in value["payload"]]
        origin = (_origin(message, delivery),) if wants_origin(listen) else ()
        if wants_batches(listen):
            return listen(items, *origin)
        given = items if self._gives_values else [_inner(message, str(inner), item) for item in items]
        return join_results([self._call_for_item(listen, one, origin) for one in given])

    def _call_for_item(self, listen: Listen, item: object, origin: tuple[Origin, ...]) -> object:
        """Call a listen for one item of a batch: what it raises refuses the batch, but not before the others had it."""
        try:
            return listen(item, *origin)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it ends the message as refused
            if not isinstance(error, PilotageError):
                self._notes.listen_failed(self._name, "an item of a stream", error)
            return failed(error)

    def _look(self, delivery: Delivery) -> None:
        """Let a station's listen look at what it passes on, if it wants to."""
        if not self.wants_look(delivery.parcel):
            return
        try:
            self._listens[delivery.parcel.verb](self._message(delivery))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a look must not hold up what goes on
            self._notes.listen_failed(self._name, delivery.parcel.verb, error)

    def _done(self, results: list[HandlingResult]) -> None:
        if results:
            self._finished(results)


def _token(delivery: Delivery) -> Token:
    if delivery.token is None:
        raise AssertionError("what is passed on has no token and is not handled here")
    return delivery.token


def _value_with_headers(message: Message) -> object:
    """Give a value; for an item that travels alone, with the stream's headers, which are fields of its message."""
    fields = message.__dict__
    if "continuous" not in fields or not isinstance(message.value, dict):
        return message.value
    return {**{name: fields[name] for name in STREAM_HEADERS if name in fields}, **message.value}


def _origin(message: Message, delivery: Delivery | None) -> Origin:
    if delivery is None:
        return Origin(0, 0, 0, message.timestamp, ())
    parcel = delivery.parcel
    boot, flow, seq = parcel.boot, parcel.flow, parcel.seq
    if parcel.marks & Marks.JSON:
        # The place is that of whoever stood in for an original, which sends again to another one; what tells an
        # original's message from all others, whoever brings it, is its sender, id and timestamp.
        told = f"{message.sender}\0{message.id}\0{message.timestamp}".encode("utf-8", "surrogatepass")
        boot, flow, seq = int.from_bytes(blake2b(told, digest_size=8).digest()) >> 1 or 1, 0, 0
    return Origin(boot, flow, seq, message.timestamp, tuple(parcel.trail))


def _inner(message: Message, key: str, item: object) -> Message:
    return Message(
        id=message.id, to=message.to, sender=message.sender, key=key, value=item, flags=message.flags
    )
