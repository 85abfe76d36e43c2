"""Who may come in under which name (promise L1): the table of the room, line by line."""

from __future__ import annotations

import pytest

from pilotage.protocol.admission import Admission
from pilotage.protocol.authority import Authority
from pilotage.protocol.instructions import Card, Dialect
from pilotage.protocol.liveness import LivenessRules, Peer
from pilotage.protocol.routing import Routing
from pilotage.protocol.sends import FOREVER

RULES = LivenessRules()


def newcomer(
    name: str, boot: int, link: bytes, dialect: Dialect = Dialect.OWN, *, dials: bool = True
) -> Peer:
    return Peer(("listener", link), Card(dialect, name, boot, dials), 10.0)


@pytest.fixture
def routing():
    return Routing("T")


@pytest.fixture
def admission(routing):
    return Admission(routing, RULES, Authority())


def test_a_free_name_is_given(admission):
    assert admission.claim(newcomer("a", 1, b"1")).admitted


@pytest.mark.parametrize("name", ["", "T"])
def test_no_name_and_our_own_are_refused(admission, name):
    verdict = admission.claim(newcomer(name, 1, b"1"))
    assert verdict.refusal and not verdict.admitted


def test_the_same_life_replaces_its_old_link(admission, routing):
    routing.add(newcomer("a", 1, b"1"))
    verdict = admission.claim(newcomer("a", 1, b"2"))
    assert verdict.admitted and verdict.hang_up == ("listener", b"1")


def test_another_life_waits_while_the_holder_is_asked(admission, routing):
    routing.add(newcomer("a", 1, b"1"))
    rival = newcomer("a", 2, b"2")
    verdict = admission.claim(rival)
    assert (verdict.admitted, verdict.refusal, verdict.probe) == (False, "", ("listener", b"1"))
    assert admission.candidate(rival.link) is rival and len(admission) == 1
    assert admission.next_due() <= 10.5
    assert admission.expired(10.49) == [] and admission.expired(10.5) == [rival]
    assert len(admission) == 0


def test_a_holder_that_answers_turns_the_claimant_away(admission, routing):
    holder, rival = newcomer("a", 1, b"1"), newcomer("a", 2, b"2")
    routing.add(holder)
    admission.claim(rival)
    assert admission.holder_answered(newcomer("b", 1, b"3")) is None
    assert admission.holder_answered(holder) is rival
    assert admission.expired(99.0) == []


@pytest.mark.parametrize(("holds", "claims"), [(Dialect.JSON, Dialect.OWN), (Dialect.OWN, Dialect.JSON)])
def test_between_ours_and_an_original_the_holder_keeps_the_name(admission, routing, holds, claims):
    routing.add(newcomer("a", 1, b"1", holds))
    assert "'a'" in admission.claim(newcomer("a", 2, b"2", claims)).refusal


def test_one_that_we_dialled_has_until_gone_after_to_welcome_us(admission):
    station = newcomer("S", 1, b"", dials=False)
    admission.introduce(station)
    assert admission.expired(10.0 + RULES.gone_after_s - 0.1) == []
    assert admission.expired(10.0 + RULES.gone_after_s) == [station]


def test_a_welcome_ends_an_earlier_refusal(admission):
    admission.refusal = "the name is held"
    admission.admitted(newcomer("b", 1, b"9"))
    assert admission.refusal, "somebody else's coming in says nothing about our name"
    admission.admitted(newcomer("S", 1, b"", dials=False))
    assert admission.refusal == ""


def test_beats_are_a_matter_of_time(admission, routing):
    assert admission.next_due() == FOREVER
    routing.add(newcomer("a", 1, b"1"))
    assert [admission.beat_due(at) for at in (0.0, 0.5, 1.0, 1.5, 2.0)] == [True, False, True, False, True]


def test_a_link_that_ends_is_no_candidate_any_more(admission, routing):
    routing.add(newcomer("a", 1, b"1"))
    rival = newcomer("a", 2, b"2")
    admission.claim(rival)
    admission.forget(rival.link)
    assert admission.candidate(rival.link) is None
