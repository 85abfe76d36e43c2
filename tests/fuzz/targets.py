"""What is fuzzed: functions of bytes that may raise their documented errors and nothing else.

Law of this room: a target decides what is documented; whatever else it raises is a finding.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.agents.account import number_of, values_of
from pilotage.agents.continuous import sender_of, split_items
from pilotage.net.files import read_file, write_file
from pilotage.net.jail import inside
from pilotage.net.stimuli import stimulus_files
from pilotage.protocol.arrays import decode_array, is_array_document
from pilotage.protocol.bodies import decode_body, decode_value, read_content
from pilotage.protocol.container import decompress
from pilotage.protocol.conversation import Conversation
from pilotage.protocol.errors import (
    JournalError,
    MalformedFrame,
    MisuseError,
    PeerError,
    PilotageError,
    TaskError,
)
from pilotage.protocol.exchange import Exchange
from pilotage.protocol.original import read_envelope
from pilotage.protocol.packed import unpack
from pilotage.protocol.records import Frame, decode_packet
from pilotage.protocol.zmtp import GREETING, MAX_READY_BYTES, read_card, ready_command, ready_length
from pilotage.transport.journal_entries import decode_row
from pilotage.transport.journal_file import JournalFile
from tests.fuzz import seeds
from tests.fuzz.seeds import FRAME_END, TURN_END
from tests.protocol.builders import LISTENER, exchange, original, own, packet, parcel, sent_frames

MAX_ARRAY_BYTES = 1 << 20
MAX_FRAME_BYTES = 1 << 20


def read_packet(data: bytes) -> None:
    """A transmission of our own wire."""
    with suppress(PeerError):
        decode_packet(data.split(FRAME_END))


def read_body(data: bytes) -> None:
    """A message's body with the frames of its arrays."""
    body, *frames = data.split(FRAME_END)
    with suppress(PeerError):
        decode_body("K", body, frames)
    with suppress(PeerError):
        read_content(body, frames)


def read_original(data: bytes) -> None:
    """An original's transmission, arrays unpacked."""
    with suppress(PeerError):
        read_envelope(data.split(FRAME_END), "S").message.expand()


def read_array(data: bytes) -> None:
    """An array document."""
    with suppress(ValueError, RecursionError):
        document = json.loads(data)
        if is_array_document(document):
            with suppress(PeerError):
                assert decode_array(document, MAX_ARRAY_BYTES).nbytes <= MAX_ARRAY_BYTES


def read_packed(data: bytes) -> None:
    """What a packed array holds: a pickle, read by our own machine."""
    with suppress(PeerError):
        assert unpack(data, MAX_ARRAY_BYTES).nbytes <= MAX_ARRAY_BYTES


def read_container(data: bytes) -> None:
    """A blosc container."""
    with suppress(PeerError):
        assert len(decompress(data, MAX_ARRAY_BYTES)) <= MAX_ARRAY_BYTES


_OPENING = GREETING + ready_command("DEALER", ())


def _fetch(note: Frame) -> Frame:
    if len(note) != 12:
        raise MalformedFrame("no note")
    return bytes(note)


def hear(data: bytes) -> None:
    """What comes on a connection in clear, in the portions that its first byte says; before its opening, and after."""
    portion = 1 + data[0] if data else 1
    for opening, fetch in ((b"", None), (_OPENING, None), (_OPENING, _fetch)):
        talk = Conversation(b"", (b"DEALER",), MAX_FRAME_BYTES)
        talk.fetch = fetch
        _hear(talk, opening)
        for at in range(1, min(len(data), 4096), portion):
            _hear(talk, data[at : at + portion])


def _hear(talk: Conversation, data: bytes) -> None:
    while data:
        room = talk.room
        part = data if room is None else data[: len(room)]
        if room is None and talk.alone(part) is not None:
            return
        if room is None:
            talk.feed(part)
        else:
            room[: len(part)] = part
            talk.fill(len(part))
        data = data[len(part) :]
        talk.cut(3)
        while talk.has_more:
            talk.cut(3)


