"""The look before dialling: greeting and READY of RFC 37, whole, cut short, or something else."""

from __future__ import annotations

import pytest

from pilotage.protocol.errors import MalformedFrame
from pilotage.protocol.instructions import Card, Dialect
from pilotage.protocol.zmtp import GREETING, is_locked, metadata, own_card, read_card, ready_length


def ready(*, long: bool = False, **properties: str) -> bytes:
    command = b"\x05READY"
    for name, value in properties.items():
        command += (
            bytes([len(name)])
            + name.replace("_", "-").encode()
            + len(value).to_bytes(4, "big")
            + value.encode()
        )
    size = b"\x06" + len(command).to_bytes(8, "big") if long else b"\x04" + bytes([len(command)])
    return GREETING + size + command


OURS = {"Socket_Type": "ROUTER", "Identity": "", "X_Pilotage": "2", "X_Name": "T", "X_Boot": "42"}


@pytest.mark.parametrize("long", [False, True])
def test_a_station_of_ours_tells_its_name_and_life(long):
    opening = ready(long=long, **OURS)
    assert ready_length(opening + b"more") == len(opening)
    assert read_card(opening, "?") == Card(Dialect.OWN, "T", 42, dials=False)


def test_an_original_tells_its_identity_or_is_who_we_expect():
    assert read_card(ready(Socket_Type="ROUTER", Identity="T"), "X") == Card(
        Dialect.JSON, "T", 0, dials=False
    )
    assert read_card(ready(Socket_Type="ROUTER"), "X").name == "X"


def test_too_few_bytes_are_waited_for():
    opening = ready(long=True, **OURS)
    assert [ready_length(opening[:size]) for size in (0, 1, 10, 64, 66, 72)] == [None] * 6
    assert GREETING[:1] == b"\xff" and len(GREETING) == 64


def test_of_a_station_that_wants_a_key_the_greeting_is_all_there_is():
    greeting = GREETING[:12] + b"CURVE".ljust(20, b"\0") + bytes(32)
    assert ready_length(greeting[:63]) is None
    assert ready_length(greeting) == 64
    assert is_locked(greeting) and not is_locked(GREETING)


@pytest.mark.parametrize(
    "opening",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\xff" + bytes(9) + b"\x03" + bytes(60),
        GREETING[:10] + b"\x02" + GREETING[11:] + b"\x04\x06",
        GREETING[:12] + b"PLAIN".ljust(20, b"\0") + bytes(32) + b"\x04\x06",
        GREETING + b"\x00\x05hello",
        GREETING + b"\x06" + (2**40).to_bytes(8, "big"),
    ],
)
def test_what_speaks_something_else_is_malformed(opening):
    with pytest.raises(MalformedFrame):
        ready_length(opening)


@pytest.mark.parametrize(
    "opening",
    [
        GREETING + b"\x04\x06\x05ERROR",
        ready(Socket_Type="DEALER"),
        ready(Socket_Type="ROUTER", X_Pilotage="2", X_Name="T", X_Boot="old"),
        ready(Socket_Type="ROUTER", X_Pilotage="2", X_Name="", X_Boot="1"),
        ready(**OURS)[:-1],
        GREETING + b"\x04\x07\x05READY\x0b",
    ],
)
def test_a_card_that_cannot_be_read_is_malformed(opening):
    with pytest.raises(MalformedFrame):
        read_card(opening, "?")


def test_what_we_tell_is_what_we_read():
    told = dict(item.decode().split(":", 1) for item in metadata("rig", 2**62, 2))
    assert own_card(told["X-Name"], told["X-Boot"], dials=True) == own("rig", 2**62)


def own(name: str, boot: int) -> Card:
    return Card(Dialect.OWN, name, boot, dials=True)
