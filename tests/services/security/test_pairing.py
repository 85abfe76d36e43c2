"""Pairing: both screens show one code, and other ones where somebody stands between."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from pilotage.net.keys import make_pair
from pilotage.protocol.errors import Expired, MalformedFrame, PilotageError, PortInUse, Refused
from pilotage.services.security.codes import NONCE_BYTES, Party, code, commit, keeps_its_word
from pilotage.services.security.pairing import MAX_CODES, Candidate, PairingHost, join


def party(name: str) -> Party:
    return Party(name, make_pair(name).public)


T, RIG, EVE_AS_T, EVE_AS_RIG = party("T"), party("rig"), party("T"), party("rig")
Shown = list[Candidate]


def says(answer: bool, shown: Shown) -> Callable[[Candidate], bool]:
    def judge(candidate: Candidate) -> bool:
        shown.append(candidate)
        return answer

    return judge


@pytest.fixture
def host() -> Iterator[PairingHost]:
    made = PairingHost(T, 0)
    yield made
    made.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as made:
        yield made


def ended(future: Future[Any]) -> Any:
    try:
        return future.result(10)
    except PilotageError as error:
        return type(error)


def test_both_screens_show_one_code_and_both_sides_learn_the_other(
    host: PairingHost, pool: ThreadPoolExecutor
) -> None:
    here: Shown = []
    there: Shown = []
    waiting = pool.submit(host.wait, says(True, here), 10)
    assert join("127.0.0.1", host.port, RIG, says(True, there)) == T
    assert waiting.result(10) == RIG
    assert here[0].code == there[0].code and len(here[0].code) == 7
    assert (here[0].party, there[0].party) == (RIG, T)


@pytest.mark.parametrize(("here", "there"), [(True, False), (False, True), (False, False)])
def test_unless_both_people_agree_neither_side_learns_anything(
    host: PairingHost, pool: ThreadPoolExecutor, here: bool, there: bool
) -> None:
    waiting = pool.submit(host.wait, says(here, []), 1.5)
    assert ended(pool.submit(join, "127.0.0.1", host.port, RIG, says(there, []))) is Refused
    assert ended(waiting) is Expired


def test_who_stands_between_makes_the_codes_differ(host: PairingHost, pool: ThreadPoolExecutor) -> None:
    here: Shown = []
    there: Shown = []
    eve = PairingHost(EVE_AS_T, 0)
    waiting = pool.submit(host.wait, says(False, here), 1.5)
    between = pool.submit(eve.wait, says(True, []), 1.5)
    onward = pool.submit(join, "127.0.0.1", host.port, EVE_AS_RIG, says(True, []))
    victim = ended(pool.submit(join, "127.0.0.1", eve.port, RIG, says(False, there)))
    assert (victim, ended(onward), ended(waiting), ended(between)) == (Refused, Refused, Expired, Expired)
    assert here[0].code != there[0].code
    eve.close()


def test_a_host_that_changes_its_nonce_is_found_out(pool: ThreadPoolExecutor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def cheat() -> None:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as lines:
                lines.readline()
                told = {"name": T.name, "public": T.public, "commitment": "00" * NONCE_BYTES}
                connection.sendall(json.dumps(told).encode() + b"\n")
                lines.readline()
                connection.sendall(json.dumps({"nonce": "11" * NONCE_BYTES}).encode() + b"\n")
                lines.readline()

        cheating = pool.submit(cheat)
        with pytest.raises(Refused, match="did not keep its word"):
            join("127.0.0.1", server.getsockname()[1], RIG, says(True, []))
        cheating.result(10)


def test_a_host_shows_few_codes(host: PairingHost, pool: ThreadPoolExecutor) -> None:
    waiting = pool.submit(host.wait, says(False, []), 20)
    for _ in range(MAX_CODES):
        assert ended(pool.submit(join, "127.0.0.1", host.port, RIG, says(True, []))) is Refused
    assert ended(waiting) is Refused


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"[1]\n",
        b"{}\n",
        b"[" * 2000 + b"\n",
        b"x" * 100_000,
        b'{"name": "../x", "public": "a"}\n',
        b'{"name": "rig", "public": "short"}\n',
        b'{"name": "rig", "public": "' + b'"' * 40 + b'"}\n',
        b"\xff\xfe\n",
    ],
)
def test_garbage_does_not_keep_a_newcomer_away(
    host: PairingHost, pool: ThreadPoolExecutor, garbage: bytes
) -> None:
    waiting = pool.submit(host.wait, says(True, []), 10)
    with socket.create_connection(("127.0.0.1", host.port)) as stranger:
        stranger.sendall(garbage)
    assert join("127.0.0.1", host.port, RIG, says(True, [])) == T
    assert waiting.result(10) == RIG


def test_nobody_there_and_somebody_else_there_are_said(host: PairingHost) -> None:
    with pytest.raises(PortInUse):
        PairingHost(T, host.port)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Expired, match="keys accept"):
        join("127.0.0.1", port, RIG, says(True, []))


def test_something_that_hangs_up_is_no_host() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises((MalformedFrame, Expired)):
            join("127.0.0.1", server.getsockname()[1], RIG, says(True, []))
        thread.join(5)


def test_the_code_depends_on_all_that_was_said() -> None:
    nonces = (b"a" * NONCE_BYTES, b"b" * NONCE_BYTES)
    whole = code(RIG, T, *nonces)
    others = [
        code(EVE_AS_RIG, T, *nonces),
        code(RIG, EVE_AS_T, *nonces),
        code(Party("rig2", RIG.public), T, *nonces),
        code(RIG, T, nonces[1], nonces[0]),
        code(T, RIG, *nonces),
    ]
    assert whole not in others
    commitment = commit(nonces[1], RIG, T)
    assert keeps_its_word(commitment, nonces[1], RIG, T)
    assert not keeps_its_word(commitment, nonces[0], RIG, T)
    assert not keeps_its_word(commitment, nonces[1], RIG, EVE_AS_T)
