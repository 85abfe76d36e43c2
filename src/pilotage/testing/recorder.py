"""What was sent, what was handled, how it ended: the facts that the invariants judge."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pilotage.protocol.settlement import Settlement

Identity = tuple[str, str, str]
"""What tells a message from all others: its sender, id and timestamp (here the sender's life)."""


@dataclass(slots=True, eq=False)
class Sent:
    """One send, and what its sender was told about it.

    Attributes:
        number: counts all sends of a world.
        identity: see `Identity`.
        boot: the sender's life.
        path: names to reach, the recipient last.
        verb: its key.
        ordered: it was to be confirmed.
        durable: it was to be sent until settled.
        at: virtual time, in seconds.
        received: how often its sender was told that it had been received.
        accepted: its sender was told that the journal has it.
        ends: its settlements.
        later_ends: what later lives of its sender, which found it in the journal, were told.
    """

    number: int
    identity: Identity
    boot: int
    path: tuple[str, ...]
    verb: str
    ordered: bool
    durable: bool
    at: float
    received: int = 0
    accepted: bool = False
    ends: list[Settlement] = field(default_factory=list)
    later_ends: list[Settlement] = field(default_factory=list)

    def __str__(self) -> str:
        kind = "durable" if self.durable else "confirmed" if self.ordered else "once"
        where = "/".join(self.path)
        return f"#{self.number} {self.identity[1]} {self.verb} to {where} ({kind}, sent at {self.at:.2f} s)"


@dataclass(slots=True, eq=False)
class Resumed:
    """A send that a later life of its sender has found in the journal."""

    sent: Sent
    received: int = 0
    accepted: bool = False

    @property
    def ends(self) -> list[Settlement]:
        """Where its settlement is noted."""
        return self.sent.later_ends

    def __str__(self) -> str:
        return f"{self.sent}, resumed"


class Recorder:
    """All facts of one world."""

    def __init__(self, *, tracing: bool = False) -> None:
        self.sends: list[Sent] = []
        self._by_identity: dict[Identity, Sent] = {}
        self.handled: dict[int, list[Identity]] = {}
        self.handlings: Counter[Identity] = Counter()
        self.faults: Counter[str] = Counter()
        self.violations: list[str] = []
        self.trace: list[tuple[float, str]] = []
        self.tracing = tracing

    def handle(self, life: int, identity: Identity) -> None:
        """A listen of this life was called with this message."""
        self.handled.setdefault(life, []).append(identity)
        self.handlings[identity] += 1

    def find(self, identity: Identity) -> Sent:
        """Give the send that a message belongs to."""
        return self._by_identity[identity]

    def send(self, sent: Sent) -> None:
        """A message is sent."""
        self.sends.append(sent)
        self._by_identity[sent.identity] = sent

    def say(self, now: float, text: str) -> None:
        """Keep a line of the trace."""
        self.trace.append((now, text))
