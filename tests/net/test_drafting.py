"""What a message of ours holds before it is one."""

from __future__ import annotations

from datetime import datetime

import pytest

from pilotage.net.drafting import Drafting, message_of
from pilotage.protocol.bodies import decode_body, encode_value
from pilotage.protocol.message import Message


@pytest.mark.parametrize("made_at", [datetime(2026, 3, 1, 23, 52, 16, 42), datetime(2026, 11, 27)])
def test_what_is_sent_is_the_message_that_its_sender_is_shown(
    monkeypatch: pytest.MonkeyPatch, made_at: datetime
) -> None:
    monkeypatch.setattr("pilotage.net.drafting._now", lambda: made_at)
    draft = Drafting("rig").draft("T", "KEY", {"x": [1, None]}, repeat=False, flags={"NOLOG": True})
    body, _ = encode_value(draft)
    shown, read = message_of("KEY", draft), decode_body("KEY", body)
    assert shown.__dict__ == read.__dict__
    assert shown.timestamp == made_at.isoformat(), "as the original writes it"
    assert (shown.id, shown.flags) == ("rig_0", {"NOLOG": True, "NOREPEAT": True})


def test_flags_that_somebody_changes_are_their_message_s_alone() -> None:
    drafting = Drafting("rig")
    first, second = (drafting.draft("T", "KEY", None, repeat=True, flags=None) for _ in range(2))
    message_of("KEY", first).flags["NOREPEAT"] = True
    assert message_of("KEY", second).flags == {} == Message(key="KEY").flags
