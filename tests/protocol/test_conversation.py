"""ZMTP in clear: however the bytes come, the same transmissions; whatever else comes is a fault."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.protocol.conversation import FRAMES_AT_ONCE, MAX_FRAMES, ROOM_FROM_BYTES, Conversation
from pilotage.protocol.zmtp import COMMAND, GREETING, LONG, MORE, frame_head, metadata, ready_command

OURS = ready_command("ROUTER", metadata("T", 42, 3), "T")
THEIRS = ready_command("DEALER", metadata("cam", 7, 3))
MAX_FRAME = 1_000_000


def conversation() -> Conversation:
    return Conversation(OURS, (b"DEALER",), MAX_FRAME)


def begun() -> Conversation:
    """A conversation whose opening is over."""
    talk = conversation()
    assert hear(talk, GREETING + THEIRS) == []
    assert talk.told is not None and not talk.fault
    talk.take_replies()
    return talk


def hear(
    talk: Conversation, data: bytes, portion: int = 1 << 20, most: int = 1 << 20, *, asks: bool = True
) -> list[list[bytes]]:
    """Have it come in portions, as a socket gives them: into the room, where there is one.

    Args:
        talk: who hears it.
        data: what comes.
        portion: bytes in one go.
        most: transmissions that are cut in one go.
        asks: whether it is one transmission by itself, first, as connections do.
    """
    found: list[list[bytes]] = []
    at = 0
    while at < len(data):
        room = talk.room
        piece = data[at : at + portion] if room is None else data[at : at + min(portion, len(room))]
        at += len(piece)
        alone = talk.alone(piece) if asks and room is None else None
        if alone is not None:
            found.append([bytes(alone)])
            continue
        if room is None:
            talk.feed(piece)
        else:
            room[: len(piece)] = piece
            talk.fill(len(piece))
        found += [[bytes(frame) for frame in frames] for frames in talk.cut(most)]
        while talk.has_more:
            found += [[bytes(frame) for frame in frames] for frames in talk.cut(most)]
    return found


def said(*transmissions: list[bytes]) -> bytes:
    """Write transmissions down, as RFC 37 says."""
    written = b""
    for frames in transmissions:
        for at, frame in enumerate(frames):
            written += frame_head(len(frame), MORE if at < len(frames) - 1 else 0) + frame
    return written


def test_frames_are_written_as_the_standard_says():
    assert said([b"", b"ab"]) == b"\x01\x00" + b"\x00\x02ab"
    assert said([bytes(255)])[:2] == b"\x00\xff"
    assert said([bytes(256)])[:9] == b"\x02" + (256).to_bytes(8, "big")
    assert ready_command("DEALER", [b"X-Name:c"], "i") == (
        b"\x04\x36\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\x01i\x06X-Name\0\0\0\x01c"
    )


def test_it_greets_at_once_and_introduces_itself_when_it_was_greeted():
    talk = conversation()
    assert talk.replies == GREETING
    talk.take_replies()
    assert hear(talk, GREETING[:63]) == [] and talk.replies == b""
    assert hear(talk, GREETING[63:]) == [] and talk.replies == OURS
    assert talk.told is None
    hear(talk, THEIRS)
    assert talk.told is not None
    assert (talk.told["Socket-Type"], talk.told["X-Name"], talk.told["X-Boot"]) == (b"DEALER", b"cam", b"7")
    assert talk.replies == OURS, "introduced twice"


SIZES = st.sampled_from(
    [0, 1, 254, 255, 256, 257, 5000, ROOM_FROM_BYTES - 1, ROOM_FROM_BYTES, 3 * ROOM_FROM_BYTES]
)


@given(
    st.lists(st.lists(SIZES, min_size=1, max_size=4), max_size=6),
    st.sampled_from([1, 2, 9, 64, 300, 4096, 65_536, 1 << 20]),
    st.sampled_from([1, 2, 1000]),
    st.booleans(),
)
def test_however_it_comes_it_is_cut_alike(sizes: list[list[int]], portion: int, most: int, asks: bool):
    if portion < 9 and sum(map(sum, sizes)) > 2000:
        portion = 999
    sent = [[bytes([number % 251]) * size for number, size in enumerate(row)] for row in sizes]
    talk = conversation()
    assert hear(talk, GREETING + THEIRS + said(*sent), portion, most, asks=asks) == sent
    assert not talk.fault


@given(st.lists(SIZES, min_size=1, max_size=3), st.sampled_from([0, 1, 5]))
def test_a_transmission_that_comes_by_itself_is_taken_as_it_would_be_cut(sizes: list[int], tail: int):
    data = said([bytes([7]) * size for size in sizes]) + bytes(tail)
    talk, other = begun(), begun()
    alone = talk.alone(data)
    other.feed(data)
    found = other.cut(10)
    is_alone = len(sizes) == 1 and not tail
    assert alone is None or [[alone]] == found
    assert (alone is not None) is is_alone
    assert talk.has_more is False and talk.cut(1) == [], "nothing of it is left"


def test_nothing_is_taken_by_itself_that_belongs_to_what_came_before_or_is_a_fault():
    stranger, talk = conversation(), begun()
    assert stranger.alone(said([b"early"])) is None and talk.alone(b"") is None and talk.alone(b"\0") is None
    assert talk.alone(frame_head(4, COMMAND) + b"PING") is None
    for head, size in (
        (frame_head(MAX_FRAME + 1), MAX_FRAME + 1),
        (b"\x02" + bytes(7), 0),
        (b"\x02" + bytes(6) + b"\0", 0),
    ):
        assert talk.alone(head + bytes(size)) is None
    talk.feed(frame_head(7, COMMAND) + b"\x04PING\0\0")
    assert talk.cut(10) == [] and talk.replies
    assert talk.alone(said([b"later"])) is None, "who reads it would forget to answer"
    narrow = Conversation(OURS, (b"DEALER",), 150)
    hear(narrow, GREETING + THEIRS)
    narrow.take_replies()
    assert narrow.told is not None and narrow.alone(said([bytes(150)])) == bytes(150)
    assert narrow.alone(said([bytes(151)])) is None
    looks_whole = said([b"a frame within a frame"])
    for sent in ([[looks_whole]], [[b"first", b"second"]], [[b"first", b"second"], [b"third"]]):
        whole = said(*sent)
        for at in range(1, len(whole)):
            talk = begun()
            talk.feed(whole[:at])
            assert talk.alone(whole[at:]) is None, "what was fed comes first"
            before = talk.cut(10)
            if not before:
                assert talk.alone(whole[at:]) is None, "it goes on with what was begun"
            talk.feed(whole[at:])
            assert before + talk.cut(10) == sent
    faulty = begun()
    hear(faulty, b"\xff\x00")
    assert faulty.fault and faulty.alone(said([b"later"])) is None


def test_a_long_frame_is_read_into_memory_of_its_own_and_cannot_be_written_to():
    talk, body = begun(), bytes(range(256)) * 1024
    data = said([b"head", body], [b"next"])
    talk.feed(data[:5000])
    assert talk.cut(10) == []
    room = talk.room
    assert room is not None and len(room) == len(body) - (5000 - 6 - 9)
    rest = data[5000:]
    room[:] = rest[: len(room)]
    talk.fill(len(room))
    [(head, frame)] = talk.cut(10)
    assert isinstance(frame, memoryview) and frame.readonly and (head, frame) == (b"head", body)
    assert talk.room is None and hear(talk, rest[len(room) :]) == [[b"next"]]


def test_no_more_is_given_than_is_asked_for():
    talk = begun()
    talk.feed(said(*([b"x"] for _ in range(5))))
    assert (talk.cut(2), talk.has_more) == ([[b"x"]] * 2, True)
    assert (talk.cut(2), talk.has_more) == ([[b"x"]] * 2, True)
    assert (talk.cut(2), talk.has_more) == ([[b"x"]], False)


def test_the_smallest_frames_are_cut_a_bounded_number_at_a_time():
    talk = begun()
    talk.feed(said([b""] * (FRAMES_AT_ONCE + 1)))
    assert (talk.cut(10), talk.has_more) == ([], True)
    assert talk.cut(10) == [[b""] * (FRAMES_AT_ONCE + 1)]


def test_of_endless_frames_only_the_first_is_kept():
    talk = begun()
    [frames] = hear(talk, said([b"x"] * (3 * MAX_FRAMES)), 65_536)
    assert len(frames) <= MAX_FRAMES and not talk.fault


def test_a_ping_is_answered_with_what_it_carries():
    talk = begun()
    ping = b"\x04PING\0\x0acontext"
    assert hear(talk, frame_head(len(ping), COMMAND) + ping + said([b"after"])) == [[b"after"]]
    assert talk.replies == b"\x04\x0c\x04PONGcontext"


def test_a_command_that_says_nothing_to_us_is_passed_over():
    assert hear(begun(), b"\x04\x0a\x09SUBSCRIBE" + said([b"after"])) == [[b"after"]]


FAULTS = {
    "no ZMTP": (b"GET / HTTP/1.1\r\n\r\n", "does not speak"),
    "too old": (GREETING[:10] + b"\x01" + GREETING[11:], "ZMTP 1"),
    "a lock": (GREETING[:12] + b"CURVE".ljust(20, b"\0") + bytes(32), "wants a key"),
    "a password": (GREETING[:12] + b"PLAIN".ljust(20, b"\0") + bytes(32), "PLAIN"),
    "no introduction": (GREETING + said([b"hello"]), "did not begin with a command"),
    "another introduction": (GREETING + b"\x04\x06\x05HELLO", "READY"),
    "an endless introduction": (GREETING + b"\x06" + (2**40).to_bytes(8, "big"), "bytes"),
    "another kind": (GREETING + ready_command("SUB", ()), "kind"),
    "a frame too large": (GREETING + THEIRS + frame_head(MAX_FRAME + 1), str(MAX_FRAME + 1)),
    "a command too large": (GREETING + THEIRS + frame_head(100_000, COMMAND), "65536 are allowed"),
    "a flag that isn't": (GREETING + THEIRS + b"\x08\x01x", "flags 8"),
    "a refusal": (GREETING + THEIRS + b"\x04\x0a\x05ERROR\x03bad", "refused"),
}


@pytest.mark.parametrize(("data", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_anything_else_is_a_fault(data: bytes, words: str):
    talk = conversation()
    assert hear(talk, data, 7) == [] and words in talk.fault
    assert hear(talk, b"more") == [] and talk.room is None


def test_what_came_whole_before_a_fault_is_given():
    talk = begun()
    assert hear(talk, said([b"good"]) + b"\xff\xff\xff") == [[b"good"]] and talk.fault


def test_a_frame_for_which_there_is_no_memory_is_a_fault(monkeypatch: pytest.MonkeyPatch):
    def refuse(size: int) -> memoryview:
        raise MemoryError

    monkeypatch.setattr("pilotage.protocol.conversation.blank_memory", refuse)
    talk = begun()
    hear(talk, bytes([LONG]) + (500_000).to_bytes(8, "big") + b"x")
    assert "no memory" in talk.fault
