"""What a log shows of a peer's words: one line, what can be seen, and not too much of it."""

from __future__ import annotations

import logging

import pytest

from pilotage.net.notes import TEXT_CHARS, NoteLog, shown
from pilotage.protocol.instructions import Level, Note


def test_a_peer_writes_no_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    hostile = "from rig\n2026-11-25 CRITICAL all is lost\x1b[2J\u202e\ud800"
    with caplog.at_level(logging.WARNING):
        NoteLog(logging.getLogger("t")).write(Note(Level.WARNING, hostile))
    (record,) = caplog.records
    text = record.getMessage()
    assert text.isprintable() and text.startswith("from rig\\n2026") and "\\x1b[2J\\u202e\\ud800" in text


def test_a_long_text_is_cut() -> None:
    assert len(shown("x" * 10**6)) < TEXT_CHARS + 30
    assert shown("häufig 音") == "häufig 音"
