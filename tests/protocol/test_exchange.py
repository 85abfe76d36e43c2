"""Two and three exchanges, wired by hand: joining, forwarding, confirming, passing on, going."""

from __future__ import annotations

from dataclasses import replace

from tests.protocol.builders import (
    CALM,
    LISTENER,
    exchange,
    handed_over,
    own,
    packet,
    parcel,
    request,
    sent_frames,
    sent_packets,
    settled,
)

from pilotage.protocol.doors import Door
from pilotage.protocol.exchange import Exchange, ExchangeConfig
from pilotage.protocol.instructions import Drop, Follow, Hangup, Keep, PeerChanged, PeerState, Service
from pilotage.protocol.liveness import LivenessRules
from pilotage.protocol.records import MAX_HOPS, Ack, Greeting, Marks, Verdict
from pilotage.protocol.settlement import DELIVERED, Outcome, Reason

UP = ("pusher", b"")


class Pair:
    """A station S and a node a that dialled it; everything that one transmits reaches the other."""

    def __init__(self, passes: str = "", liveness: LivenessRules = CALM) -> None:
        self.station = exchange("S", 1, passes=passes, liveness=liveness)
        self.node = exchange("a", 2, "pusher")
        self.out = {"S": [], "a": []}
        self.carry("a", self.node.link_up(UP, own("S", 1, dials=False), 0.0))

    def carry(self, who: str, instructions, now: float = 0.0) -> None:
        self.out[who] += instructions
        for link, frames in sent_frames(instructions):
            if who == "a":
                self.carry("S", self.station.frames_arrived([(LISTENER, own("a", 2), frames)], now), now)
            elif link == LISTENER:
                self.carry("a", self.node.frames_arrived([(UP, own("S", 1, dials=False), frames)], now), now)

    def taken(self, who: str) -> list:
        taken, self.out[who] = self.out[who], []
        return taken


def states(instructions) -> list[tuple[str, PeerState]]:
    return [(one.name, one.state) for one in instructions if isinstance(one, PeerChanged)]


def join(station, name: str, boot: int, link, now: float = 0.0):
    return station.frames_arrived([(link, own(name, boot), packet(greetings=[Greeting("hello")]))], now)


def test_hello_and_welcome_make_neighbours():
    pair = Pair()
    assert states(pair.taken("S")) == [("a", PeerState.ALIVE)] and states(pair.taken("a")) == [
        ("S", PeerState.ALIVE)
    ]


def test_a_message_is_handled_confirmed_and_settled():
    pair = Pair()
    pair.carry("a", pair.node.send([request("m", ("S",))], 0.1))
    (one,) = handed_over(pair.taken("S"))
    assert settled(pair.taken("a")) == []
    pair.carry("S", pair.station.handled([((one.boot, one.flow, one.seq), DELIVERED, b"")], 0.2))
    assert settled(pair.taken("a")) == [("m", DELIVERED)]
    assert (pair.station.received, pair.node.sent) == (1, 1)


def test_the_empty_name_is_the_station_up_the_tree_and_our_own_is_here():
    pair = Pair()
    pair.carry("a", pair.node.send([request("up", ("",)), request("self", ("a",))], 0.1))
    assert [one.path for one in handed_over(pair.taken("S"))] == [[""]]
    assert [one.path for one in handed_over(pair.taken("a"))] == [["a"]]


def test_a_station_forwards_without_reading_and_the_trail_leads_back():
    pair = Pair()
    b = ("listener", b"b")
    join(pair.station, "b", 3, b)
    out = pair.station.frames_arrived(
        [(LISTENER, own("a", 2), packet(parcel(1, path=["b"], trail=[], body=b"\xc1")))], 0.1
    )
    (one,) = sent_packets(out, b).parcels
    assert (one.path, one.trail, one.bodies[0]) == (["b"], ["a"], b"\xc1")
    ack = Ack(["S", "a"], 7, 1, 3, 1, [], 1, [])
    out = pair.station.frames_arrived([(b, own("b", 3), packet(acks=[ack]))], 0.2)
    assert [one.path for one in sent_packets(out, LISTENER).acks] == [["a"]]


