"""How much nonsense a link may send before nothing of it is read for a while, and how much of anything.

A bucket of tokens for each link: it is full at first, fills again at a steady rate, and what can't be used takes some
out. Who empties it is muted: what comes by that link is thrown away unread, which costs a tenth of reading it.

Law of this room: whoever sends nothing wrong costs nothing here, and a link that is muted delays nobody but itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

BYTES_A_TOKEN = 65_536
MAX_BUCKETS = 10_000

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class PatienceRules:
    """How patient we are with one link.

    Attributes:
        burst: faults at once; one is a transmission that can't be used, or 64 KiB of such.
        faults_a_second: that are forgiven.
        mute_s: how long nothing of a link is read once its faults are beyond that.
        most_a_second: transmissions of any kind that are taken from a link each second, on average over ten; what is
            beyond is dropped and counted, and comes again where it is resent. None for no bound, and no cost.
    """

    burst: float = 200.0
    faults_a_second: float = 20.0
    mute_s: float = 10.0
    most_a_second: float | None = None

    def __post_init__(self) -> None:
        if min(self.burst, self.faults_a_second, self.mute_s) <= 0:
            raise ValueError(f"patience needs a burst, faults_a_second and mute_s above 0, not {self}")
        if self.most_a_second is not None and self.most_a_second <= 0:
            raise ValueError(f"most_a_second must be above 0, or None, not {self.most_a_second}")


class Buckets(Generic[K]):
    """Tokens by key; the key that was used longest ago is forgotten where there are too many.

    Args:
        size: tokens of a full bucket.
        a_second: tokens that come back.
        most: buckets remembered.
    """

    def __init__(self, size: float, a_second: float, most: int = MAX_BUCKETS) -> None:
        self._size = size
        self._a_second = a_second
        self._most = most
        self._left: dict[K, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._left)

    def take(self, key: K, tokens: float, now: float) -> bool:
        """Take tokens out of a bucket; False if there were not enough, and then it is as it was."""
        left, since = self._left.pop(key, (self._size, now))
        left = min(self._size, left + (now - since) * self._a_second)
        is_enough = left >= tokens
        self._left[key] = (left - tokens if is_enough else left, now)
        if len(self._left) > self._most:
            del self._left[next(iter(self._left))]
        return is_enough

    def forget(self, key: K) -> None:
        """Forget a bucket: whoever comes under its key finds it full."""
        self._left.pop(key, None)


class Patience(Generic[K]):
    """Our patience with all links.

    Args:
        rules: how much there is of it.

    Attributes:
        has_rate: there is a bound of how much a link may send at all.
    """

    def __init__(self, rules: PatienceRules) -> None:
        self._rules = rules
        self._faults: Buckets[K] = Buckets(rules.burst, rules.faults_a_second)
        self._muted: dict[K, float] = {}
        most = rules.most_a_second
        self.has_rate = most is not None
        self._all: Buckets[K] | None = None if most is None else Buckets(most * 10, most)

    def is_exhausted(self, link: K, size: int, now: float) -> bool:
        """Note that a transmission of so many bytes could not be used; tell whether the link is muted for it."""
        if self._faults.take(link, 1 + size / BYTES_A_TOKEN, now):
            return False
        if len(self._muted) >= MAX_BUCKETS:
            del self._muted[next(iter(self._muted))]
        self._muted[link] = now + self._rules.mute_s
        return True

    def is_muted(self, link: K, now: float) -> bool:
        """Tell whether nothing of a link is to be read now."""
        if not self._muted:
            return False
        until = self._muted.get(link)
        if until is None:
            return False
        if until > now:
            return True
        del self._muted[link]
        return False

    def within(self, arrivals: Sequence[tuple[K, Any, Any]], now: float) -> Sequence[tuple[K, Any, Any]]:
        """Give those arrivals that their links' rates allow: all of them, where no rate is set."""
        if self._all is None:
            return arrivals
        return [arrival for arrival in arrivals if self._all.take(arrival[0], 1.0, now)]

    def forget(self, link: K) -> None:
        """A link has ended."""
        self._muted.pop(link, None)
        self._faults.forget(link)
        if self._all is not None:
            self._all.forget(link)
