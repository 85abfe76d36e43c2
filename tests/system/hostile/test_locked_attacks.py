"""Attacks by who has keys, or thinks so, while a good pilot works (promise X2): its rows all arrive, in order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from pilotage import Net_Node, Outcome, Reason
from tests.conftest import wait_eventually
from tests.system.hostile.attacks import ATTACKS, VICTIM, Target, parcel, send, wire
from tests.system.hostile.lab import open_lab
from tests.system.hostile.locked import STOLEN, LockedLab, Recorder

# Another address of the loopback interface stands for another machine: Linux alone has it.
pytestmark = [pytest.mark.only_on("linux"), pytest.mark.timeout(180)]
WITH_KEYS = [name for name, attack in ATTACKS.items() if attack.needs]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LockedLab]:
    with open_lab(tmp_path_factory.mktemp("locked"), LockedLab) as lab:
        yield lab


def data(lab: LockedLab, what: str) -> list[Any]:
    return [
        value for key, value in list(lab.got) if isinstance(value, dict) and what in value and key != "AUDIT"
    ]


def refusals(lab: LockedLab) -> list[dict[str, Any]]:
    return [value for key, value in list(lab.got) if key == "AUDIT" and value.get("refused")]


@pytest.mark.parametrize("name", [*WITH_KEYS, "malformed", "half_open"])
def test_an_attack_on_a_locked_lab_harms_nobody(lab: LockedLab, name: str) -> None:
    before, pid = len(lab.stored()), lab.station.pid
    rows = lab.suffer(name, seconds=0.3)
    assert not rows.failed
    assert lab.stored()[before:] == rows.sent, "each row once, in order"
    assert data(lab, "stolen") == [] and lab.obeyed == []
    assert not [value for key, value in lab.got if key == "STATE" and value.get("state") == "STOLEN"]
    assert lab.station.is_alive() and lab.station.pid == pid and os.getpgid(pid)
    assert lab.holder.send("T", "PING").wait_settled(10).outcome is Outcome.DELIVERED
    assert not lab.station.statistics().counts.get("turns failed")


def test_a_thief_was_heard_under_its_own_name_only(lab: LockedLab) -> None:
    lab.suffer("thieves", seconds=0.1)
    wait_eventually(lambda: bool(data(lab, "own")), timeout_s=10)
    assert {value["pilot"] for value in data(lab, "own")} == {"rig_b"}
    counts = lab.station.statistics().counts
    assert counts["names refused"] >= 4 and counts["turned away"] >= 7
    assert lab.holder.statistics().peers == lab.pilot.statistics().peers == {"T": "alive"}


def test_what_a_role_may_not_was_tried_and_refused(lab: LockedLab) -> None:
    before = lab.station.statistics().counts.get("not allowed", 0)
    lab.suffer("abuses", seconds=0.1)
    wait_eventually(lambda: lab.station.statistics().counts["not allowed"] >= before + 200, timeout_s=10)
    assert lab.obeyed == []


def test_abuse_is_recorded_with_who_and_what_and_which_role_it_needs(lab: LockedLab) -> None:
    def told(name: str, verb: str) -> list[str]:
        return [one["refused"] for one in refusals(lab) if (one["name"], one["verb"]) == (name, verb)]

    for name, role in STOLEN.items():
        with lab.node(f"{name}_tool", name) as tool:
            tool.wait_connected(10)
            for verb in ("START", "KILL", "STOPALL"):
                receipt = tool.send(VICTIM, verb).wait_settled(10)
                assert (receipt.outcome, receipt.reason) == (Outcome.REFUSED, Reason.NOT_ALLOWED)
                text = (
                    f"{name} is a {role} here and can't send {verb} to {VICTIM}: that needs the role operator"
                )
                assert text in receipt.text

            def is_told(tool: Net_Node = tool, name: str = name, text: str = text) -> bool:
                tool.send(VICTIM, "STOPALL").wait_settled(
                    10
                )  # of a flood of refusals, such as before, some are told
                return any(text in one for one in told(f"{name}_tool", "STOPALL"))

            wait_eventually(is_told, timeout_s=20)
    assert lab.obeyed == []


def test_a_key_that_is_revoked_is_not_heard_any_more_on_the_connection_that_it_has(lab: LockedLab) -> None:
    target = Target(lab.host, lab.station.listen_port, lab.marker, 1)
    (pair,), known = lab.keys("rig_b").own(), lab.keys("T").find("rig_b")

    def say(dealer: Any, number: int) -> None:
        send(dealer, parcel("LEVER", number, ["_T"], flow=number, marks=0, trail=[]))

    heard: list[int] = []
    lab.boss.listens["LEVER"] = heard.append
    said = iter(range(1, 100_000))
    with lab.working(), wire(target, name="rig_b", lock=(pair, lab.keys("rig_b").find("T").public)) as dealer:
        wait_eventually(lambda: say(dealer, next(said)) or len(heard) >= 5, timeout_s=20)
        lab.keys("T").forget("rig_b")
        strangers = lab.station.statistics().counts.get("from strangers", 0)
        wait_eventually(
            lambda: (
                say(dealer, next(said))
                or lab.station.statistics().counts.get("from strangers", 0) >= strangers + 20
            ),
            timeout_s=20,
        )
        deaf_from, heard[:] = next(said), []
        for _ in range(100):
            say(dealer, next(said))
        lab.let_somebody_in()
        assert heard == [], f"after {deaf_from} nothing may be heard"
        with lab.node("rig_b", "rig_b") as again, pytest.raises(TimeoutError, match="is not known there"):
            again.wait_connected(5)
        lab.keys("T").know(known)


def test_what_was_recorded_on_the_wire_is_worth_nothing(lab: LockedLab) -> None:
    recorder = Recorder(lab.host, lab.station.listen_port)
    heard: list[int] = []
    lab.boss.listens["LEVER"] = heard.append
    try:
        with lab.working(), lab.node(f"{VICTIM}_tool", port=recorder.port) as tool:
            tool.wait_connected(20)
            receipts = [tool.send("_T", "LEVER", number) for number in range(50)]
            assert all(one.wait_settled(20).outcome is Outcome.DELIVERED for one in receipts)
            recorder.replay()
            assert recorder.refused == len(recorder.recorded) >= 1 and len(recorder.recorded[-1]) > 1000
            recorder.repeat(500)  # on its own connection: libzmq's nonces end that, and the tool dials again
            receipts = [tool.send("_T", "LEVER", number) for number in range(50, 100)]
            assert all(one.wait_settled(30).outcome is Outcome.DELIVERED for one in receipts)
            wait_eventually(lambda: len(recorder.recorded) >= 3, timeout_s=20)
    finally:
        recorder.close()
    assert heard == list(range(100)), "each once, in order"
