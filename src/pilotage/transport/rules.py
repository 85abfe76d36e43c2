"""What wires are told: settings of sockets, and by which gate of a station its peers come in."""

from __future__ import annotations

import msgspec

from pilotage.protocol.errors import PortInUse
from pilotage.transport.curve import KeyPair

MAX_FRAME_BYTES = 512 * 2**20

USER_ID, PEER_ADDRESS = "User-Id", "Peer-Address"
"""What ZAP has said of a connection (with us: its key), and where it comes from."""


class SocketRules(msgspec.Struct, frozen=True):
    """Settings of our sockets.

    Attributes:
        max_queued: transmissions that ZeroMQ queues for one peer, where it speaks for us.
        handshake_ms: time that a newcomer has for its handshake.
        max_frame_bytes: largest frame accepted.
        linger_ms: time that a closing socket has to get rid of what it queued.
        max_arriving: connections that the system holds until they are taken.
        send_buffer_bytes: what the system holds for one peer that is spoken to in clear; 0 for what is best.
        uses_paths: dial who listens on this machine by his path, where he has one for us, not by his port.
    """

    max_queued: int = 10_000
    handshake_ms: int = 3000
    max_frame_bytes: int = MAX_FRAME_BYTES
    linger_ms: int = 500
    max_arriving: int = 1024
    send_buffer_bytes: int = 0
    uses_paths: bool = True


class Gate(msgspec.Struct, frozen=True):
    """One of the ways into a station (see `gates`).

    Attributes:
        name: what its links are called by.
        fd: a listening socket's descriptor, to be used instead of binding one.
        own: our key, where only keys may come in.
        mark: what each connection is marked with: `USER_ID`, `PEER_ADDRESS`, or nothing.
    """

    name: str = "listener"
    fd: int | None = None
    own: KeyPair | None = None
    mark: str = ""


def port_in_use(name: str, port: int, text: str) -> PortInUse:
    """Say that another program listens on a port."""
    return PortInUse(
        f"{name} can't listen on port {port}: {text}. Is another Pilotage running here? "
        "Choose another port (listen_port, MSGPORT or PUSHPORT), or end that program"
    )
