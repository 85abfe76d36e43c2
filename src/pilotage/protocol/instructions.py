"""What the core tells its driver to do, and who is meant by a link. Few and large: lists, not single things."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, IntEnum, StrEnum
from typing import Any

import msgspec

from pilotage.protocol.doors import Door
from pilotage.protocol.records import Frame, Parcel
from pilotage.protocol.sends import Kept, Part, Place
from pilotage.protocol.settlement import Settlement

Link = tuple[str, bytes]
"""One connection: the name of our socket, and the peer's routing id there (b"" on a dialling socket)."""


class Dialect(Enum):
    """Which wire a peer speaks. With NONE it speaks no wire of ours nor the originals': nothing of it is read."""

    OWN = "pilotage"
    JSON = "autopilot"
    NONE = ""


class Card(msgspec.Struct, frozen=True):
    """Who is at the other end of a link, as its connection's handshake told it.

    Attributes:
        dialect: the wire it speaks.
        name: the name it claims; of an original, its routing id.
        boot: its life; 0 for an original.
        dials: it connected to us (True), or we to it (False).
        key: the public key that the connection has proved to be its own; "" without encryption.
        address: where it comes from, if it came by the gate for originals; "" elsewhere.
        host: where it comes from, for people.
    """

    dialect: Dialect
    name: str
    boot: int = 0
    dials: bool = True
    key: str = ""
    address: str = ""
    host: str = ""


Arrival = tuple[Link, Card, Sequence[Frame]]
"""A transmission: the link it came on, who is there, and its frames (without a routing id)."""


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


class Transmit(msgspec.Struct, frozen=True):
    """Put these transmissions on their links, in order."""

    batch: list[tuple[Link, Sequence[Frame]]]


class HandOver(msgspec.Struct, frozen=True):
    """Give messages to their listens.

    Attributes:
        parcels: each of their messages is to be answered with `Exchange.handled`.
        passing: those of others, which a listen may look at; they go on with `Exchange.pass_on`.
    """

    parcels: list[Parcel]
    passing: list[Parcel]


class Settle(msgspec.Struct, frozen=True):
    """Tell these senders how their sends ended."""

    ended: list[tuple[Any, Settlement]]


class Progress(msgspec.Struct, frozen=True):
    """Tell these senders that the recipient has their message."""

    received: list[Any]


class Keep(msgspec.Struct, frozen=True):
    """Put these into the journal, and answer with `Exchange.persisted` for the place of each once it is synced."""

    sends: list[Kept]


class Drop(msgspec.Struct, frozen=True):
    """Take these out of the journal: they are over.

    Attributes:
        places: all that was kept at each.
        parts: some of what is kept at a place, which is not to come back, even where the rest stays.
    """

    places: list[Place]
    parts: list[Part]


class Accepted(msgspec.Struct, frozen=True):
    """Tell these senders that the journal has their message."""

    handles: list[Any]


class PeerChanged(msgspec.Struct, frozen=True):
    """A neighbour came, went, or fell silent; `is_parent` where it is the one that we dialled."""

    name: str
    state: PeerState
    text: str = ""
    is_parent: bool = False


class Hangup(msgspec.Struct, frozen=True):
    """Give a link up, and dial anew where we were the one who dialled."""

    link: Link
    text: str


class Follow(msgspec.Struct, frozen=True):
    """Dial this door instead of the station, which gave us up; where nobody answers there, dial the station again."""

    door: Door


class Note(msgspec.Struct, frozen=True):
    """Say this to whoever reads the log.

    Attributes:
        level: how much it matters.
        text: what there is to say.
        who: who was refused something, as it calls itself.
        verb: what it was refused, which is to be recorded; "" where it is no such note.
        target: to whom it had sent that.
    """

    level: Level
    text: str
    who: str = ""
    verb: str = ""
    target: str = ""


Instruction = (
    Transmit | HandOver | Settle | Progress | Keep | Drop | Accepted | PeerChanged | Hangup | Follow | Note
)
