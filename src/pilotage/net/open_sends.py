"""Open sends: those of one messenger that have not ended, and how many have ended how.

Law of this room: a send leaves it once, with its end (promise D1). Those for whose end nobody can ask any more are kept
apart: their ends may come late, and nobody is in haste for their sake.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pilotage.net.bundle import Bundle, Part, as_part
from pilotage.net.notes import NoteLog
from pilotage.protocol.bodies import decode_value
from pilotage.protocol.errors import PilotageError
from pilotage.protocol.message import Message
from pilotage.protocol.sends import Pending
from pilotage.protocol.settlement import DELIVERED, Outcome, Reason, Settlement, refused

getrefcount = getattr(sys, "getrefcount", lambda held: 0)


def _unheld() -> int:
    """Count what refers to a bundle of which only its send, our list and a variable know; -1 if that can't be told."""
    one = object()
    alone = getrefcount(one)  # the variable, and in some versions the call; more where a debugger looks on
    another = one
    counts = alone <= 2 and getrefcount(another) == alone + 1
    return int(alone) + 2 if counts else -1


UNHELD = _unheld()


class OpenSends:
    """Bundles with messages that are open, and how many have ended how.

    Args:
        name: the sender's.
        notes: where failures are told.

    Attributes:
        settled: ends, by outcome.
        may_be_late: ends that nobody can ask for may come late: whoever releases us gives them time.
    """

    def __init__(self, name: str, notes: NoteLog) -> None:
        self.settled = {str(outcome): 0 for outcome in Outcome}
        self._name = name
        self._notes = notes
        self.may_be_late = False
        self._open: dict[int, Bundle] = {}
        self._unwatched: dict[int, Bundle] = {}
        self._none_left: threading.Event | None = None

    def __len__(self) -> int:
        return sum(bundle.open_count for bundle in self._bundles())

    @property
    def is_alone(self) -> bool:
        """Tell whether there is one bundle at most for whose end somebody may wait. Any thread."""
        return len(self._open) <= 1

    def look_at(self, sends: Iterable[Pending]) -> None:
        """See for which sends, which go out now, nobody can ask any more. On the loop's thread.

        Whoever can has a receipt, or has asked already, and each receipt refers to its bundle.
        """
        if not self.may_be_late:
            return
        for send in sends:
            bundle = send.handle
            if getrefcount(bundle) <= UNHELD and send.deadline_s is None:
                send.unwatched = True
                self._unwatched[id(bundle)] = bundle
                self._open.pop(id(bundle), None)

    def wait_unwatched(self, timeout_s: float) -> None:
        """Wait so long until all have ended for which nobody can ask. Not on the loop's thread."""
        none_left = self._none_left = threading.Event()
        if self._unwatched:
            none_left.wait(timeout_s)

    def add(self, bundle: Bundle) -> None:
        """Have messages open, if they are: they may have ended by now. Any thread."""
        self._open[id(bundle)] = bundle
        if not bundle.open_count:
            self._leave(bundle)

    def settle(self, ended: Iterable[tuple[Bundle | Part, Settlement]]) -> None:
        """Tell senders how their sends ended. On the loop's thread."""
        for messages, settlement in ended:
            self._end(messages, settlement)

    def reach(self, parts: Iterable[Bundle | Part], step: int) -> None:
        """Tell senders that their messages were received, or that the journal has them. On the loop's thread."""
        for messages in parts:
            as_part(messages).reach(step)

    def confirm(self, message_id: str, by: str | None) -> None:
        """Settle a send by its id; by the wire only its recipient may say so, None for anybody."""
        for part, message in self._each():
            if message.id == message_id and by in (None, message.to):
                self._end(part, DELIVERED)

    def interrupt(self, messages: Bundle | Part) -> None:
        """End what is open of these messages, for their sender was released. Any thread."""
        self._end(messages, refused(Reason.INTERRUPTED, f"{self._name} was released"))

    def interrupt_all(self) -> None:
        """End all sends, for their sender was released."""
        for bundle in self._bundles():
            self.interrupt(bundle)

    def messages(self) -> dict[str, Message]:
        """Give the messages by id. Any thread."""
        found: dict[str, Message] = {}
        for _, message in self._each():
            found[free_name(str(message.id), found)] = message
        return found

    def _each(self) -> Iterator[tuple[Part, Message]]:
        """Give the messages that have not ended, one by one."""
        for bundle in self._bundles():
            yield from bundle.open_messages()

    def _bundles(self) -> list[Bundle]:
        return [*list(self._open.values()), *list(self._unwatched.values())]

    def _leave(self, bundle: Bundle) -> None:
        """Forget a bundle of which all has ended."""
        self._open.pop(id(bundle), None)
        if id(bundle) in self._unwatched:
            del self._unwatched[id(bundle)]
            if not self._unwatched and self._none_left is not None:
                self._none_left.set()

    def _end(self, messages: Bundle | Part, settlement: Settlement) -> None:
        """End a bundle, or some of one, count them, and tell whoever watches."""
        if settlement is not DELIVERED:
            settlement = self._read(messages, settlement)
        if isinstance(messages, Part):
            bundle = messages.bundle
            count, watchers = messages.settle(settlement)
        else:
            bundle = messages
            count, watchers = bundle.settle(0, len(bundle.entries), settlement)
        self.settled[settlement.outcome] += count
        if bundle.ended == len(bundle.entries):
            self._leave(bundle)
        for watcher in watchers:
            watcher.tell_end()

    def _read(self, messages: Bundle | Part, settlement: Settlement) -> Settlement:
        """Give an end with its answer read, and log it if it is no delivery."""
        if settlement.outcome is not Outcome.DELIVERED:
            part = as_part(messages)
            for _, message in part.bundle.open_messages(part.first, part.end):
                self._notes.failed(message, settlement)
        if isinstance(settlement.answer, bytes):
            answer = _read_answer(settlement.answer)
            return Settlement(settlement.outcome, settlement.reason, settlement.text, answer)
        return settlement


def free_name(name: str, taken: Mapping[str, object]) -> str:
    """Give a name under which nothing is shown yet: ids begin anew with each life."""
    if name not in taken:
        return name
    return next(other for n in itertools.count(2) if (other := f"{name} ({n})") not in taken)


def _read_answer(answer: bytes) -> Any:
    try:
        return decode_value(answer)
    except PilotageError:
        return None
