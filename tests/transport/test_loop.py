"""Our own loop: asyncio's in all that it promises, and quicker for what our connections have to tell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Eventually

if sys.platform.startswith("linux"):
    from pilotage.transport.loop import Loop, Waiting

pytestmark = pytest.mark.only_on("linux")


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    for one in ends:
        one.setblocking(False)
    yield ends
    for one in ends:
        one.close()


def run_until(loop: Loop, is_over: Callable[[], bool]) -> None:
    """Run the loop until something holds; only its own timer looks."""

    async def look() -> None:
        async with asyncio.timeout(10):
            while not is_over():
                await asyncio.sleep(0.001)

    loop.run_until_complete(look())


def test_what_our_connections_tell_needs_no_round_of_the_loop(
    loop: Loop, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = pair
    heard: list[bytes] = []
    rounds: list[object] = []

    def hear() -> None:
        heard.append(near.recv(1))
        if len(heard) < 100:
            far.send(b"x")
        else:
            loop.stop()

    process = loop._process_events  # type: ignore[attr-defined]
    monkeypatch.setattr(loop, "_process_events", lambda found: (rounds.append(found), process(found)))
    loop.lookout.add_reader(near.fileno(), hear)
    far.send(b"x")
    loop.run_forever()
    loop.lookout.remove_reader(near.fileno())
    assert len(heard) == 100 and len(rounds) == 1


@pytest.mark.parametrize("how", ["call_soon", "call_later", "a task", "call_soon_threadsafe", "wake_for"])
def test_what_such_a_call_asks_of_the_loop_is_done(
    loop: Loop, pair: tuple[socket.socket, socket.socket], how: str
) -> None:
    near, far = pair
    tasks: list[asyncio.Task[None]] = []

    async def end() -> None:
        loop.stop()

    def hear() -> None:
        near.recv(1)
        ways: dict[str, Callable[[], object]] = {
            "call_soon": lambda: loop.call_soon(loop.stop),
            "call_later": lambda: loop.call_later(0.001, loop.stop),
            "a task": lambda: tasks.append(loop.create_task(end())),
            "call_soon_threadsafe": lambda: loop.call_soon_threadsafe(loop.stop),
            "wake_for": lambda: loop.wake_for(loop.stop),
        }
        ways[how]()

    loop.lookout.add_reader(near.fileno(), hear)
    far.send(b"x")
    late = loop.call_later(10, lambda: (_ for _ in ()).throw(AssertionError("it was not done")))
    began = time.monotonic()
    loop.run_forever()
    late.cancel()
    loop.lookout.remove_reader(near.fileno())
    assert time.monotonic() - began < 5


def test_a_connection_that_never_rests_holds_up_neither_timers_nor_others(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    far.send(b"x")  # it is never read, so that it is told again and again
    told: list[None] = []
    loop.lookout.add_reader(near.fileno(), lambda: told.append(None))
    other, sender = socket.socketpair()
    read: list[bytes] = []
    loop.add_reader(other, lambda: read.append(other.recv(1)))
    loop.call_later(0.01, sender.send, b"y")
    run_until(loop, lambda: read == [b"y"])
    assert len(told) > 1
    loop.remove_reader(other)
    loop.lookout.remove_reader(near.fileno())
    other.close()
    sender.close()


def test_any_thread_wakes_it_and_each_call_comes_once_in_its_order(loop: Loop) -> None:
    came: list[int] = []

    def wake() -> None:
        for number in range(1000):
            loop.wake_for(lambda number=number: came.append(number))  # type: ignore[misc]

    thread = threading.Thread(target=wake)
    thread.start()
    run_until(loop, lambda: len(came) == 1000)
    thread.join()
    assert came == list(range(1000))
    assert loop._waiting._list.poll(0) == [], "it would be woken again and again"


def test_a_closed_loop_wakes_nobody(loop: Loop) -> None:
    loop.close()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.wake_for(lambda: None)
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon_threadsafe(lambda: None)


def test_a_call_that_fails_is_told_and_the_others_are_called(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    near, far = pair

    def fail() -> None:
        far.recv(9)
        raise ValueError("no")

    loop.lookout.add_reader(far.fileno(), fail)
    loop.lookout.add_reader(near.fileno(), lambda: (near.recv(9), loop.stop()))
    near.send(b"x")
    far.send(b"x")
    loop.run_forever()
    run_until(loop, lambda: bool(told))
    assert str(told[0]["exception"]) == "no"
    loop.lookout.remove_reader(near.fileno())
    loop.lookout.remove_reader(far.fileno())


@pytest.mark.parametrize("kind", [asyncio.CancelledError, GeneratorExit, ValueError])
def test_whatever_a_call_raises_the_loop_goes_on_as_asyncio_s_does(
    loop: Loop, pair: tuple[socket.socket, socket.socket], kind: type[BaseException]
) -> None:
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    near, far = pair

    def fail() -> None:
        near.recv(1)
        raise kind

    loop.lookout.add_reader(near.fileno(), fail)
    far.send(b"x")
    run_until(loop, lambda: bool(told))
    assert isinstance(told[0]["exception"], kind)
    loop.lookout.remove_reader(near.fileno())


def test_who_is_woken_beside_one_that_fails_is_woken(loop: Loop) -> None:
    loop.set_exception_handler(lambda _, context: None)
    came: list[int] = []
    loop.wake_for(lambda: int("no"))  # type: ignore[arg-type,return-value]
    loop.wake_for(lambda: came.append(1))
    run_until(loop, lambda: came == [1])


def test_who_rang_beside_an_interrupt_is_woken_in_the_next_run(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    came: list[int] = []

    def interrupt() -> None:
        near.recv(1)
        raise KeyboardInterrupt

    loop.lookout.add_reader(near.fileno(), interrupt)
    far.send(b"x")
    loop.wake_for(lambda: came.append(1))
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.lookout.remove_reader(near.fileno())
    run_until(loop, lambda: came == [1])


def test_a_reader_that_one_of_our_calls_adds_anew_stays(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    other, sender = socket.socketpair()
    read: list[bytes] = []

    def add() -> None:
        loop.add_reader(other, lambda: read.append(other.recv(1)))

    def again() -> None:
        near.recv(1)
        loop.remove_reader(other)
        add()

    add()
    loop.lookout.add_reader(near.fileno(), again)
    for byte in (b"x", b"y"):
        sender.send(byte)
        far.send(byte)
        run_until(loop, lambda byte=byte: read[-1:] == [byte])  # type: ignore[misc]
    loop.remove_reader(other)
    loop.lookout.remove_reader(near.fileno())
    other.close()
    sender.close()


def test_a_stranger_who_lets_go_too_late_takes_nothing_of_ours_away(loop: Loop) -> None:
    first, sender = socket.socketpair()
    fd = first.fileno()
    loop.add_reader(fd, lambda: None)
    first.close()
    ours = sender.dup()
    if ours.fileno() != fd:
        os.dup2(ours.fileno(), fd)
        ours.close()
        ours = socket.socket(fileno=fd)
    heard: list[None] = []
    loop.lookout.add_writer(fd, lambda: (heard.append(None), loop.stop()))
    loop.remove_reader(fd)
    loop.call_later(5, loop.stop)
    loop.run_forever()
    assert heard
    loop.lookout.remove_writer(fd)
    ours.close()
    sender.close()


def test_a_loop_that_gets_no_bell_says_so_and_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "eventfd", refuse)
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(OSError, match="Too many"):
        Loop()
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_list_that_is_closed_lets_go_of_everybody(pair: tuple[socket.socket, socket.socket]) -> None:
    made = Loop()
    made.lookout.add_reader(pair[0].fileno(), lambda: None)
    made.close()
    made.lookout.add_writer(pair[0].fileno(), lambda: None)
    made.lookout.remove_reader(pair[0].fileno())


def test_how_much_is_still_to_be_told_is_known(loop: Loop) -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    left: list[int] = []

    def hear(near: socket.socket) -> None:
        near.recv(1)
        left.append(loop.lookout.untold)
        if len(left) == 3:
            loop.stop()

    for near, far in pairs:
        far.send(b"x")
        loop.lookout.add_reader(near.fileno(), hear, near)
    loop.run_forever()
    assert left == [2, 1, 0]
    for near, far in pairs:
        loop.lookout.remove_reader(near.fileno())
        near.close()
        far.close()


def test_asyncio_is_all_there(loop: Loop) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(5_000_000))  # more than a socket holds: it must wait for room
        await writer.drain()
        writer.close()

    async def ask() -> bytes:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(bytes(5_000_000))
            got = await reader.read()
            writer.close()
            await writer.wait_closed()
        text = await asyncio.to_thread(lambda: b"from a thread")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.01)
        program = await asyncio.create_subprocess_exec("echo", "from a program", stdout=-1)
        said, _ = await program.communicate()
        return got + text + said

    asyncio.set_event_loop(loop)
    try:
        assert loop.run_until_complete(ask()) == bytes(5_000_000) + b"from a thread" + b"from a program\n"
    finally:
        asyncio.set_event_loop(None)


def test_it_watches_files_as_selectors_do() -> None:
    def fail(error: Exception) -> None:
        raise error

    ours, theirs = Waiting(fail), selectors.EpollSelector()
    near, far = socket.socketpair()
    for one in (ours, theirs):
        one.register(near, selectors.EVENT_READ, "near")
        with pytest.raises(KeyError):
            one.register(near, selectors.EVENT_READ)
        assert one.get_map()[near].data == one.get_key(near.fileno()).data == "near"
        assert one.select(0) == [] and one.get_map().get(far) is None and len(one.get_map()) == 1
    far.send(b"x")

    def seen(events: int) -> list[list[tuple[object, int]]]:
        for one in (ours, theirs):
            one.modify(near, events, "again")
        return [[(key.data, mask) for key, mask in one.select(1)] for one in (ours, theirs)]

    read, write = selectors.EVENT_READ, selectors.EVENT_WRITE
    assert seen(read) == [[("again", read)]] * 2
    assert seen(write) == [[("again", write)]] * 2
    assert seen(read | write) == [[("again", read | write)]] * 2
    far.close()  # an end is told to whoever waits for anything
    assert seen(read) == [[("again", read)]] * 2
    assert seen(write) == [[("again", write)]] * 2
    for one in (ours, theirs):
        one.unregister(near)
        with pytest.raises(KeyError):
            one.unregister(near)
        one.close()
    near.close()


def test_nothing_of_it_is_left_open() -> None:
    before = set(Path("/proc/self/fd").iterdir())
    made = Loop()
    made.run_until_complete(asyncio.sleep(0))
    made.close()
    assert set(Path("/proc/self/fd").iterdir()) == before


@contextlib.contextmanager
def running(loop: Loop) -> Iterator[threading.Thread]:
    """Run a loop in a thread of its own."""
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield thread
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def stands_in(loop: Loop, work: Callable[[], None] = lambda: None) -> None:
    """Do something in the loop's place, once it waits."""
    until = time.monotonic() + 10
    while not loop.stand_in(work):
        loop.wake_for(lambda: None)
        assert time.monotonic() < until, "it never waits"


