"""Bad links between pilots and their Terminal: cut, standing still, slow or away."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotage.net.keys import KeyFolder, KnownKey, make_pair
from tests.system.faults.conftest import seeded
from tests.system.faults.proxy import Weather
from tests.system.faults.rig import TERMINAL, Plan, Rig

pytestmark = pytest.mark.timeout(240)

PLAN = Plan(pilots=["rig_a", "rig_b"], with_proxy=True)
PAUSE_S = 0.5


def check_link(rig: Rig, what: str) -> None:
    rig.wait_well()
    rig.wait_more_rows()
    rig.finish_and_check(what)


@pytest.mark.only_on("linux", "darwin")
@seeded(fast=1, slow=20)
def test_a_lossy_link(rig: Rig, seed: int, chance: random.Random) -> None:
    """Connections are cut at any byte, some after a stall, again and again."""
    assert rig.proxy is not None
    rig.begin(stream_hz=20.0)
    weather = Weather(rig.proxy, chance.getrandbits(32), PAUSE_S)
    weather.start()
    time.sleep(4.0)
    weather.stop()
    assert rig.proxy.cuts > 0
    check_link(rig, f"{weather.faults} faults of the link, {rig.proxy.cuts} connections cut, seed {seed}")


@pytest.mark.only_on("linux", "darwin")
@seeded(fast=1, slow=3)
def test_a_link_that_is_away(rig: Rig, seed: int, chance: random.Random) -> None:
    """Nobody can connect for a while, as with a cable pulled out and put back."""
    assert rig.proxy is not None
    rig.begin(stream_hz=20.0)
    time.sleep(chance.uniform(0, 0.5))
    away_s = chance.uniform(1, 4)
    rig.proxy.refuse()
    rig.proxy.cut()
    time.sleep(away_s)
    rig.proxy.refuse(False)
    check_link(rig, f"the link was away for {away_s:.1f} s, seed {seed}")


@pytest.mark.only_on("linux", "darwin")
@seeded(fast=1, slow=3)
@pytest.mark.parametrize("stall_s", [2.0, pytest.param(20.0, marks=pytest.mark.slow)])
def test_a_link_that_stands_still(rig: Rig, stall_s: float, seed: int, chance: random.Random) -> None:
    """Both ends stay open and nothing comes through; after 10 s the other side is called gone."""
    assert rig.proxy is not None
    rig.begin(stream_hz=20.0)
    time.sleep(chance.uniform(0, 0.5))
    rig.proxy.stall()
    time.sleep(stall_s)
    rig.proxy.resume()
    check_link(rig, f"the link stood still for {stall_s:g} s, seed {seed}")


# A pair of network namespaces, joined by a cable that can be pulled out

NETWORK = "10.213.77"


class Cable:
    """Two namespaces and the pair of interfaces that joins them."""

    def __init__(self, near: str, far: str) -> None:
        self.near, self.far = near, far

    def plug(self) -> None:
        for name in (self.near, self.far):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run(
            "ip",
            "-n",
            self.near,
            "link",
            "add",
            "cable",
            "type",
            "veth",
            "peer",
            "name",
            "cable",
            "netns",
            self.far,
        )
        for name, number in ((self.near, 1), (self.far, 2)):
            run("ip", "-n", name, "address", "add", f"{NETWORK}.{number}/24", "dev", "cable")
            run("ip", "-n", name, "link", "set", "cable", "up")

    def set(self, state: str) -> None:
        """Set the near end `up` or `down`."""
        run("ip", "-n", self.near, "link", "set", "cable", state)

    def unplug(self) -> None:
        for name in (self.near, self.far):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@pytest.fixture
def cable(needs_namespaces: None, request: pytest.FixtureRequest) -> Iterator[Cable]:
    stem = f"pf{abs(hash(request.node.name)) % 10**8:x}"
    made = Cable(f"{stem}t", f"{stem}p")
    try:
        made.plug()
        yield made
    finally:
        made.unplug()


def pair(terminal: Path, pilot: Path) -> None:
    """Let a Terminal and a pilot know each other's keys."""
    for name, here, there in (("T", terminal, pilot), ("rig_a", pilot, terminal)):
        made = make_pair(name)
        KeyFolder(here).keep(made)
        KeyFolder(there).know(KnownKey(name, made.public))


@pytest.mark.only_on("linux")
@pytest.mark.parametrize("down_s", [3.0, pytest.param(15.0, marks=pytest.mark.slow)])
@seeded(fast=1, slow=3)
def test_a_cable_that_is_pulled_out(
    cable: Cable, tmp_path: Path, down_s: float, seed: int, chance: random.Random
) -> None:
    """The interface is set down between two namespaces: packets vanish, no connection is told; all is encrypted."""
    plan = Plan(
        pilots=["rig_a"],
        namespaces={TERMINAL: cable.near, "rig_a": cable.far},
        prefs={
            TERMINAL: {"KEYDIR": str(tmp_path / "keys of T")},
            "rig_a": {"TERMINALIP": f"{NETWORK}.1", "KEYDIR": str(tmp_path / "keys of rig_a")},
        },
    )
    pair(tmp_path / "keys of T", tmp_path / "keys of rig_a")
    with Rig(tmp_path, plan) as rig:
        rig.begin(stream_hz=20.0)
        time.sleep(chance.uniform(0, 0.5))
        cable.set("down")
        time.sleep(down_s)
        cable.set("up")
        check_link(rig, f"the cable was out for {down_s:g} s, seed {seed}")