def test_hops_are_taken_one_by_one():
    pair = Pair()
    b = ("listener", b"b")
    join(pair.station, "b", 3, b)
    out = pair.station.send([request("m", ("S", "b", "far"))], 0.1)
    assert sent_packets(out, b).parcels[0].path == ["b", "far"]


def test_a_message_waits_for_its_recipient_then_is_refused_by_name():
    pair = Pair()
    arrival = [(LISTENER, own("a", 2), packet(parcel(1, path=["late"], trail=[])))]
    pair.station.frames_arrived(arrival, 0.0)
    late = ("listener", b"late")
    assert len(sent_packets(join(pair.station, "late", 4, late, 1.0), late).parcels) == 1
    pair.station.frames_arrived([(LISTENER, own("a", 2), packet(parcel(2, path=["never"], trail=[])))], 2.0)
    assert sent_packets(pair.station.time_passed(5.9), LISTENER).acks == []
    (ack,) = sent_packets(pair.station.time_passed(6.0), LISTENER).acks
    (verdict,) = ack.verdicts
    assert verdict.reason is Reason.UNKNOWN_RECIPIENT and "never" in verdict.text and ack.life == 0


def test_a_durable_message_is_not_refused_on_its_way():
    pair = Pair()
    durable = parcel(1, path=["never"], trail=[], marks=Marks.ORDERED | Marks.DURABLE)
    pair.station.frames_arrived([(LISTENER, own("a", 2), packet(durable))], 0.0)
    assert sent_packets(pair.station.time_passed(9.0), LISTENER).acks == []


def test_a_loop_is_refused():
    pair = Pair()
    looped = parcel(1, path=["x"], trail=["o"] * MAX_HOPS)
    out = pair.station.frames_arrived([(LISTENER, own("a", 2), packet(looped))], 0.0)
    assert pair.station.counts["refused"] == 1 and len(pair.station.waiting) == 0
    assert any("loop" in getattr(one, "text", "") for one in out)


def test_what_is_passed_on_reaches_the_inner_node_and_so_do_questions():
    pair = Pair(passes="DATA")
    inner = ("listener", b"inner")
    join(pair.station, "_S", 5, inner)
    out = pair.station.frames_arrived([(LISTENER, own("a", 2), packet(parcel(1, trail=[])))], 0.1)
    (one,) = handed_over(out)
    out = pair.station.pass_on([(one, "_S")], 0.1)
    assert sent_packets(out, inner).parcels[0].path == ["_S"]
    question = parcel(1, trail=[], marks=Marks.PROBE)
    out = pair.station.frames_arrived([(LISTENER, own("a", 2), packet(question))], 0.2)
    assert handed_over(out) == [] and sent_packets(out, inner).parcels[0].marks == Marks.PROBE


def test_a_message_passed_on_waits_for_an_inner_node_that_is_not_there():
    pair = Pair(passes="DATA")
    (one,) = handed_over(
        pair.station.frames_arrived([(LISTENER, own("a", 2), packet(parcel(1, trail=[])))], 0.1)
    )
    assert handed_over(pair.station.pass_on([(one, "_S")], 0.1)) == [] and len(pair.station.waiting) == 1
    inner = ("listener", b"inner")
    out = join(pair.station, "_S", 5, inner, 1.0)
    assert handed_over(out) == [] and len(sent_packets(out, inner).parcels) == 1


def test_a_link_that_comes_back_brings_a_resend_at_once():
    pair = Pair()
    pair.node.link_down(UP, 0.1)
    pair.station.link_down(LISTENER, 0.1)
    pair.node.send([request("m", ("S",))], 0.2)
    pair.taken("S")
    pair.carry("a", pair.node.link_up(UP, own("S", 1, dials=False), 0.3), 0.3)
    assert len(handed_over(pair.taken("S"))) == 1


def test_a_restart_takes_its_name_over_when_the_old_life_is_silent():
    pair = Pair()
    new = ("listener", b"new")
    out = join(pair.station, "a", 20, new, 1.0)
    assert [one.word for one in sent_packets(out, LISTENER).greetings] == ["ping"]
    assert sent_packets(out, new).greetings == [] and pair.station.wake_at() <= 1.5
    out = pair.station.time_passed(1.5)
    assert pair.station.routing.names["a"].boot == 20
    assert [one.word for one in sent_packets(out, new).greetings] == ["welcome"]
    assert [one.link for one in out if isinstance(one, Hangup)] == [LISTENER]


