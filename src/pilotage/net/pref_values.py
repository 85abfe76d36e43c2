"""What a preference's value may be.

Law: a reader takes what a file, the environment or a caller gave and returns the value in its own
type, or raises ValueError with what is wrong with it. It knows neither keys nor layers.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

MAX_NAME_BYTES = 200
MAX_PORT = 65535
ORIGINALS_ROLES = ("pilot", "node")
"""What an original that comes without a key may be; the first if nothing is said."""

Reader = Callable[[object], object]
_Member = TypeVar("_Member", bound=StrEnum)


class LogLevel(StrEnum):
    """How much is logged: each level shows itself and all that follow it here."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


class Lineage(StrEnum):
    """Where a pilot stands in the tree: alone, above children, or below a parent."""

    NONE = "NONE"
    PARENT = "PARENT"
    CHILD = "CHILD"


def is_blank(raw: object) -> bool:
    """Tell whether `raw` is how files and the environment spell *not set*."""
    return raw is None or (isinstance(raw, str) and not raw.strip())


def optional(reader: Reader) -> Reader:
    """Let a reader take *not set* as well: None, or an empty text."""

    def read_optional(raw: object) -> object:
        return None if is_blank(raw) else reader(raw)

    return read_optional


def read_text(raw: object) -> str:
    """Read a text without control characters; blanks around it are dropped."""
    if not isinstance(raw, str):
        raise ValueError(f"must be a text, not {type(raw).__name__}")
    text = raw.strip()
    if not text or not text.isprintable():
        raise ValueError("must be a text of printable characters")
    return text


def read_name(raw: object) -> str:
    """Read a peer's name: it becomes an address on the wire and a folder on disk.

    Raises:
        ValueError: It is no text, too long, holds a slash, or begins with "_", which marks the
            inner node of a station.
    """
    name = read_text(raw)
    if name.startswith("_"):
        raise ValueError('must not begin with "_": that marks the inner node of a station')
    if "/" in name or "\\" in name or name in {".", ".."}:
        raise ValueError("must not hold a slash or be dots alone: it also names a folder")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"must not be longer than {MAX_NAME_BYTES} bytes")
    return name


def read_pilot_name(raw: object) -> str:
    """Read a pilot's own name, which can't be the Terminal's."""
    name = read_name(raw)
    if name == "T":
        raise ValueError('must not be "T": that is the name of the Terminal')
    return name


def read_names(raw: object) -> tuple[str, ...]:
    """Read a list of names: a list, a text with commas, a JSON list as text, or one name."""
    if is_blank(raw):
        return ()
    items = _split(raw) if isinstance(raw, str) else raw
    if not isinstance(items, list | tuple):
        raise ValueError(f"must be a list of names, not {type(raw).__name__}")
    return tuple(read_pilot_name(item) for item in items)


def _split(text: str) -> list[object]:
    if not text.lstrip().startswith("["):
        return list(text.split(","))
    try:
        items: list[object] = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"looks like a JSON list, but isn't one: {error}") from error
    return items


def read_host(raw: object) -> str:
    """Read an IP address or a host name, without scheme or port."""
    host = read_text(raw)
    if "://" in host or "/" in host or any(char.isspace() for char in host):
        raise ValueError("must be an IP address or a host name alone, without tcp:// before it")
    if ":" in host:
        _check_ipv6(host)
    return host


def _check_ipv6(host: str) -> None:
    try:
        ipaddress.IPv6Address(host.strip("[]"))
    except ValueError as error:
        raise ValueError("must be an address alone: the port is a preference of its own") from error


def read_port(raw: object) -> int:
    """Read a TCP port, 0 to 65535; 0 lets the system choose a free one to listen on."""
    port = _read_int(raw)
    if not 0 <= port <= MAX_PORT:
        raise ValueError(f"must be a port from 0 to {MAX_PORT}")
    return port


def _read_int(raw: object) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if not isinstance(raw, str):
        raise ValueError(f"must be a whole number, not {type(raw).__name__}")
    try:
        return int(raw)
    except ValueError as error:
        raise ValueError("must be a whole number") from error


def read_switch(raw: object) -> bool:
    """Read yes or no: true or false, or how files and the environment spell them."""
    if isinstance(raw, bool):
        return raw
    text = str(raw).strip().lower() if isinstance(raw, str | int) else ""
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise ValueError("must be true or false")


def read_originals(raw: object) -> tuple[str, ...]:
    """Read who may come without a key: a list, or a text with commas, of NAME@ADDRESS, or NAME@ADDRESS=ROLE."""
    if is_blank(raw):
        return ()
    items = _split(raw) if isinstance(raw, str) else raw
    if not isinstance(items, list | tuple):
        raise ValueError(f"must be a list of NAME@ADDRESS, not {type(raw).__name__}")
    return tuple(_read_original(item) for item in items)


def _read_original(raw: object) -> str:
    if "@" not in read_text(raw):
        raise ValueError("must name each original with the address that it comes from: NAME@ADDRESS")
    name, address, role = split_original(read_text(raw))
    if role not in ORIGINALS_ROLES:
        raise ValueError(f"{raw!r:.80}: an original can be {' or '.join(ORIGINALS_ROLES)}, not {role!r:.40}")
    try:
        place = f"{read_pilot_name(name)}@{ipaddress.ip_address(address.strip())}"
    except ValueError as error:
        raise ValueError(f"{raw!r:.80} is not NAME@ADDRESS or NAME@ADDRESS=ROLE: {error}") from error
    return place if role == ORIGINALS_ROLES[0] else f"{place}={role}"


def split_original(text: str) -> tuple[str, str, str]:
    """Give name, address and role of an original; it is a pilot if nothing is said."""
    name, _, place = text.rpartition("@")
    address, _, role = place.partition("=")
    return name, address, role.strip() or ORIGINALS_ROLES[0]


def read_positive(raw: object) -> float:
    """Read a finite number above 0."""
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise ValueError(f"must be a number, not {type(raw).__name__}")
    try:
        number = float(raw)
    except (ValueError, OverflowError) as error:
        raise ValueError("must be a number that a float can hold") from error
    if not math.isfinite(number) or number <= 0:
        raise ValueError("must be a finite number above 0")
    return number


def read_path(raw: object) -> Path:
    """Read a path; `~` becomes the user's home."""
    if not isinstance(raw, str | os.PathLike):
        raise ValueError(f"must be a path, not {type(raw).__name__}")
    text = os.fspath(raw)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ValueError("must be a path")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"has a home folder that this machine doesn't know ({error})") from error


def read_log_level(raw: object) -> LogLevel:
    """Read one of the names of `LogLevel`, in any case."""
    return _read_member(LogLevel, raw)


def read_lineage(raw: object) -> Lineage:
    """Read one of the names of `Lineage`, in any case; blank means NONE."""
    return Lineage.NONE if is_blank(raw) else _read_member(Lineage, raw)


def _read_member(kind: type[_Member], raw: object) -> _Member:
    names = [member.value for member in kind]
    text = raw.strip().upper() if isinstance(raw, str) else None
    if text not in names:
        raise ValueError(f"must be one of {', '.join(names)}")
    return kind(text)
