"""What belongs to the whole process is free in a forked child, whoever held it in the parent."""

from __future__ import annotations

import os
import threading
import time

import pytest

from pilotage.net import bundle, loops
from pilotage.net.prefs import prefs
from pilotage.transport.contexts import shared_context

pytestmark = pytest.mark.only_on("linux", "darwin")

HELD_S = 0.3


@pytest.mark.parametrize(
    "lock",
    [bundle.lock, prefs._lock, loops._shared._lock, shared_context._lock],
    ids=["bundles", "prefs", "loop", "context"],
)
def test_a_lock_that_another_thread_holds_is_free_in_a_child(lock: threading.Lock) -> None:
    held = threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            time.sleep(HELD_S)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if not child:
        os._exit(0 if lock.acquire(timeout=HELD_S) else 1)
    _, status = os.waitpid(child, 0)
    holder.join()
    assert os.waitstatus_to_exitcode(status) == 0
    assert lock.acquire(timeout=5.0)
    lock.release()
