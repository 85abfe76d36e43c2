"""Keys for ends: each name has one, and the hub knows them all."""

from __future__ import annotations

import zmq

from pilotage.protocol.authority import Authority, Grant, Original
from pilotage.transport.curve import KeyPair, Keyring
from pilotage.transport.network import ZmqWires
from pilotage.transport.rules import SocketRules

OUTSIDE = "127.0.0.2"
"""Another address of the loopback interface: to the station the same as another machine."""


def make_pair(name: str) -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(name, public.decode(), secret.decode())


class Locksmith:
    """Makes keys, and wires that have them."""

    def __init__(self, rules: SocketRules | None = None) -> None:
        self.pairs: dict[str, KeyPair] = {}
        self.grants: dict[str, Grant] = {}
        self.given: dict[str, KeyPair] = {}
        self.original: frozenset[Original] = frozenset()
        self.authorities: dict[str, Authority] = {}
        self._rules = rules

    def pair(self, name: str) -> KeyPair:
        """Give a name's key; a new one is known to everybody from now on."""
        if name not in self.pairs:
            self.pairs[name] = make_pair(name)
            self.grants[self.pairs[name].public] = Grant(name)
            for authority in self.authorities.values():
                authority.change(self.grants)
        return self.pairs[name]

    def keyring(self, name: str) -> Keyring:
        own = self.given.get(name) or self.pair(name)
        stations = {known: (pair.public,) for known, pair in self.pairs.items()}
        if name != "hub":
            stations["hub"] = (self.pair("hub").public,)
        return Keyring(own, dict(self.grants), stations, originals=self.original)

    def wires(self, name: str) -> ZmqWires:
        keyring = self.keyring(name)
        authority = self.authorities[name] = Authority(self.grants, keyring.originals)
        return ZmqWires(self._rules, keyring, authority)
