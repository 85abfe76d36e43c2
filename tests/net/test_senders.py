"""A message's sender is whoever has sent it: what its body says is compared with the way it came (promise X2)."""

from __future__ import annotations

from typing import Any

import pytest

from pilotage import Outcome, Station
from pilotage.protocol.settlement import Reason
from tests.net.conftest import MakeNode, StartStation


@pytest.mark.parametrize(
    ("said", "is_taken"), [("cam", True), ("cam_video", True), ("_cam", True), ("rig", False), ("hub", False)]
)
def test_nobody_sends_in_the_name_of_another(
    start: StartStation, node: MakeNode, said: str, is_taken: bool
) -> None:
    station: Any = start(Station(id="hub", listen_port=0))
    cam = node("cam", station)
    message = cam.prepare_message("hub", "CONFIRM", "rig_1")
    message.sender = said
    settlement = cam.send(msg=message).wait_settled(10)
    assert (settlement.outcome is Outcome.DELIVERED) is is_taken
    if not is_taken:
        assert settlement.reason is Reason.LISTEN_FAILED
        assert "can't send in the name of" in settlement.text
