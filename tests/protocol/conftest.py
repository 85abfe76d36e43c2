"""The protocol is pure: in this folder a socket or a sleep raises."""

from __future__ import annotations

import socket
import time
from typing import NoReturn

import pytest


@pytest.fixture(autouse=True)
def _no_sockets_no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> NoReturn:
        raise AssertionError("a test of the protocol opened a socket or slept: give it `now` and frames")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(time, "sleep", refuse)
