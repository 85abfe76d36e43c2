"""Listens and stations that can be handed to a process that isn't forked."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from pilotage import Message, Receipt, Station, on_loop


def answer_value(msg: Message) -> Any:
    return msg.value


def fail(msg: Message) -> None:
    raise LookupError(f"nothing for {msg.sender}")


def hang(msg: Message) -> None:
    Path(msg.value).touch()
    time.sleep(60)  # a listen that never comes back, not a wait for anything


def mark(msg: Message) -> None:
    """Write into a file whose first byte somebody looks at."""
    with Path(msg.value).open("r+b") as file:
        file.write(b"x")


@on_loop
def hang_on_loop(msg: Message) -> None:
    Path(msg.value).touch()
    time.sleep(60)  # the same, where it does the most harm


class ProbedStation(Station):
    """A station that tells what it sees from inside its process."""

    def __init__(self, id: str, listen_port: int = 0, **more: Any) -> None:
        super().__init__(id=id, listen_port=listen_port, **more)
        listens = {
            "PROBE": self.l_probe,
            "ECHO": answer_value,
            "FAIL": fail,
            "HANG": hang,
            "MARK": mark,
            "STUCK": hang_on_loop,
        }
        self.listens.update({**listens, "SEND": self.l_send, "PUSH": self.l_push, "WHO": self.l_who})

    def l_probe(self, msg: Message) -> dict[str, Any]:
        names = (
            "ctx",
            "loop",
            "pusher",
            "listener",
            "logger",
            "msg_counter",
            "file_block",
            "push_ip",
            "push_port",
        )
        names += (
            "push_id",
            "listen_port",
            "id",
            "ip",
            "child",
            "repeat_interval",
            "senders",
            "routes",
            "timers",
        )
        names += ("push_outbox", "send_outbox", "listens")
        seen = {name: type(getattr(self, name)).__name__ for name in names}
        own = {name: getattr(self, name) for name in ("id", "child", "repeat_interval", "senders", "push_id")}
        return {"types": seen, "values": own, "pid": os.getpid(), "method": "pytest" in sys.modules}

    def l_who(self, msg: Message) -> dict[str, Any]:
        return {"sender": msg.sender, "to": msg.to, "key": msg.key, "id": msg.id, "flags": msg.flags}

    def l_send(self, msg: Message) -> Receipt:
        return self.send(**msg.value)

    def l_push(self, msg: Message) -> Receipt:
        return self.push(**msg.value)
