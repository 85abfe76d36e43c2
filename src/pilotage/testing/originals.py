"""A simulated peer of the original's JSON wire: raw frames in its form, nothing of ours inside.

Law of this room: it knows only what an original knows: no life, no sequence, three transmissions at most.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pilotage.protocol.instructions import Card, Dialect
from pilotage.protocol.records import Frame
from pilotage.testing.network import Connection
from pilotage.testing.process import Role, Surroundings
from pilotage.testing.recorder import Identity

REPEAT_S = 5.0
TRANSMISSIONS = 3


class OriginalNode:
    """An original's node, with a DEALER towards a station of ours.

    Args:
        role: its name and the station.
        around: the world it lives in.
        confirms: share of the messages to it that it confirms.
        is_old: it writes the fields of 0.3, not those of 0.5.
    """

    def __init__(
        self, role: Role, around: Surroundings, confirms: float = 1.0, *, is_old: bool = False
    ) -> None:
        self.role = role
        self.name = role.name
        self.alive = True
        self.confirmed: dict[str, int] = {}
        self.wanted: dict[str, tuple[Identity, str, str]] = {}
        self.boot = around.chance.getrandbits(62)
        self._around = around
        self._confirms = confirms
        self._is_old = is_old
        self._sent = 0
        self._connection: Connection | None = None
        around.agenda.after(0.0, self._dial)
        around.agenda.after(0.5, self._ping)

    def send(self, to: str, key: str, *, wanted: bool = True) -> Identity:
        """Send a message, and again while its CONFIRM doesn't come."""
        number, self._sent = self._sent, self._sent + 1
        message_id = f"{self.name}_{number}"
        fields = self._envelope(message_id, to, key, number)
        if not wanted:
            fields["flags"]["NOREPEAT"] = True
        identity = (self.name, message_id, fields["timestamp"])
        if wanted:
            self.wanted[message_id] = (identity, key, to)
        self._say(f"sends {message_id} {key} to {to}")
        frames = [self.role.upstream.encode(), to.encode(), json.dumps(fields).encode()]
        self._transmit(message_id, frames, TRANSMISSIONS if wanted else 1)
        return identity

    def _envelope(self, message_id: str, to: str, key: str, value: object) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "id": message_id, "to": to, "sender": self.name, "key": key, "value": value,
            "timestamp": f"2022-01-01T00:00:{self._around.agenda.now:09.6f}", "flags": {}, "ttl": 5,
        }  # fmt: skip
        return fields if self._is_old else {**fields, "ttl": 2, "changed": False, "blosc": True}

    def _ping(self) -> None:
        """Say something now and then, as PING_INTERVAL has it: nothing else shows that it is there."""
        if self.alive:
            self.send(self.role.upstream, "NOW", wanted=False)
            self._around.agenda.after(REPEAT_S, self._ping)

    def _transmit(self, message_id: str, frames: list[bytes], tries: int) -> None:
        if not self.alive or not tries or message_id in self.confirmed:
            return
        if self._connection is not None:
            self._around.network.transmit(self._connection, self, frames)
        self._around.agenda.after(REPEAT_S, self._transmit, message_id, frames, tries - 1)

    # The network's side

    def card(self, *, dials: bool) -> Card:
        """Tell what a station learns of it: its routing id."""
        return Card(Dialect.JSON, self.name, 0, dials)

    def routing_id(self, number: int) -> bytes:
        """Give its routing id, which is its name."""
        return self.name.encode()

    def connected(self, connection: Connection) -> None:
        """Its socket is connected; nothing is said."""

    def ended(self, connection: Connection) -> None:
        """Its connection has ended; the socket dials again by itself."""
        if connection is self._connection:
            self._connection = None
            self._around.agenda.after(0.1 + self._around.chance.random(), self._dial)

    def arrived(self, connection: Connection, frames: Sequence[Frame]) -> None:
        """Read the last frame, as the original does."""
        message = json.loads(bytes(frames[-1]))
        if message["key"] == "CONFIRM":
            self.confirmed[message["value"]] = self.confirmed.get(message["value"], 0) + 1
            self._say(f"has {message['value']} confirmed")
            return
        identity = (message["sender"], message["id"], str(message.get("timestamp")))
        self._around.recorder.handle(self.boot, identity)
        self._say(f"handles {message['id']}")
        if "NOREPEAT" not in message.get("flags", {}) and self._around.chance.random() < self._confirms:
            number, self._sent = self._sent, self._sent + 1
            fields = self._envelope(f"{self.name}_{number}", message["sender"], "CONFIRM", message["id"])
            upstream, sender = self.role.upstream.encode(), str(message["sender"]).encode()
            self._around.network.transmit(connection, self, [upstream, sender, json.dumps(fields).encode()])

    def _dial(self) -> None:
        if not self.alive or self._connection is not None:
            return
        self._connection = self._around.network.connect(self, self._around.find(self.role.upstream))
        if self._connection is None:
            self._around.agenda.after(0.5, self._dial)

    def die(self, *, noticed: bool) -> None:
        """End without a word."""
        self.alive = False
        self._around.network.vanish(self, noticed=noticed)

    def _say(self, text: str) -> None:
        if self._around.recorder.tracing:
            self._around.recorder.say(self._around.agenda.now, f"{self.name} {text}")
