"""A TCP proxy between pilots and their Terminal that cuts, stalls and slows what it carries, on command.

ZeroMQ's frames run over TCP, which mends lost packets itself: what a bad link means for us is connections that are
cut at any byte, stand still with both ends open, or take long. Its loop has a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self

HOST = "127.0.0.1"
READ_BYTES = 65536
COMMAND_S = 5.0
NEWNET = 0x40000000


class Proxy:
    """Carries bytes between whoever connects to `port` and `target_port`.

    Args:
        target_port: where it connects to, on the loopback.
        namespace: the network namespace from which it connects, if not ours; it listens in ours.

    Attributes:
        carried: bytes that went through by now.
        cuts: connections that were cut.
    """

    def __init__(self, target_port: int, namespace: str = "") -> None:
        self.target_port = target_port
        self.carried = 0
        self.cuts = 0
        self._namespace = namespace
        self._delay_s = 0.0
        self._refuses = False
        self._open: asyncio.Event
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._socket = socket.create_server((HOST, 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        self._call(self._listen())

    # Commands, from any thread

    def cut(self, share: float = 1.0, seed: int = 0) -> None:
        """Reset connections, all or a random share of them; new ones are carried."""
        self._call(self._cut(share, random.Random(seed)))

    def refuse(self, refuses: bool = True) -> None:
        """Close each new connection at once, as a machine does whose program has gone."""
        self._refuses = refuses

    def stall(self) -> None:
        """Carry nothing from now on, in connections old and new, and keep them open; nothing is lost."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def resume(self) -> None:
        """Carry again what waits, and what comes."""
        self._loop.call_soon_threadsafe(self._open.set)

    def delay(self, seconds: float) -> None:
        """Have each piece take so long, each way."""
        self._delay_s = seconds

    def close(self) -> None:
        """Close all connections and end."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(COMMAND_S)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # On the loop

    def _run(self) -> None:
        if self._namespace:
            enter_namespace(self._namespace)
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(COMMAND_S)

    async def _listen(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._server = await asyncio.start_server(self._accept, sock=self._socket)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._remember(asyncio.current_task())
        if self._refuses:
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self.target_port)
        except OSError:
            # Nobody is there: the one who dialled is told in the same way.
            _reset(writer)
            return
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
        except OSError:
            self.cuts += 1
        finally:
            self._writers -= {writer, far_writer}
            for one in (writer, far_writer):
                _reset(one)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await self._open.wait()
            data = await reader.read(READ_BYTES)
            await self._open.wait()
            if not data:
                raise ConnectionResetError("one side has closed")
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            writer.write(data)
            await writer.drain()
            self.carried += len(data)

    async def _cut(self, share: float, chance: random.Random) -> None:
        for writer in list(self._writers):
            if chance.random() < share:
                _reset(writer)

    async def _end(self) -> None:
        self._server.close()
        self._open.set()
        for writer in list(self._writers):
            _reset(writer)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _remember(self, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


def enter_namespace(name: str) -> None:
    """Have this thread alone make its sockets in a network namespace."""
    with Path("/run/netns", name).open() as place:
        if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), NEWNET):
            raise OSError(ctypes.get_errno(), f"the network namespace {name} can't be entered")


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection by RST, so that what is under way is lost, as when a cable is pulled."""
    with contextlib.suppress(OSError, RuntimeError):
        raw = writer.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


class Weather(threading.Thread):
    """Bad weather on a link: at random moments it is cut, stalled or slowed, until told to stop.

    Args:
        proxy: the link.
        seed: of all that is drawn.
        pause_s: the longest time between two faults.
        log: is told of each fault.
    """

    def __init__(self, proxy: Proxy, seed: int, pause_s: float, log: Callable[[str], None] = print) -> None:
        super().__init__(name="weather", daemon=True)
        self.faults = 0
        self._proxy = proxy
        self._chance = random.Random(seed)
        self._pause_s = pause_s
        self._log = log
        self._ended = threading.Event()
        self._failed: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._ended.wait(self._chance.uniform(0.05, self._pause_s)):
                self._strike()
        except BaseException as error:  # noqa: BLE001 - the test raises it again
            self._failed = error
        finally:
            self._proxy.delay(0)
            self._proxy.resume()

    def stop(self) -> None:
        """Let the sun shine; raise what went wrong."""
        self._ended.set()
        self.join(COMMAND_S)
        if self._failed is not None:
            raise self._failed

    def _strike(self) -> None:
        self.faults += 1
        kind = self._chance.choice(["cut", "cut", "cut", "stall", "delay"])
        length_s = self._chance.uniform(0.05, self._pause_s)
        if kind == "cut":
            self._proxy.cut(seed=self._chance.getrandbits(32))
            return
        if kind == "stall":
            self._proxy.stall()
            self._ended.wait(length_s)
            # Some stalls end in a cut, as when a device between reboots.
            if self._chance.random() < 0.5:
                self._proxy.cut()
            self._proxy.resume()
            return
        self._proxy.delay(self._chance.uniform(0.01, 0.1))
        self._ended.wait(length_s)
        self._proxy.delay(0)
