"""kill -9 while the journal is written: what was told is there, equal, in order, and once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.transport.journals import Kept, make_run

QUICK_KILLS, KILLS = 5, 25


def run_until_killed(root: Path, file: Path, first: int, moment_s: float) -> tuple[set[int], set[int]]:
    """Give the numbers of what was told to be kept, and of what was dropped."""
    command = [sys.executable, "-m", "tests.transport.journal_writer", str(file), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        killer = threading.Timer(moment_s, process.kill)
        killer.start()
        words = [line.split() for line in process.stdout if line.endswith("\n")]
        process.wait()
    assert process.returncode not in (0, 1), "it ended by itself"
    assert {verb for verb, _ in words} <= {"kept", "dropped"}
    kept = [int(seq) for verb, seq in words if verb == "kept"]
    assert kept == sorted(set(kept))
    return set(kept), {int(seq) for verb, seq in words if verb == "dropped"}


def kill_many_times(root: Path, file: Path, kills: int) -> None:
    chance = random.Random(kills)
    kept: set[int] = set()
    dropped: set[int] = set()
    first = 1
    for _ in range(kills):
        now_kept, now_dropped = run_until_killed(root, file, first, chance.uniform(0, 0.25))
        kept |= now_kept
        dropped |= now_dropped
        with Kept(file) as journal:
            assert journal.note == ""
            left = [entry.seq for entry in journal.left]
            assert left == sorted(set(left))
            assert kept - dropped <= set(left)
            assert journal.left == [make_run(seq) for seq in left]
            kept |= set(left)
            first = max(left, default=first) + 4
            # Half of it is settled now, so that the file lives through both.
            settled = journal.left[: len(left) // 2]
            journal.drop([entry.place for entry in settled])
            dropped |= {entry.seq for entry in settled}
            kept -= dropped
    assert first > 100 * kills


def test_five_kills(root: Path, tmp_path: Path) -> None:
    kill_many_times(root, tmp_path / "journal.sqlite", QUICK_KILLS)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_twenty_five_kills(root: Path, tmp_path: Path) -> None:
    kill_many_times(root, tmp_path / "journal.sqlite", KILLS)


# Says "S" on the standard output whenever something was synced.
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
static int tell(const char *name, int fd) {
    int (*real)(int) = (int (*)(int)) dlsym(RTLD_NEXT, name);
    int outcome = real(fd);
    if (write(1, "S", 1) != 1) return -1;
    return outcome;
}
int fsync(int fd) { return tell("fsync", fd); }
int fdatasync(int fd) { return tell("fdatasync", fd); }
"""

TELLING = """
import os, sys, threading
from pathlib import Path
from pilotage.transport.journal import Journal, JournalRules
from tests.transport.journals import make_entry
told = threading.Semaphore(0)
def tell_kept(places):
    os.write(1, b"kept")
    told.release()
with Journal(Path(sys.argv[1]), JournalRules(), tell_kept, print) as journal:
    for seq in range(5):
        os.write(1, b"\\nkeep")
        journal.keep([make_entry(seq)])
        told.acquire()
    os.write(1, b"\\ndrop")
    journal.drop([make_entry(seq).place for seq in range(5)])
    while journal.statistics().dropped < 5:
        threading.Event().wait(0.01)
    os.write(1, b"\\n")
"""


@pytest.mark.only_on("linux")
def test_what_is_told_was_synced_and_drops_alone_are_not(root: Path, tmp_path: Path) -> None:
    source, shim = tmp_path / "shim.c", tmp_path / "shim.so"
    source.write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    told = subprocess.run(
        [sys.executable, "-c", TELLING, str(tmp_path / "journal.sqlite")],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=root,
    )
    _, *turns = told.stdout.split("\n")
    assert len(turns) == 7
    for turn in turns[:5]:
        assert turn.startswith("keepS"), told.stdout
        assert turn.rstrip("S").endswith("kept"), told.stdout
    assert turns[5] == "drop"
