"""The check: everything in the store against its source, bit for bit.

Law: it reads what lies on the disk and believes no count of others: videos are decoded again, signals read again, the
store's arrays digested again. What it can't read is a fault like what differs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pilotage.agents.account import TRIALS, marks_from_wire
from pilotage.agents.coherence import unsaid
from pilotage.agents.record import read_record
from pilotage.app.demo.findings import Finding, Report
from pilotage.app.demo.layout import CAMERA, CHUNK_SAMPLES, RIG_A, RIG_B, TERMINAL, Plan, load_plan, sound_dir
from pilotage.app.demo.sources import Source, frames_of, samples_of, tail_of, whole_samples
from pilotage.app.sessions import CERTIFICATE
from pilotage.protocol.canonical import canonical
from pilotage.protocol.coverage import claims_from_wire
from pilotage.protocol.errors import MachineError, PilotageError
from pilotage.protocol.ledger import Kind, Ledger, LedgerKey, Mark, compare
from pilotage.services.store import SessionReader

TAIL = "ecg_tail"
INDEX_OF = {"camera": "camera.frame_index", "ecg": "ecg.sample_index", TAIL: f"{TAIL}.sample_index"}
Row = tuple[str, str, int]


def check(folder: Path) -> Report:
    """Compare everything that a demo stored with its sources.

    Args:
        folder: the demo's, or a copy of it.

    Returns:
        What was compared, and what differs.

    Raises:
        PilotageError: there is no demo in the folder, or no session in it that could be read.
    """
    plan = load_plan(folder)
    if not plan.session:
        raise MachineError(f"the demo in {folder} did not come to its end: there is nothing to check")
    with SessionReader(folder / plan.session) as reader:
        return _Check(folder, plan, reader).report()


class _Check:
    def __init__(self, folder: Path, plan: Plan, reader: SessionReader) -> None:
        self._folder = folder
        self._plan = plan
        self._reader = reader
        self._faults: list[str] = []
        self._records = {agent: self._record(agent) for agent in (RIG_A, CAMERA, RIG_B)}
        self._certificate: Mapping[str, Any] = reader.provenance().get(CERTIFICATE) or {}
        self._check_certificate()

    def report(self) -> Report:
        findings = [self._sounds(), *self._trials()]
        marks = [key for agent in self._records for key in self._marks(agent)]
        sent = {(key.pilot, key.name) for key in marks if key.kind is Kind.STREAM}
        stored = {(info.pilot, info.name) for info in self._reader.streams()}
        findings += [self._stream(pilot, name) for pilot, name in sorted(sent | stored)]
        return Report(findings, self._faults, self._certificate)

    # What the agents say

    def _record(self, agent: str) -> list[dict[str, Any]]:
        place = self._plan.records.get(agent)
        if place is None:
            self._faults.append(f"{agent} gave no account of what it sent")
            return []
        try:
            return list(read_record(self._folder / place))
        except PilotageError as error:
            self._faults.append(str(error))
            return []

    def _marks(self, agent: str) -> dict[LedgerKey, Mark]:
        """Give what an agent wrote down at the end of its last task; its counts go on through the session."""
        ends = [line for line in self._records[agent] if line.get("what") == "end"]
        return marks_from_wire(ends[-1].get("marks", [])) if ends else {}

    def _check_certificate(self) -> None:
        if not self._certificate:
            self._faults.append("the session has no certificate: it was not ended")
            return
        self._faults += [f"certificate: {text}" for text in unsaid(self._certificate)]
        for agent in self._records:
            told = {
                claim.key: claim.mark for claim in claims_from_wire(self._account(agent).get("claims", []))
            }
            for difference in compare(self._marks(agent), told):
                self._faults.append(
                    f"{agent}'s own record and its account to the Terminal differ: {difference}"
                )

    def _account(self, agent: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._certificate.get("accounts", {}).get(agent, {})
        return found

    def _measured(self, finding: Finding, channel: str) -> Finding:
        fared = self._account(finding.agent).get("channels", {}).get(channel, {})
        finding.resent = fared.get("resent")
        finding.latency_p50_s, finding.latency_p99_s = fared.get("latency_p50_s"), fared.get("latency_p99_s")
        return finding

    # Files

    def _sounds(self) -> Finding:
        paths = [path for side in self._plan.sounds.values() for path in side]
        finding = Finding(RIG_A, TERMINAL, "sounds", sent=len(paths), compared="the Terminal's files")
        finding.place = f"{RIG_A}/sounds"
        for path in paths:
            source, copy = (sound_dir(self._folder, agent) / path for agent in (TERMINAL, RIG_A))
            if not copy.is_file():
                finding.missing += 1
                finding.blame(f"{path} was not fetched")
            elif copy.read_bytes() != source.read_bytes():
                finding.blame(f"{path} differs from the Terminal's")
            else:
                finding.stored += 1
        return finding

    # Trials

    def _trials(self) -> list[Finding]:
        lines = [line for line in self._records[RIG_A] if line.get("what") == "trial"]
        place = f"{self._plan.session}/session.sqlite"
        merged = Finding(RIG_A, RIG_A, "trials", compared=f"{RIG_A}'s own record", place=place)
        self._compare_merged(merged, lines)
        single = Finding(RIG_A, RIG_A, "trial messages", compared=f"{RIG_A}'s own record", place=place)
        self._compare_messages(single, lines)
        return [merged, self._measured(single, TRIALS)]

    def _compare_messages(self, finding: Finding, lines: Sequence[Mapping[str, Any]]) -> None:
        """Compare the messages as they came, in their order."""
        table = self._reader.messages(RIG_A)
        kept = list(zip(table["subject"], table["trial_num"], table["values"], strict=True))
        stored = [((RIG_A, subject, int(trial)), canonical(values)) for subject, trial, values in kept]
        sent = [
            ((line["pilot"], line["subject"], line["trial_num"]), canonical(line["values"])) for line in lines
        ]
        finding.sent, finding.stored = len(sent), len(stored)
        _compare_rows(finding, sent, stored)
        ledger = Ledger()
        for number, (subject, trial, values) in zip(table["row_num"], kept, strict=True):
            ledger.add(RIG_A, TRIALS, [subject, int(trial), values], int(number), RIG_A)
        self._compare_marks(finding, LedgerKey(RIG_A, Kind.TABLE, TRIALS, RIG_A), ledger)

    def _compare_merged(self, finding: Finding, lines: Sequence[Mapping[str, Any]]) -> None:
        """Compare the merged table: a row for each trial, with all of its parts."""
        expected: dict[int, dict[str, Any]] = {}
        for line in lines:
            expected.setdefault(line["trial_num"], {}).update(line["values"])
        table = {int(row["trial_num"]): row for row in self._reader.trials().to_dict("records")}
        finding.sent, finding.stored = len(expected), len(table)
        for number in sorted(table.keys() - expected.keys()):
            finding.blame(f"trial {number} is in the table, and was not run")
        for number, columns in expected.items():
            if number not in table:
                finding.missing += 1
                finding.blame(f"trial {number} was run and is not in the table")
                continue
            is_complete = columns.pop("TRIAL_END", None) is not None
            row = table[number]
            wrong = [name for name, value in columns.items() if not _is_same(row.get(name), value)]
            wrong += ["complete"] * (bool(row["complete"]) is not is_complete)
            if wrong:
                finding.blame(f"trial {number}: {', '.join(wrong)} differs from the record")

    # Streams

    def _stream(self, pilot: str, name: str) -> Finding:
        """Compare a stream; in a demo each agent has but one life."""
        wanted = (pilot, Kind.STREAM, name)
        marks = {each: mark for agent in self._records for each, mark in self._marks(agent).items()}
        key = next((each for each in marks if each[:3] == wanted), LedgerKey(*wanted))
        sent = marks[key].count if key in marks else 0
        finding = Finding(pilot, key.agent or "?", name, sent=sent, compared="digest of what was sent")
        finding.place = f"{self._plan.session}/streams.zarr"
        try:
            self._compare_stream(finding, key)
        except PilotageError as error:
            finding.blame(str(error))
        finding.missing = max(0, finding.sent - finding.stored)
        return self._measured(finding, key.name)

    def _compare_stream(self, finding: Finding, key: LedgerKey) -> None:
        source = self._source(finding)
        ledger = Ledger()
        for segment in self._segments(key):
            for chunk in self._reader.stream_chunks(key.pilot, key.name, segment):
                stamps = chunk.coords["timestamp"].to_numpy()
                items = chunk.to_numpy()
                ledger.add_items(key.pilot, key.name, stamps, items, key.source)
                if source is not None:
                    for item in items:
                        source.compare(item, finding)
                finding.stored += len(items)
        if source is not None:
            source.finish(finding)
        self._compare_marks(finding, key, ledger)
        self._compare_marks(finding, key._replace(kind=Kind.TIMESTAMP), ledger)

    def _segments(self, key: LedgerKey) -> list[int]:
        streams = self._reader.streams()
        return [info.segment for info in streams if (info.pilot, info.name) == (key.pilot, key.name)]

    def _source(self, finding: Finding) -> Source | None:
        """Give what a stream's items must be equal to, in order."""
        index_name = INDEX_OF.get(finding.what)
        if index_name is None or finding.agent not in (CAMERA, RIG_B):
            return None
        key = LedgerKey(finding.pilot, Kind.STREAM, index_name)
        indices = [
            int(index)
            for segment in self._segments(key)
            for chunk in self._reader.stream_chunks(key.pilot, index_name, segment)
            for index in chunk.to_numpy()
        ]
        runs = sum(line.get("what") == "start" for line in self._records[finding.agent])
        if finding.agent == CAMERA:
            finding.compared = f"{self._plan.video}, decoded again"
            return Source(frames_of(sound_dir(self._folder, CAMERA) / self._plan.video), indices, 1, runs)
        finding.compared = f"{self._plan.signal}, read again (up to {CHUNK_SAMPLES} samples an item)"
        file = sound_dir(self._folder, RIG_B) / self._plan.signal
        if finding.what == TAIL:
            first = whole_samples(file, self._plan.column)
            return Source(tail_of(file, self._plan.column), indices, 1, runs, first)
        return Source(samples_of(file, self._plan.column), indices, CHUNK_SAMPLES, runs)

    def _compare_marks(self, finding: Finding, key: LedgerKey, ledger: Ledger) -> None:
        """Compare what was read from the disk now with what the sender noted, in the order of sending."""
        ours = {each: mark for each, mark in ledger.marks().items() if each == key}
        marks = self._marks(finding.agent) if finding.agent in self._records else {}
        theirs = {each: mark for each, mark in marks.items() if each == key}
        for difference in compare(ours, theirs):
            finding.blame(f"what lies on the disk is not what was sent: {difference}")


def _compare_rows(
    finding: Finding, sent: Iterable[tuple[Row, bytes]], stored: Iterable[tuple[Row, bytes]]
) -> None:
    sent, stored = list(sent), list(stored)
    missing, surplus = Counter(sent) - Counter(stored), Counter(stored) - Counter(sent)
    finding.missing = missing.total()
    for (_, subject, trial), _ in missing.elements():
        finding.blame(f"a message of trial {trial} of {subject} was sent and is not in the store")
    for (_, subject, trial), _ in surplus.elements():
        finding.blame(f"a message of trial {trial} of {subject} is in the store and was not sent so")
    if not missing and not surplus and sent != stored:
        finding.blame("the messages are in another order than they were sent in")


def _is_same(found: object, value: object) -> bool:
    """Compare a cell of a data frame, which shows None as NaN in a column of numbers."""
    if value is None:
        return found is None or found != found  # noqa: PLR0124 - NaN alone differs from itself
    return bool(found == value)
