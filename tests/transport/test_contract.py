"""What a network promises to a driver: one suite, over memory wires and over ZeroMQ."""

from __future__ import annotations

import threading
import time

import pytest

from pilotage.protocol.errors import PortInUse
from pilotage.protocol.instructions import PeerState
from pilotage.protocol.settlement import Outcome, Reason
from tests.conftest import Eventually
from tests.transport.conftest import World
from tests.transport.ends import LIVELY, End


def meet(world: World, eventually: Eventually) -> tuple[End, End]:
    hub = world.ends.listening("hub")
    cam = world.ends.dialling("cam", hub.port)
    eventually(cam.is_alive("hub"))
    eventually(hub.is_alive("cam"))
    return hub, cam


def test_a_dialler_is_welcomed_by_name(world: World, eventually: Eventually) -> None:
    hub, cam = meet(world, eventually)
    assert [(change.name, change.is_parent) for change in cam.changes] == [("hub", True)]
    assert [(change.name, change.is_parent) for change in hub.changes] == [("cam", False)]


def test_messages_go_both_ways_and_are_settled(world: World, eventually: Eventually) -> None:
    hub, cam = meet(world, eventually)
    up, down = cam.send("hub", b"up"), hub.send("cam", b"down")
    eventually(lambda: up.is_delivered and down.is_delivered)
    assert (hub.bodies(), cam.bodies()) == ([b"up"], [b"down"])


def test_order_is_kept_over_many_turns(world: World, eventually: Eventually) -> None:
    hub, cam = meet(world, eventually)
    bodies = [str(number).encode() for number in range(3000)]
    last = [cam.send("hub", body) for body in bodies][-1]
    eventually(lambda: last.is_delivered)
    assert hub.bodies() == bodies


def test_big_frames_arrive_whole(world: World, eventually: Eventually) -> None:
    hub, cam = meet(world, eventually)
    frames = [bytes([byte]) * size for byte, size in ((1, 3_000_000), (2, 65_536), (3, 65_535), (4, 1))]
    sent = cam.send("hub", b"four frames", frames=frames)
    eventually(lambda: sent.is_delivered)
    assert hub.got == [("KEY", b"four frames", frames)]


def test_a_batch_larger_than_a_turn_arrives_whole(world: World, eventually: Eventually) -> None:
    hub = world.ends.listening("hub")
    cams = [world.ends.dialling(f"cam_{number}", hub.port) for number in range(4)]
    sends = [cam.send("hub", f"{cam.name} {number}".encode()) for number in range(500) for cam in cams]
    eventually(lambda: all(sent.is_delivered for sent in sends), timeout_s=10)
    for cam in cams:
        mine = [body for body in hub.bodies() if body.startswith(cam.name.encode())]
        assert mine == [f"{cam.name} {number}".encode() for number in range(500)]