def test_any_thread_may_do_something_in_its_place_while_it_waits(loop: Loop) -> None:
    done: list[int] = []
    with running(loop) as thread:
        stands_in(loop, lambda: done.append(threading.get_ident()))
        assert done == [threading.get_ident()] != [thread.ident]


def test_nobody_stands_in_for_a_loop_that_is_at_work_or_does_not_run(loop: Loop) -> None:
    done: list[None] = []
    assert not loop.stand_in(lambda: done.append(None)), "it has not begun"
    at_work, go_on = threading.Event(), threading.Event()
    with running(loop):
        loop.call_soon_threadsafe(lambda: (at_work.set(), go_on.wait(10)))
        assert at_work.wait(10)
        assert not loop.stand_in(lambda: done.append(None))
        go_on.set()
        stands_in(loop)
        loop._waiting.is_held_up = True
        assert not loop.stand_in(lambda: done.append(None)), (
            "who comes again and again would keep it from its work"
        )
        loop._waiting.is_held_up = False
        loop.set_debug(True)
        assert not loop.stand_in(lambda: done.append(None)), "asyncio would raise"
        loop.set_debug(False)
    assert not loop.stand_in(lambda: done.append(None)), "it has ended"
    loop.close()
    assert not loop.stand_in(lambda: done.append(None)) and not done


