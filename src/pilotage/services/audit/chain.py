"""The chain: an entry's digest covers its number, its content and the digest of the entry before it.

Whoever changes, removes or adds an entry afterwards has to compute all later digests anew, and then the newest one is
no longer what was written elsewhere: into each session's record when it ended, and on whatever screen or paper.

Law of this room: pure; what is judged is exactly the text that was stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

DIGEST_BYTES = 32
FIRST = bytes(DIGEST_BYTES)
"""What stands before the first entry."""


@dataclass(frozen=True, slots=True)
class Link:
    """One entry.

    Attributes:
        number: from 1, without gaps.
        content: its canonical JSON.
        previous: the digest of the entry before it.
        digest: its own.
    """

    number: int
    content: str
    previous: bytes
    digest: bytes

    @property
    def fields(self) -> dict[str, Any]:
        """Its content, read; empty where it can't be."""
        try:
            found = json.loads(self.content)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look at the whole chain has found.

    Attributes:
        entries: how many were looked at; up to the first broken one.
        newest: the digest of the last good entry, in hexadecimal.
        broken_at: the number of the first entry that doesn't hold; None if all do.
        text: why it doesn't.
    """

    entries: int
    newest: str
    broken_at: int | None = None
    text: str = ""

    @property
    def is_whole(self) -> bool:
        """Tell whether every entry holds."""
        return self.broken_at is None


def canonical(fields: Mapping[str, Any]) -> str:
    """Write an entry's content, the same for the same fields.

    Raises:
        TypeError, ValueError: it holds what JSON can't say.
    """
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def bind(number: int, content: str, previous: bytes) -> Link:
    """Make the next entry."""
    return Link(number, content, previous, _digest(number, content, previous))


def verify(links: Iterable[Link], anchors: Mapping[int, str] | None = None) -> Verdict:
    """Follow a chain from its first entry.

    Args:
        links: all entries, in the order of their numbers.
        anchors: digests (hexadecimal) that were written elsewhere, by number.

    Returns:
        What was found, up to the first entry that doesn't hold.
    """
    expected, before, anchors = 1, FIRST, dict(anchors or {})
    for link in links:
        fault = _fault(link, expected, before) or _anchor_fault(link, anchors)
        if fault:
            return Verdict(expected - 1, before.hex(), min(expected, link.number), fault)
        expected, before = expected + 1, link.digest
    missing = [number for number in anchors if number >= expected]
    if missing:
        text = f"entries up to {max(missing)} were there once, as a session's record says, and are gone"
        return Verdict(expected - 1, before.hex(), expected, text)
    return Verdict(expected - 1, before.hex())


def _fault(link: Link, expected: int, before: bytes) -> str:
    if link.number != expected:
        return f"entry {expected} is missing; {link.number} follows"
    if link.previous != before:
        return "it doesn't follow the entry before it: that one, or this one, was replaced"
    if link.digest != _digest(link.number, link.content, link.previous):
        return "its content isn't what was written"
    return ""


def _anchor_fault(link: Link, anchors: Mapping[int, str]) -> str:
    known = anchors.get(link.number)
    if known is not None and known != link.digest.hex():
        return "a session's record holds another digest of it: it, or one before it, was written anew"
    return ""


def _digest(number: int, content: str, previous: bytes) -> bytes:
    told = blake2b(digest_size=DIGEST_BYTES, person=b"pilotage audit")
    told.update(previous)
    told.update(number.to_bytes(8, "big"))
    told.update(content.encode("utf-8", "surrogatepass"))
    return told.digest()