def test_a_living_holder_keeps_its_name_and_the_newcomer_is_told():
    pair = Pair()
    new = ("listener", b"new")
    out = join(pair.station, "a", 20, new, 1.0)
    pair.carry(
        "S", [one for one in out if any(link == LISTENER for link, _ in getattr(one, "batch", []))], 1.1
    )
    refusals = [g for g in sent_packets(pair.taken("S"), new).greetings if g.word == "refused"]
    assert len(refusals) == 1 and "'a'" in refusals[0].text
    pair.station.time_passed(2.0)
    assert pair.station.routing.names["a"].boot == 2


def test_one_refused_by_name_ends_its_sends_as_name_taken():
    node = exchange("a", 20, "pusher")
    node.send([request("before", ("S",))], 0.0)
    node.link_up(UP, own("S", 1, dials=False), 0.0)
    refusal = packet(greetings=[Greeting("refused", "the name 'a' is held")])
    out = node.frames_arrived([(UP, own("S", 1, dials=False), refusal)], 0.1)
    out += node.send([request("after", ("S",))], 0.2)
    assert [(handle, end.reason) for handle, end in settled(out)] == [
        ("before", Reason.NAME_TAKEN),
        ("after", Reason.NAME_TAKEN),
    ]
    assert any(isinstance(one, Hangup) for one in out)


def test_only_whom_we_dialled_may_welcome_or_refuse_us():
    pair = Pair()
    rival = ("listener", b"rival")
    join(pair.station, "a", 20, rival, 1.0)
    pair.station.send([request("m", ("a",))], 1.0)
    for word in ("welcome", "refused"):
        pair.station.frames_arrived([(rival, own("a", 20), packet(greetings=[Greeting(word)]))], 1.1)
        pair.station.frames_arrived([(LISTENER, own("a", 2), packet(greetings=[Greeting(word)]))], 1.1)
    assert pair.station.routing.names["a"].boot == 2 and not pair.station.admission.refusal
    assert len(pair.station.outbox) == 1 and pair.station.counts["unknown greetings"] == 4


def test_what_a_stranger_sends_is_counted_not_used():
    pair = Pair()
    rival = ("listener", b"rival")
    join(pair.station, "a", 20, rival, 1.0)
    out = pair.station.frames_arrived([(rival, own("a", 20), packet(parcel(1, trail=[])))], 1.1)
    assert handed_over(out) == [] and pair.station.counts["from strangers"] == 1


def test_goodbye_is_heard_after_what_came_with_it():
    pair = Pair()
    pair.station.send([request("m", ("a",))], 0.1)
    ack = Ack([], 1, 1, 2, 1, [], 1, [])
    last = packet(acks=[ack], greetings=[Greeting("bye")])
    out = pair.station.frames_arrived([(LISTENER, own("a", 2), last)], 0.2)
    assert settled(out) == [("m", DELIVERED)] and states(out) == [("a", PeerState.GONE)]


def test_release_says_goodbye_and_settles_everything():
    pair = Pair()
    pair.node.send([request("m", ("S",))], 0.1)
    out = pair.node.release(0.2)
    assert [(handle, end.reason) for handle, end in settled(out)] == [("m", Reason.INTERRUPTED)]
    assert [one.word for one in sent_packets(out, UP).greetings] == ["bye"]


def test_silence_makes_suspect_then_gone_and_a_word_makes_alive():
    pair = Pair()
    pair.taken("S")
    assert states(pair.station.time_passed(5.5)) == [("a", PeerState.SUSPECT)]
    pong = packet(greetings=[Greeting("pong")])
    assert states(pair.station.frames_arrived([(LISTENER, own("a", 2), pong)], 6.0)) == [
        ("a", PeerState.ALIVE)
    ]
    pair.station.time_passed(11.5)
    out = pair.station.time_passed(16.5)
    assert states(out) == [("a", PeerState.GONE)] and any(isinstance(one, Hangup) for one in out)


