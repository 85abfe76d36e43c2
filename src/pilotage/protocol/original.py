"""The JSON wire of original Autopilot peers (0.3–0.5): frames in, frames out, duplicates, confirmations.

Original peers have no life, no sequence and no settlement. A station that talks to one stands in for it: towards
the tree it is the originator of what the original sent, and the recipient of what is sent to it.

Law of this room: the original's quirks are met here and nowhere else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from pilotage.protocol.arrays import ArrayForm, collapse_arrays, expand_arrays
from pilotage.protocol.bodies import decode_body
from pilotage.protocol.errors import MalformedFrame
from pilotage.protocol.inbox import Token
from pilotage.protocol.instructions import Link
from pilotage.protocol.message import Flag, Message
from pilotage.protocol.records import MAX_NAMES, Frame, Marks, Parcel
from pilotage.protocol.sends import FOREVER, DeliveryRules
from pilotage.protocol.settlement import Settlement, expired

CLOSING = b"CLOSING"
ANONYMOUS = "?"
"""What the name of a peer begins with that dialled us without any."""

STORING = frozenset(("DATA", "CONTINUOUS", "STREAM"))
"""Keys whose confirmation means *stored*; all others are confirmed when they have been received."""

MAX_SEEN = 100_000
MAX_TRIES = 100
MAX_BODY_BYTES = 512 * 2**20
MAX_FIELD_CHARS = 1024
"""Of each field that is remembered: an id, a name, a key, a timestamp."""

MessageId = tuple[str, str, str]
"""What tells an original message from all others: its sender, id and timestamp."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message as an original peer sent it.

    Attributes:
        message: its fields; the value not expanded.
        raw: the JSON as it came, which is what is passed on.
        path: names to reach, the recipient last.
    """

    message: Message
    raw: bytes
    path: tuple[str, ...]

    @property
    def identity(self) -> MessageId:
        """What tells it from all others."""
        return (str(self.message.sender), str(self.message.id), str(self.message.timestamp))


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The handle of a send that we make for an original peer: whom to confirm what."""

    link: Link
    sender: str
    identity: MessageId
    wanted: bool
    when_stored: bool


def read_envelope(frames: Sequence[Frame], me: str) -> Envelope:
    """Read the frames of an original peer (without the routing id that our socket adds).

    Raises:
        MalformedFrame: no JSON message in the last frame, or names that aren't UTF-8.
    """
    if not frames or len(frames[-1]) > MAX_BODY_BYTES:
        raise MalformedFrame("no frames, or a body beyond 512 MiB")
    raw = bytes(frames[-1])
    message = Message(raw)
    if not message.validate():
        raise MalformedFrame("an envelope needs id, to, sender and key")
    fields = (message.id, message.sender, message.key, message.timestamp)
    if max(len(field or "") for field in fields) > MAX_FIELD_CHARS:
        raise MalformedFrame(f"an envelope's id, sender, key or timestamp is longer than {MAX_FIELD_CHARS}")
    return Envelope(message, raw, _path(_names(frames[:-1]), message.to, me))


def _names(frames: Sequence[Frame]) -> list[str]:
    if len(frames) > MAX_NAMES or any(len(frame) > MAX_FIELD_CHARS for frame in frames):
        raise MalformedFrame(f"an original sends {MAX_NAMES} names of {MAX_FIELD_CHARS} bytes at most")
    try:
        return [bytes(frame).decode() for frame in frames]
    except UnicodeDecodeError as error:
        raise MalformedFrame(f"a frame that should name a recipient is not UTF-8: {error}") from error


def _path(names: list[str], to: object, me: str) -> tuple[str, ...]:
    """Find out where a message goes: any number of leading frames, or none, as the versions have it."""
    here = names.index(me) + 1 if me in names else 0
    rest = names[here:]
    if len(rest) > 1 and rest[-1] == rest[-2]:
        rest.pop()
    if rest:
        return tuple(rest)
    if isinstance(to, list):
        if len(to) > MAX_NAMES:
            raise MalformedFrame(f"an envelope names {len(to)} recipients, the most is {MAX_NAMES}")
        hops = [str(hop) for hop in to]
        return tuple(hops[hops.index(me) + 1 :] if me in hops[:-1] else hops) or (me,)
    return (str(to),)


