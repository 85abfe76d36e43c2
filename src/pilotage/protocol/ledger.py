"""Count and digest what was recorded, so that two sides can prove that they hold the same.

Law: a tally depends on the values and their order alone: not on how a stream was cut into messages, not on
the order of a mapping's keys, not on whether a list was a tuple. Each side keeps its own `Ledger`;
`compare` names what parts them. A tally resumes from its stored state, so it can be kept in the transaction
of the data.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from pilotage.protocol.errors import InvalidMessage

Array = np.ndarray[Any, Any]

BLOCK = 4096
"""Bytes gathered before they are folded into a digest; the most that a tally's state carries."""

_DIGEST_SIZE = 16
_EXACT_FLOAT = 2**53


class Kind(StrEnum):
    """What a tally counts: a table's rows, a stream's items, or the timestamps of these."""

    TABLE = "table"
    STREAM = "stream"
    TIMESTAMP = "timestamp"


class LedgerKey(NamedTuple):
    """Whose record it is, of which kind, under which name ("trials" for trial data)."""

    pilot: str
    kind: Kind
    name: str


@dataclass(frozen=True, slots=True)
class Mark:
    """What is compared: how many entries, and the digest of all of them in hexadecimal."""

    count: int
    digest: str


@dataclass(frozen=True, slots=True)
class Tally:
    """The state of one count and digest, small enough to be stored with each commit.

    Args:
        count: Entries so far (items for a stream).
        digest: 16 bytes over all whole blocks.
        pending: Fewer than `BLOCK` bytes, not yet folded in.
        form: What the latest items look like (dtype and shape), so that a change of it shows in the digest.
    """

    count: int = 0
    digest: bytes = bytes(_DIGEST_SIZE)
    pending: bytes = b""
    form: bytes = b""

    def mark(self) -> Mark:
        """Give what the other side compares."""
        return Mark(self.count, _fold(self.digest, self.pending).hex())

    def extend(self, count: int, data: bytes | memoryview, form: bytes = b"") -> Tally:
        """Give the tally after `count` more entries whose canonical bytes are `data`."""
        head = self.pending if form == self.form else self.pending + canonical(form)
        digest, pending = _feed(self.digest, head, memoryview(data))
        return Tally(self.count + count, digest, pending, form)


@dataclass(frozen=True, slots=True)
class Difference:
    """One table or stream in which two ledgers differ.

    Args:
        key: Whose table or stream it is.
        ours: Entries that we hold.
        theirs: Entries that the other side holds.
    """

    key: LedgerKey
    ours: int
    theirs: int

    @property
    def missing(self) -> int:
        """Entries that the other side has and we lack (0 when we hold as many or more)."""
        return max(0, self.theirs - self.ours)

    @property
    def surplus(self) -> int:
        """Entries that we hold beyond those of the other side."""
        return max(0, self.ours - self.theirs)

    def __str__(self) -> str:
        where = f"{self.key.kind} {self.key.name!r} of pilot {self.key.pilot!r}"
        counts = f"we hold {self.ours}, the other side {self.theirs}"
        if self.missing:
            return f"{where}: {self.missing} missing ({counts})"
        if self.surplus:
            return f"{where}: {self.surplus} too many ({counts})"
        return f"{where}: the same count of {self.ours}, but other content or another order"


