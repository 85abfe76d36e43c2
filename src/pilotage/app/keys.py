"""Keys, as the commands handle them: made, paired, listed, revoked, replaced.

Law: nothing is replaced before whoever needs to know has been told: a step that fails leaves what worked before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from pilotage.app.operator import Operator
from pilotage.net.keys import KeyFolder, KnownKey, make_pair
from pilotage.net.pref_keys import TERMINAL_ID, Prefs
from pilotage.protocol.errors import Expired, InvalidKey, PilotageError, TaskError
from pilotage.protocol.roles import ROLES
from pilotage.services.security.codes import Party
from pilotage.services.security.pairing import Judge, PairingHost, join
from pilotage.transport.curve import KeyPair

REACH_S = 5.0
LOOK_S = 0.2


def make_key(folder: KeyFolder, name: str) -> tuple[KeyPair, Path]:
    """Make a key for a name that has none yet; give it, and the file of its public half.

    Raises:
        InvalidKey: there is one already, that can't be a name, or the folder can't be written.
    """
    if any(pair.name == name for pair in folder.own()):
        raise InvalidKey(
            f"{name} has a key already, in {folder.folder}; `pilotage keys rotate` makes another"
        )
    pair = make_pair(name)
    return pair, folder.keep(pair)


def choose_own(folder: KeyFolder, name: str | None, likely: str | None = TERMINAL_ID) -> KeyPair:
    """Give the key of ours that a command is about.

    Args:
        folder: where the keys lie.
        name: whose, if it was said.
        likely: whose, if there are several.

    Raises:
        InvalidKey: there is none, or several and none of them is the likely one.
    """
    pairs = {pair.name: pair for pair in folder.own()}
    wanted = name or (next(iter(pairs)) if len(pairs) == 1 else likely)
    if wanted in pairs:
        return pairs[str(wanted)]
    if not pairs:
        raise InvalidKey(f"there is no key in {folder.folder}: make one with `pilotage keys init`")
    raise InvalidKey(f"name the key with --name: there are {', '.join(pairs)} in {folder.folder}")


def accept(
    folder: KeyFolder,
    me: KeyPair,
    port: int,
    role: str,
    via: str,
    timeout_s: float,
    waiting: Callable[[int], None],
    judge: Judge,
) -> KnownKey:
    """Wait for a newcomer and keep its key; give who it is.

    Args:
        folder: where the keys lie.
        me: our key.
        port: PAIRPORT.
        role: what it is to be here.
        via: the station through which its messages may come too.
        timeout_s: how long to wait.
        waiting: is told the port once we wait.
        judge: asks the person at our screen.

    Raises:
        InvalidKey: no such role, or a station that isn't known.
        PortInUse: another program listens there.
        Expired: none came.
        Refused: the codes differed.
    """
    if role not in ROLES:
        raise InvalidKey(f"there is no role {role!r}: there are {', '.join(ROLES)}")
    if via:
        folder.find(via)
    with closing(PairingHost(Party(me.name, me.public), port)) as host:
        waiting(host.port)
        them = host.wait(judge, timeout_s)
    if any(pair.name == them.name for pair in folder.own()):
        raise InvalidKey(f"the newcomer calls itself {them.name}, which is a name of ours")
    known = KnownKey(them.name, them.public, role, via)
    folder.know(known)
    return known


def pair_with(folder: KeyFolder, name: str, host: str, port: int, judge: Judge) -> KnownKey:
    """Join a host under a name, whose key is made if there is none; keep the host's; give who it is.

    Raises:
        InvalidKey: a file can't be used or written.
        Expired: nobody waits there.
        Refused: the codes differed.
        MalformedFrame: something else listens there.
    """
    own = {pair.name: pair for pair in folder.own()}.get(name) or make_key(folder, name)[0]
    them = join(host, port, Party(own.name, own.public), judge)
    known = KnownKey(them.name, them.public, "admin")
    folder.know(known)
    return known


def rotate(folder: KeyFolder, own: KeyPair, settings: Prefs) -> dict[str, str]:
    """Replace a key of ours; give what each said to it who pushes to us, as the Terminal knows ("" for yes).

    Raises:
        TaskError: the Terminal's, while a session is open.
        InvalidKey: a file can't be written.
        Expired: the Terminal doesn't answer, or not to the new key.
        Refused: it refused; nothing has changed then.
    """
    pair = make_pair(own.name)
    with Operator(settings) as operator:
        if own.name == TERMINAL_ID and operator.status()["open"]:
            raise TaskError("the Terminal's key is replaced between sessions: `pilotage end` first")
        told = operator.rekey(pair.public)
    folder.keep(pair)
    if own.name != TERMINAL_ID:
        _see_that_it_fits(settings)
    return told


def _see_that_it_fits(settings: Prefs) -> None:
    """Use the new key: the Terminal lets go of the old one when it is."""
    deadline = time.monotonic() + REACH_S
    while True:
        try:
            with Operator(settings) as operator:
                operator.pilots()
        except PilotageError as error:
            if time.monotonic() > deadline:
                raise Expired(f"the Terminal knows the new key, but doesn't answer to it: {error}") from error
            time.sleep(LOOK_S)
        else:
            return


def revoke(folder: KeyFolder, name: str) -> KnownKey:
    """Know somebody no longer; give who that was.

    Raises:
        InvalidKey: nobody of that name is known.
    """
    return folder.forget(name)
