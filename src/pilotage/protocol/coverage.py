"""What one side says that it sent, what the other holds, and what that comes to.

Law: nothing is called complete that wasn't compared: numbers, counts and digests. What can't be judged is said to be
so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pilotage.protocol.errors import InvalidMessage
from pilotage.protocol.ledger import Kind, LedgerKey, Mark, RowTally, Tally
from pilotage.protocol.ranges import Ranges, ranges_from_wire, say, size, subtract

MAX_SHOWN_RANGES = 100
"""Ranges of one line that a certificate lists."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a sender says about one table or stream.

    Args:
        key: Which.
        mark: Count and digest of what it sent.
        numbers: The running numbers that it gave.
        is_exact: Whether that is all; False for a life that was killed, which may have sent more.
    """

    key: LedgerKey
    mark: Mark
    numbers: Ranges
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class Holding:
    """What is stored of one table or stream of one sender.

    Args:
        key: Which.
        mark: Count and digest.
        numbers: The running numbers that are there.
        unnumbered: Entries without one.
        doubled: Items that came under a number that another one has.
    """

    key: LedgerKey
    mark: Mark
    numbers: Ranges = ()
    unnumbered: int = 0
    doubled: int = 0


class Verdict(StrEnum):
    """What a comparison comes to."""

    COMPLETE = "complete"
    MISSING = "missing"
    DIFFERENT = "different"
    UNJUDGED = "unjudged"


class Digests(StrEnum):
    """How two digests compare."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Line:
    """One table or stream of one sender, compared.

    Attributes:
        key: which.
        sent: entries that its sender accounts for; None if nobody does.
        stored: entries that are stored.
        missing: numbers that were sent and aren't stored.
        surplus: numbers that are stored and that the sender doesn't know of.
        different: numbers of rows whose content isn't what was sent, where that is known.
        unnumbered: stored entries without a number, where others have one; or items with another one's number.
        digest: how the digests compare.
        is_exact: whether the sender knows all that it sent.
        fetched: numbers that were missing, and were fetched from the sender.
        reason: why it isn't judged, or could not be fetched.
    """

    key: LedgerKey
    sent: int | None
    stored: int
    missing: Ranges = ()
    surplus: Ranges = ()
    different: Ranges = ()
    unnumbered: int = 0
    digest: Digests = Digests.UNKNOWN
    is_exact: bool = True
    fetched: Ranges = ()
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        """Give what it comes to."""
        if self.missing:
            return Verdict.MISSING
        if self.sent is None:
            return Verdict.UNJUDGED
        if self.digest is Digests.DIFFERENT or self.different or self.surplus or self.unnumbered:
            return Verdict.DIFFERENT
        if not self.is_exact or self.digest is Digests.UNKNOWN:
            return Verdict.UNJUDGED
        return Verdict.COMPLETE

    @property
    def what(self) -> str:
        """Name it for people: "trials of rig_a", "stream ecg of rig_b"."""
        key = self.key
        name = key.name if key.kind is Kind.TABLE else f"stream {key.name}"
        return f"{name} of {key.pilot}" + f" from {key.agent}" * (key.agent not in ("", key.pilot))

    @property
    def entry(self) -> str:
        """Name one of its entries: "row" or "item"."""
        return "row" if self.key.kind is Kind.TABLE else "item"

    def sentences(self) -> list[str]:
        """Say what isn't as it should be; nothing if all is."""
        said = []
        if self.missing:
            why = self.reason if self.key.kind is Kind.TABLE else "items of streams are not kept by the pilot"
            lacks = "is" if size(self.missing) == 1 else "are"
            said.append(
                f"{say(self.entry, self.missing)} of {self.what} {lacks} missing" + f": {why}" * bool(why)
            )
        if self.different:
            said.append(
                f"{say(self.entry, self.different)} of {self.what}: stored with other content than was sent"
            )
        if self.surplus:
            said.append(
                f"{say(self.entry, self.surplus)} of {self.what}: stored, but its sender does not know of it"
            )
        if self.unnumbered:
            said.append(f"{self.what}: {self.unnumbered} entries under a number that another one has")
        if not said:
            said += self._content()
        return said

    def _content(self) -> list[str]:
        if self.verdict is Verdict.UNJUDGED:
            return [
                f"{self.what}: {self.stored} stored, not judged: {self.reason or 'nothing to compare with'}"
            ]
        if self.digest is Digests.DIFFERENT:
            why = f" ({self.reason})" if self.reason else ""
            return [f"{self.what}: the same count of {self.stored}, but other content or another order{why}"]
        return []

    def as_plain(self) -> dict[str, Any]:
        """Give it as plain data."""
        key = self.key
        return {
            "pilot": key.pilot, "kind": str(key.kind), "name": key.name, "agent": key.agent, "life": key.life,
            "sent": self.sent, "stored": self.stored, "is_exact": self.is_exact,
            **{name: _plain(getattr(self, name)) for name in ("missing", "surplus", "different", "fetched")},
            "missing_count": size(self.missing), "fetched_count": size(self.fetched),
            "unnumbered": self.unnumbered, "digest": str(self.digest), "verdict": str(self.verdict),
        }  # fmt: skip