def test_the_loop_waits_for_whoever_stands_in_and_nobody_else_comes_before_it(
    loop: Loop, pair: tuple[socket.socket, socket.socket], eventually: Eventually
) -> None:
    near, far = pair
    happened: list[str] = []
    loop.lookout.add_reader(near.fileno(), lambda: happened.append(f"heard {near.recv(1)!r}"))

    def hold_up() -> None:
        far.send(b"x")
        eventually(lambda: loop._waiting.is_held_up, timeout_s=10)
        happened.append("stood in")

    with running(loop):
        second: list[bool] = []

        def work() -> None:
            hold_up()
            other = threading.Thread(target=lambda: second.append(loop.stand_in(lambda: None)))
            other.start()
            other.join()

        stands_in(loop, work)
        eventually(lambda: len(happened) == 2, timeout_s=10)
        assert happened == ["stood in", "heard b'x'"] and second == [False]
        stands_in(loop)  # it waits again
        loop.call_soon_threadsafe(loop.lookout.remove_reader, near.fileno())


@pytest.mark.parametrize("how", ["call_soon", "call_later"])
def test_what_who_stands_in_asks_of_the_loop_is_done_at_once(loop: Loop, how: str) -> None:
    done = threading.Event()
    ways: dict[str, Callable[[], object]] = {
        "call_soon": lambda: loop.call_soon(done.set),
        "call_later": lambda: loop.call_later(0.001, done.set),
    }
    with running(loop):
        stands_in(loop, lambda: (ways[how](), None)[1])
        assert done.wait(10)


def test_what_who_stands_in_raises_reaches_him_and_the_loop_goes_on(loop: Loop) -> None:
    def fail() -> None:
        raise LookupError("on purpose")

    done = threading.Event()
    with running(loop):
        with pytest.raises(LookupError):
            stands_in(loop, fail)
        loop.wake_for(done.set)
        assert done.wait(10)
        stands_in(loop)


def test_an_interrupt_while_it_waits_leaves_nobody_in_its_seat(loop: Loop) -> None:
    def interrupt() -> None:
        stands_in(loop)  # it waits
        os.kill(os.getpid(), signal.SIGUSR1)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupted)
    try:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not loop.stand_in(lambda: None), "it doesn't run"
    loop.call_soon(loop.stop)
    loop.run_forever()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_nobody_stands_in_for_the_loop_of_a_parent(loop: Loop) -> None:
    with running(loop):
        stands_in(loop)
        pid = os.fork()
        if not pid:
            os._exit(loop.stand_in(lambda: None))  # what it sent would go by the parent's connection
        assert os.waitpid(pid, 0)[1] == 0