class Ledger:
    """Keep a tally for each table and stream of each pilot; for one thread at a time.

    >>> ours, theirs = Ledger(), Ledger()
    >>> for ledger in (ours, theirs):
    ...     ledger.add("rig_a", "trials", {"trial_num": 0, "choice": "L"})
    >>> theirs.add("rig_a", "trials", {"trial_num": 1, "choice": "R"})
    >>> print(compare(ours.marks(), theirs.marks())[0])
    table 'trials' of pilot 'rig_a': 1 missing (we hold 1, the other side 2)
    """

    def __init__(self, tallies: Mapping[LedgerKey, Tally] | None = None) -> None:
        """Start empty, or resume from stored tallies."""
        self._tallies: dict[LedgerKey, Tally] = dict(tallies or {})
        self._changed: set[LedgerKey] = set()

    def add(self, pilot: str, name: str, value: object) -> None:
        """Count one row of a table and fold its content in.

        Args:
            pilot: Whose row it is.
            name: The table: "trials", "events", "states", "parameters".
            value: Anything that `canonical` takes.

        Raises:
            InvalidMessage: The value has no canonical bytes.
        """
        self.add_canonical(pilot, name, canonical(value))

    def add_canonical(self, pilot: str, name: str, data: bytes) -> None:
        """Count one row of a table whose canonical bytes were made already."""
        self._extend(LedgerKey(pilot, Kind.TABLE, name), 1, data, b"")

    def add_items(self, pilot: str, stream: str, timestamps: Sequence[Any] | Array, data: Array) -> None:
        """Count a stream's items and their timestamps, however they were cut into messages.

        Args:
            pilot: Whose stream it is.
            stream: The stream's name.
            timestamps: One for each item: seconds (float), integers or text.
            data: Items of one dtype, shape (k, *item_shape).

        Raises:
            InvalidMessage: Counts differ, or the dtype holds objects.
        """
        if data.ndim == 0 or len(timestamps) != len(data):
            raise InvalidMessage(
                f"stream {stream!r}: {len(timestamps)} timestamps for an array of shape {data.shape}"
            )
        self.add_items_canonical(pilot, stream, canonical_timestamps(timestamps), data)

    def add_items_canonical(self, pilot: str, stream: str, stamps: bytes, data: Array) -> None:
        """Count a stream's items whose timestamps' canonical bytes were made already."""
        form, content = _items(data)
        self._extend(LedgerKey(pilot, Kind.STREAM, stream), len(data), content, form)
        self._extend(LedgerKey(pilot, Kind.TIMESTAMP, stream), len(data), stamps, b"")

    def marks(self) -> dict[LedgerKey, Mark]:
        """Give the count and digest of everything, ready to be sent and compared."""
        return {key: tally.mark() for key, tally in self._tallies.items()}

    def take_changed(self) -> dict[LedgerKey, Tally]:
        """Give the tallies that changed since the last call, so that a store writes only these."""
        changed = {key: self._tallies[key] for key in self._changed}
        self._changed.clear()
        return changed

    def _extend(self, key: LedgerKey, count: int, data: bytes | memoryview, form: bytes) -> None:
        self._tallies[key] = self._tallies.get(key, Tally()).extend(count, data, form)
        self._changed.add(key)


def compare(ours: Mapping[LedgerKey, Mark], theirs: Mapping[LedgerKey, Mark]) -> list[Difference]:
    """Name every table and stream in which two sides differ; an empty list means *complete*.

    Args:
        ours: What the store holds.
        theirs: What the sender says it sent.

    Returns:
        Differences ordered by pilot, kind and name.
    """
    nothing = Tally().mark()
    found = []
    for key in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(key, nothing), theirs.get(key, nothing)
        if mine != other:
            found.append(Difference(LedgerKey(*key), mine.count, other.count))
    return found


def canonical(value: object) -> bytes:
    """Give bytes that are equal exactly for equal values.

    Tuples equal lists, a mapping's order doesn't matter, NumPy scalars and 0-d arrays equal the Python number
    (which is what a wire makes of them), datetimes equal their ISO text; every NaN is the same NaN; 1, 1.0
    and True differ.

    Args:
        value: None, bool, int, float, complex, str, bytes, datetimes, NumPy arrays, and lists, tuples or
            mappings of these.

    Returns:
        Self-delimiting bytes: no concatenation of two values equals another's.

    Raises:
        InvalidMessage: A value, or one inside it, is of another type.
    """
    writer = _EXACT.get(type(value))
    return writer(value) if writer is not None else _other(value)


def canonical_timestamps(timestamps: Sequence[Any] | Array) -> bytes:
    """Give the bytes of timestamps, item by item, so that batches may be cut anywhere.

    Raises:
        InvalidMessage: A timestamp is neither a number nor text nor a datetime64.
    """
    array = np.asarray(timestamps) if not isinstance(timestamps, np.ndarray) else timestamps
    if array.dtype.kind == "f" and array.dtype.itemsize <= 8:
        return array.astype("<f8").tobytes()
    if array.dtype.kind in "iu" and (
        array.size == 0 or max(-int(array.min()), int(array.max())) <= _EXACT_FLOAT
    ):
        return array.astype("<f8").tobytes()
    return b"".join(_timestamp(stamp) for stamp in timestamps)


def _timestamp(stamp: object) -> bytes:
    if isinstance(stamp, np.datetime64):
        return canonical(str(stamp))
    if hasattr(stamp, "isoformat"):
        return canonical(stamp)
    plain = stamp.item() if isinstance(stamp, np.generic) else stamp
    if isinstance(plain, int) and not isinstance(plain, bool) and abs(plain) <= _EXACT_FLOAT:
        return struct.pack("<d", plain)
    if isinstance(plain, float):
        return struct.pack("<d", plain)
    if isinstance(plain, int | str) and not isinstance(plain, bool):
        return canonical(plain)
    raise InvalidMessage(f"a timestamp is a number or text, not {type(stamp).__name__}")


