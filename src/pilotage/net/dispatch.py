"""Dispatch: gives each message to its listen, on a worker's thread or the loop's, and tells how it ended.

Laws of this room: whatever a listen does, its message ends once (law 4); urgent keys have threads of their own
(promise D4).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from hashlib import blake2b
from typing import Protocol

from pilotage.net.ends import PLAIN, End, Ends, is_plain, joined, token_of
from pilotage.net.listens import (
    NO_MANNER,
    URGENT,
    Listen,
    Manner,
    Origin,
    encode_answer,
    ends_later,
    failed,
    failure,
    finish_many_with,
    finish_with,
    join_results,
    wants_batches,
    wants_many,
    wants_origin,
)
from pilotage.net.notes import NoteLog
from pilotage.protocol.authority import belongs_to
from pilotage.protocol.bodies import decode_body, read_content
from pilotage.protocol.errors import InvalidMessage, PilotageError
from pilotage.protocol.inbox import Handled, Token
from pilotage.protocol.instructions import HandOver, Service
from pilotage.protocol.message import Message
from pilotage.protocol.original import read_json
from pilotage.protocol.records import Marks, Parcel
from pilotage.protocol.roles import may_be_streamed
from pilotage.protocol.settlement import DELIVERED, Settlement
from pilotage.transport.workers import Workers

URGENT_WORKERS = 8
MANY = 256
"""Messages that a `takes_many` listen is given at once, about."""
TOLD_AFTER_S = 0.002
"""How long the ends of a run's first messages may wait for those of the others."""

STREAM_HEADERS = ("subject", "pilot", "continuous", "stream", "session")


