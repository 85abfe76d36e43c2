"""Verdicts: complete only what was compared whole, and everything else said with its numbers."""

from __future__ import annotations

import pytest

from pilotage.protocol.coverage import (
    Claim,
    Digests,
    Holding,
    Line,
    Verdict,
    claims_from_wire,
    claims_to_wire,
    judge,
)
from pilotage.protocol.errors import InvalidMessage
from pilotage.protocol.ledger import Kind, LedgerKey, Mark
from pilotage.protocol.ranges import Ranges

ROWS = LedgerKey("rig", Kind.TABLE, "trials", "rig")
ITEMS = LedgerKey("rig", Kind.STREAM, "ecg", "cam/0123456789ab")
STAMPS = ITEMS._replace(kind=Kind.TIMESTAMP)
ALL: Ranges = ((0, 9),)


def claim(
    key: LedgerKey, numbers: Ranges = ALL, digest: str = "aa", count: int = 10, is_exact: bool = True
) -> Claim:
    return Claim(key, Mark(count, digest), numbers, is_exact)


def holding(
    key: LedgerKey, numbers: Ranges = ALL, digest: str = "aa", count: int = 10, **more: int
) -> Holding:
    return Holding(key, Mark(count, digest), numbers, **more)


def one(claims: list[Claim], holdings: list[Holding]) -> Line:
    (line,) = judge(claims, holdings, {ROWS: "why", ITEMS: "why"})
    return line


CASES: dict[str, tuple[list[Claim], list[Holding], Verdict, list[str]]] = {
    "the same": ([claim(ROWS)], [holding(ROWS)], Verdict.COMPLETE, []),
    "a gap": (
        [claim(ROWS)],
        [holding(ROWS, ((0, 2), (4, 9)), "bb", 9)],
        Verdict.MISSING,
        ["row 3 of trials of rig is missing"],
    ),
    "nothing there": ([claim(ROWS)], [], Verdict.MISSING, ["rows 0–9 of trials of rig are missing"]),
    "nothing sent, nothing there": ([claim(ROWS, (), "0" * 32, 0)], [], Verdict.COMPLETE, []),
    "other content": (
        [claim(ROWS)],
        [holding(ROWS, digest="bb")],
        Verdict.DIFFERENT,
        ["trials of rig: the same count of 10, but other content or another order"],
    ),
    "too many": (
        [claim(ROWS)],
        [holding(ROWS, ((0, 11),), "bb", 12)],
        Verdict.DIFFERENT,
        ["rows 10–11 of trials of rig: stored, but its sender does not know of it"],
    ),
    "one without a number": (
        [claim(ROWS)],
        [holding(ROWS, digest="bb", count=11, unnumbered=1)],
        Verdict.DIFFERENT,
        ["trials of rig: 1 entries under a number that another one has"],
    ),
    "nobody accounts for it": (
        [],
        [holding(ROWS)],
        Verdict.UNJUDGED,
        ["trials of rig: 10 stored, not judged: why"],
    ),
    "content not known": (
        [claim(ROWS, digest="", is_exact=False)],
        [holding(ROWS)],
        Verdict.UNJUDGED,
        ["trials of rig: 10 stored, not judged: why"],
    ),
    "a stream": ([claim(ITEMS), claim(STAMPS)], [holding(ITEMS), holding(STAMPS)], Verdict.COMPLETE, []),
    "a stream's timestamps": (
        [claim(ITEMS), claim(STAMPS)],
        [holding(ITEMS), holding(STAMPS, digest="bb")],
        Verdict.DIFFERENT,
        ["stream ecg of rig from cam: the same count of 10, but other content or another order"],
    ),
    "items missing": (
        [claim(ITEMS), claim(STAMPS)],
        [holding(ITEMS, ((0, 5),), "bb", 6), holding(STAMPS, ((0, 5),), "bb", 6)],
        Verdict.MISSING,
        ["items 6–9 of stream ecg of rig from cam are missing: items of streams are not kept by the pilot"],
    ),
    "a killed life with more than it had noted": (
        [claim(ITEMS, ((0, 4),), count=5, is_exact=False)],
        [holding(ITEMS)],
        Verdict.UNJUDGED,
        ["stream ecg of rig from cam: 10 stored, not judged: why"],
    ),
    "a killed life with less than it had noted": (
        [claim(ITEMS, is_exact=False)],
        [holding(ITEMS, ((0, 4),), count=5)],
        Verdict.MISSING,
        ["items 5–9 of stream ecg of rig from cam are missing: items of streams are not kept by the pilot"],
    ),
    "a killed life that had noted all that is stored": (
        [claim(ITEMS, is_exact=False)],
        [holding(ITEMS)],
        Verdict.UNJUDGED,
        ["stream ecg of rig from cam: 10 stored, not judged: why"],
    ),
    "a killed life with other content": (
        [claim(ITEMS, is_exact=False)],
        [holding(ITEMS, digest="bb")],
        Verdict.DIFFERENT,
        ["stream ecg of rig from cam: the same count of 10, but other content or another order (why)"],
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_a_comparison_comes_to(what: str) -> None:
    claims, holdings, verdict, said = CASES[what]
    line = one(claims, holdings)
    assert (line.verdict, line.sentences()) == (verdict, said)
    plain = line.as_plain()
    assert plain["verdict"] == verdict and plain["missing"] == [list(pair) for pair in line.missing]


def test_rows_known_to_differ_are_named() -> None:
    line = one([claim(ROWS)], [holding(ROWS, digest="bb")])
    line.different = ((3, 3),)
    assert line.sentences() == ["row 3 of trials of rig: stored with other content than was sent"]
    line.different, line.digest = (), Digests.EQUAL
    assert line.verdict is Verdict.COMPLETE


def test_claims_go_over_the_wire() -> None:
    claims = [claim(ROWS), claim(ITEMS, ((0, 3), (7, 9)), is_exact=False), claim(ROWS, (), "", 0)]
    assert claims_from_wire(claims_to_wire(claims)) == claims


@pytest.mark.parametrize(
    "rows", [None, [1], [[1, 2]], [["p", "pie", "n", "s", 1, "", [], True]], [[*"pkns", 1, "", [[2]], 1]]]
)
def test_what_is_no_claim_is_refused(rows: object) -> None:
    with pytest.raises(InvalidMessage):
        claims_from_wire(rows)
