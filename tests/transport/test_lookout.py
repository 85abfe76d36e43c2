"""A loop's lookout: all who watch something on one loop share it, and it ends with the last of them."""

from __future__ import annotations

import asyncio
import select
import socket

import pytest

from pilotage.transport import lookout as room
from pilotage.transport.lookout import Lookout, lookout

pytestmark = pytest.mark.only_on("linux")


def test_all_of_a_loop_share_one_until_the_last_has_left() -> None:
    loop, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    first, second, third = lookout(loop), lookout(loop), lookout(other)
    assert isinstance(first, Lookout) and isinstance(third, Lookout)
    assert first is second and first is not third
    near, far = socket.socketpair()
    heard: list[bytes] = []
    first.add_reader(near.fileno(), lambda: heard.append(near.recv(9)))
    first.close()
    far.send(b"x")
    loop.run_until_complete(asyncio.wait_for(_until(lambda: heard == [b"x"]), 5))
    first.remove_reader(near.fileno())
    first.close()
    assert loop not in room._lists and first._list.closed
    third.close()
    assert not {loop, other} & room._lists.keys()
    for one in (near, far, loop, other):
        one.close()


async def _until(condition: object) -> None:
    while not condition():  # type: ignore[operator]
        await asyncio.sleep(0)


def test_one_who_is_let_go_of_by_an_earlier_call_is_not_called() -> None:
    loop = asyncio.new_event_loop()
    watch = lookout(loop)
    assert isinstance(watch, Lookout)
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[int] = []

    def let_go(at: int) -> None:
        called.append(at)
        for near, _ in pairs:
            watch.remove_reader(near.fileno())

    for at, (near, far) in enumerate(pairs):
        watch.add_reader(near.fileno(), let_go, at)
        far.send(b"x")
    assert len(select.select([near for near, _ in pairs], [], [], 5)[0]) == 2
    watch._look()
    assert len(called) == 1
    watch.close()
    for one in (*pairs[0], *pairs[1], loop):
        one.close()