def test_a_turn_comes_back_for_what_it_left(
    world: World, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotage.transport.driver.ARRIVALS_A_TURN", 1)
    hub, cam = meet(world, eventually)
    gate = _hold(hub)
    sends = []
    for number in range(200):
        sends.append(cam.send("hub", str(number).encode()))
        eventually(lambda number=number: cam.exchange.sent == number + 1, interval_s=0.0005)
    gate.set()
    # Sooner than a heartbeat, which would wake the loop as well.
    eventually(lambda: all(sent.is_delivered for sent in sends), timeout_s=0.9)


def test_a_link_that_was_cut_is_dialled_anew_and_nothing_is_lost_or_twice(
    world: World, eventually: Eventually
) -> None:
    hub = world.ends.listening("hub")
    cam = world.dial_through_something("cam", hub)
    eventually(hub.is_alive("cam"))
    sends = []
    for cut in range(5):
        eventually(cam.is_alive("hub"))
        sends += [cam.send("hub", f"{cut}.{number}".encode()) for number in range(100)]
        world.cut("cam")
    eventually(lambda: all(sent.is_delivered for sent in sends), timeout_s=15)
    assert hub.bodies() == [f"{cut}.{number}".encode() for cut in range(5) for number in range(100)]
    assert any(change.state is PeerState.GONE for change in cam.changes), (
        "nothing was cut: this test shows nothing"
    )


def test_a_server_that_comes_back_on_its_port_is_found(world: World, eventually: Eventually) -> None:
    hub, cam = meet(world, eventually)
    port = hub.port
    world.ends.stop(hub, silently=True)
    eventually(cam.is_gone("hub"))
    waiting = cam.send("hub", b"for the next life")
    again = world.ends.listening("hub", port)
    eventually(lambda: waiting.is_delivered)
    assert again.bodies() == [b"for the next life"]


def test_a_dialler_waits_for_a_server_that_is_not_there_yet(world: World, eventually: Eventually) -> None:
    hub = world.ends.listening("hub")
    port = hub.port
    world.ends.stop(hub)
    cam = world.ends.dialling("cam", port)
    eventually(lambda: any("can't reach hub" in note for note in cam.notes))
    sent = cam.send("hub", b"early")
    world.ends.listening("hub", port)
    eventually(lambda: sent.is_delivered)


def test_a_port_in_use_says_so(world: World) -> None:
    hub = world.ends.listening("hub")
    with pytest.raises(PortInUse, match=str(hub.port)):
        world.ends.listening("other", hub.port)


def test_a_name_that_a_live_peer_holds_is_refused(keyless_world: World, eventually: Eventually) -> None:
    world = keyless_world
    hub, cam = meet(world, eventually)
    thief = world.ends.dialling("cam", hub.port)
    sent = thief.send("hub", b"from the thief", durable=False)
    eventually(lambda: sent.settlement is not None)
    assert sent.settlement is not None
    assert (sent.settlement.outcome, sent.settlement.reason) == (Outcome.REFUSED, Reason.NAME_TAKEN)
    assert "'cam' is held by a live peer" in sent.settlement.text
    kept = hub.send("cam", b"to the holder")
    eventually(lambda: kept.is_delivered)
    assert cam.bodies() == [b"to the holder"]
    assert thief.bodies() == hub.bodies() == []


def test_a_rebooted_peer_takes_its_name_over_from_a_half_open_link(
    world: World, eventually: Eventually
) -> None:
    hub = world.ends.listening("hub")
    before = world.dial_through_something("cam", hub)
    eventually(hub.is_alive("cam"))
    world.freeze("cam")
    began = time.monotonic()
    after = world.ends.dialling("cam", hub.port)
    eventually(after.is_alive("hub"))
    # Far sooner than silence alone would tell (10 s).
    assert time.monotonic() - began < 2.0
    sent = hub.send("cam", b"to the new life")
    eventually(lambda: sent.is_delivered)
    assert (before.bodies(), after.bodies()) == ([], [b"to the new life"])


def test_a_peer_that_says_goodbye_is_gone_at_once(world: World, eventually: Eventually) -> None:
    hub, cam = meet(world, eventually)
    world.ends.stop(cam)
    eventually(hub.is_gone("cam"))
    assert hub.changes[-1].text == "it said goodbye"


def test_a_peer_that_dies_is_noticed_and_stays_gone(
    world: World, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotage.transport.driver.ARRIVALS_A_TURN", 1)
    hub, cam = meet(world, eventually)
    gate = _hold(hub)
    for number in range(50):
        cam.send("hub", str(number).encode())
        eventually(lambda number=number: cam.exchange.sent == number + 1, interval_s=0.0005)
    world.ends.stop(cam, silently=True)
    gate.set()
    eventually(hub.is_gone("cam"))
    eventually(lambda: len(hub.got) == 50)
    other = world.ends.dialling("other", hub.port)
    probe = other.send("hub", b"probe")
    eventually(lambda: probe.is_delivered)
    # What it had sent and was read late must not bring it back as a ghost.
    assert [change.state for change in hub.changes if change.name == "cam"] == [
        PeerState.ALIVE,
        PeerState.GONE,
    ]


def test_one_who_dies_while_nothing_else_happens_is_told_of_at_once(
    world: World, eventually: Eventually
) -> None:
    hub, cam = meet(world, eventually)
    sent = cam.send("hub")
    eventually(lambda: sent.is_delivered)
    world.ends.stop(cam, silently=True)
    eventually(hub.is_gone("cam"), timeout_s=4)  # before his silence tells of it


def test_silence_is_noticed_where_no_connection_ends(world: World, eventually: Eventually) -> None:
    hub = world.ends.listening("hub", liveness=LIVELY)
    world.dial_through_something("cam", hub, LIVELY)
    eventually(hub.is_alive("cam"))
    world.freeze("cam")
    eventually(lambda: hub.peer("cam") is PeerState.SUSPECT)
    eventually(hub.is_gone("cam"))


def test_a_peer_whose_queue_is_full_stalls_nobody_else_and_gets_it_all_later(
    narrow_world: World, eventually: Eventually
) -> None:
    world = narrow_world
    hub = world.ends.listening("hub")
    busy, _ = (world.ends.dialling(name, hub.port) for name in ("busy", "free"))
    eventually(hub.is_alive("busy"))
    eventually(hub.is_alive("free"))
    gate = _hold(busy)
    frame = bytes(1_000_000)
    slow = []
    for number in range(40):
        slow.append(hub.send("busy", str(number).encode(), frames=[frame]))
        quick = hub.send("free", str(number).encode())
        eventually(lambda quick=quick: quick.is_delivered)
    assert not slow[-1].is_delivered
    assert hub.driver._lines.waiting, "the queue was never full: this test shows nothing"
    gate.set()
    eventually(lambda: all(sent.is_delivered for sent in slow), timeout_s=15)
    assert busy.bodies() == [str(number).encode() for number in range(40)]


def _hold(end: End) -> threading.Event:
    """Keep an end's loop busy until the event is set."""
    gate, held = threading.Event(), threading.Event()

    def wait() -> None:
        held.set()
        gate.wait(20)

    end.driver.call(wait)
    held.wait(5)
    return gate


def test_what_is_kept_is_accepted_and_dropped_when_it_is_over(world: World, eventually: Eventually) -> None:
    hub, cam = meet(world, eventually)
    sent = cam.send("hub", b"kept", kept=True)
    eventually(lambda: sent.is_delivered and not cam.kept)
    waiting = cam.send("nobody", b"kept", kept=True)
    eventually(lambda: waiting.accepted)
    assert [one.bodies for one in cam.kept] == [[b"kept"]] and hub.bodies() == [b"kept"]


def test_a_shell_that_wants_it_is_told_again_and_again_that_a_turn_is_over(
    world: World, eventually: Eventually
) -> None:
    hub = world.ends.listening("hub")
    hub.looks_wanted = 200
    hub.driver.call(lambda: None)
    eventually(lambda: hub.looks_wanted == 0)
