"""What callers hand to stations and nodes, checked where it comes in: each error says what was wrong with what."""

from __future__ import annotations

from collections.abc import Mapping

from pilotage.net.listens import Listen
from pilotage.protocol.errors import InvalidMessage, MisuseError
from pilotage.protocol.message import Message

MAX_NAME_BYTES = 200
MAX_PORT = 65535

Recipient = str | list[str] | tuple[str, ...] | None


def path_of(to: Recipient) -> tuple[str, ...]:
    """Turn the documented `to` into a path.

    Raises:
        InvalidMessage: something in it is no name.
    """
    if isinstance(to, str):
        return (to,) if to else ()
    if not isinstance(to, list | tuple | None):
        raise InvalidMessage(f"a recipient must be a name, or a list of names on the way, not {to!r:.80}")
    names: tuple[object, ...] = tuple(to or ())
    if not all(isinstance(name, str) for name in names):
        raise InvalidMessage(f"a recipient must be a name, or a list of names on the way, not {to!r}")
    return tuple(str(name) for name in names) if any(names) else ()


def checked_name(name: object) -> str:
    """Give a name that a peer can be known by.

    Raises:
        InvalidMessage: it is no text of 1 to 200 bytes, or has letters that can't be seen.
    """
    if not isinstance(name, str) or not name or not name.isprintable() or len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidMessage(
            f"a name must be text of 1 to {MAX_NAME_BYTES} bytes that can be seen, not {name!r:.80}"
        )
    return name


def checked_port(port: object, what: str) -> int:
    """Give a port's number.

    Raises:
        MisuseError: it is none from 0 to 65535.
    """
    try:
        number = int(port)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise MisuseError(f"{what} must be a port's number, not {port!r}") from error
    if not 0 <= number <= MAX_PORT:
        raise MisuseError(f"{what} must be a port from 0 to {MAX_PORT}, not {number}")
    return int(number)


def checked_listens(listens: Mapping[str, Listen] | None, name: str) -> dict[str, Listen]:
    """Give listens that can be called.

    Raises:
        MisuseError: one of them can't be.
    """
    for key, listen in (listens or {}).items():
        if not callable(listen):
            raise MisuseError(f"{name}: the listen for {key!r} can't be called: {listen!r:.80}")
    return dict(listens or {})


def checked_message(msg: object) -> Message:
    """Give a message that the caller made.

    Raises:
        InvalidMessage: it is none.
    """
    if not isinstance(msg, Message):
        raise InvalidMessage(f"msg must be a Message, not {type(msg).__name__}; or give key and value")
    return msg
