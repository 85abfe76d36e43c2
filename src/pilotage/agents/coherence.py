"""Coherence: compare what the agents say that they sent with what is stored, fetch what is missing, certify it (D7).

Law: a certificate says complete only of what was compared whole. What is missing is named by its numbers, what can't be
judged is named with the reason, and nothing that is stored is changed by a comparison.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pilotage.agents.ports import Archive
from pilotage.agents.refetch import MAX_DIGESTS, MAX_ROWS
from pilotage.agents.sessions import Sessions
from pilotage.net.node import Net_Node
from pilotage.protocol.coverage import Claim, Digests, Line, Verdict, claims_from_wire, judge
from pilotage.protocol.errors import DeliveryError, PilotageError
from pilotage.protocol.ledger import Kind, LedgerKey
from pilotage.protocol.ranges import Ranges, cut, ranges_from_wire, ranges_of, say, size, subtract

COHERE_TIMEOUT_S = 30.0
FETCH_TIMEOUT_S = 30.0
CATCH_UP_S = 10.0
"""How long what is still on its way is waited for."""

FETCHING_S = 60.0
"""How long one table's missing rows, or rows that differ, are asked for."""

MAX_SENTENCES = 200


@dataclass(slots=True)
class _Case:
    """One session's comparison, as far as it has come."""

    session: str
    archive: Archive
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def compare(self) -> None:
        """Compare with what is stored now."""
        holdings = self.archive.holdings()
        claimed = {claim.key for claim in self.claims if claim.is_exact}
        keys = {holding.key for holding in holdings} | {claim.key for claim in self.claims}
        self.lines = judge(self.claims, holdings, {key: self._reason(key) for key in keys - claimed})

    def _reason(self, key: LedgerKey) -> str:
        """Say why nobody can say exactly what was sent."""
        if not key.source:
            return "whoever sent it numbers nothing, as original peers do"
        account = self.accounts.get(key.agent, {})
        if "error" in account:
            return f"no account from {key.agent}"
        if "claims" not in account:
            return f"{key.agent} keeps no account"
        if key.kind is Kind.TABLE:
            return f"{key.agent}'s record of them is gone, or has gaps"
        known = account.get("lives", {}).get(key.life)
        if known is None:
            return f"{key.agent} has no record of its life {key.life[:8]}"
        return f"that life of {key.agent} ({key.life[:8]}) ended without a word; whether it had more is not known"


class Coherence:
    """Compares sessions; any thread.

    Args:
        node: the Terminal's.
        sessions: where what is stored is found.
    """

    def __init__(self, node: Net_Node, sessions: Sessions) -> None:
        self._node = node
        self._sessions = sessions

    def certify(self, session: str) -> dict[str, Any]:
        """Compare a session, fetch what is missing, and keep the certificate in the session.

        Args:
            session: an open session's name.

        Returns:
            The certificate; see docs/reference/messages.md, END.

        Raises:
            StoreError: it can't be read, or the certificate can't be kept.
        """
        case = _Case(session, self._sessions.archive(session))
        self._ask_until_settled(case)
        self._fetch_missing(case)
        self._name_different(case)
        certificate = _certificate(case)
        case.archive.add_fact("certificate", certificate).result(COHERE_TIMEOUT_S)
        return certificate

    def _ask_until_settled(self, case: _Case) -> None:
        deadline = time.monotonic() + CATCH_UP_S
        agents = self._agents(case)
        while True:
            self._ask(case, agents)
            case.compare()
            is_on_its_way = any(account.get("unsettled") for account in case.accounts.values())
            if (
                not (is_on_its_way and any(line.missing for line in case.lines))
                or time.monotonic() > deadline
            ):
                return

    def _ask(self, case: _Case, agents: Iterable[str]) -> None:
        receipts = {agent: self._node.send(agent, "COHERE", {"session": case.session}) for agent in agents}
        deadline = time.monotonic() + COHERE_TIMEOUT_S
        case.claims = []
        for agent, receipt in receipts.items():
            try:
                account = dict(receipt.result(max(0.0, deadline - time.monotonic())) or {})
                case.claims += claims_from_wire(account.get("claims", []))
            except (DeliveryError, TimeoutError, PilotageError) as error:
                account = {"error": str(error)}
            case.accounts[agent] = account

    def _agents(self, case: _Case) -> list[str]:
        """Give who took part: who was asked to, and whose data are here."""
        stored = {holding.key.agent for holding in case.archive.holdings()}
        return sorted({*self._sessions.agents(case.session), *stored, *_lives_of(case.archive)} - {""})

    def _fetch_missing(self, case: _Case) -> None:
        missing = {
            line.key: line.missing for line in case.lines if line.missing and line.key.kind is Kind.TABLE
        }
        reasons = {key: self._fetch(case.session, key, ranges) for key, ranges in missing.items()}
        if not missing:
            return
        case.compare()
        for line in case.lines:
            if line.key in missing:
                line.fetched = subtract(missing[line.key], line.missing)
                line.reason = reasons[line.key] if line.missing else line.reason

    def _fetch(self, session: str, key: LedgerKey, missing: Ranges) -> str:
        """Have rows sent again; say why it did not work for those that don't come."""
        deadline = time.monotonic() + FETCHING_S
        gone = 0
        for part in cut(missing, MAX_ROWS):
            try:
                answer = self._ask_rows(session, key, part, deadline)
                gone += size(ranges_from_wire(answer.get("gone")))
            except (DeliveryError, TimeoutError, PilotageError) as error:
                return f"they could not be fetched: {error}"
        return (
            f"{key.agent} has no record of them any more"
            if gone
            else f"{key.agent} sent them again, to no avail"
        )

    def _ask_rows(
        self, session: str, key: LedgerKey, ranges: Ranges, deadline: float, *, digests: bool = False
    ) -> dict[str, Any]:
        asked = {
            "session": session,
            "pilot": key.pilot,
            "table": key.name,
            "ranges": [list(pair) for pair in ranges],
        }
        receipt = self._node.send(key.agent, "FETCH", {**asked, "digests": True} if digests else asked)
        return dict(receipt.result(min(FETCH_TIMEOUT_S, max(0.0, deadline - time.monotonic()))) or {})

    def _name_different(self, case: _Case) -> None:
        """Find out which rows differ, where the sums of their digests do, or can't be compared."""
        claims = {claim.key: claim for claim in case.claims}
        for line in case.lines:
            if line.key.kind is Kind.TABLE and line.key in claims and line.digest is not Digests.EQUAL:
                both = subtract(claims[line.key].numbers, line.missing)
                try:
                    self._compare_rows(case, line, both)
                except (DeliveryError, TimeoutError, PilotageError) as error:
                    line.reason = line.reason or f"which rows can't be told: {error}"

    def _compare_rows(self, case: _Case, line: Line, numbers: Ranges) -> None:
        deadline = time.monotonic() + FETCHING_S
        different: list[int] = []
        compared = 0
        for part in cut(numbers, MAX_DIGESTS):
            answer = self._ask_rows(case.session, line.key, part, deadline, digests=True)
            theirs = {int(number): str(digest) for number, digest in answer.get("digests", [])}
            ours: dict[int, str] = {}
            for first, last in part:
                ours |= case.archive.row_digests(line.key.pilot, line.key.source, first, last)
            both = sorted(ours.keys() & theirs.keys())
            compared += len(both)
            different += [number for number in both if ours[number] != theirs[number]]
        line.different = ranges_of(different)
        if different:
            line.digest = Digests.DIFFERENT
        elif compared == size(numbers):
            line.digest = Digests.EQUAL
        else:
            line.reason = (
                line.reason
                or f"{line.key.agent} has no record any more of {size(numbers) - compared} of them"
            )


