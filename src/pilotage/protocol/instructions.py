"""What the core tells its driver to do, and who is meant by a link. Few and large: lists, not single things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from typing import Any

from pilotage.protocol.doors import Door
from pilotage.protocol.records import Frame, Parcel
from pilotage.protocol.sends import Kept, Place
from pilotage.protocol.settlement import Settlement

Link = tuple[str, bytes]
"""One connection: the name of our socket, and the peer's routing id there (b"" on a dialling socket)."""


class Dialect(Enum):
    """Which wire a peer speaks."""

    OWN = "pilotage"
    JSON = "autopilot"


@dataclass(frozen=True, slots=True)
class Card:
    """Who is at the other end of a link, as its connection's handshake told it.

    Attributes:
        dialect: the wire it speaks.
        name: the name it claims; of an original, its routing id.
        boot: its life; 0 for an original.
        dials: it connected to us (True), or we to it (False).
        key: the public key that the connection has proved to be its own; "" without encryption.
        address: where it comes from, if it came by the gate for originals; "" elsewhere.
    """

    dialect: Dialect
    name: str
    boot: int = 0
    dials: bool = True
    key: str = ""
    address: str = ""


class Service(Enum):
    """What a station or node does with a key that reaches it."""

    NONE = "none"
    HANDLE = "handle"
    PASS_ON = "pass on"


class PeerState(StrEnum):
    """How a neighbour is doing; see `liveness` for the table."""

    JOINING = "joining"
    ALIVE = "alive"
    SUSPECT = "suspect"
    GONE = "gone"


class Level(IntEnum):
    """How much a note matters; the numbers are those of Python's logging."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


@dataclass(frozen=True, slots=True)
class Transmit:
    """Put these transmissions on their links, in order."""

    batch: list[tuple[Link, Sequence[Frame]]]


@dataclass(frozen=True, slots=True)
class HandOver:
    """Give messages to their listens.

    Attributes:
        parcels: each of their messages is to be answered with `Exchange.handled`.
        passing: those of others, which a listen may look at; they go on with `Exchange.pass_on`.
    """

    parcels: list[Parcel]
    passing: list[Parcel]


@dataclass(frozen=True, slots=True)
class Settle:
    """Tell these senders how their sends ended."""

    ended: list[tuple[Any, Settlement]]


@dataclass(frozen=True, slots=True)
class Progress:
    """Tell these senders that the recipient has their message."""

    received: list[Any]


@dataclass(frozen=True, slots=True)
class Keep:
    """Put these sends into the journal, and answer with `Exchange.persisted` once they are synced."""

    sends: list[Kept]


@dataclass(frozen=True, slots=True)
class Drop:
    """Take these sends out of the journal: they are over."""

    places: list[Place]


@dataclass(frozen=True, slots=True)
class Accepted:
    """Tell these senders that the journal has their message."""

    handles: list[Any]


@dataclass(frozen=True, slots=True)
class PeerChanged:
    """A neighbour came, went, or fell silent; `is_parent` where it is the one that we dialled."""

    name: str
    state: PeerState
    text: str = ""
    is_parent: bool = False


@dataclass(frozen=True, slots=True)
class Hangup:
    """Give a link up, and dial anew where we were the one who dialled."""

    link: Link
    text: str


@dataclass(frozen=True, slots=True)
class Follow:
    """Dial this door instead of the station, which gave us up; where nobody answers there, dial the station again."""

    door: Door


@dataclass(frozen=True, slots=True)
class Note:
    """Say this to whoever reads the log.

    Attributes:
        level: how much it matters.
        text: what there is to say.
        who: who was refused something, as it calls itself.
        verb: what it was refused, which is to be recorded; "" where it is no such note.
    """

    level: Level
    text: str
    who: str = ""
    verb: str = ""


Instruction = (
    Transmit | HandOver | Settle | Progress | Keep | Drop | Accepted | PeerChanged | Hangup | Follow | Note
)
