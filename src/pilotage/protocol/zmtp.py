"""The opening of a ZMTP 3.1 conversation (RFC 37): who is there, before anything else is said.

Both ends of a ZeroMQ connection send a greeting of 64 bytes and then a READY command with properties. A peer of ours
tells its dialect, name and life there; an original tells its identity. Whoever only looks who listens on a port reads
that and closes again, which leaves no message and no peer at the other end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pilotage.protocol.errors import MalformedFrame
from pilotage.protocol.instructions import Card, Dialect
from pilotage.protocol.original import ANONYMOUS

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
GREETING_BYTES = 64
OPENING = 11
"""Bytes of a greeting up to the version: the other end then sends the whole of its own."""

MORE, LONG, COMMAND, SHARED = 1, 2, 4, 8
"""What a frame's first byte says: more frames follow; its length has eight bytes; it is no message; and, of ours alone,
it only tells where the frame lies, in memory that both ends see."""
SHORT_BYTES = 256
"""A shorter frame tells its length in one byte."""
READY = b"\x05READY"

MAX_READY_BYTES = 65536
MAX_NAME_BYTES = 200
MAX_BOOT_DIGITS = 20

X_DIALECT = "X-Pilotage"
X_NAME = "X-Name"
X_BOOT = "X-Boot"
X_SHELF = "X-Shelf"
"""Told by who can look at memory that is shared."""


def metadata(name: str, boot: int, wire_version: int) -> list[bytes]:
    """Give the properties that our sockets tell, each as zmq.METADATA wants it."""
    return [f"{X_DIALECT}:{wire_version}".encode(), f"{X_NAME}:{name}".encode(), f"{X_BOOT}:{boot}".encode()]


def frame_head(length: int, flags: int = 0) -> bytes:
    """Give what stands before a frame's body."""
    if length < SHORT_BYTES:
        return bytes((flags, length))
    return bytes((flags | LONG,)) + length.to_bytes(8, "big")


def ready_command(kind: str, told: Sequence[bytes], identity: str = "") -> bytes:
    """Give the READY command of a socket.

    Args:
        kind: of socket, such as "ROUTER".
        told: properties, each as `metadata` gives them.
        identity: by which an original knows us.
    """
    properties = [(b"Socket-Type", kind.encode()), (b"Identity", identity.encode())]
    properties += [(name, value) for name, _, value in (one.partition(b":") for one in told)]
    written = (
        bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value for name, value in properties
    )
    body = READY + b"".join(written)
    return frame_head(len(body), COMMAND) + body


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
    if flags == COMMAND:
        return GREETING_BYTES + 2 + opening[GREETING_BYTES + 1]
    if flags != COMMAND | LONG:
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
    told = read_ready(opening)
    if told.get("Socket-Type") != b"ROUTER":
        kind = told.get("Socket-Type", b"nameless").decode("ascii", "replace")
        raise MalformedFrame(f"a {kind} socket listens there, not a station's ROUTER")
    if X_DIALECT not in told:
        return Card(Dialect.JSON, _text(told.get("Identity", b"")) or upstream, 0, dials=False)
    return _own_card_of(told, dials=False)


def peer_card(told: Mapping[str, bytes], routing_id: bytes) -> Card:
    """Tell who has dialled us; a peer that says it is ours, but not who, has no name.

    Args:
        told: the properties of its READY.
        routing_id: by which an original wants to be known.
    """
    if X_DIALECT not in told:
        return Card(Dialect.JSON, original_name(routing_id))
    try:
        return _own_card_of(told, dials=True)
    except MalformedFrame:
        return Card(Dialect.OWN, "")


def original_name(routing_id: bytes) -> str:
    """Give the name of a peer that is known by its routing id; those that ZeroMQ made up begin with 0."""
    return ANONYMOUS + routing_id.hex() if routing_id.startswith(b"\0") else _text(routing_id)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _own_card_of(told: Mapping[str, bytes], *, dials: bool) -> Card:
    try:
        _, name, boot = (told.get(what, b"").decode() for what in (X_DIALECT, X_NAME, X_BOOT))
    except UnicodeDecodeError as error:
        raise MalformedFrame("what it tells of itself is not UTF-8") from error
    return own_card(name, boot, dials=dials)


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


def read_ready(opening: bytes) -> dict[str, bytes]:
    """Read what the other end tells of itself.

    Args:
        opening: greeting and READY, whole.

    Raises:
        MalformedFrame: its command is another one, or cut short.
    """
    command = opening[GREETING_BYTES + (2 if opening[GREETING_BYTES] == COMMAND else 9) :]
    if not command.startswith(READY):
        raise MalformedFrame("it did not begin with READY")
    told: dict[str, bytes] = {}
    at = len(READY)
    while at < len(command):
        name_end = at + 1 + command[at]
        value_at = name_end + 4
        size = int.from_bytes(command[name_end:value_at], "big")
        if value_at + size > len(command):
            raise MalformedFrame("its READY command is cut short")
        told[command[at + 1 : name_end].decode("ascii", "replace")] = command[value_at : value_at + size]
        at = value_at + size
    return told