def judge(
    claims: Iterable[Claim], holdings: Iterable[Holding], unclaimed: Mapping[LedgerKey, str] | None = None
) -> list[Line]:
    """Compare what was sent with what is stored, one line for each table and stream of each sender.

    Args:
        claims: What the senders say.
        holdings: What is stored.
        unclaimed: Why nobody claims something that is stored, by key.

    Returns:
        The lines, ordered by pilot, kind, name and sender. A stream's timestamps are compared within its line.
    """
    sent = {claim.key: claim for claim in claims}
    stored = {holding.key: holding for holding in holdings}
    keys = sorted(key for key in sent.keys() | stored.keys() if key.kind is not Kind.TIMESTAMP)
    reasons = unclaimed or {}
    lines = []
    for key in keys:
        line = _judge_one(key, sent.get(key), stored.get(key) or Holding(key, _nothing(key)))
        if line.sent is None or not line.is_exact:
            line.reason = reasons.get(key, line.reason)
        if key.kind is Kind.STREAM and line.digest is Digests.EQUAL:
            stamps = key._replace(kind=Kind.TIMESTAMP)
            line.digest = _compare(sent.get(stamps), stored.get(stamps))
        lines.append(line)
    return lines


def _judge_one(key: LedgerKey, claim: Claim | None, holding: Holding) -> Line:
    line = Line(key, None, holding.mark.count, is_exact=False)
    if claim is None:
        return line
    line.sent, line.is_exact = claim.mark.count, claim.is_exact
    line.missing = subtract(claim.numbers, holding.numbers)
    line.surplus = subtract(holding.numbers, claim.numbers) if claim.is_exact else ()
    line.unnumbered = holding.unnumbered + holding.doubled
    line.digest = _compare(claim, holding)
    return line


def _compare(claim: Claim | None, holding: Holding | None) -> Digests:
    ours, theirs = (None if side is None else side.mark for side in (claim, holding))
    if ours == theirs or (ours or theirs or Mark(0, "")).count == 0:
        return Digests.EQUAL
    if ours is None or theirs is None or ours.count != theirs.count or not ours.digest:
        return Digests.UNKNOWN
    return Digests.DIFFERENT


def _nothing(key: LedgerKey) -> Mark:
    return (RowTally() if key.kind is Kind.TABLE else Tally()).mark()


def _plain(ranges: Ranges) -> list[list[int]]:
    return [list(pair) for pair in ranges[:MAX_SHOWN_RANGES]]


def claims_to_wire(claims: Iterable[Claim]) -> list[list[Any]]:
    """Write claims as lists of [pilot, kind, name, source, count, digest, numbers, is_exact]."""
    return [
        [
            *(claim.key.pilot, str(claim.key.kind), claim.key.name, claim.key.source),
            *(claim.mark.count, claim.mark.digest, [list(pair) for pair in claim.numbers], claim.is_exact),
        ]
        for claim in claims
    ]


def claims_from_wire(rows: object) -> list[Claim]:
    """Read claims.

    Raises:
        InvalidMessage: They are no such lists.
    """
    try:
        return [
            Claim(
                LedgerKey(str(pilot), Kind(kind), str(name), str(source)),
                Mark(int(count), str(digest)),
                ranges_from_wire(numbers),
                bool(is_exact),
            )
            for pilot, kind, name, source, count, digest, numbers, is_exact in rows  # type: ignore[attr-defined]
        ]
    except (TypeError, ValueError) as error:
        raise InvalidMessage(f"an account's claims can't be read: {error}") from error
