"""Where original peers meet the tree: what they send becomes sends of ours, what they are sent is awaited for them.

Law of this room: an original is confirmed no earlier than the tree has confirmed its message to us.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from pilotage.protocol.arrays import ArrayForm
from pilotage.protocol.errors import MalformedFrame, PilotageError
from pilotage.protocol.inbox import Token
from pilotage.protocol.instructions import Level, Link, Note
from pilotage.protocol.liveness import Peer
from pilotage.protocol.message import Flag
from pilotage.protocol.original import (
    CLOSING,
    MAX_TRIES,
    STORING,
    Awaiting,
    Confirmation,
    Envelope,
    Seen,
    confirm_body,
    form_of,
    frames_to,
    read_envelope,
    write_letter,
)
from pilotage.protocol.records import Frame, Parcel
from pilotage.protocol.sends import DeliveryRules, Pending
from pilotage.protocol.settlement import Outcome, Reason, Settlement, expired, refused

OWNERS_KEYS = frozenset(("KILL", "WATCH"))
"""Keys that only the inner node of a station may send to it."""

Transmission = tuple[Link, Sequence[Frame]]


@dataclass(slots=True)
class Taken:
    """What came of an original's frames.

    Attributes:
        counts: messages to count as received (0 for a blank ping).
        replies: transmissions to answer with.
        request: the send that we make in the original's stead.
        confirmed: the message to an original that this confirms.
        note: something to say about it.
        sender: who wrote the message; "" for none.
    """

    counts: int = 1
    replies: list[Transmission] = field(default_factory=list)
    request: Pending | None = None
    confirmed: Token | None = None
    note: Note | None = None
    sender: str = ""


class Edge:
    """Our side of all links to original peers.

    Args:
        me: our name.
        rules: patience towards peers that don't confirm.

    Attributes:
        is_used: an original has sent something, or was sent something.
        next_due: tells when `time_passed` has something to do.
    """

    def __init__(self, me: str, rules: DeliveryRules) -> None:
        self._me = me
        self._seen = Seen()
        self._awaiting = Awaiting(rules)
        self.next_due = self._awaiting.next_due
        self._peers: dict[Link, Peer] = {}
        self._forms: dict[Link, ArrayForm] = {}
        self._confirms = 0
        self.is_used = False

    def __len__(self) -> int:
        return len(self._awaiting)

    @property
    def duplicates(self) -> int:
        """Messages of originals that came more than once."""
        return self._seen.duplicates

    def met(self, link: Link, frames: Sequence[Frame]) -> None:
        """Learn from a newcomer's first frames which arrays it reads, before it is sent what has waited for it."""
        with suppress(MalformedFrame):
            self._forms[link] = form_of(read_envelope(frames, self._me).message)

    def arrived(self, peer: Peer, frames: Sequence[Frame]) -> Taken:
        """Take an original's frames (without a routing id).

        Raises:
            MalformedFrame: they are no message.
        """
        self.is_used = True
        if frames and not len(frames[-1]):
            return Taken(0, [(peer.link, frames)])
        if frames and frames[-1] == CLOSING:
            text = f"{peer.name} asked {self._me} to close; only its owner may"
            return Taken(1, note=Note(Level.WARNING, text, peer.name, "CLOSING"))
        envelope = read_envelope(frames, self._me)
        self._peers[peer.link] = peer
        self._forms[peer.link] = form_of(envelope.message)
        if envelope.message.key == "CONFIRM":
            return Taken(confirmed=self._awaiting.confirmed(peer.link, str(envelope.message.value)))
        if envelope.message.key in OWNERS_KEYS and peer.name != f"_{self._me}":
            text = f"{peer.name} sent {envelope.message.key} to {self._me}; only its owner _{self._me} may"
            return Taken(note=Note(Level.WARNING, text, peer.name, str(envelope.message.key)))
        if self._seen.is_new(envelope.identity):
            return Taken(request=self._request(peer, envelope), sender=str(envelope.message.sender))
        if self._seen.was_confirmed(envelope.identity):
            return Taken(replies=self._confirm(peer, str(envelope.message.sender), envelope.identity[1]))
        return Taken()

    def received(self, handle: Confirmation) -> list[Transmission]:
        """An original's message has reached its recipient."""
        return [] if handle.when_stored else self._confirm_once(handle)

    def ended(self, handle: Confirmation, settlement: Settlement) -> list[Transmission]:
        """An original's message is over."""
        if settlement.outcome is Outcome.DELIVERED or settlement.reason is Reason.LISTEN_FAILED:
            return self._confirm_once(handle)
        if settlement.outcome is Outcome.REFUSED and settlement.reason is not Reason.INTERRUPTED:
            self._seen.forget(handle.identity)
        return []

    def post(
        self, peer: Peer, parcel: Parcel, token: Token, now: float
    ) -> tuple[Transmission | None, Settlement | None]:
        """Turn a parcel into a transmission for an original; a settlement says that it is over already."""
        self.is_used = True
        try:
            letter = write_letter(parcel, self._forms.get(peer.link, ArrayForm.AUTOPILOT_05))
        except PilotageError as error:
            return None, refused(Reason.INVALID, f"{peer.name} speaks JSON: {error}")
        frames = frames_to(peer.name, parcel.path, letter.body, dials=peer.card.dials)
        if not letter.wants_confirm:
            return (peer.link, frames), expired(f"{letter.message_id}: unconfirmed, as it asked not to be")
        if not peer.card.dials and letter.sender != self._me:
            # An original confirms by the sender's name and knows only ours; it would handle a resend once more.
            text = f"unconfirmed: {peer.name} is an original, which can't reach {letter.sender} behind {self._me}"
            return (peer.link, frames), expired(f"{letter.message_id}: {text}")
        self._awaiting.add(token, peer.link, frames, letter.message_id, letter.tries, now)
        return (peer.link, frames), None

    def time_passed(self, now: float) -> tuple[list[Transmission], list[tuple[Token, Settlement]]]:
        """Give what is to be sent again, and what nobody confirmed."""
        again, over = self._awaiting.time_passed(now)
        return [(awaited.link, awaited.frames) for awaited in again], over

    def link_lost(self, link: Link) -> list[tuple[Token, Settlement]]:
        """An original has gone: give up what it had not confirmed."""
        self._peers.pop(link, None)
        self._forms.pop(link, None)
        return self._awaiting.link_lost(link)

    def _request(self, peer: Peer, envelope: Envelope) -> Pending:
        message = envelope.message
        wanted = Flag.NOREPEAT not in message.flags
        sender, key = str(message.sender), str(message.key)
        handle = Confirmation(peer.link, sender, envelope.identity, wanted, key in STORING)
        return Pending(
            envelope.path,
            key,
            [envelope.raw],
            0,
            handle,
            [str(message.id)],
            ordered=wanted,
            durable=wanted and key == "DATA",
            tries=min(max(1, message.ttl), MAX_TRIES),
            is_json=True,
        )

    def _confirm_once(self, handle: Confirmation) -> list[Transmission]:
        peer = self._peers.get(handle.link)
        if peer is None or not handle.wanted or self._seen.was_confirmed(handle.identity):
            return []
        self._seen.mark_confirmed(handle.identity)
        return self._confirm(peer, handle.sender, handle.identity[1])

    def _confirm(self, peer: Peer, sender: str, message_id: str) -> list[Transmission]:
        self._confirms += 1
        body = confirm_body(self._me, self._confirms, sender, message_id)
        return [(peer.link, [body] if peer.card.dials else [peer.name.encode(), sender.encode(), body])]
