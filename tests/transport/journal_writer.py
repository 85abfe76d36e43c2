"""A program that keeps entries until it is killed, and says on its standard output what was kept and dropped.

Run as: journal_writer.py FILE FIRST. It drops each third entry, some time after it was kept.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from pilotage.transport.journal import Journal, JournalRules, Place
from tests.transport.journals import make_run


def main(file: Path, first: int) -> None:
    room = threading.Semaphore(300)

    def tell_kept(places: list[Place]) -> None:
        os.write(1, "".join(f"kept {seq}\n" for _, _, seq in places).encode())
        late = [place for place in places if place[2] % 3 == 0]
        # Said first: what is said to be dropped may still be there, but nothing else may be missing.
        os.write(1, "".join(f"dropped {seq}\n" for _, _, seq in late).encode())
        journal.drop(late)
        room.release(len(places))

    journal = Journal(file, JournalRules(max_batch=100), tell_kept, lambda trouble: print(trouble.text))
    os.write(1, b"ready\n")
    seq = first
    while True:
        room.acquire()
        entry = make_run(seq)
        journal.keep([entry])
        seq += len(entry.bodies)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