def _items(data: Array) -> tuple[bytes, bytes | memoryview]:
    if data.dtype.kind in "US":
        form = f"{data.dtype.kind}{data.shape[1:]}".encode()
        return form, b"".join(canonical(item) for item in data.ravel().tolist())
    plain = _little_endian(data)
    return f"{plain.dtype.str}{plain.shape[1:]}".encode(), plain.reshape(-1).view(np.uint8).data


def _little_endian(array: Array) -> Array:
    if array.dtype.hasobject:
        raise InvalidMessage("an array of Python objects has no canonical bytes: give it a plain dtype")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)


def _constant(value: bool | None) -> bytes:
    return b"n" if value is None else b"t" if value else b"f"


def _integer(value: int) -> bytes:
    return b"i%d;" % value


def _float(value: float) -> bytes:
    return b"d" + _double(value)


def _complex(value: complex) -> bytes:
    return b"c" + _double(value.real) + _double(value.imag)


def _text(value: str) -> bytes:
    text = value.encode("utf-8", "surrogatepass")
    return b"s%d:%b" % (len(text), text)


def _binary(value: bytes | bytearray | memoryview) -> bytes:
    data = bytes(value)
    return b"b%d:%b" % (len(data), data)


def _sequence(value: Sequence[object]) -> bytes:
    return b"l%d:%b" % (len(value), b"".join(map(canonical, value)))


def _mapping(value: Mapping[Any, object]) -> bytes:
    # Canonical bytes delimit themselves, so sorting the pairs sorts them by their keys.
    pairs = sorted(canonical(key) + canonical(item) for key, item in value.items())
    return b"m%d:%b" % (len(pairs), b"".join(pairs))


def _numpy(value: Array | np.generic) -> bytes:
    if value.ndim == 0 and value.dtype.kind in "biufcUS" and value.dtype.itemsize <= _largest(value.dtype):
        return canonical(value.item())
    array = _little_endian(np.asarray(value))
    return f"a{array.dtype.str}{array.shape}:".encode() + array.tobytes()


def _other(value: object) -> bytes:
    if hasattr(value, "isoformat"):
        return _text(str(value.isoformat()))
    for kinds, writer in _BY_BASE:
        if isinstance(value, kinds):
            return writer(value)
    raise InvalidMessage(
        f"{type(value).__name__} has no canonical bytes: use plain values, lists, mappings, arrays"
    )


def _double(value: float) -> bytes:
    return _PACK(value if value == value else math.nan)  # noqa: PLR0124 - the quickest test for NaN


_PACK = struct.Struct("<d").pack

_Writer = Callable[[Any], bytes]

_EXACT: dict[type, _Writer] = {
    str: _text,
    float: _float,
    int: _integer,
    bool: _constant,
    type(None): _constant,
    dict: _mapping,
    list: _sequence,
    tuple: _sequence,
}

_BY_BASE: tuple[tuple[tuple[type, ...], _Writer], ...] = (
    ((np.ndarray, np.generic), _numpy),
    ((int,), _integer),
    ((float,), _float),
    ((complex,), _complex),
    ((str,), _text),
    ((bytes, bytearray, memoryview), _binary),
    ((Mapping,), _mapping),
    ((list, tuple), _sequence),
)


def _largest(dtype: np.dtype[Any]) -> int:
    return {"f": 8, "c": 16}.get(dtype.kind, dtype.itemsize)


def _feed(digest: bytes, head: bytes, data: memoryview) -> tuple[bytes, bytes]:
    if len(head) + len(data) < BLOCK:
        return digest, head + bytes(data)
    while len(head) >= BLOCK:
        digest, head = _fold(digest, head[:BLOCK]), head[BLOCK:]
    start = (BLOCK - len(head)) if head else 0
    if len(data) < start:
        return digest, head + bytes(data)
    if head:
        digest = _fold(digest, head + bytes(data[:start]))
    end = start + (len(data) - start) // BLOCK * BLOCK
    for offset in range(start, end, BLOCK):
        digest = _fold(digest, data[offset : offset + BLOCK])
    return digest, bytes(data[end:])


def _fold(digest: bytes, block: bytes | memoryview) -> bytes:
    state = hashlib.blake2b(digest, digest_size=_DIGEST_SIZE)
    state.update(block)
    return state.digest()
