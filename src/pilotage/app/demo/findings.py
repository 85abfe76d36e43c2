"""What the check found, for one stream or table after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

MAX_FAULTS = 20
"""Faults of one row that are named; the rest is counted."""


@dataclass(slots=True)
class Finding:
    """One row of the table.

    Attributes:
        pilot: under whose name it is stored.
        agent: who sent it.
        what: "trials", "sounds", or the stream's name.
        sent: messages of trials, or items, that were sent.
        stored: those that were found again.
        missing: those that were not.
        resent: messages that were sent more than once; None where that isn't counted.
        latency_p50_s: median from a send to the news that it is stored, in seconds.
        latency_p99_s: its 99th percentile.
        place: where the data lie, relative to the demo's folder.
        compared: with what they were compared.
        faults: everything that differs; empty if nothing does.
    """

    pilot: str
    agent: str
    what: str
    sent: int = 0
    stored: int = 0
    missing: int = 0
    resent: int | None = None
    latency_p50_s: float | None = None
    latency_p99_s: float | None = None
    place: str = ""
    compared: str = ""
    faults: list[str] = field(default_factory=list)
    more_faults: int = 0

    def blame(self, text: str) -> None:
        """Note something that differs."""
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(f"{self.pilot} {self.what}: {text}")
        else:
            self.more_faults += 1


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, what is wrong beyond single rows, and the session's certificate."""

    findings: Sequence[Finding]
    faults: Sequence[str]
    certificate: Mapping[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Tell whether nothing is missing and nothing differs."""
        return not self.all_faults()

    def all_faults(self) -> list[str]:
        """Give everything that differs, in words."""
        named = [text for finding in self.findings for text in finding.faults]
        rest = [
            f"{finding.pilot} {finding.what}: and {finding.more_faults} more"
            for finding in self.findings
            if finding.more_faults
        ]
        return [*self.faults, *named, *rest]

    def as_plain(self) -> dict[str, Any]:
        """Give it as plain data."""
        return {
            "complete": self.complete,
            "faults": self.all_faults(),
            "rows": [asdict(finding) for finding in self.findings],
            "certificate": dict(self.certificate) or None,
        }
