"""Open sends: those of one messenger that have not ended, each with the receipt that will tell how it did.

Law of this room: a send leaves it once, with its end (promise D1).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pilotage.net.notes import NoteLog
from pilotage.net.receipt import Receipt, settle_all
from pilotage.protocol.bodies import decode_value
from pilotage.protocol.errors import PilotageError
from pilotage.protocol.message import Message
from pilotage.protocol.settlement import DELIVERED, Outcome, Reason, Settlement, Stage, refused


class OpenSends:
    """Receipts by what they are, and how many have ended how.

    Args:
        name: the sender's.
        notes: where failures are told.

    Attributes:
        settled: ends, by outcome.
    """

    def __init__(self, name: str, notes: NoteLog) -> None:
        self.settled = {str(outcome): 0 for outcome in Outcome}
        self._name = name
        self._notes = notes
        self._open: dict[int, Receipt] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, receipt: Receipt) -> None:
        """Have a send open. Any thread."""
        self._open[id(receipt)] = receipt

    def settle(self, ended: Iterable[tuple[Receipt, Settlement]]) -> None:
        """Tell senders how their sends ended. On the loop's thread."""
        delivered: list[Receipt] = []
        take = self._open.pop
        for receipt, settlement in ended:
            if settlement is DELIVERED:
                if take(id(receipt), None) is not None:
                    delivered.append(receipt)
                continue
            self._deliver(delivered)
            delivered = []
            self._end(receipt, settlement)
        self._deliver(delivered)

    def _deliver(self, receipts: list[Receipt]) -> None:
        self.settled["delivered"] += len(receipts)
        settle_all(receipts, DELIVERED)

    def progress(self, receipts: Iterable[Receipt]) -> None:
        """Tell senders that their messages were received. On the loop's thread."""
        for receipt in receipts:
            if receipt.stage is not Stage.SETTLED:
                receipt.stage = Stage.RECEIVED

    def confirm(self, message_id: str, by: str | None) -> None:
        """Settle a send by its id; by the wire only its recipient may say so, None for anybody."""
        for receipt in list(self._open.values()):
            if receipt.message.id == message_id and by in (None, receipt.message.to):
                self._end(receipt, Settlement(Outcome.DELIVERED))

    def interrupt(self, receipt: Receipt) -> None:
        """End a send, for its sender was released. Any thread."""
        self._end(receipt, refused(Reason.INTERRUPTED, f"{self._name} was released"))

    def interrupt_all(self) -> None:
        """End all sends, for their sender was released."""
        for receipt in list(self._open.values()):
            self.interrupt(receipt)

    def messages(self) -> dict[str, Message]:
        """Give the messages by id. Any thread."""
        found: dict[str, Message] = {}
        for receipt in list(self._open.values()):
            found[free_name(str(receipt.message.id), found)] = receipt.message
        return found

    def _end(self, receipt: Receipt, settlement: Settlement) -> None:
        if self._open.pop(id(receipt), None) is None:
            return
        self.settled[settlement.outcome] += 1
        if isinstance(settlement.answer, bytes):
            settlement = replace(settlement, answer=_read_answer(settlement.answer))
        if settlement.outcome is not Outcome.DELIVERED:
            self._notes.failed(receipt.message, settlement)
        receipt.settle(settlement)


def free_name(name: str, taken: Mapping[str, object]) -> str:
    """Give a name under which nothing is shown yet: ids begin anew with each life."""
    if name not in taken:
        return name
    return next(other for n in itertools.count(2) if (other := f"{name} ({n})") not in taken)


def _read_answer(answer: bytes) -> Any:
    with contextlib.suppress(PilotageError):
        return decode_value(answer)
    return None
