"""Doors: how a stream finds the straight way to whoever takes it in, where both are on one machine.

The inner node of a station tells it, with its hello, where processes of its machine may dial it. The station, where
it passes streams on to that node, tells whoever dials it; a stream on that machine leaves the station, and goes there.

Law of this room: a door changes the way and nothing else. The flows, their numbers and who settles them stay the
same, so that what went both ways is handled once.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilotage.protocol.errors import MalformedFrame

MAX_DOOR_CHARS = 512


@dataclass(frozen=True, slots=True)
class Door:
    """Where a node of ours may be dialled from its own machine.

    Attributes:
        machine: what tells this machine, since it was booted, from all others.
        boot: the life of the node behind it: whoever answers there with another one is somebody else.
        host: the path of a socket, or an address of this machine.
        port: 0 for a path.
    """

    machine: str
    boot: int
    host: str
    port: int = 0

    def told(self) -> str:
        """Write it as a greeting carries it."""
        return f"{self.machine} {self.boot} {self.port} {self.host}"


def read_door(text: str) -> Door:
    """Read a door from a greeting.

    Raises:
        MalformedFrame: it is none.
    """
    parts = text.split(" ", 3)
    if len(text) > MAX_DOOR_CHARS or len(parts) != 4 or not (parts[1] + parts[2]).isdecimal():
        raise MalformedFrame(f"no door: {text!r:.80}; it needs machine, life, port and host")
    machine, boot, port, host = parts
    return Door(machine, int(boot), host, int(port))


class Doors:
    """What an exchange knows of doors.

    Attributes:
        own: ours, as it is told; "" if we have none.
        inner: that of our inner node, as it told it.
        machine: what a door must say for us to follow it; "" to follow none.
        shunned: one that led nowhere, as it was told.
    """

    def __init__(self) -> None:
        self.own = ""
        self.inner = ""
        self.machine = ""
        self.shunned = ""

    def to_follow(self, text: str) -> Door | None:
        """Give the door that a station told of, if we go there.

        Raises:
            MalformedFrame: it is none.
        """
        if not self.machine or not text or text == self.shunned:
            return None
        door = read_door(text)
        return door if door.machine == self.machine else None
