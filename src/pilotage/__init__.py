"""Messages, trial data and streams for experiments that run on many small computers."""

from pilotage.net.listens import on_loop, passes_on, takes_batches
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
]
