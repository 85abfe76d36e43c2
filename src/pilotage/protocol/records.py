"""What travels on our own wire: parcels, acknowledgements and the packet that gathers them.

A transmission is one packet: a head frame (a version byte, then MessagePack) and, behind it, the raw frames of
the arrays that its parcels carry. A parcel is a run: messages of one flow that follow each other and travel, are
forwarded and are taken in together, for what costs is not the message but the step. Every field of a head is
described in `docs/reference/wire.md`.

Law of this room: a station reads a parcel's header and never its body.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from pilotage.protocol.errors import MalformedFrame
from pilotage.protocol.settlement import Outcome, Reason

WIRE_VERSION = 3
MAX_HOPS = 16
MAX_NAMES = 256
MAX_NAME_CHARS = 1024
MAX_RANGES = 2 * 65_536
MAX_HEAD_BYTES = 64 * 2**20
MAX_PACKET_PARCELS = 1024
MAX_PACKET_ACKS = 65_536
MAX_RUN = 256
MAX_RUN_BYTES = 128 * 1024
MAX_RUN_READ = 4096
MAX_PACKET_BYTES = 512 * 1024

Frame = bytes | memoryview

# Lists are bounded by what their heads say, before anything is built of them.
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARS)]
Names = Annotated[list[Name], msgspec.Meta(max_length=MAX_NAMES)]
Path = Annotated[list[Name], msgspec.Meta(min_length=1, max_length=MAX_NAMES)]
Bodies = Annotated[list[bytes], msgspec.Meta(max_length=MAX_RUN_READ)]
Ranges = Annotated[list[int], msgspec.Meta(max_length=MAX_RANGES)]
if TYPE_CHECKING:
    FrameCount = Any
else:  # what is read; in memory it may be `Attached` instead
    FrameCount = Annotated[int, msgspec.Meta(ge=0)]


class Marks:
    """What a parcel's header says about it, beside its route: bits of a plain int, for each parcel is tested."""

    ORDERED: Final = 1  # handled in the order of its flow, resent until received
    DURABLE: Final = 2  # sent again until settled; its number of tries is not limited
    PROBE: Final = 4  # carries no body: asks how the flow stands and tells its floor
    JSON: Final = 8  # the body is an original JSON envelope, not MessagePack
    UNWATCHED: Final = 16  # nobody can ask for its end, which may be told with others, a moment later


class Attached:
    """The raw frames that belong to one parcel's body."""

    __slots__ = ("frames",)

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = frames


class Parcel(msgspec.Struct, array_like=True, gc=False):
    """Messages under way: one, or several of a flow that follow each other.

    Attributes:
        path: names still to be reached; the last one is the recipient.
        trail: names of the peers it came through, oldest first; each receiver appends its neighbour's name.
        boot: the life (one process run) of the originator, a random 63-bit number.
        flow: the originator's number for (recipient, key, ordered or not).
        seq: place of its first message in the flow, from 1.
        floor: the lowest place whose outcome the originator still awaits; all below are over.
        verb: the messages' key.
        marks: see `Marks`.
        bodies: the messages themselves, in order, opaque to everyone but the recipient; none in a probe.
        attached: on the wire the number of raw frames behind the head that belong to it; `Attached` in memory. A
            message with frames travels in a parcel of its own.
    """

    path: Path
    trail: Names
    boot: int
    flow: int
    seq: int
    floor: int
    verb: Name
    marks: int
    bodies: Bodies
    attached: FrameCount = 0

    @property
    def frames(self) -> Sequence[Frame]:
        """The raw frames of its arrays; empty for most."""
        return self.attached.frames if self.attached else ()

    @property
    def size(self) -> int:
        """Bytes of bodies and frames."""
        size = sum(map(len, self.bodies))
        return size + sum(map(len, self.attached.frames)) if self.attached else size

    @property
    def place(self) -> tuple[int, int, int]:
        """Which message its first one is: the originator's life, its number for the flow, the place in it."""
        return self.boot, self.flow, self.seq

    def alone(self, at: int) -> Parcel:
        """Give one of its messages as a parcel of its own, on the same way."""
        return Parcel(
            self.path,
            self.trail,
            self.boot,
            self.flow,
            self.seq + at,
            self.floor,
            self.verb,
            self.marks,
            [self.bodies[at]],
            self.attached,
        )

    def singles(self) -> Iterable[Parcel]:
        """Give its messages one by one."""
        return (self,) if len(self.bodies) == 1 else map(self.alone, range(len(self.bodies)))


class Verdict(msgspec.Struct, array_like=True, gc=False):
    """How one message of a flow ended, where that is more than *delivered without an answer*.

    Attributes:
        seq: its place in the flow.
        outcome: delivered, expired or refused.
        reason: for a refusal, its kind.
        text: for a refusal, what a person should read.
        answer: the listen's answer, MessagePack; empty for none.
    """

    seq: int
    outcome: Outcome
    reason: Reason | None = None
    text: str = ""
    answer: bytes = b""