class _Claim(msgspec.Struct):
    """What of a message says whose it is."""

    sender: str = ""


_claims = msgspec.json.Decoder(_Claim)


def claimed_senders(parcel: Parcel) -> Iterator[str]:
    """Read who has written the originals' messages that a parcel carries, and no more of them; "" for nobody."""
    for body in parcel.bodies:
        try:
            yield _claims.decode(body).sender
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            yield ""


def read_json(parcel: Parcel, at: int = 0, *, expand: bool = False) -> Message:
    """Read an original's message that a parcel of ours carries.

    Raises:
        MalformedFrame: it is no message, or has another key than its parcel, by which it was judged on the way.
    """
    message = Message(bytes(parcel.bodies[at]), expand_arrays=expand)
    if message.key != parcel.verb:
        raise MalformedFrame(f"a message with key {message.key!r:.40} travels as {parcel.verb!r:.40}")
    return message


def form_of(message: Message) -> ArrayForm:
    """Tell which array form the writer of an envelope understands, by the fields that its version writes."""
    fields = message.__dict__
    return ArrayForm.AUTOPILOT_05 if "blosc" in fields else ArrayForm.AUTOPILOT_03


def frames_to(peer_name: str, path: Sequence[str], body: Frame, *, dials: bool) -> list[Frame]:
    """Lay out the frames for an original peer (without the routing id that our socket needs).

    Args:
        peer_name: the original's name.
        path: names to reach; the first is the peer ("" if we don't know what it calls itself), or somebody behind it.
        body: the JSON envelope.
        dials: it connected to us; otherwise we to it.
    """
    hops = list(path) if path[0] == peer_name else [peer_name, *(name for name in path if name)]
    if dials:
        return (
            [body]
            if len(hops) == 1 or peer_name.startswith(ANONYMOUS)
            else [b"-", *(hop.encode() for hop in hops), body]
        )
    if len(hops) == 1:
        hops.append(hops[0])
    elif len(hops) > 2:
        hops.append(hops[-1])
    return [*(hop.encode() for hop in hops), body]


class Letter(NamedTuple):
    """A parcel as an original peer reads it: its JSON, what identifies it, and how it is to be sent."""

    body: bytes
    message_id: str
    sender: str
    wants_confirm: bool
    tries: int


def write_letter(parcel: Parcel, form: ArrayForm) -> Letter:
    """Write a parcel's JSON envelope in a peer's array form.

    Raises:
        MalformedFrame: the parcel's body can't be read.
        InvalidMessage: it holds what JSON can't say.
    """
    if parcel.marks & Marks.JSON:
        message = read_json(parcel)
        if b"NUMPY_ARRAY" not in parcel.bodies[0] or form_of(message) is form:
            return _letter(message, bytes(parcel.bodies[0]))
        message.value = collapse_arrays(expand_arrays(message.value), form)
    else:
        message = decode_body(parcel.verb, parcel.bodies[0], parcel.frames)
        message.value = collapse_arrays(message.value, form)
    return _letter(message, message.serialize().encode())


def _letter(message: Message, body: bytes) -> Letter:
    wants_confirm = Flag.NOREPEAT not in message.flags and message.key != "CONFIRM"
    tries = min(max(1, message.ttl), MAX_TRIES)
    return Letter(body, str(message.id), str(message.sender), wants_confirm, tries)


def confirm_body(me: str, number: int, to: str, message_id: str) -> bytes:
    """Write the CONFIRM that an original peer expects for a message of its."""
    flags = {Flag.NOLOG.value: True}
    message = Message(id=f"{me}_c{number}", to=to, sender=me, key="CONFIRM", value=message_id, flags=flags)
    return message.serialize().encode()