def _lives_of(archive: Archive) -> dict[str, set[str]]:
    """Give the lives in which agents began tasks, as the session's facts tell."""
    lives: dict[str, set[str]] = {}
    for key, fact in archive.facts().items():
        agent = key.removeprefix("task:").rpartition(":")[0]
        if key.startswith("task:") and agent:
            runs = fact.get("runs") if isinstance(fact, dict) else None
            life = runs.get("life") if isinstance(runs, dict) else None
            lives.setdefault(agent, set()).update({str(life)} if life else ())
    return lives


def _forgotten(case: _Case) -> Iterable[str]:
    """Name lives of which their agent knows nothing any more: nobody can say what they had sent."""
    for agent, lives in sorted(_lives_of(case.archive).items()):
        account = case.accounts.get(agent, {})
        for life in sorted(lives - set(account.get("lives", {}))) if "claims" in account else ():
            yield f"{agent} was started anew and has no record of its life {life[:8]}: what that had sent is not known"


def _certificate(case: _Case) -> dict[str, Any]:
    unheard = [agent for agent, account in case.accounts.items() if "error" in account]
    mute = [
        f"{agent} keeps no account of what it sends"
        for agent, account in case.accounts.items()
        if "error" not in account and "claims" not in account
    ]
    wrong = [line for line in case.lines if line.verdict in (Verdict.MISSING, Verdict.DIFFERENT)]
    open_ones = [line for line in case.lines if line.verdict is Verdict.UNJUDGED]
    forgotten = list(_forgotten(case))
    unjudged = [*_said(open_ones), *mute, *forgotten]
    return {
        "session": case.session,
        "complete": not (wrong or unjudged or unheard),
        "rows_complete": not (unheard or mute or forgotten)
        and all(line.verdict is Verdict.COMPLETE for line in case.lines if line.key.kind is Kind.TABLE),
        "lines": [line.as_plain() for line in case.lines],
        "differences": _bounded(_said(wrong)),
        "fetched": [
            f"{say(line.entry, line.fetched)} of {line.what} {'was' if size(line.fetched) == 1 else 'were'} "
            f"missing, and fetched from {line.key.agent}"
            for line in case.lines
            if line.fetched
        ],
        "unjudged": _bounded(unjudged),
        "unheard": unheard,
        "accounts": case.accounts,
        "compared": time.time(),
    }


def _said(lines: Iterable[Line]) -> list[str]:
    return [text for line in lines for text in line.sentences()]


def _bounded(sentences: list[str]) -> list[str]:
    more = len(sentences) - MAX_SENTENCES
    return sentences if more <= 0 else [*sentences[:MAX_SENTENCES], f"and {more} more"]


def unsaid(certificate: Mapping[str, Any]) -> list[str]:
    """Give everything that keeps a certificate from saying complete, in words.

    Args:
        certificate: one of this version or an earlier one.
    """
    unheard = [
        f"no account from {agent}: {_why(certificate, agent)}" for agent in certificate.get("unheard", ())
    ]
    unjudged = [text for text in certificate.get("unjudged", ()) if isinstance(text, str)]
    return [*certificate.get("differences", ()), *unheard, *unjudged]


def _why(certificate: Mapping[str, Any], agent: str) -> str:
    return str(certificate.get("accounts", {}).get(agent, {}).get("error", "it said nothing"))
