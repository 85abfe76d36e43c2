"""Net_Node: sending, receiving, settling, and going."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pilotage import Flag, Message, Net_Node, Outcome, Reason, Receipt, on_loop
from pilotage.protocol.errors import (
    Closed,
    Expired,
    InvalidMessage,
    MalformedFrame,
    NameTaken,
    PortInUse,
    Refused,
)
from tests.conftest import Eventually
from tests.net.conftest import Gate, MakeNode


def test_the_documented_constructor() -> None:
    parameters = inspect.signature(Net_Node).parameters
    assert list(parameters)[:9] == [
        *("id", "upstream", "port", "listens", "instance", "upstream_ip", "daemon", "expand_on_receive"),
        "router_port",
    ]
    defaults = {name: parameters[name].default for name in list(parameters)[4:9]}
    assert defaults == {
        "instance": True,
        "upstream_ip": "localhost",
        "daemon": True,
        "expand_on_receive": True,
        "router_port": None,
    }


def test_the_documented_methods_take_what_is_documented() -> None:
    def of(method: Any) -> dict[str, Any]:
        parameters = inspect.signature(method).parameters
        return {name: p.default for name, p in list(parameters.items())[1:]}

    none = inspect.Parameter.empty
    assert of(Net_Node.send) == {
        "to": None,
        "key": None,
        "value": None,
        "msg": None,
        "repeat": True,
        "flags": None,
        "force_to": False,
        "durable": None,
        "deadline_s": None,  # beyond the documentation
    }
    assert list(of(Net_Node.prepare_message)) == ["to", "key", "value", "repeat", "flags"]
    stream = of(Net_Node.get_stream)
    assert {
        name: stream[name] for name in ("id", "key", "min_size", "upstream", "port", "ip", "subject")
    } == {
        "id": none,
        "key": none,
        "min_size": 5,
        "upstream": None,
        "port": None,
        "ip": None,
        "subject": None,
    }


def test_the_documented_attributes_are_true_at_run_time(node: MakeNode, gate: Gate) -> None:
    rig = node("rig", router_port=0, listens={"WAIT": gate})
    cam = node("cam", rig)
    assert (cam.id, cam.upstream, cam.port) == ("cam", "rig", rig.router_port)
    assert cam.sock.type == 5 and cam.context.closed is False and rig.router.type == 6
    assert (cam.sock.closed, rig.router.closed) == (False, False)
    assert cam.loop.asyncio_loop.is_running() and cam.loop_thread.is_alive() and cam.loop_thread.daemon
    assert Net_Node.repeat_interval == cam.repeat_interval == 5
    assert isinstance(cam.logger, logging.Logger) and "CONFIRM" in cam.listens
    assert (cam.outbox, cam.timers) == ({}, {})
    receipt = cam.send(key="WAIT", value=1)
    assert gate.entered.wait(5)
    name = receipt.message.id
    assert cam.outbox == {name: receipt.message}
    assert list(cam.timers) == [name] and 0 <= cam.timers[name] <= 5
    gate.opened.set()
    receipt.wait_settled(5)
    assert (cam.outbox, cam.timers) == ({}, {})
    assert rig.senders == {"cam": ""}
    assert next(cam.msg_counter) == 1


def test_nodes_talk_directly_through_a_router_port(node: MakeNode, eventually: Eventually) -> None:
    got: list[Any] = []
    first = node("a", router_port=0, listens={"GOTIT": got.append})
    second = node("b", first, {"GOTIT": got.append})
    second.send(to="a", key="GOTIT", value="up")
    eventually(lambda: got == ["up"])
    first.send(to="b", key="GOTIT", value="down")
    eventually(lambda: got == ["up", "down"])


def test_each_way_to_name_the_recipient(node: MakeNode, eventually: Eventually) -> None:
    got: list[Any] = []
    rig = node("rig", router_port=0, listens={"K": got.append})
    cam, eye = node("cam", rig), node("eye", rig, {"K": got.append})
    cam.send(key="K", value="upstream").result(5)
    cam.send("rig", "K", "by name").result(5)
    cam.send(["rig", "eye"], "K", "a list").result(5)
    cam.send(("rig", "eye"), "K", "a tuple").result(5)
    cam.send("eye", "K", "through the router").result(5)
    cam.send("whatever it calls itself", "K", "forced", force_to=True).result(5)
    cam.send(msg=cam.prepare_message("eye", "K", "prepared")).result(5)
    assert sorted(got) == sorted(
        ["upstream", "by name", "a list", "a tuple", "through the router", "forced", "prepared"]
    )
    assert eye.msgs_received == 4


def test_values_arrive_as_they_were_sent(node: MakeNode) -> None:
    got: list[Any] = []
    rig = node("rig", router_port=0, listens={"K": got.append})
    cam = node("cam", rig)
    value = {
        "text": "ä\0",
        "none": None,
        "nested": [1, 2.5, [True]],
        "big": np.arange(20_000.0),
        "small": np.int8(3),
    }
    cam.send("rig", "K", value).result(5)
    assert {name: got[0][name] for name in ("text", "none", "nested")} == {
        "text": "ä\0",
        "none": None,
        "nested": [1, 2.5, [True]],
    }
    assert np.array_equal(got[0]["big"], value["big"]) and got[0]["small"] == 3


def test_a_key_that_is_no_text_is_sent_as_its_text(node: MakeNode) -> None:
    rig = node("rig", None, {"7": lambda value: value}, router_port=0)
    cam = node("cam", rig)
    receipt = cam.send("rig", 7, "seven")  # type: ignore[arg-type]
    assert receipt.result(5) == "seven" and receipt.message.key == "7"
    assert cam.prepare_message("rig", 7, None).key == "7"  # type: ignore[arg-type]


def test_repeat_is_the_default_and_no_repeat_is_a_flag(node: MakeNode) -> None:
    rig = node("rig", router_port=0, listens={"K": lambda value: None})
    cam = node("cam", rig)
    assert cam.send("rig", "K").message.flags == {}
    once = cam.send("rig", "K", repeat=False, flags={"MINPRINT": True})
    assert once.message.flags == {"MINPRINT": True, Flag.NOREPEAT.value: True}
    assert once.wait_settled(5).outcome is Outcome.DELIVERED
    assert cam.prepare_message("rig", "K", 1).ttl == 2
    assert cam.send(key="K").message.id == "cam_3"


def test_a_listen_answers(node: MakeNode) -> None:
    rig = node(
        "rig",
        router_port=0,
        listens={"DOUBLE": lambda value: value * 2, "LOOP": on_loop(lambda value: [value])},
    )
    cam = node("cam", rig)
    assert cam.send("rig", "DOUBLE", 21).result(5) == 42
    assert np.array_equal(cam.send("rig", "DOUBLE", np.arange(3)).result(5), [0, 2, 4])
    assert cam.send("rig", "LOOP", 1).result(5) == [1]


def test_an_answer_may_come_from_another_send(node: MakeNode) -> None:
    rig = node("rig", router_port=0)
    eye = node("eye", rig, {"ASK": lambda value: value + 1, "FAIL": lambda value: 1 / 0})
    rig.listens["ASK"] = lambda value: rig.send("eye", "ASK", value)
    rig.listens["FAIL"] = lambda value: rig.send("eye", "FAIL", value)
    cam = node("cam", rig)
    assert cam.send("rig", "ASK", 1).result(5) == 2
    with pytest.raises(Refused, match="ZeroDivisionError"):
        cam.send("rig", "FAIL").result(5)
    assert eye.id == "eye"


@pytest.mark.parametrize("answer", [object(), "x" * 300_000], ids=["not sendable", "too long"])
def test_an_answer_that_cant_be_sent_refuses_instead_of_waiting_for_ever(
    node: MakeNode, answer: object
) -> None:
    from concurrent.futures import Future

    later: Future[object] = Future()
    rig = node("rig", router_port=0, listens={"NOW": lambda value: answer, "LATER": lambda value: later})
    cam = node("cam", rig)
    assert cam.send("rig", "NOW").wait_settled(5).reason is Reason.LISTEN_FAILED
    waiting = cam.send("rig", "LATER")
    later.set_result(answer)
    assert waiting.wait_settled(5).reason is Reason.LISTEN_FAILED


@pytest.mark.parametrize("marked", [on_loop, lambda listen: listen], ids=["on the loop", "on a worker"])
def test_a_listen_that_fails_refuses_its_message_and_nothing_else(node: MakeNode, marked: Any) -> None:
    got: list[int] = []

    def listen(value: int) -> None:
        if value == 1:
            raise KeyError("no such thing")
        if value == 2:
            sys.exit(3)
        got.append(value)

    rig = node("rig", router_port=0, listens={"K": marked(listen)})
    cam = node("cam", rig)
    ends = [cam.send("rig", "K", value).wait_settled(5) for value in range(4)]
    assert [end.reason for end in ends] == [None, Reason.LISTEN_FAILED, Reason.LISTEN_FAILED, None]
    assert "KeyError: 'no such thing'" in ends[1].text
    assert got == [0, 3]


def test_an_unknown_key_is_refused_and_the_known_ones_are_told(node: MakeNode) -> None:
    rig = node("rig", router_port=0, listens={"HELLO": print})
    with pytest.raises(Refused, match=r"rig has no listen for key 'HALLO'.*HELLO"):
        node("cam", rig).send("rig", "HALLO").result(5)


def test_what_is_sent_to_nobody_known_waits_for_it_and_is_refused_in_the_end(node: MakeNode) -> None:
    got: list[Any] = []
    rig = node("rig", router_port=0)
    cam = node("cam", rig)
    early, never = cam.send("late", "K", 1), cam.send("never", "K", 1)
    node("late", rig, {"K": got.append})
    assert early.wait_settled(5).outcome is Outcome.DELIVERED and got == [1]
    assert not never.is_settled
    assert never.wait_settled(10).reason is Reason.UNKNOWN_RECIPIENT


def test_misuse_is_told_at_once(node: MakeNode) -> None:
    rig = node("rig", router_port=0)
    for wrong in ({"value": 1}, {"key": ""}, {"key": "K", "value": object()}, {"key": "K", "to": ["rig", 3]}):
        with pytest.raises(InvalidMessage):
            rig.send(**wrong)
    with pytest.raises(InvalidMessage, match="name"):
        Net_Node("", "T", 1, {})
    assert rig.outbox == {}


def test_order_from_one_sender_with_one_key(node: MakeNode) -> None:
    got: list[int] = []
    rig = node("rig", router_port=0, listens={"K": got.append})
    cam = node("cam", rig)
    last = [cam.send("rig", "K", number) for number in range(2000)][-1]
    last.wait_settled(20)
    assert got == list(range(2000))


def test_many_threads_send_and_each_keeps_its_order(node: MakeNode) -> None:
    got: list[tuple[int, int]] = []
    rig = node("rig", router_port=0, listens={"K": lambda value: got.append(tuple(value))})
    cam = node("cam", rig)
    receipts: list[Receipt] = []

    def work(worker: int) -> None:
        receipts.extend([cam.send("rig", "K", [worker, number]) for number in range(200)])

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(receipt.wait_settled(20).outcome is Outcome.DELIVERED for receipt in receipts)
    assert len(got) == 1600
    for worker in range(8):
        assert [number for who, number in got if who == worker] == list(range(200))
    assert len({receipt.message.id for receipt in receipts}) == 1600


def test_a_slow_listen_delays_neither_other_senders_nor_other_keys_nor_urgent_ones(
    node: MakeNode, gate: Gate, eventually: Eventually
) -> None:
    got: list[Any] = []
    urgent = ("STOP", "STOPALL", "KILL", "PING", "FILE")
    listens = {"SLOW": gate, "K": got.append, **dict.fromkeys(urgent, got.append)}
    rig = node("rig", router_port=0, listens=listens)
    cam, eye = node("cam", rig), node("eye", rig)
    slow = cam.send("rig", "SLOW", 1)
    behind = cam.send("rig", "SLOW", 2)
    assert gate.entered.wait(5)
    cam.send("rig", "K", "another key").result(5)
    for key in urgent:
        cam.send("rig", key, key).result(5)
    assert got == ["another key", *urgent]
    assert not slow.is_settled and not behind.is_settled
    eye_slow = eye.send("rig", "SLOW", 3)
    eventually(lambda: gate.inside == 2)
    gate.opened.set()
    for receipt in (slow, behind, eye_slow):
        receipt.result(5)
    assert [value for value in gate.got if value != 3] == [1, 2]


def test_what_comes_together_with_a_message_whose_listen_hangs_is_handled(node: MakeNode, gate: Gate) -> None:
    cam = node("cam", None, {"HANGS": gate, **{key: lambda value: None for key in "ABC"}}, router_port=0)
    rig = node("rig", cam)
    rig.send("cam", "A").wait_settled(5)
    sent: list[Any] = []

    def send_in_one_turn() -> None:
        sent.extend(rig.send("cam", key) for key in ("HANGS", "A", "B", "C"))

    rig.loop.add_callback(send_in_one_turn)
    assert gate.entered.wait(5)
    for receipt in sent[1:]:
        assert receipt.wait_settled(5).outcome is Outcome.DELIVERED
    assert not sent[0].is_settled


def test_urgent_keys_pass_even_when_every_worker_is_held(node: MakeNode, gate: Gate) -> None:
    rig = node("rig", router_port=0, listens={"STOP": lambda value: None})
    cam = node("cam", rig)
    for number in range(80):
        rig.listens[f"K{number}"] = gate
        cam.send("rig", f"K{number}", number)
    assert gate.entered.wait(5)
    cam.send("rig", "STOP").result(5)


# Receipts


def test_a_receipt_tells_how_far_it_is(node: MakeNode, gate: Gate, eventually: Eventually) -> None:
    rig = node("rig", router_port=0, listens={"WAIT": gate})
    receipt = node("cam", rig).send("rig", "WAIT")
    eventually(lambda: receipt.stage == "received")
    assert (receipt.is_settled, receipt.settlement, receipt.answer) == (False, None, None)
    with pytest.raises(TimeoutError, match="WAIT"):
        receipt.wait_settled(0.01)
    with pytest.raises(TimeoutError):
        receipt.result(0.01)
    gate.opened.set()
    receipt.wait_settled(5)
    assert receipt.stage == "settled" and "delivered" in repr(receipt)


def test_callbacks_are_called_once_each_also_late_and_a_bad_one_harms_nobody(
    node: MakeNode, gate: Gate
) -> None:
    called: list[Any] = []
    rig = node("rig", router_port=0, listens={"WAIT": gate})
    cam = node("cam", rig)
    first, second = cam.send("rig", "WAIT"), cam.send("rig", "WAIT")
    first.add_callback(lambda receipt: 1 / 0)
    first.add_callback(called.append)
    gate.opened.set()
    second.wait_settled(5)
    assert called == [first]
    first.add_callback(called.append)
    assert called == [first, first]


def test_receipts_can_be_awaited(node: MakeNode) -> None:
    rig = node("rig", router_port=0, listens={"ASK": lambda value: value, "FAIL": lambda value: 1 / 0})
    cam = node("cam", rig)

    async def ask() -> list[Any]:
        done = cam.send("rig", "ASK", 5)
        done.wait_settled(5)
        return [await cam.send("rig", "ASK", 4), await cam.send("rig", "FAIL"), await done]

    ends = asyncio.run(asyncio.wait_for(ask(), 5))
    assert [end.answer for end in ends] == [4, None, 5]
    assert ends[1].reason is Reason.LISTEN_FAILED


def test_a_confirmation_from_elsewhere_settles(node: MakeNode, gate: Gate) -> None:
    rig = node("rig", router_port=0, listens={"WAIT": gate})
    cam = node("cam", rig)
    receipt = cam.send("rig", "WAIT")
    cam.l_confirm(str(receipt.message.id))
    assert receipt.wait_settled(1).outcome is Outcome.DELIVERED
    assert cam.outbox == {}


# Receiving by hand


def test_handle_listen_calls_the_listen(node: MakeNode) -> None:
    got: list[Any] = []
    rig = node("rig", router_port=0, listens={"K": got.append})
    text = Message(id="x_0", to="rig", sender="x", key="K", value=np.arange(3)).serialize()
    rig.handle_listen(Message(id="x_0", to="rig", sender="x", key="K", value="message"))
    rig.handle_listen(text)
    rig.handle_listen([b"x", b"rig", text.encode()])
    assert got[0] == "message" and np.array_equal(got[1], [0, 1, 2]) and np.array_equal(got[2], [0, 1, 2])
    with pytest.raises(InvalidMessage, match="NONE"):
        rig.handle_listen(Message(id="x_0", to="rig", sender="x", key="NONE"))
    with pytest.raises(MalformedFrame):
        rig.handle_listen(b"no message")


def test_l_stream_adds_the_headers_that_items_lack(node: MakeNode) -> None:
    got: list[Any] = []
    rig = node("rig", router_port=0, listens={"K": got.append})
    value = {"inner_key": "K", "headers": {"pilot": "a", "n": 0}, "payload": [{"n": 1}, 2, {}]}
    rig.l_stream(Message(id="s_0", to="rig", sender="s", key="STREAM", value=value))
    assert got == [{"pilot": "a", "n": 1}, 2, {"pilot": "a", "n": 0}]
    for wrong in (None, {"payload": 1}, {"inner_key": "NONE", "payload": []}):
        with pytest.raises(InvalidMessage):
            rig.l_stream(Message(id="s_0", to="rig", sender="s", key="STREAM", value=wrong))


# Loops


def test_instances_share_one_loop_thread_and_others_have_their_own(node: MakeNode) -> None:
    first, second = node("a", router_port=0), node("b", router_port=0)
    assert first.loop_thread is second.loop_thread and first.loop is second.loop
    third, fourth = (
        node("c", router_port=0, instance=False),
        node("d", router_port=0, instance=False, daemon=False),
    )
    assert len({first.loop_thread, third.loop_thread, fourth.loop_thread}) == 3
    assert (third.loop_thread.daemon, fourth.loop_thread.daemon) == (True, False)
    fourth.release()
    assert not fourth.loop_thread.is_alive()
    assert first.loop_thread.is_alive()


@pytest.mark.parametrize(
    "new_loop",
    [asyncio.new_event_loop, pytest.param("uvloop", marks=pytest.mark.only_on("linux", "darwin"))],
    ids=["asyncio", "uvloop"],
)
def test_a_node_joins_the_loop_that_runs_in_the_calling_thread(new_loop: Any) -> None:
    from tornado.ioloop import IOLoop

    if new_loop == "uvloop":
        from uvloop import new_event_loop as new_loop

    got: list[Any] = []

    async def main() -> None:
        listens = {"K": on_loop(lambda value: got.append((value, threading.current_thread())))}
        with Net_Node("rig", "", 0, listens, router_port=0) as rig:
            assert rig.loop is IOLoop.current() and rig.loop_thread is threading.current_thread()
            with Net_Node("cam", "rig", rig.router_port, {}) as cam:
                settlement = await asyncio.wait_for(_settled(cam.send("rig", "K", 1)), 5)
                assert settlement.outcome is Outcome.DELIVERED

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert got == [(1, threading.current_thread())]


def test_who_waits_on_the_loop_that_ends_his_send_is_told_without_a_bell(
    node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = node("rig", router_port=0, listens={"K": lambda value: value})
    rung: list[str] = []

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        ring = loop.call_soon_threadsafe

        def ring_and_note(call: Callable[..., object], *given: object, **how: Any) -> asyncio.Handle:
            rung.append(call.__qualname__)
            return ring(call, *given, **how)

        monkeypatch.setattr(loop, "call_soon_threadsafe", ring_and_note)
        with Net_Node("cam", "rig", rig.router_port or 0, {}, instance=True) as cam:
            return (await asyncio.wait_for(_settled(cam.send("rig", "K", 1)), 5)).answer

    assert asyncio.run(main()) == 1
    assert not [name for name in rung if name.startswith("Receipt.")]


async def _settled(receipt: Receipt) -> Any:
    return await receipt


# Going


def test_release_interrupts_what_is_open_and_says_so(node: MakeNode, gate: Gate) -> None:
    rig = node("rig", router_port=0, listens={"WAIT": gate})
    cam = node("cam", rig)
    receipt = cam.send("rig", "WAIT")
    assert gate.entered.wait(5)
    cam.release()
    assert receipt.wait_settled(1).reason is Reason.INTERRUPTED
    with pytest.raises(Refused, match="cam was released"):
        receipt.result()
    for call in (lambda: cam.send("rig", "K"), lambda: cam.get_stream("s", "K")):
        with pytest.raises(Closed, match="cam was released"):
            call()
    cam.release()


def test_every_send_settles_though_the_node_goes_meanwhile(node: MakeNode) -> None:
    rig = node("rig", router_port=0, listens={"K": lambda value: None})
    for _ in range(3):
        cam = node("cam", rig)
        receipts: list[Receipt] = []
        started = threading.Event()

        def hammer(
            cam: Net_Node = cam, mine: list[Receipt] = receipts, started: threading.Event = started
        ) -> None:
            try:
                while True:
                    mine.append(cam.send("rig", "K"))
                    started.set()
            except Closed:
                return

        threads = [threading.Thread(target=hammer) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert started.wait(5)
        cam.release()
        for thread in threads:
            thread.join(5)
        open_ones = [receipt for receipt in receipts if not receipt.is_settled]
        assert open_ones == []


def test_a_send_that_a_release_overtakes_is_settled(node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    cam = node("cam", node("rig", router_port=0))
    add = cam._messenger.posting.open.add

    def add_once_released(bundle: Any) -> None:
        cam.release()
        add(bundle)

    monkeypatch.setattr(cam._messenger.posting.open, "add", add_once_released)
    assert cam.send("rig", "K").wait_settled(2).reason is Reason.INTERRUPTED


@pytest.mark.parametrize("instance", [True, False])
def test_release_ends_in_time_though_a_listen_hangs_and_the_station_is_gone(
    node: MakeNode, gate: Gate, instance: bool
) -> None:
    rig = node("rig", router_port=0)
    cam = node("cam", rig, {"WAIT": gate}, instance=instance)
    stream = cam.get_stream("s", "K")
    rig.send("cam", "WAIT")
    assert gate.entered.wait(5)
    rig.release()
    stream.put(1)
    cam.send("rig", "DATA", {"x": 1})
    began = time.monotonic()
    cam.release()
    assert time.monotonic() - began < 2.2


def test_a_node_that_never_met_its_station_goes_without_a_word(
    node: MakeNode, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for number in range(5):
            Net_Node(f"lost_{number}", "T", port, {}, instance=False).release()
    lost = Net_Node("lost", "T", port, {})
    with pytest.raises(TimeoutError, match=f"lost is not connected to T at localhost:{port}"):
        lost.wait_connected(0.05)
    lost.release()
    assert "never" not in caplog.text and "destroyed" not in caplog.text
    assert "Traceback" not in capfd.readouterr().err


def test_a_port_in_use_is_told_and_leaves_nothing_behind(node: MakeNode) -> None:
    rig = node("rig", router_port=0)
    before = threading.active_count()
    with pytest.raises(PortInUse, match=f"other can't listen on port {rig.router_port}"):
        Net_Node("other", "", 0, {}, router_port=rig.router_port, instance=False)
    assert threading.active_count() == before


def test_a_name_that_is_taken_is_told(node: MakeNode) -> None:
    rig = node("rig", router_port=0)
    holder = node("cam", rig, {"K": lambda value: "the holder"})
    thief = Net_Node("cam", "rig", rig.router_port, {})
    try:
        with pytest.raises(NameTaken, match="'cam' is held by a live peer of rig"):
            thief.wait_connected(5)
        with pytest.raises(NameTaken):
            thief.send("rig", "K").result(5)
    finally:
        thief.release()
    assert rig.send("cam", "K").result(5) == "the holder"
    assert holder.statistics().peers == {"rig": "alive"}


def test_statistics_count_everything_once(node: MakeNode) -> None:
    rig = node("rig", router_port=0, listens={"K": lambda value: None, "BAD": lambda value: 1 / 0})
    cam = node("cam", rig)
    for key in ("K", "K", "BAD"):
        cam.send("rig", key).wait_settled(5)
    sent, received = cam.statistics(), rig.statistics()
    assert (sent.name, sent.sent, sent.unsettled, sent.peers) == ("cam", 3, 0, {"rig": "alive"})
    assert sent.settled == {"delivered": 2, "expired": 0, "refused": 1}
    assert (received.received, received.duplicates, received.sent) == (3, 0, 0)
    cam.release()
    assert cam.statistics().sent == 3


def test_messages_number_themselves(node: MakeNode) -> None:
    rig = node("rig", router_port=0)
    assert isinstance(rig.msg_counter, itertools.count)
    assert [rig.prepare_message("x", "K", None).id for _ in range(2)] == ["rig_0", "rig_1"]


def test_expired_is_an_error_of_its_own() -> None:
    assert issubclass(Expired, Exception) and not issubclass(Expired, Refused)