class Finished(Protocol):
    """Is told how listens ended."""

    def __call__(self, results: list[Handled], is_last: bool = False, may_wait: bool = False, /) -> None:
        """On any thread, which has no more listens to call now if these are the last; nobody may wait for them."""


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
        finished: Finished,
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
        self._urgent = Workers(f"{name}-urgent", self._work, URGENT_WORKERS)
        self._workers = Workers(f"{name}-listen", self._work, max_workers, self._together)
        self._manners: dict[str, Manner] = {}
        self._jobs: list[tuple[Hashable, Parcel]] = []
        self._urgent_jobs: list[tuple[Hashable, Parcel]] = []
        self._is_owing = False

    # On the loop's thread

    def service_of(self, verb: str) -> Service:
        """Tell what is done with a key."""
        manner = self._manner_of(verb)
        return Service.HANDLE if manner is NO_MANNER and verb == "STREAM" else manner.service

    def hand_over(self, messages: HandOver) -> list[Handled]:
        """Call the listens that run on the loop, and keep the rest for the workers; give what was handled at once."""
        results: list[Handled] = []
        for parcel in messages.parcels:
            manner = self._manner_of(parcel.verb)
            if manner.on_loop:
                results += self._listen_to(parcel, manner)
            else:
                jobs = self._urgent_jobs if parcel.verb in URGENT else self._jobs
                jobs.append(((parcel.boot, parcel.flow), parcel))
                self._is_owing = True
        for parcel in messages.passing:
            self._look(parcel)
        return results

    def turn_over(self) -> bool:
        """Give the workers what was kept for them: the loop lets go of the interpreter now.

        Returns:
            True to be called again soon, for some of it waits for a thread.
        """
        if not self._is_owing:
            return False
        if self._urgent_jobs:
            jobs, self._urgent_jobs = self._urgent_jobs, []
            self._urgent.submit_all(jobs)
        if self._jobs:
            jobs, self._jobs = self._jobs, []
            self._workers.submit_all(jobs)
        waits = False
        if self._urgent.unserved:
            waits = self._urgent.help_out()
        if self._workers.unserved:
            waits = self._workers.help_out() or waits
        self._is_owing = bool(self._urgent.unserved or self._workers.unserved)
        return waits

    # From any thread

    def waiting(self) -> int:
        """Count the messages whose listen has not begun."""
        return self._workers.waiting() + self._urgent.waiting()

    def close(self, timeout_s: float) -> None:
        """Let running listens end for a while."""
        deadline = time.monotonic() + timeout_s
        self._urgent.close(timeout_s / 2)
        self._workers.close(max(0.0, deadline - time.monotonic()))

    def _manner_of(self, verb: str) -> Manner:
        """Tell how the listen of a key is called, which may be another one by now."""
        listen = self._listens.get(verb)
        if listen is None:
            return NO_MANNER  # of such keys there may be any number
        manner = self._manners.get(verb)
        if manner is None or manner.listen is not listen:
            manner = Manner.of(listen, gives_values=self._gives_values)
            self._manners[verb] = manner
        return manner

    def _together(self, parcel: Parcel) -> int:
        """Tell how many messages of a flow may be given to its listen at once."""
        return MANY if self._manner_of(parcel.verb).takes_many else 1

    def _work(self, parcels: list[Parcel]) -> None:
        """Call the listen of a flow, on a worker's thread."""
        manner = self._manner_of(parcels[0].verb)
        if manner.takes_many and manner.listen is not None:
            self._listen_to_many(manner.listen, parcels)
            return
        for parcel in parcels:
            results = self._listen_to(parcel, self._manner_of(parcel.verb), self._finished)
            is_last = parcel is parcels[-1] and not self._workers.unserved
            self._finished(results, is_last, bool(parcel.marks & Marks.UNWATCHED) and is_plain(results))

    def _listen_to_many(self, listen: Listen, parcels: list[Parcel]) -> None:
        """Give a listen all these messages; what can't be read is refused by itself."""
        given: list[tuple[object, Origin]] = []
        tokens: list[Token] = []
        unread: list[Handled] = []
        for parcel in parcels:
            trail = tuple(parcel.trail)
            for at in range(len(parcel.bodies)):
                token = token_of(parcel, at)
                try:
                    given.append(self._given_of_many(parcel, at, trail))
                except PilotageError as error:
                    unread.append(Handled(token, failure(error)))
                else:
                    tokens.append(token)

        def finish(ends: list[Settlement]) -> None:
            self._finished(joined(tokens, ends))

        try:
            finish_many_with(listen(given) if given else [], finish, len(given))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - law 4
            if not isinstance(error, PilotageError):
                self._notes.listen_failed(self._name, parcels[0].verb, error)
            finish([failure(error)] * len(given))
        if unread:
            self._finished(unread)

    def _given_of_many(self, parcel: Parcel, at: int, trail: tuple[str, ...]) -> tuple[object, Origin]:
        """Give one of many messages with its origin: a value needs no message made around it."""
        if self._gives_values and not self._notes.tells_all and not parcel.marks & Marks.JSON:
            content = read_content(parcel.bodies[at], parcel.frames)
            stamp = content.timestamp
            if not content.extra and (type(stamp) is str or stamp is None):
                return content.value, Origin(parcel.boot, parcel.flow, parcel.seq + at, stamp, trail)
        message = self._message(parcel, at)
        if self._notes.tells_all:
            self._notes.passing("RECEIVED", message)
        return self._given(message), _origin(message, parcel, at)

    def _given(self, message: Message) -> object:
        return _value_with_headers(message) if self._gives_values else message

    def _listen_to(
        self, parcel: Parcel, manner: Manner, tell: Callable[[list[Handled]], None] | None = None
    ) -> list[Handled]:
        """Call the listen for each message of a parcel; give the ends that were not told yet.

        Args:
            parcel: what has come.
            manner: how the listen of its key is called.
            tell: is told now and then how messages have ended so far; None for never.
        """
        call, last = self._way_to_call(parcel, manner), len(parcel.bodies) - 1
        if not last:
            end = self._end_of(call, parcel, 0)
            return [] if end is None else [Handled((parcel.boot, parcel.flow, parcel.seq), *end)]
        ends = Ends(parcel)
        tell_at = time.monotonic() + TOLD_AFTER_S
        for at in range(last + 1):
            end = self._end_of(call, parcel, at)
            if end is PLAIN:
                ends.plain += 1
            else:
                ends.add(end)
            if tell is not None and (now := time.monotonic()) > tell_at and at < last:
                tell_at = now + TOLD_AFTER_S
                tell(ends.take())
        return ends.take()

    def _way_to_call(self, parcel: Parcel, manner: Manner) -> Callable[[int], object]:
        """Choose how the listen is called, which is the same for all messages of a parcel."""
        listen = manner.listen
        if listen is None or not manner.takes_values or self._notes.tells_all or parcel.marks & Marks.JSON:
            return lambda at: self.call(self._message(parcel, at), parcel, at)
        bodies, frames = parcel.bodies, parcel.frames

        def call(at: int) -> object:
            """Give the listen the value alone: usually it needs no message made around it."""
            content = read_content(bodies[at], frames)
            return listen(self._given(self._message(parcel, at)) if content.extra else content.value)

        return call

    def _end_of(self, call: Callable[[int], object], parcel: Parcel, at: int) -> End | None:
        """Call the listen for one message; give its end, None where that comes later."""
        try:
            result = call(at)
            if result is None:
                return PLAIN
            if not ends_later(result):
                return DELIVERED, encode_answer(result)
            token = token_of(parcel, at)
            finish_with(result, lambda *end: self._finished([Handled(token, *end)]))
        except (Exception, SystemExit) as error:  # noqa: BLE001
            # Law 4: whatever a listen does, it ends as one refused message.
            if parcel.verb in self._listens and not isinstance(error, PilotageError):
                self._notes.listen_failed(self._name, parcel.verb, error)
            return failure(error), b""
        return None

    def _message(self, parcel: Parcel, at: int) -> Message:
        if parcel.marks & Marks.JSON:
            return read_json(parcel, at, expand=self._expands)
        message = decode_body(parcel.verb, parcel.bodies[at], parcel.frames)
        if parcel.trail and message.sender != parcel.trail[0]:
            _check_sender(str(message.sender), parcel.trail[0])
        return message

    def call(self, message: Message, parcel: Parcel | None = None, at: int = 0) -> object:
        """Call the listen for a message.

        Args:
            message: what it is given, or whose value.
            parcel: the one that brought it; None if it came some other way.
            at: its place in the parcel.

        Raises:
            InvalidMessage: there is none for its key.
        """
        key = str(message.key)
        if self._notes.tells_all:
            self._notes.passing("RECEIVED", message)
        listen = self._listens.get(key)
        if listen is None and key == "STREAM":
            return self.unpack_stream(message, parcel, at)
        if listen is None:
            raise InvalidMessage(
                f"{self._name} has no listen for key {key!r} (it has {', '.join(sorted(self._listens))})"
            )
        given = self._given(message)
        if wants_many(listen):
            return listen([(given, _origin(message, parcel, at))])
        return listen(given, _origin(message, parcel, at)) if wants_origin(listen) else listen(given)

    def unpack_stream(self, message: Message, parcel: Parcel | None = None, at: int = 0) -> object:
        """Call the inner listen of a STREAM for each of its items; headers that an item lacks are added to it.

        Raises:
            InvalidMessage: no stream, no listen for its inner key, or a key that no stream may have.
        """
        value = message.value
        if not isinstance(value, dict) or not isinstance(value.get("payload"), list):
            raise InvalidMessage("a STREAM's value needs inner_key, headers and a list as payload")
        inner, headers = value.get("inner_key"), value.get("headers") or {}
        if not may_be_streamed(str(inner)):
            raise InvalidMessage(f"{inner} can't come in a STREAM: send it as a message of its own")
        if not isinstance(headers, dict):
            raise InvalidMessage(f"a STREAM's headers must be a dictionary, not {type(headers).__name__}")
        listen = self._listens.get(str(inner))
        if listen is None:
            raise InvalidMessage(f"{self._name} has no listen for the stream's key {inner!r}")
        items = [{**headers, **item} if isinstance(item, dict) else item for item in value["payload"]]
        origin = (_origin(message, parcel, at),) if wants_origin(listen) else ()
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

    def _look(self, parcel: Parcel) -> None:
        """Let a station's listen look at what it passes on, if it wants to."""
        if not self.wants_look(parcel):
            return
        for at in range(len(parcel.bodies)):
            try:
                self._listens[parcel.verb](self._message(parcel, at))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a look must not hold up what goes on
                self._notes.listen_failed(self._name, parcel.verb, error)


def _check_sender(sender: str, origin: str) -> None:
    """See that a message names as its sender who has sent it: its name was checked where it came in.

    Raises:
        InvalidMessage: it names somebody else.
    """
    if not belongs_to(sender, origin.removeprefix("_")):
        raise InvalidMessage(f"{origin} can't send in the name of {sender!r:.80}")


def _value_with_headers(message: Message) -> object:
    """Give a value; for an item that travels alone, with the stream's headers, which are fields of its message."""
    fields = message.__dict__
    if "continuous" not in fields or not isinstance(message.value, dict):
        return message.value
    return {**{name: fields[name] for name in STREAM_HEADERS if name in fields}, **message.value}


def _origin(message: Message, parcel: Parcel | None, at: int) -> Origin:
    if parcel is None:
        return Origin(0, 0, 0, message.timestamp, ())
    boot, flow, seq = token_of(parcel, at)
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
