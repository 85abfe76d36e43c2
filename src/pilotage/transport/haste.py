"""The interpreter, of which threads take turns: who computes lets go of it only after the switch interval, 5 ms.

A loop that has a message to send must not wait so long. Until it has the interpreter, the interval is shorter.
Law of this room: the interval is the user's; he has it back as it was, unless he has changed it meanwhile.
"""

from __future__ import annotations

import sys

HASTE_S = 0.0002
"""How long a thread keeps the interpreter at most, while another one is in haste."""

_usual_s: list[float] = []


def hasten() -> None:
    """Have the next thread that wants the interpreter get it soon. Any thread, before it wakes the other one."""
    usual_s = sys.getswitchinterval()
    if usual_s > HASTE_S:
        sys.setswitchinterval(HASTE_S)
        _usual_s.append(usual_s)


def calm_down() -> None:
    """Have everything as it was. Any thread, which has the interpreter."""
    while _usual_s:
        usual_s = _usual_s.pop()
        if round(sys.getswitchinterval() / HASTE_S, 3) == 1:
            sys.setswitchinterval(usual_s)