def converse(data: bytes) -> None:
    """Transmissions from a neighbour of ours, an original, and the station up the tree; then time passes."""
    station = exchange("S", upstream="up")
    station.link_up(("up", b""), own("T", 4, dials=False), 0.0)
    now = 0.0
    for transmission in data.split(TURN_END)[:32]:
        now += 0.05
        frames = transmission[1:].split(FRAME_END)
        match transmission[:1]:
            case b"\x01":
                arrival = (*original("o1"), frames)
            case b"\x02":
                arrival = (("up", b""), own("T", 4, dials=False), frames)
            case _:
                arrival = (LISTENER, own("a", 2), frames)
        sent_frames(station.frames_arrived([arrival], now))
    for seconds in (1.0, 3.0, 30.0):
        station.time_passed(now + seconds)
    _still_works(station, now + 31.0)


def _still_works(station: Exchange, now: float) -> None:
    """A newcomer is heard, whatever came before it."""
    link = ("listener", b"\0good")
    good = parcel(1, trail=[], boot=2**62 + 11, flow=2**40 + 5, path=["S"])
    station.frames_arrived([(link, own("a good one", 2**62), packet(good))], now)
    assert link in station.routing.peers, "a good newcomer was not let in"


FOLDER = Path(tempfile.gettempdir()) / "pilotage-fuzz" / "sounds"


def _jailed(found: Path) -> None:
    assert found.is_relative_to(FOLDER.resolve()) and found != FOLDER.resolve(), found


def name_file(data: bytes) -> None:
    """A path from the wire."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    text = data.decode("utf-8", "surrogatepass") if _is_text(data) else data.decode("latin-1")
    with suppress(TaskError):
        _jailed(inside(FOLDER, text))
    with suppress(PilotageError):
        read_file(FOLDER, text)


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def take_file(data: bytes) -> None:
    """A value of FILE, or a description of stimuli."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    with suppress(PilotageError):
        place = write_file(FOLDER, value)
        _jailed(place)
        place.unlink()
    with suppress(TaskError):
        for path in stimulus_files(value.get("stim") if isinstance(value, dict) else value):
            with suppress(TaskError):
                _jailed(inside(FOLDER, path))


def read_opening(data: bytes) -> None:
    """What whoever listens on a port says first, as it comes in."""
    for size in {*range(0, min(len(data), 90), 7), len(data)}:
        with suppress(MalformedFrame):
            length = ready_length(data[:size])
            assert length is None or length <= MAX_READY_BYTES + 73
            if length is not None and length <= size:
                read_card(data[:length], "T")


def read_row(data: bytes) -> None:
    """An entry of the journal, its checksum right."""
    with suppress(ValueError):
        decode_row(seeds.checksum(data), data)


def read_journal(data: bytes) -> None:
    """A whole journal, bent by a disk."""
    with tempfile.TemporaryDirectory(dir=FOLDER.parent if FOLDER.parent.is_dir() else None) as folder:
        file = Path(folder) / "j.sqlite"
        file.write_bytes(data)
        with suppress(JournalError):
            JournalFile(file).close()


def take_items(data: bytes) -> None:
    """Any value given to what reads trial data and continuous data at the Terminal."""
    try:
        value = decode_value(data)
    except PeerError:
        return
    if isinstance(value, list):
        with suppress(MisuseError):
            split_items([item for item in value if isinstance(item, dict)], None)
    elif isinstance(value, dict):
        with suppress(MisuseError):
            _take_row(value)


def _take_row(value: Mapping[str, Any]) -> None:
    sender_of(value)
    values_of(value)
    number_of(value)


@dataclass(frozen=True, slots=True)
class Target:
    """One reader of bytes, and good inputs for it.

    Attributes:
        run: reads; raises nothing but findings.
        seeds: makes good inputs.
        share: of the time, beside the others.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    share: float = 1.0


TARGETS: dict[str, Target] = {
    "exchange": Target(converse, seeds.exchanges, 4.0),
    "packet": Target(read_packet, seeds.packets),
    "body": Target(read_body, seeds.bodies, 2.0),
    "envelope": Target(read_original, seeds.envelopes, 2.0),
    "array": Target(read_array, seeds.arrays),
    "packed": Target(read_packed, seeds.packed, 2.0),
    "container": Target(read_container, seeds.containers),
    "path": Target(name_file, seeds.paths),
    "file": Target(take_file, seeds.files),
    "opening": Target(read_opening, seeds.openings),
    "connection": Target(hear, seeds.connections),
    "items": Target(take_items, seeds.items),
    "row": Target(read_row, seeds.rows),
    "journal": Target(read_journal, seeds.journals),
}
