"""Pairing: two machines tell each other their public keys, and people compare a code (see `codes`).

What travels are names, public keys, nonces and yes or no: nothing of it is secret, and all of it may be forged, which
the code shows. The host listens only while somebody at its screen waits for a newcomer.

Law of this room: a key is kept only after the person at that very screen has said that the codes are equal.
"""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pilotage.net.keys import checked_key
from pilotage.net.pref_values import read_name
from pilotage.protocol.errors import Expired, InvalidKey, MalformedFrame, PortInUse, Refused
from pilotage.services.security.codes import NONCE_BYTES, Party, code, commit, keeps_its_word

MAX_LINE_BYTES = 2048
ANSWER_S = 10.0
PERSON_S = 120.0
MAX_CODES = 3
"""Codes that a host shows before it gives up: each is one guess for whoever stands between."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who is at the other end, before anybody has compared codes.

    Attributes:
        party: its name and key, as it says.
        address: where it is.
        code: what both screens show, if nobody stands between.
    """

    party: Party
    address: str
    code: str


Judge = Callable[[Candidate], bool]
"""Shows a code to a person and tells whether the other screen shows the same."""


class _Line:
    """A connection that carries one JSON object a line."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = connection.makefile("rb")

    def say(self, **fields: Any) -> None:
        self._connection.sendall(json.dumps(fields).encode() + b"\n")

    def hear(self, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """Read one object.

        Raises:
            MalformedFrame: something else came, or the connection has ended.
        """
        self._connection.settimeout(timeout_s)
        line = self._reader.readline(MAX_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise MalformedFrame("the other side ended the pairing, or says too much")
        try:
            said = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise MalformedFrame(f"the other side doesn't speak of pairing: {error}") from error
        if not isinstance(said, dict):
            raise MalformedFrame("the other side doesn't speak of pairing")
        return said

    def close(self) -> None:
        self._reader.close()
        self._connection.close()


def join(host: str, port: int, me: Party, judge: Judge) -> Party:
    """Pair with a host; give who it is, once both people have agreed.

    Args:
        host: where it waits.
        port: its PAIRPORT.
        me: our name and public key.
        judge: asks the person at our screen.

    Raises:
        Expired: nobody waits there, or nobody answers.
        Refused: one of the two people said that the codes differ, or the host broke its word.
        MalformedFrame: something else listens there.
        InvalidKey: it told no key.
    """
    where = f"{host}:{port}"
    try:
        with closing(_Line(socket.create_connection((host, port), ANSWER_S))) as line:
            return _join(line, where, me, judge)
    except OSError as error:
        raise Expired(
            f"nobody waits for a newcomer at {where} ({error}): run `pilotage keys accept` there first"
        ) from error


def _join(line: _Line, where: str, me: Party, judge: Judge) -> Party:
    line.say(name=me.name, public=me.public)
    said = line.hear()
    them, commitment = _party(said), _bytes(said.get("commitment"))
    ours = secrets.token_bytes(NONCE_BYTES)
    line.say(nonce=ours.hex())
    theirs = _bytes(line.hear().get("nonce"))
    if not keeps_its_word(commitment, theirs, me, them):
        raise Refused(f"{where} did not keep its word: somebody may stand between you and it")
    agrees = judge(Candidate(them, where, code(me, them, ours, theirs)))
    line.say(agrees=agrees)
    if not agrees:
        raise Refused("the codes differ: somebody may stand between the two; nothing was kept")
    if line.hear(PERSON_S).get("agrees") is not True:
        raise Refused(f"whoever sits at {where} did not agree; nothing was kept")
    return them


class PairingHost:
    """Waits for newcomers; for one thread.

    Args:
        me: our name and public key.
        port: PAIRPORT; 0 for any free one.

    Raises:
        PortInUse: another program listens there.
    """

    def __init__(self, me: Party, port: int) -> None:
        self._me = me
        try:
            self._server = socket.create_server(("", port))
        except OSError as error:
            raise PortInUse(
                f"can't wait for newcomers on port {port}: {error.strerror}; choose another PAIRPORT"
            ) from error
        self.port = int(self._server.getsockname()[1])

    def close(self) -> None:
        """Let go of the port."""
        self._server.close()

    def wait(self, judge: Judge, timeout_s: float) -> Party:
        """Wait for a newcomer on which both people agree; give who it is.

        Args:
            judge: asks the person at our screen.
            timeout_s: how long.

        Raises:
            Expired: none came.
            Refused: codes differed, as often as is allowed.
        """
        deadline, codes = time.monotonic() + timeout_s, 0
        while (left := deadline - time.monotonic()) > 0:
            self._server.settimeout(left)
            try:
                connection, address = self._server.accept()
            except TimeoutError:
                break
            with closing(_Line(connection)) as line:
                try:
                    candidate = self._meet(line, address[0])
                except (OSError, MalformedFrame, InvalidKey):
                    continue  # whoever that was, it didn't want to be paired
                if self._agree(line, judge(candidate)):
                    return candidate.party
            codes += 1
            if codes == MAX_CODES:
                raise Refused(f"{codes} codes differed: somebody may stand between; nothing was kept")
        raise Expired("no newcomer was accepted; run `pilotage join` there while this waits")

    def _meet(self, line: _Line, address: str) -> Candidate:
        them = _party(line.hear())
        ours = secrets.token_bytes(NONCE_BYTES)
        commitment = commit(ours, them, self._me)
        line.say(name=self._me.name, public=self._me.public, commitment=commitment.hex())
        theirs = _bytes(line.hear().get("nonce"))
        line.say(nonce=ours.hex())
        return Candidate(them, address, code(them, self._me, theirs, ours))

    def _agree(self, line: _Line, agrees: bool) -> bool:
        """Tell each side what the other person has said; False unless both have agreed."""
        try:
            they_agree = line.hear(PERSON_S).get("agrees") is True
            line.say(agrees=agrees and they_agree)
        except (OSError, MalformedFrame):
            return False
        return agrees and they_agree


def _party(said: dict[str, Any]) -> Party:
    try:
        name = read_name(said.get("name"))
    except ValueError as error:
        raise MalformedFrame(f"the other side told no name: it {error}") from error
    return Party(name, checked_key(said.get("public"), "what the other side told"))


def _bytes(text: object) -> bytes:
    try:
        found = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        found = b""
    if len(found) != NONCE_BYTES:
        raise MalformedFrame("the other side doesn't speak of pairing: no 32 bytes")
    return found
