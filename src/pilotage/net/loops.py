"""Event loops: the one that all nodes of a process share, or one of a node's own, each in its thread."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import select
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from pilotage.transport.forks import keep_free
from pilotage.transport.lookout import refuse_standing_in

if TYPE_CHECKING:
    from tornado.ioloop import IOLoop


START_TIMEOUT_S = 10.0
FINISH_TIMEOUT_S = 0.2


class LoopThread:
    """A tornado loop that runs in a daemon thread.

    Args:
        name: the thread's.
        daemon: whether the thread keeps the process alive (False) or not.
    """

    def __init__(self, name: str, *, daemon: bool = True) -> None:
        ready: Future[IOLoop] = Future()
        self.thread = threading.Thread(target=self._run, args=(ready,), name=name, daemon=daemon)
        self.thread.start()
        self.loop = ready.result(START_TIMEOUT_S)

    def stop(self, timeout_s: float) -> None:
        """End the loop and wait for its thread."""
        self.loop.add_callback(self.loop.stop)
        if self.thread is not threading.current_thread():
            self.thread.join(timeout_s)

    @staticmethod
    def _run(ready: Future[IOLoop]) -> None:
        asyncio.set_event_loop(new_event_loop())
        loop = tornado_loop()
        ready.set_result(loop)
        loop.start()
        finish_tasks(loop)
        loop.close(all_fds=False)


def finish_tasks(loop: IOLoop) -> None:
    """Let the tasks that were cancelled on a stopped loop come to their ends."""
    inner: asyncio.AbstractEventLoop = loop.asyncio_loop  # type: ignore[attr-defined]
    tasks = asyncio.all_tasks(inner)
    for task in tasks:
        task.cancel()
    if tasks:
        inner.run_until_complete(asyncio.wait(tasks, timeout=FINISH_TIMEOUT_S))


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop that can watch ZeroMQ's file descriptors; Windows' default one can't.

    Where there is no epoll it is uvloop's, if that is installed: each wake-up of asyncio's own costs as much again as
    all that we do in it.
    """
    if hasattr(select, "epoll"):
        with contextlib.suppress(ImportError, AttributeError):  # a Python or a system that lacks what we need
            from pilotage.transport.loop import Loop  # noqa: PLC0415

            return Loop()
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - it is not everywhere

        return uvloop.new_event_loop()
    if os.name == "nt":
        return asyncio.SelectorEventLoop()
    return asyncio.new_event_loop()


def running_loop() -> IOLoop | None:
    """Give the loop that runs in the calling thread, if one does."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return None
    return tornado_loop()


def tornado_loop() -> IOLoop:
    """Give tornado's loop around the calling thread's; tornado is imported with the first one."""
    from tornado.ioloop import IOLoop  # noqa: PLC0415

    return IOLoop.current()


def run_on(loop: IOLoop, thread: threading.Thread, work: Callable[[], None], timeout_s: float = 10.0) -> None:
    """Do something on a loop's thread and wait for it; its error is raised here. At once, if this is that thread.

    Raises:
        TimeoutError: the loop does not get to it.
        MisuseError: called by what a send had Python clear away, which the loop waits for.
    """
    refuse_standing_in()
    if thread is threading.current_thread():
        work()
        return
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
            done.set_result(None)
        except Exception as error:  # noqa: BLE001 - raised again where the caller waits
            done.set_exception(error)

    loop.add_callback(run)
    done.result(timeout_s)


class _Shared:
    """The process's shared loop; made anew after a fork, since threads don't survive one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._thread: LoopThread | None = None

    def get(self) -> LoopThread:
        with self._lock:
            if self._thread is None or self._pid != os.getpid() or not self._thread.thread.is_alive():
                self._thread = LoopThread("pilotage-loop")
                if self._pid != os.getpid():
                    atexit.register(self._end, os.getpid())
                self._pid = os.getpid()
            return self._thread

    def _end(self, pid: int) -> None:
        """End the loop with its process: a thread inside the loop's C code must not outlive the interpreter."""
        if self._thread is not None and pid == os.getpid():
            self._thread.stop(FINISH_TIMEOUT_S)


_shared = _Shared()
keep_free(_shared._lock)


def shared_loop() -> LoopThread:
    """Give the loop that all nodes of this process share."""
    return _shared.get()
