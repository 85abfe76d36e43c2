"""Nodes and stations that are put away after each test."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotage import Net_Node, Pilot_Station, Station, Terminal_Station
from pilotage.net.pref_keys import Prefs
from pilotage.net.prefs import Preferences

MakeNode = Callable[..., Net_Node]
StartStation = Callable[..., Any]


def settings(**values: object) -> Prefs:
    """Preferences of nobody but this test; its folder of data is where every test's is."""
    prefs = Preferences(environ={}, file=None)
    prefs.set("DATADIR", os.environ["PILOTAGE_DATADIR"])
    prefs.set("KEYDIR", os.environ["PILOTAGE_KEYDIR"])
    for key, value in values.items():
        prefs.set(key, value)
    return prefs.snapshot()


@pytest.fixture
def put_away() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def node(put_away: contextlib.ExitStack) -> MakeNode:
    """Make a node; `port` may be another node with a router, or a station."""

    def make(id: str, upstream: Any = None, listens: dict[str, Any] | None = None, **more: Any) -> Net_Node:
        kind = more.pop("kind", Net_Node)
        port = getattr(upstream, "router_port", None) or getattr(upstream, "listen_port", None) or 0
        made: Net_Node = kind(id, getattr(upstream, "id", ""), port, listens or {}, **more)
        put_away.callback(made.release)
        if upstream is not None:
            made.wait_connected(5)
        return made

    return make


@pytest.fixture
def start(put_away: contextlib.ExitStack) -> StartStation:
    """Start a station that was made, and release it in the end."""

    def start(station: Station) -> Station:
        put_away.callback(station.release)
        station.start()
        return station

    return start


@pytest.fixture
def terminal(start: StartStation, tmp_path: Path) -> Terminal_Station:
    """A Terminal's station that knows one pilot and has one sound."""
    sounds = tmp_path / "terminal"
    (sounds / "deep").mkdir(parents=True)
    (sounds / "deep" / "tone.wav").write_bytes(b"RIFF" + bytes(range(256)) * 40)
    (tmp_path / "secret.txt").write_text("outside of the folder")
    station = Terminal_Station({"rig_a": {}}, settings(PUSHPORT=0, SOUNDDIR=str(sounds), DRAWFPS=10))
    return start(station)  # type: ignore[no-any-return]


@pytest.fixture
def pilot(start: StartStation, terminal: Terminal_Station, tmp_path: Path) -> Pilot_Station:
    """A Pilot's station that pushes to the Terminal's."""
    chosen = settings(
        NAME="rig_a",
        PUSHPORT=terminal.listen_port,
        MSGPORT=0,
        SOUNDDIR=str(tmp_path / "pilot"),
        LINEAGE="PARENT",
        CHILDID=["cam_1", "cam_2"],
    )
    return start(Pilot_Station(chosen))  # type: ignore[no-any-return]


class Gate:
    """A listen that waits until it is let through."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.got: list[Any] = []
        self.inside = 0

    def __call__(self, value: Any) -> None:
        self.inside += 1
        self.entered.set()
        self.opened.wait(20)
        self.got.append(value)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()
