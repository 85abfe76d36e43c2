"""The interpreter, of which threads take turns: who computes lets go of it only after the switch interval, 5 ms.

A loop that has a message to send must not wait so long. Until the turn is over that sends it, the interval is shorter.
Laws of this room: the interval is the user's; he has it back as it was, unless he has changed it meanwhile. Whatever
comes between, whoever calms down next mends it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

HASTE_S = 211e-6
"""How long a thread keeps the interpreter at most, while another one is in haste. Nobody else has just that value."""
ROUNDED_S = 2e-6
"""Python keeps whole microseconds."""
AGAIN_AFTER_S = 0.005
"""Who sends again sooner has computed for less than the interval usually is; who waits for answers pays nothing."""


class Interval:
    """The switch interval of this process.

    Args:
        get: tells what it is, in seconds.
        put: changes it.

    Attributes:
        next_at: before that nobody need be in haste again.
        is_short: it was made so, and nobody has calmed down since.
    """

    def __init__(self, get: Callable[[], float], put: Callable[[float], None]) -> None:
        self._get = get
        self._put = put
        self._usual_s = get()
        self.next_at = 0.0
        self.is_short = False

    def hasten(self) -> None:
        """Have the next thread that wants the interpreter get it soon. Any thread, before it wakes the other one."""
        usual_s = self._get()
        if usual_s > HASTE_S + ROUNDED_S:
            self._usual_s = usual_s  # first: whoever is interrupted here has changed nothing
            self._put(HASTE_S)
            self.is_short = True

    def calm_down(self) -> None:
        """Have everything as it was. Any thread, which has the interpreter."""
        self.is_short = False
        if -ROUNDED_S < self._get() - HASTE_S < ROUNDED_S:
            self._put(self._usual_s)


interval = Interval(sys.getswitchinterval, sys.setswitchinterval)
"""That of this process."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=interval.calm_down)
