"""Who may speak under which name (promise X2): the one place that decides it.

    who comes                                   may call itself                      may bring messages of
    on loopback, without a key                  anything                             anybody
    with a key that is known                    the key's name and what belongs      those, and whoever is
                                                to it                                nobody else's (its subtree)
    an original, without a key, by their gate   the name listed for its address      the same
    with a key that isn't known                 nothing                              nobody
    the station that we dialled                 its key's name                       anybody: it has checked them

What belongs to a name `rig`: `rig`, its inner node `_rig`, and everything that begins with `rig_` or `_rig_` (its
streams, its tools). Where a longer name has an owner of its own (`rig_a` beside `rig`), that one owns it.

What such a key may send, and to whom, is its role's (see `roles`); without a key, on loopback, everything.

Law of this room: a connection is judged once, and a name that somebody brings once for each bringer; no message pays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from pilotage.protocol.instructions import Card
from pilotage.protocol.rights import Rights
from pilotage.protocol.roles import Recipient, Roles

MAX_VIA = 16


@dataclass(frozen=True, slots=True)
class Grant:
    """What a key is good for.

    Attributes:
        name: the name that it speaks for.
        role: what its owner is here, one of `roles.ROLES`.
        via: the station, known by a key of its own, through which its messages may come too; "" for none.
    """

    name: str
    role: str = "pilot"
    via: str = ""


class Original(NamedTuple):
    """An original peer that may come without a key.

    Attributes:
        name: its name.
        address: where it must come from.
        role: what it is here.
    """

    name: str
    address: str
    role: str = "pilot"


def belongs_to(name: str, owner: str) -> bool:
    """Tell whether a name is an owner's own, or begins with it as names of streams and tools do."""
    bare = name.removeprefix("_")
    return bare == owner or bare.startswith(owner + "_")


class Authority:
    """What is known of keys, and of originals that have none.

    Args:
        grants: for each public key what it is good for.
        originals: who may come without a key.
        roles: what each role may send.

    Attributes:
        is_used: somebody is known who isn't simply trusted.
    """

    def __init__(
        self,
        grants: Mapping[str, Grant] | None = None,
        originals: Iterable[Original] = (),
        roles: Roles | None = None,
    ) -> None:
        self._originals = {(one.name, one.address): Grant(one.name, one.role) for one in originals}
        self._grants: dict[str, Grant] = {}
        self._owners: dict[str, Grant] = {}
        self._roles = Roles()
        self.change(grants or {}, roles)

    def change(self, grants: Mapping[str, Grant], roles: Roles | None = None) -> None:
        """Take other keys instead; whoever is connected has to be judged anew (`Exchange.authority_changed`).

        Args:
            grants: all keys.
            roles: another table, if there is one.
        """
        self._grants = dict(grants)
        self.is_used = bool(grants or self._originals)
        self._owners = {grant.name: grant for grant in self._originals.values()}
        self._owners |= {grant.name: grant for grant in grants.values()}
        self._roles = roles or self._roles

    def knows(self, key: str) -> bool:
        """Tell whether a public key is good for anything."""
        return key in self._grants

    def grant(self, card: Card) -> Grant | None:
        """Give what a peer's key is good for; None for one without a key, or whose key isn't known."""
        return self._grants.get(card.key) if card.key else None

    def rights(self, card: Card, me: str, *, is_root: bool) -> Rights | None:
        """Give what a peer may send; None where it may send everything: nothing is looked up for it then.

        Args:
            card: of the peer.
            me: who we are.
            is_root: there is no station above us.
        """
        if not card.dials or not (card.key or card.address):
            return None
        grant = self.grant(card) or self._originals.get((card.name, card.address))
        if grant is None:
            return None  # it doesn't come in at all
        return Rights(grant.name, grant.role, self._roles, partial(self._who, grant.name, me, is_root))

    def _who(self, sender: str, me: str, is_root: bool, name: str) -> Recipient:
        """Tell who somebody is to the holder of a key."""
        owner = self._owner(name)
        if owner is None:
            # Whom we don't know is somebody's whom the station above knows.
            is_up = not name or belongs_to(name, me) or not is_root
            return Recipient.UP if is_up else Recipient.OTHERS
        if owner.name == me or owner.role == "admin":
            return Recipient.UP
        if self._leads_to(sender, owner):
            return Recipient.OWN
        return Recipient.VIEWERS if owner.role == "viewer" else Recipient.OTHERS

    def refusal(self, card: Card) -> str:
        """Tell why somebody can't come in under the name that it claims; "" if it can."""
        if card.address:
            if (card.name, card.address) in self._originals:
                return ""
            return (
                f"{card.name!r:.80} at {card.address} is not among the originals that may come without a key"
            )
        if not card.key:
            return ""
        grant = self._grants.get(card.key)
        if grant is None:
            return f"the key {card.key[:8]}… of {card.name!r:.80} is not known here (any more)"
        owner = self._owner(card.name)
        if owner is None or owner.name != grant.name:
            return f"the key of {grant.name} can't speak for {card.name!r:.80}"
        return ""

    def may_bring(self, card: Card, name: str) -> bool:
        """Tell whether a peer may bring messages of somebody whom nobody else holds."""
        if not card.dials or not (card.key or card.address):
            return True
        bringer = self._grants.get(card.key) if card.key else self._owners.get(card.name)
        return bringer is not None and self._leads_to(bringer.name, self._owner(name))

    def speaks_for(self, trail: Iterable[str], name: str) -> bool:
        """Tell whether what came along a way may speak of itself as somebody.

        Args:
            trail: the names that it came through; stations have checked them.
            name: who it says it is about.

        Returns:
            True if one of them is that name's owner or belongs to its subtree; or if the name has no owner, or none
            of them has a key, as on loopback.
        """
        owner = self._owner(name)
        if owner is None:
            return True
        passed = [found for found in map(self._owner, trail) if found is not None]
        return not passed or any(self._leads_to(owner.name, one) for one in passed)

    def _leads_to(self, bringer: str, owner: Grant | None) -> bool:
        for _ in range(MAX_VIA):
            if owner is None or owner.name == bringer:
                return True
            if not owner.via:
                return False
            owner = self._owners.get(owner.via)
        return False

    def _owner(self, name: str) -> Grant | None:
        """Find whom a name belongs to: the longest known name that it begins with."""
        bare = name.removeprefix("_")
        while bare:
            grant = self._owners.get(bare)
            if grant is not None:
                return grant
            bare = bare.rpartition("_")[0]
        return None