def test_a_dialler_beats_and_a_traffic_jam_does_not_starve_it():
    pair = Pair()
    beats = []
    for step in range(1, 40):
        now = step / 10
        pair.node.frames_arrived([(UP, own("S", 1, dials=False), packet(greetings=[Greeting("pong")]))], now)
        beats += sent_packets(pair.node.time_passed(now), UP).greetings
    assert {one.word for one in beats} == {"ping"} and 1 <= len(beats) <= 2


CROWDED = LivenessRules(beats_per_s=0.125)
"""One neighbour is enough for the times to be four times as long."""


def test_a_station_with_many_neighbours_has_them_beat_less_often():
    pair = Pair(liveness=CROWDED)
    assert [g.text for g in sent_packets(pair.taken("S"), LISTENER).greetings] == ["4"]
    pair.station.time_passed(1.0)
    beats = []
    for now in range(1, 31):
        beats += [(now, g.word) for g in sent_packets(pair.node.time_passed(float(now)), UP).greetings]
    assert beats == [(9, "ping"), (17, "ping"), (25, "ping")]
    assert states(pair.station.time_passed(20.0)) == [] and pair.station.wake_at() > 20.0
    assert states(pair.station.time_passed(24.0)) == [("a", PeerState.SUSPECT)]
    assert states(pair.station.time_passed(44.0)) == [("a", PeerState.GONE)]


def test_a_station_with_many_neighbours_answers_their_heartbeats_together():
    pair = Pair(liveness=CROWDED)
    pair.station.time_passed(0.5)
    ping = packet(greetings=[Greeting("ping")])
    assert pair.station.frames_arrived([(LISTENER, own("a", 2), ping)], 1.0) == []
    assert pair.station.wake_at() <= 0.5 + 4.0
    out = pair.station.time_passed(pair.station.wake_at())
    assert [(g.word, g.text) for g in sent_packets(out, LISTENER).greetings] == [("pong", "4")]
    assert sent_packets(pair.station.time_passed(20.0), LISTENER).greetings == []


def test_one_that_beats_less_often_looks_anew_when_somebody_comes_who_wants_more():
    node = exchange("a", 2, "pusher", liveness=CROWDED)
    card, stretched = own("S", 1, dials=False), packet(greetings=[Greeting("welcome", "10")])
    node.link_up(UP, card, 0.0)
    node.frames_arrived([(UP, card, stretched)], 0.0)
    node.time_passed(1.0)
    assert node.wake_at() == 11.0
    node.frames_arrived([(UP, card, packet(greetings=[Greeting("pong", "2")]))], 3.0)
    node.time_passed(3.0)
    assert node.wake_at() == 5.0
    join(node, "child", 9, LISTENER, 3.5)
    assert node.wake_at() <= 3.5


def test_nobody_but_the_station_that_we_dialled_stretches_our_heartbeats():
    pair = Pair()
    pair.station.frames_arrived([(LISTENER, own("a", 2), packet(greetings=[Greeting("pong", "10")]))], 0.5)
    assert pair.station.routing.names["a"].stretch == 1.0
    pair.node.frames_arrived(
        [(UP, own("S", 1, dials=False), packet(greetings=[Greeting("pong", "1e9")]))], 0.5
    )
    assert pair.node.routing.names["S"].stretch == 1.0 and pair.node.counts["malformed"] == 1


def test_a_station_that_never_welcomes_is_hung_up():
    node = exchange("a", 2, "pusher")
    node.link_up(UP, own("S", 1, dials=False), 0.0)
    assert not any(isinstance(one, Hangup) for one in node.time_passed(9.9))
    assert any(isinstance(one, Hangup) for one in node.time_passed(10.0))


def test_many_messages_make_few_transmissions_and_none_too_large():
    pair = Pair()
    out = pair.station.send([request(n, ("a",), body=b"x" * 200_000) for n in range(8)], 0.1)
    batch = sent_frames(out)
    assert 2 <= len(batch) <= 4 and all(sum(map(len, frames)) < 1_000_000 for _, frames in batch)
    few = exchange("S", 1)
    few.outbox.rules = replace(few.outbox.rules, window=4096)
    join(few, "a", 2, LISTENER)
    assert len(sent_frames(few.send([request(n, ("a",)) for n in range(900)], 0.1))) == 1