class Ack(msgspec.Struct, array_like=True, gc=False):
    """How a flow stands at its recipient: cumulative, so the newest one says it all.

    Attributes:
        path: names still to be reached, the originator last: the parcels' trail, turned round.
        boot: the originator's life.
        flow: the flow's number.
        life: the recipient's life; 0 where a station on the way answers in its stead.
        received: every place up to this one has arrived.
        received_beyond: ranges [first, last, first, last, …] that arrived beyond a gap.
        settled: every place up to this one is over.
        settled_beyond: ranges of places that are over beyond a gap.
        fresh: how many messages it confirms for the first time.
        verdicts: refusals and answers, repeated until the flow's floor has passed them.
    """

    path: Names
    boot: int
    flow: int
    life: int
    received: int
    received_beyond: Ranges
    settled: int
    settled_beyond: Ranges
    fresh: int = 0
    verdicts: Annotated[list[Verdict], msgspec.Meta(max_length=MAX_RANGES)] = []


class Greeting(msgspec.Struct, array_like=True, gc=False):
    """What two neighbours say to each other about their link, never forwarded.

    Attributes:
        word: "hello" (a dialler asks to be known), "door" (streams on one machine go there), "welcome",
            "refused", "restored" (a way beyond us is back), "ping", "pong" or "bye".
        text: for "refused": why, for people; for "door", and "hello" of an inner node: where; for "welcome" and
            "pong" of whom we dialled: by how much heartbeats are stretched (see `liveness`).
    """

    word: str
    text: str = ""


class Packet(msgspec.Struct, array_like=True, gc=False):
    """One transmission's head."""

    parcels: Annotated[list[Parcel], msgspec.Meta(max_length=MAX_PACKET_PARCELS)] = []
    acks: Annotated[list[Ack], msgspec.Meta(max_length=MAX_PACKET_ACKS)] = []
    greetings: Annotated[list[Greeting], msgspec.Meta(max_length=MAX_PACKET_PARCELS)] = []


_VERSION = bytes([WIRE_VERSION])
_encoder = msgspec.msgpack.Encoder(enc_hook=lambda attached: len(attached.frames))
_decoder = msgspec.msgpack.Decoder(Packet)


def encode_packet(packet: Packet) -> list[Frame]:
    """Turn a packet into the frames of one transmission."""
    frames: list[Frame] = [_VERSION + _encoder.encode(packet)]
    for parcel in packet.parcels:
        if parcel.attached:
            frames += parcel.attached.frames
    return frames


def decode_packet(frames: Sequence[Frame]) -> Packet:
    """Read one transmission.

    Raises:
        MalformedFrame: no frame, another version, a head that is no packet, or attached frames that don't add up.
    """
    head = frames[0] if frames else b""
    size = len(head)
    if size < 2 or size > MAX_HEAD_BYTES:
        raise MalformedFrame("a transmission on our wire needs a head of 2 bytes to 64 MiB")
    if head[0] != WIRE_VERSION:
        raise MalformedFrame(f"wire version {head[0]} is not spoken here (we speak {WIRE_VERSION})")
    try:
        packet = _decoder.decode(memoryview(head)[1:])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedFrame(f"the head of a transmission can't be read: {error}") from error
    if packet.parcels or len(frames) > 1:
        _attach(packet, frames)
    return packet


def _attach(packet: Packet, frames: Sequence[Frame]) -> None:
    at = 1
    for parcel in packet.parcels:
        count = parcel.attached
        if len(parcel.bodies) != 1 or parcel.marks & Marks.PROBE:
            _check_run(parcel, len(parcel.bodies))
        if count:
            if at + count > len(frames):
                raise MalformedFrame("a parcel with frames that the transmission doesn't carry")
            parcel.attached = Attached(frames[at : at + count])
            at += count
    if at != len(frames):
        raise MalformedFrame(f"{len(frames) - at} frames of a transmission belong to no parcel")


def _check_run(parcel: Parcel, messages: int) -> None:
    if bool(parcel.marks & Marks.PROBE) is bool(messages):
        raise MalformedFrame(f"a parcel of {messages} messages; a probe has none, others have")
    if parcel.attached:
        raise MalformedFrame("a parcel of several messages with frames: each such message travels alone")


def as_ranges(places: Sequence[int]) -> list[int]:
    """Fold sorted places into [first, last, first, last, …]."""
    ranges: list[int] = []
    for place in places:
        if ranges and ranges[-1] + 1 == place:
            ranges[-1] = place
        else:
            ranges += (place, place)
    return ranges
