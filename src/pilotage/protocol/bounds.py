"""How many parts a document from a peer may have: judged from its bytes, before anything is built of them.

A byte of hostile text can cost sixty-odd bytes of memory and a microsecond in which no other thread runs, so that some
megabytes of `[],[],[],` would stall a station for seconds. What is short is not looked at: it can't have that many.

Law of this room: no allocation grows with what a document claims, only with what it was found to hold.
"""

from __future__ import annotations

from typing import Final

from pilotage.protocol.errors import MalformedFrame

MAX_CONTAINERS: Final = 100_000
"""Lists, dictionaries and arrays in one message."""

MAX_ITEMS: Final = 2_000_000
"""Numbers, texts and containers in one message; what an array holds counts as one."""

UNCHECKED_BYTES: Final = MAX_CONTAINERS
"""What is no longer than that can't hold too many parts."""

_HOLDING: Final = {*range(0x80, 0xA0), *range(0xC7, 0xCA), *range(0xD4, 0xD9), *range(0xDC, 0xE0)}
"""First bytes of what holds others: containers, and the extensions that are arrays."""
_OTHERS: Final = bytes(byte for byte in range(256) if byte not in _HOLDING)


def check_json(text: str) -> None:
    """See that JSON text can't hold too many parts; brackets and commas inside its texts count, too.

    Raises:
        MalformedFrame: it may hold more than `MAX_CONTAINERS` or `MAX_ITEMS`.
    """
    if len(text) <= UNCHECKED_BYTES:
        return
    containers = text.count("[") + text.count("{")
    if containers > MAX_CONTAINERS or containers + text.count(",") > MAX_ITEMS:
        raise MalformedFrame(_too_many())


def check_msgpack(body: bytes | memoryview) -> None:
    """See that MessagePack doesn't hold too many parts.

    Raises:
        MalformedFrame: it holds more than `MAX_CONTAINERS` or `MAX_ITEMS`, or is cut short.
    """
    if len(body) <= UNCHECKED_BYTES:
        return
    data = bytes(body)
    if len(data) <= MAX_ITEMS and len(data.translate(None, _OTHERS)) <= MAX_CONTAINERS:
        return
    _walk(data)


def _walk(data: bytes) -> None:
    """Count a document's parts one by one; texts, bytes and arrays are stepped over."""
    at, end = 0, len(data)
    items = containers = 0
    fixed, sized, counted, holding = _FIXED, _SIZED, _COUNTED, _HOLDING
    while at < end:
        code = data[at]
        items += 1
        step = fixed[code]
        if step > 0:
            at += step
        elif code in sized:
            width, head = sized[code]
            at += head + int.from_bytes(data[at + 1 : at + 1 + width], "big")
        else:
            at += counted.get(code, 1)
        if code in holding:
            containers += 1
        if containers > MAX_CONTAINERS or items > MAX_ITEMS:
            raise MalformedFrame(_too_many())


def _too_many() -> str:
    return (
        f"a message may hold {MAX_CONTAINERS} lists, dictionaries and arrays, and {MAX_ITEMS} items; "
        "send numbers as an array, or send it in parts"
    )


def _fixed_sizes() -> list[int]:
    """Give, for each first byte, how many bytes the item has; 0 where it says so itself, or holds others."""
    sizes = [1] * 256
    sizes[0x80:0xA0] = [0] * 32
    sizes[0xA0:0xC0] = [1 + length for length in range(32)]
    for code in (*range(0xC4, 0xCA), *range(0xD9, 0xE0)):
        sizes[code] = 0
    for code, size in {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}.items():
        sizes[code] = size
    for code, size in {0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}.items():
        sizes[code] = size
    for power, code in enumerate(range(0xD4, 0xD9)):
        sizes[code] = 2 + (1 << power)
    return sizes


_FIXED: Final = _fixed_sizes()
_SIZED: Final = {
    0xC4: (1, 2), 0xC5: (2, 3), 0xC6: (4, 5), 0xC7: (1, 3), 0xC8: (2, 4), 0xC9: (4, 6), 0xD9: (1, 2), 0xDA: (2, 3),
    0xDB: (4, 5),
}  # fmt: skip
"""Bytes, extensions and texts: how wide their length is, and how many bytes stand before the content."""
_COUNTED: Final = {0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5}
"""Containers that tell their length: how many bytes that takes."""