def test_an_ack_without_a_way_is_counted():
    pair = Pair()
    ack = Ack(["S", "nobody"], 7, 1, 3, 1, [], 1, [], 0, [Verdict(1, Outcome.EXPIRED)])
    pair.station.frames_arrived([(LISTENER, own("a", 2), packet(acks=[ack]))], 0.1)
    assert pair.station.counts["acks without a way"] == 1


def test_a_way_that_is_back_is_told_down_the_tree_and_used_at_once() -> None:
    station = exchange("rig", boot=2, upstream="pusher")
    child = ("listener", b"\x00node")
    station.frames_arrived([(child, own("_rig", 5), packet(greetings=[Greeting("hello")]))], 0.0)
    parent = ("pusher", b"")
    station.link_up(parent, own("T", 9, dials=False), 1.0)
    told = station.frames_arrived(
        [(parent, own("T", 9, dials=False), packet(greetings=[Greeting("welcome")]))], 1.0
    )
    assert "restored" in [greeting.word for greeting in sent_packets(told, child).greetings]

    node = exchange("_rig", boot=5, upstream="pusher")
    node.link_up(parent, own("rig", 2, dials=False), 0.0)
    node.frames_arrived([(parent, own("rig", 2, dials=False), packet(greetings=[Greeting("welcome")]))], 0.0)
    node.send([request(path=("T",), durable=True)], 0.5)
    again = node.frames_arrived(
        [(parent, own("rig", 2, dials=False), packet(greetings=[Greeting("restored")]))], 1.0
    )
    assert [one.seq for one in sent_packets(again, parent).parcels] == [1]


def test_what_waited_while_we_were_stopped_is_not_read():
    us = exchange("S")
    us.frames_arrived([(LISTENER, own("a", 7), packet(parcel(1, path=["S"], trail=[])))], 1.0)
    late = us.frames_arrived([(LISTENER, own("a", 7), packet(parcel(2, path=["S"], trail=[])))], 40.0)
    assert handed_over(late) == [] and us.counts["too old to be read"] == 1
    us.link_down(LISTENER, 41.0)
    again = us.frames_arrived([(LISTENER, own("a", 7), packet(parcel(2, path=["S"], trail=[])))], 42.0)
    assert [one.seq for one in handed_over(again)] == [2]


def test_what_a_station_had_sent_before_we_left_it_for_a_door_does_not_bring_it_back() -> None:
    door = Door("here", 9, "/door", 0)
    pair = Pair()
    pair.node.doors.machine = "here"
    station, consumer = own("S", 1, dials=False), own("_S", 9, dials=False)
    told = packet(greetings=[Greeting("door", door.told())])
    out = pair.node.frames_arrived([(UP, station, told)], 1.0)
    assert [one.door for one in out if isinstance(one, Follow)] == [door]
    late = pair.node.frames_arrived([(UP, station, packet(greetings=[Greeting("pong", "1")]))], 1.1)
    assert states(late) == [] and pair.node.counts["from a link that has ended"] == 1
    pair.node.link_up(UP, consumer, 1.2)
    out = pair.node.frames_arrived([(UP, consumer, packet(greetings=[Greeting("welcome")]))], 1.3)
    assert states(out) == [("_S", PeerState.ALIVE)]


def test_what_is_over_is_told_to_the_journal_once() -> None:
    node = Exchange(ExchangeConfig("a", 5), lambda verb: Service.NONE)
    sent = request(list("abc"), bodies=[b"a", b"b", b"c"], names=list("abc"), durable=True, kept=True)
    told = [one for one in node.send([sent], 0.0) if isinstance(one, Keep)]
    for last in (1, 2, 3):
        node.outbox.acked(Ack([], 5, 1, 9, 3, [], last, [], 0, []), 0.1)
        told += [one for one in node.time_passed(0.1) if isinstance(one, Drop)]
    place = (5, 1, 1)
    assert told[1:] == [Drop([], [(place, 1, 2)]), Drop([], [(place, 2, 3)]), Drop([place], [])]
    assert [one.place for one in told[0].sends] == [place]
