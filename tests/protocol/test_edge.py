"""Frames of original peers, as 0.3 and 0.5 write and expect them, at a station's edge."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.protocol.builders import (
    LISTENER,
    envelope,
    exchange,
    handed_over,
    original,
    own,
    packet,
    parcel,
    request,
    sent_frames,
    sent_packets,
    settled,
)

from pilotage.protocol.arrays import ArrayForm, collapse_arrays
from pilotage.protocol.errors import MalformedFrame
from pilotage.protocol.message import Message
from pilotage.protocol.original import MAX_SEEN, Seen, form_of, frames_to, read_envelope
from pilotage.protocol.settlement import DELIVERED, Outcome, Reason, refused

N1, N2 = original("n1"), original("n2")
NEWER = {"changed": False, "blosc": True, "ttl": 2}


def confirm(message_id: str, sender: str = "n1") -> bytes:
    return envelope(id=f"{sender}_99", key="CONFIRM", value=message_id, sender=sender)


def token(one) -> tuple[int, int, int]:
    return (one.boot, one.flow, one.seq)


@pytest.mark.parametrize(
    ("frames", "path"),
    [
        ([b"S", b"S"], ("S",)),
        ([b"S", b"n2"], ("n2",)),
        ([b"S"], ("S",)),
        ([], ("S",)),
        ([b"S", b"S2", b"S3", b"n3", b"n3"], ("S2", "S3", "n3")),
        ([b"n3", b"n3"], ("n3",)),
    ],
    ids=["to us", "to another", "resend without to", "frame alone", "several hops", "last hop twice"],
)
def test_the_way_is_read_from_any_number_of_frames(frames, path):
    read = read_envelope([*frames, envelope(**NEWER)], "S")
    assert read.path == path and read.raw == envelope(**NEWER)


def test_without_frames_the_envelope_says_where_to():
    assert read_envelope([envelope(to="n2")], "S").path == ("n2",)
    assert read_envelope([envelope(to=["S", "S2", "n3"])], "S").path == ("S2", "n3")


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b"S", b"S", b"no json"],
        [b"S", b"S", b"[]"],
        [b"S", b"S", b'{"id": "x"}'],
        [b"S", b"S", envelope(sender=5)],
        [b"S", b"\xff\xfe", envelope()],
        [b"S", b"S", b"\xff"],
        [b"S", b"S", b'{"a":' * 5000],
    ],
)
def test_what_is_no_envelope_is_malformed(frames):
    with pytest.raises(MalformedFrame):
        read_envelope(frames, "S")


@pytest.mark.parametrize(
    ("path", "dials", "names"),
    [
        (["n1"], True, []),
        (["n1", "_n1"], True, [b"-", b"n1", b"_n1"]),
        (["_n1"], True, [b"-", b"n1", b"_n1"]),
        (["T"], False, [b"T", b"T"]),
        (["n9"], False, [b"T", b"n9"]),
        (["T", "S2", "n9"], False, [b"T", b"S2", b"n9", b"n9"]),
    ],
)
def test_frames_to_an_original(path, dials, names):
    assert frames_to("n1" if dials else "T", path, b"{}", dials=dials) == [*names, b"{}"]


def test_the_version_shows_in_the_fields():
    assert form_of(Message(envelope())) is ArrayForm.AUTOPILOT_03
    assert form_of(Message(envelope(**NEWER))) is ArrayForm.AUTOPILOT_05


def test_a_message_is_handled_once_and_each_copy_confirmed():
    station = exchange()
    out = station.frames_arrived([(*N1, [b"S", b"S", envelope()])], 0.0)
    (one,) = handed_over(out)
    assert json.loads(one.bodies[0])["value"] == 1
    (link, (reply,)) = sent_frames(out)[0]
    assert link == N1[0], "one frame: more would make an original's station believe in a neighbour"
    fields = json.loads(reply)
    assert (fields["key"], fields["value"], fields["to"], fields["sender"]) == ("CONFIRM", "n1_0", "n1", "S")
    again = station.frames_arrived([(*N1, [b"S", b"S", envelope()]), (*N1, [b"S", envelope()])], 5.0)
    assert handed_over(again) == [] and len(sent_frames(again)) == 2 and station.edge.duplicates == 2


def test_a_peer_that_began_anew_is_told_by_its_timestamps():
    station = exchange()
    for stamp in ("2026-11-22T04:56:42.093565", "2026-11-22T04:59:00.000000"):
        assert (
            len(handed_over(station.frames_arrived([(*N1, [b"S", b"S", envelope(timestamp=stamp)])], 0.0)))
            == 1
        )


def test_norepeat_is_handled_and_not_confirmed():
    out = exchange().frames_arrived([(*N1, [b"S", b"S", envelope(flags={"NOREPEAT": True})])], 0.0)
    assert len(handed_over(out)) == 1 and sent_frames(out) == []


def test_data_is_confirmed_when_its_listen_has_ended():
    station = exchange()
    out = station.frames_arrived([(*N1, [b"S", b"S", envelope(key="DATA")])], 0.0)
    (one,) = handed_over(out)
    assert sent_frames(out) == []
    assert len(sent_frames(station.handled([(token(one), DELIVERED, b"")], 1.0))) == 1


def test_a_failing_listen_confirms_as_the_original_does():
    station = exchange()
    (one,) = handed_over(station.frames_arrived([(*N1, [b"S", b"S", envelope(key="DATA")])], 0.0))
    assert (
        len(sent_frames(station.handled([(token(one), refused(Reason.LISTEN_FAILED, "x"), b"")], 1.0))) == 1
    )


def test_what_was_certainly_not_handled_may_come_again():
    station = exchange()
    frames = [b"S", b"n9", envelope(to="n9", ttl=1)]
    station.frames_arrived([(*N1, frames)], 0.0)
    station.time_passed(5.0)
    station.time_passed(10.0)
    assert len(station.outbox) == 0, "refused or expired by now"
    station.frames_arrived([(*N2, [b"S", b"S", envelope(sender="n2", id="n2_0")])], 11.0)
    assert station.edge.duplicates == 0


def test_a_blank_ping_is_echoed_and_not_counted():
    station = exchange()
    out = station.frames_arrived([(*N1, [b"S", b""]), (*N1, [b""])], 0.0)
    assert sent_frames(out) == [(N1[0], [b"S", b""]), (N1[0], [b""])]
    assert station.received == 0


def test_closing_is_ignored_and_said():
    station = exchange()
    out = station.frames_arrived([(*N1, [b"S", b"CLOSING"])], 0.0)
    assert any("close" in getattr(one, "text", "") for one in out) and sent_frames(out) == []
    assert handed_over(station.frames_arrived([(*N1, [b"S", b"S", envelope()])], 1.0))


def test_garbage_is_counted_and_the_peer_stays():
    station = exchange()
    station.frames_arrived([(*N1, [b"S", b"S", b"garbage"])], 0.0)
    assert station.counts["malformed"] == 1
    assert handed_over(station.frames_arrived([(*N1, [b"S", b"S", envelope()])], 1.0))


def test_one_original_reaches_another_byte_for_byte_and_its_confirm_settles():
    station = exchange()
    station.frames_arrived([(*N2, [b"S", b""])], 0.0)
    raw = envelope(to="n2", key="DATA", value={"x": float("nan")})
    out = station.frames_arrived([(*N1, [b"S", b"n2", raw])], 0.1)
    assert sent_frames(out) == [(N2[0], [raw])]
    out = station.frames_arrived([(*N2, [b"S", b"n1", confirm("n1_0", "n2")])], 0.2)
    assert [link for link, _ in sent_frames(out)] == [N1[0]]


def own_body(**changes):
    from pilotage.protocol.bodies import encode_body

    fields = {"id": "a_1", "to": "n1", "sender": "a", "key": "K", "value": 1, **changes}
    body, frames = encode_body(Message(**fields))
    return {"body": body, "frames": frames, "verb": fields["key"]}


def test_ours_reaches_an_original_as_one_json_frame_and_its_confirm_delivers():
    station = exchange()
    station.frames_arrived([(*N1, [b"S", b""])], 0.0)
    out = station.send([request("m", ("n1",), **own_body())], 0.1)
    ((link, (frame,)),) = sent_frames(out)
    assert link == N1[0] and json.loads(frame)["id"] == "a_1"
    out = station.frames_arrived([(*N1, [b"S", b"S", confirm("a_1")])], 0.2)
    assert settled(out) == [("m", DELIVERED)]


def test_an_unconfirmed_message_is_repeated_byte_for_byte_then_expires():
    station = exchange()
    station.frames_arrived([(*N1, [b"S", b""])], 0.0)
    first = sent_frames(station.send([request("m", ("n1",), **own_body())], 0.0))
    again = sent_frames(station.time_passed(1.0))
    assert again == first
    out = station.time_passed(2.0)
    assert [(handle, end.outcome) for handle, end in settled(out)] == [("m", Outcome.EXPIRED)]
    assert len(station.edge) == 0


def test_a_message_waits_for_an_original_that_has_not_come_yet():
    station = exchange()
    early = parcel(1, path=["n1"], trail=[], boot=2, verb="K", body=own_body()["body"])
    station.frames_arrived([(LISTENER, own("a", 2), packet(early))], 0.0)
    assert len(station.waiting) == 1
    out = station.frames_arrived([(*N1, [b"S", b""])], 1.0)
    assert any(
        link == N1[0] and json.loads(frames[-1])["id"] == "a_1"
        for link, frames in sent_frames(out)
        if frames[-1]
    )


def test_an_original_that_goes_leaves_its_messages_expired():
    station = exchange()
    station.frames_arrived([(*N1, [b"S", b""])], 0.0)
    station.send([request("m", ("n1",), **own_body())], 0.0)
    assert settled(station.link_down(N1[0], 0.5))[0][1].outcome is Outcome.EXPIRED


def test_a_body_that_json_cannot_carry_is_refused_by_name():
    station = exchange()
    station.frames_arrived([(*N1, [b"S", b""])], 0.0)
    broken = {"verb": "K", "body": b"\xc7\x01\x01\xc1", "frames": 0}
    ended = settled(station.send([request("m", ("n1",), **broken)], 0.0))
    assert ended[0][1].reason is Reason.INVALID and "n1" in ended[0][1].text


@pytest.mark.parametrize(("fields", "keys"), [({}, 1), (NEWER, 3)], ids=["0.3", "0.5"])
def test_arrays_are_written_in_the_form_that_the_peer_reads(fields, keys):
    pytest.importorskip("blosc2")
    station = exchange()
    station.frames_arrived([(*N1, [b"S", b"S", envelope(**fields)])], 0.0)
    body = own_body(value={"x": np.arange(3.0)})
    ((_, (frame,)),) = sent_frames(station.send([request("m", ("n1",), **body)], 0.0))
    assert len(json.loads(frame)["value"]["x"]) == keys
    document = collapse_arrays(np.arange(3.0), ArrayForm.AUTOPILOT_05)
    assert (json.loads(frame)["value"]["x"] == document) == (keys == 3)


def test_replies_find_an_original_behind_a_station():
    """T learns from what S stood in for that n1 is reached through S."""
    station, terminal = exchange("S", 1, "pusher"), exchange("T", 9)
    up = ("pusher", b"")
    hello = sent_frames(station.link_up(up, own("T", 9, dials=False), 0.0))
    card = own("S", 1)
    welcome = sent_frames(terminal.frames_arrived([(LISTENER, card, frames) for _, frames in hello], 0.0))
    station.frames_arrived([(up, own("T", 9, dials=False), frames) for _, frames in welcome], 0.0)
    out = station.frames_arrived([(*N1, [b"S", b"T", envelope(to="T")])], 0.1)
    (sent,) = sent_packets(out, up).parcels
    assert sent.path == ["T"] and sent.marks & 8


def test_seen_messages_are_bounded():
    seen = Seen(most=2)
    for number in range(4):
        assert seen.is_new(("n1", str(number), ""))
    assert seen.is_new(("n1", "0", "")) and not seen.is_new(("n1", "3", "")) and MAX_SEEN >= 10_000
