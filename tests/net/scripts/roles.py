"""Each kind of station under one start method, beside the nodes of this process. Prints what it saw as JSON."""

from __future__ import annotations

import json
import multiprocessing
import sys
import warnings
from pathlib import Path
from typing import Any

from pilotage import Net_Node, Pilot_Station, Terminal_Station
from pilotage.protocol.errors import ListenNotPicklable
from tests.net.conftest import settings
from tests.net.parts import ProbedStation


def main(method: str, folder: Path) -> dict[str, Any]:
    multiprocessing.set_start_method(method)
    seen: dict[str, Any] = {"started": {}}
    terminal = Terminal_Station({"rig_a": {}}, settings(PUSHPORT=0, SOUNDDIR=str(folder / "T")))
    with terminal:
        terminal.start()
        chosen = settings(NAME="rig_a", PUSHPORT=terminal.listen_port, MSGPORT=0, SOUNDDIR=str(folder / "P"))
        with Pilot_Station(chosen) as pilot:
            pilot.start()
            talk(terminal, pilot, seen)
    seen["ended"] = [terminal.is_alive(), pilot.is_alive()]
    probe(seen)
    lambdas(seen)
    return seen


def talk(terminal: Terminal_Station, pilot: Pilot_Station, seen: dict[str, Any]) -> None:
    got: list[Any] = []
    with (
        Net_Node(
            "_T", "T", terminal.listen_port, {"DATA": got.append, "STATE": got.append, "PEER": print_nothing}
        ) as boss,
        Net_Node("_rig_a", "rig_a", pilot.listen_port, {"PARAM": lambda value: {"set": value}}) as rig,
    ):
        boss.wait_connected(10)
        rig.wait_connected(10)
        seen["data"] = str(rig.send("T", "DATA", {"pilot": "rig_a", "x": 1}).wait_settled(10).outcome)
        seen["state"] = str(rig.send("rig_a", "STATE", "IDLE").wait_settled(10).outcome)
        seen["answer"] = boss.send("T", "CHANGE", {"pilot": "rig_a", "gain": 2}).result(10)
        seen["from the parent"] = terminal.send("rig_a", "PARAM", {"gain": 3}).result(10)
        seen["got"] = [value for value in got if "x" in value or value.get("state") == "IDLE"]
        told = terminal.statistics()
        seen["statistics"] = [told.name, sorted(told.peers), told.received > 0]
        seen["senders"] = sorted(terminal.senders)


def print_nothing(value: object) -> None:
    """Take note of who comes and goes."""


def probe(seen: dict[str, Any]) -> None:
    with ProbedStation("S") as station:
        station.start()
        with Net_Node("cam", "S", station.listen_port, {}) as cam:
            told = cam.send("S", "PROBE").result(10)
        seen["other process"] = told["pid"] == station.pid


def lambdas(seen: dict[str, Any]) -> None:
    station = ProbedStation("L", listens={"MINE": lambda msg: 5})
    try:
        with station:
            station.start()
            with Net_Node("cam", "L", station.listen_port, {}) as cam:
                seen["lambda"] = cam.send("L", "MINE").result(10)
    except ListenNotPicklable as error:
        seen["lambda"] = str(error)


if __name__ == "__main__":
    warnings.simplefilter("error")
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
