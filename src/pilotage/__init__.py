"""Messages, trial data and streams for experiments that run on many small computers.

Everything a user needs imports from here. Names are loaded when they are first asked for, so that a command that
needs few of them starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pilotage.net.listens import on_loop, passes_on, takes_batches, takes_many
    from pilotage.net.node import Net_Node
    from pilotage.net.pilot_station import Pilot_Station
    from pilotage.net.prefs import prefs
    from pilotage.net.receipt import Receipt
    from pilotage.net.station import Station
    from pilotage.net.terminal_station import Terminal_Station
    from pilotage.protocol.arrays import serialize_array
    from pilotage.protocol.errors import PilotageError
    from pilotage.protocol.message import Flag, Message
    from pilotage.protocol.settlement import Outcome, Reason, Settlement

_HOMES = {
    "Flag": "protocol.message",
    "Message": "protocol.message",
    "Net_Node": "net.node",
    "Outcome": "protocol.settlement",
    "PilotageError": "protocol.errors",
    "Pilot_Station": "net.pilot_station",
    "Reason": "protocol.settlement",
    "Receipt": "net.receipt",
    "Settlement": "protocol.settlement",
    "Station": "net.station",
    "Terminal_Station": "net.terminal_station",
    "on_loop": "net.listens",
    "passes_on": "net.listens",
    "prefs": "net.prefs",
    "serialize_array": "protocol.arrays",
    "takes_batches": "net.listens",
    "takes_many": "net.listens",
}

__all__ = [
    "Flag",
    "Message",
    "Net_Node",
    "Outcome",
    "Pilot_Station",
    "PilotageError",
    "Reason",
    "Receipt",
    "Settlement",
    "Station",
    "Terminal_Station",
    "on_loop",
    "passes_on",
    "prefs",
    "serialize_array",
    "takes_batches",
    "takes_many",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its home, once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pilotage' has no attribute {name!r}")
    found = getattr(import_module(f"pilotage.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