class Seen:
    """Which messages of original peers were taken already, and whether they were confirmed. Bounded."""

    def __init__(self, most: int = MAX_SEEN) -> None:
        self._most = most
        self._seen: OrderedDict[MessageId, bool] = OrderedDict()
        self.duplicates = 0

    def is_new(self, identity: MessageId) -> bool:
        """Take note of a message; tell whether it came for the first time."""
        if identity in self._seen:
            self.duplicates += 1
            return False
        self._seen[identity] = False
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)
        return True

    def mark_confirmed(self, identity: MessageId) -> None:
        """Remember that a message was confirmed, so that its duplicate is confirmed again."""
        if identity in self._seen:
            self._seen[identity] = True

    def was_confirmed(self, identity: MessageId) -> bool:
        """Tell whether a message was confirmed."""
        return self._seen.get(identity, False)

    def forget(self, identity: MessageId) -> None:
        """Let a message come again: its handling failed before anything was done."""
        self._seen.pop(identity, None)


@dataclass(slots=True)
class Awaited:
    """A message that an original peer has not confirmed yet."""

    token: Token
    link: Link
    frames: list[Frame]
    message_id: str
    tries: int
    due: float


class Awaiting:
    """Messages to original peers, until their CONFIRM comes or their tries run out.

    All wait equally long, so they stand in the order in which they are due.
    """

    def __init__(self, rules: DeliveryRules) -> None:
        self._rules = rules
        self._open: OrderedDict[Token, Awaited] = OrderedDict()
        self._by_id: dict[tuple[Link, str], list[Token]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(
        self, token: Token, link: Link, frames: list[Frame], message_id: str, tries: int, now: float
    ) -> None:
        """Note a message that was just transmitted for the first time."""
        due = now + self._rules.repeat_interval_s
        self._open[token] = Awaited(token, link, frames, message_id, tries - 1, due)
        # Ids begin anew with each life of their sender, so that one may be awaited twice.
        self._by_id.setdefault((link, message_id), []).append(token)

    def confirmed(self, link: Link, message_id: str) -> Token | None:
        """Take a CONFIRM; give the message that it settles (the oldest of that id), if it is one of ours."""
        tokens = self._by_id.get((link, message_id))
        if not tokens:
            return None
        token = tokens[0]
        self._remove(self._open[token])
        return token

    def next_due(self) -> float:
        """Tell when something is due."""
        return next(iter(self._open.values())).due if self._open else FOREVER

    def time_passed(self, now: float) -> tuple[list[Awaited], list[tuple[Token, Settlement]]]:
        """Give what is to be sent again (byte for byte), and what nobody confirmed."""
        again: list[Awaited] = []
        over: list[tuple[Token, Settlement]] = []
        while self.next_due() <= now:
            awaited = next(iter(self._open.values()))
            if awaited.tries > 0:
                awaited.tries -= 1
                awaited.due = now + self._rules.repeat_interval_s
                self._open.move_to_end(awaited.token)
                again.append(awaited)
            else:
                self._remove(awaited)
                over.append(
                    (awaited.token, expired(f"{awaited.message_id}: unconfirmed by the original peer"))
                )
        return again, over

    def link_lost(self, link: Link) -> list[tuple[Token, Settlement]]:
        """Give up what a vanished peer had not confirmed."""
        lost = [awaited for awaited in self._open.values() if awaited.link == link]
        for awaited in lost:
            self._remove(awaited)
        text = "unconfirmed: the original peer's connection ended"
        return [(awaited.token, expired(f"{awaited.message_id}: {text}")) for awaited in lost]

    def _remove(self, awaited: Awaited) -> None:
        del self._open[awaited.token]
        key = (awaited.link, awaited.message_id)
        tokens = self._by_id[key]
        tokens.remove(awaited.token)
        if not tokens:
            del self._by_id[key]
