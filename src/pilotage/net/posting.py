"""Posting: messages of ours on their way into the loop's mailbox, and those that have not ended yet.

Law of this room: whoever sends waits neither for the loop nor for the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

from pilotage.net.bundle import ACCEPTED, Bundle, Part
from pilotage.net.drafting import NOREPEAT, Draft, Drafting, message_of
from pilotage.net.notes import NoteLog
from pilotage.net.open_sends import OpenSends
from pilotage.net.receipt import Receipt
from pilotage.protocol.bodies import NOT_PLAIN, decode_body, encode_body, encode_plain, encode_value
from pilotage.protocol.errors import Closed, InvalidMessage, PilotageError
from pilotage.protocol.instructions import Level, Note
from pilotage.protocol.message import Message
from pilotage.protocol.records import MAX_RUN
from pilotage.protocol.sends import Kept, Pending
from pilotage.transport.driver import Driver
from pilotage.transport.haste import interval
from pilotage.transport.mailbox import Mailbox, Row

DURABLE_KEYS = frozenset(("DATA",))
"""Keys that are sent again until they are settled (promise D6)."""

Terms = tuple[str | tuple[str, ...], str, bool, bool | None, float | None, bool]
"""What a message is asked for with, but for its value and flags: recipient or way, key, repeat, durable, deadline_s,
force_to. What follows each other in the same terms goes together."""


class Posting:
    """What one messenger sends.

    Args:
        name: the messenger's.
        notes: where it tells about messages.
        has_journal: what is durable can be kept.

    Attributes:
        drafting: numbers the messages.
        open: those that have not ended.
    """

    def __init__(self, name: str, notes: NoteLog, *, has_journal: bool) -> None:
        self.drafting = Drafting(name)
        self.open = OpenSends(name, notes)
        self._name = name
        self._notes = notes
        self._has_journal = has_journal
        self._driver: Driver | None = None
        self._mailbox = Mailbox()
        self._settled_by = 0

    def begin(self, driver: Driver) -> None:
        """Take sends from now on; on the loop's thread, which will end them."""
        self._driver, self._mailbox, self._settled_by = driver, driver.mailbox, threading.get_ident()

    def end(self) -> None:
        """Take none any more."""
        self._driver, self._mailbox = None, Mailbox()

    def prepare(
        self,
        to: str | list[str] | None,
        key: str,
        value: object,
        *,
        repeat: bool,
        flags: Mapping[str, Any] | None,
    ) -> Message:
        """Make a message that originates here.

        Raises:
            InvalidMessage: no key, or a recipient that is no name.
        """
        recipient = (to[-1] if isinstance(to, list) else to) or ""
        return message_of(str(key), self.drafting.draft(recipient, key, value, repeat, flags))

    def post(
        self,
        to: str | tuple[str, ...],
        key: object,
        value: object,
        repeat: bool = True,
        flags: Mapping[str, Any] | None = None,
        durable: bool | None = None,
        deadline_s: float | None = None,
        force_to: bool = False,
    ) -> Receipt:
        """Make a message that originates here and put it on its way. Any thread; see `prepare` and `send`.

        Args:
            to: the recipient, or all names on the way with the recipient last.
            key: what the message is about.
            value: what it says.
            repeat: resend it until received.
            flags: see `Flag`.
            durable: resend it until settled; None to let its key decide.
            deadline_s: seconds after which a durable message is given up; None for never.
            force_to: it is for the station up the tree, whatever that is called.

        Raises:
            InvalidMessage: no key, or a value that can't be sent.
            Closed: we were released.
        """
        terms = (to, str(key), repeat, durable, deadline_s, force_to)
        mailbox = self._mailbox
        row = mailbox.row
        if row is None or row.terms != terms or flags is not None:
            recipient = to if isinstance(to, str) else to[-1]
            draft = self.drafting.draft(recipient, key, value, repeat, flags)
            return self._post_first(draft, terms, is_row=not flags)
        # What is sent in a row goes together: only the first one makes all the work. Its bundle is held from before
        # the loop may take it: then it may be cut, and is one for whose end nobody can ask if nobody holds it.
        bundle: Bundle = row.send.handle
        draft = self.drafting.following(row.first, value)
        try:
            at = mailbox.join(row, encode_plain(draft), draft[0], draft)
        except NOT_PLAIN:
            at = 0
        if not at:
            return self._post_first(draft, terms)
        driver = self._driver
        if bundle.ended:
            self.open.add(bundle)  # confirmed before it went out, and over until now
        if interval.is_short:
            interval.calm_down()  # who goes on sending has all of it gathered
        if driver is not None and not (driver.is_awake and (row.count_with_first + at) % MAX_RUN):
            driver.wake(row.count_with_first + at)
        receipt = Receipt(draft, bundle, at)
        if self._driver is None or self._notes.tells_all:
            self._look_after(receipt, bundle[at : at + 1])
        return receipt

    def _post_first(self, draft: Draft, terms: Terms, *, is_row: bool = True) -> Receipt:
        """Put a message on its way by itself; those that follow it in the same terms may join it, if it is a row."""
        to, verb, repeat, durable, deadline_s, force_to = terms
        body, frames = encode_value(draft)
        name = draft[0]
        path = ("",) if force_to else (to,) if isinstance(to, str) else to
        ordered = repeat and NOREPEAT not in draft[6]
        bundle = Bundle(verb, draft, self._settled_by)
        request = Pending(path, verb, [body], frames, bundle, [name], ordered, tries=draft[5])
        row = Row(terms, request, draft, len(body)) if is_row and not frames else None
        return self._launch(request, draft, durable, deadline_s, row=row)

    def send(
        self,
        message: Message,
        path: tuple[str, ...],
        *,
        repeat: bool,
        durable: bool | None = None,
        kept: bool = True,
        deadline_s: float | None = None,
        hand_over: bool = False,
    ) -> Receipt:
        """Put a message on its way. Any thread.

        Args:
            message: valid, see `prepare`.
            path: names to reach, the recipient last; "" is the station up the tree.
            repeat: resend it until received.
            durable: resend it until settled; None to let its key decide.
            kept: what is durable is also kept in the journal, if there is one.
            deadline_s: seconds after which a durable message is given up; None for never.
            hand_over: its arrays won't be changed any more.

        Raises:
            InvalidMessage: it lacks id, to, sender or key, or its value can't be sent.
            Closed: we were released.
        """
        if not message.validate():
            raise InvalidMessage(f"{message!r} needs id, to, sender and key")
        body, frames = encode_body(message, hand_over=hand_over)
        name, tries = str(message.id), max(1, message.ttl)
        bundle = Bundle(str(message.key), message, self._settled_by)
        request = Pending(path, bundle.key, [body], frames, bundle, [name], repeat, tries=tries)
        return self._launch(request, message, durable, deadline_s, kept)

    def resume(self, kept: Kept) -> Bundle:
        """Go on with sends of an earlier life: they are ours now, and nobody holds their receipts."""
        first, *others = map(partial(self._read, kept), kept.names, kept.bodies)
        bundle = Bundle(kept.verb, first, self._settled_by)
        for message in others:
            bundle.append(message)
        bundle.reach(0, len(kept.names), ACCEPTED)
        self.open.add(bundle)
        return bundle

    def _read(self, kept: Kept, name: str, body: bytes) -> Message:
        """Read a message of the journal."""
        try:
            return decode_body(kept.verb, body, kept.frames)
        except PilotageError as error:
            # What can't be read here may be read there, and must not keep us from starting.
            self._notes.write(Note(Level.WARNING, f"{name} of the journal can't be read here: {error}"))
            return Message(id=name, to=kept.path[-1], sender=self._name, key=kept.verb)

    @property
    def _running(self) -> Driver:
        driver = self._driver
        if driver is None:
            raise Closed(f"{self._name} is not running (any more): make a new one")
        return driver

    def _launch(
        self,
        request: Pending,
        message: Message | Draft,
        durable: bool | None,
        deadline_s: float | None,
        kept: bool = True,
        row: Row | None = None,
    ) -> Receipt:
        """Leave a send in the loop's mailbox."""
        driver = self._driver or self._running
        if durable or (durable is None and request.ordered and request.verb in DURABLE_KEYS):
            request.durable = request.ordered = True
            request.kept = kept and self._has_journal
            request.deadline_s = deadline_s
        bundle: Bundle = request.handle
        receipt = Receipt(message, bundle, 0)
        self.open.add(bundle)
        driver.send(request, row, at_once=self.open.is_alone and not (request.durable or request.frames))
        if self._driver is None or self._notes.tells_all:
            self._look_after(receipt, bundle[:1])
        return receipt

    def _look_after(self, receipt: Receipt, message: Part) -> None:
        """Log what is on its way into the mailbox, or end it if we were released meanwhile."""
        if self._notes.tells_all:
            self._notes.passing("SENT", receipt.message)
        if self._driver is None:
            self.open.interrupt(message)
