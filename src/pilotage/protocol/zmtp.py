"""A look at who listens on a port, before we connect: the opening of a ZMTP 3.1 conversation (RFC 37).

Both ends of a ZeroMQ connection send a greeting of 64 bytes and then a READY command with properties. A station of
ours tells its dialect, name and life there; an original tells its identity. Reading that and closing again leaves
no message and no peer at the other end.
"""

from __future__ import annotations

from pilotage.protocol.errors import MalformedFrame
from pilotage.protocol.instructions import Card, Dialect

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
GREETING_BYTES = 64
OPENING = 11
"""Bytes of a greeting up to the version: the other end then sends the whole of its own."""

MAX_READY_BYTES = 65536
MAX_NAME_BYTES = 200
MAX_BOOT_DIGITS = 20

X_DIALECT = "X-Pilotage"
X_NAME = "X-Name"
X_BOOT = "X-Boot"


def metadata(name: str, boot: int, wire_version: int) -> list[bytes]:
    """Give the properties that our sockets tell, each as zmq.METADATA wants it."""
    return [f"{X_DIALECT}:{wire_version}".encode(), f"{X_NAME}:{name}".encode(), f"{X_BOOT}:{boot}".encode()]


def is_locked(opening: bytes) -> bool:
    """Tell whether a listener speaks to nobody without a key, by its greeting, which is there."""
    return _mechanism(opening) == "CURVE"


def _mechanism(opening: bytes) -> str:
    return opening[12:32].rstrip(b"\0").decode("ascii", "replace")


def ready_length(opening: bytes) -> int | None:
    """Tell how many bytes greeting and READY have together, or None while too few have come.

    Of a listener that wants a key only the greeting can be read.

    Raises:
        MalformedFrame: no ZMTP 3 peer speaks there, or it wants something else than a key.
    """
    _check_greeting(opening)
    if len(opening) < GREETING_BYTES:
        return None
    if is_locked(opening):
        return GREETING_BYTES
    if len(opening) < GREETING_BYTES + 2:
        return None
    flags = opening[GREETING_BYTES]
    if flags == 0x04:
        return GREETING_BYTES + 2 + opening[GREETING_BYTES + 1]
    if flags != 0x06:
        raise MalformedFrame("it did not begin with a command")
    if len(opening) < GREETING_BYTES + 9:
        return None
    length = int.from_bytes(opening[GREETING_BYTES + 1 : GREETING_BYTES + 9], "big")
    if length > MAX_READY_BYTES:
        raise MalformedFrame(f"its first command has {length} bytes")
    return GREETING_BYTES + 9 + length


def _check_greeting(opening: bytes) -> None:
    if not b"\xff".startswith(opening[:1]) or (len(opening) > 9 and opening[9] != 0x7F):
        raise MalformedFrame("what listens there does not speak ZeroMQ's protocol")
    if len(opening) > 10 and opening[10] < 3:
        raise MalformedFrame(f"it speaks ZMTP {opening[10]}; we need version 3")
    if len(opening) >= GREETING_BYTES and _mechanism(opening) not in ("NULL", "CURVE"):
        raise MalformedFrame(f"it wants {_mechanism(opening)}; we speak CURVE, or NULL on this machine")


def read_card(opening: bytes, upstream: str) -> Card:
    """Tell who listens there.

    Args:
        opening: greeting and READY, whole.
        upstream: the name that we expect, for one that doesn't tell its own.

    Raises:
        MalformedFrame: no READY command of a ROUTER.
    """
    command = opening[GREETING_BYTES + (2 if opening[GREETING_BYTES] == 0x04 else 9) :]
    if not command.startswith(b"\x05READY"):
        raise MalformedFrame("it did not begin with READY")
    told = _properties(command[6:])
    if told.get("Socket-Type") != "ROUTER":
        raise MalformedFrame(
            f"a {told.get('Socket-Type', 'nameless')} socket listens there, not a station's ROUTER"
        )
    if X_DIALECT not in told:
        return Card(Dialect.JSON, told.get("Identity") or upstream, 0, dials=False)
    return own_card(told.get(X_NAME, ""), told.get(X_BOOT, ""), dials=False)


def own_card(name: str, boot: str, *, dials: bool) -> Card:
    """Build the card of a peer that speaks our wire from the properties that it told.

    Raises:
        MalformedFrame: no name, one that is too long or can't be shown, or a life that is no number.
    """
    if not (boot.isascii() and boot.isdecimal() and len(boot) <= MAX_BOOT_DIGITS):
        raise MalformedFrame("a peer of our wire must tell its life, a number")
    if not name.isprintable() or not 0 < len(name.encode()) <= MAX_NAME_BYTES:
        raise MalformedFrame(
            f"a peer of our wire must tell its name, {MAX_NAME_BYTES} bytes that can be seen at most"
        )
    return Card(Dialect.OWN, name, int(boot), dials=dials)


def _properties(data: bytes) -> dict[str, str]:
    told: dict[str, str] = {}
    at = 0
    while at < len(data):
        name_end = at + 1 + data[at]
        value_at = name_end + 4
        size = int.from_bytes(data[name_end:value_at], "big")
        if value_at + size > len(data):
            raise MalformedFrame("its READY command is cut short")
        told[data[at + 1 : name_end].decode("ascii", "replace")] = data[value_at : value_at + size].decode(
            "utf-8", "replace"
        )
        at = value_at + size
    return told
