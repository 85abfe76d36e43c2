"""A session read from its folder, by anybody, while it is written or after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pilotage.net.prefs import prefs
from pilotage.services.store import SessionReader

CERTIFICATE = "certificate"
DATABASE = "session.sqlite"


def find_session(named: str) -> Path | None:
    """Find a session's folder on this computer.

    Args:
        named: its folder, or its name below DATADIR.

    Returns:
        The folder; None if there is no such one here.
    """
    for folder in (Path(named).expanduser(), prefs.get("DATADIR") / named):
        if (folder / DATABASE).is_file():
            return folder
    return None


def read_session(folder: Path) -> dict[str, Any]:
    """Give what a session holds, in plain data.

    Raises:
        StoreError: it can't be read.
    """
    with SessionReader(folder) as reader:
        summary, facts = reader.summary(), reader.provenance()
    return {
        "session": summary.session,
        "place": str(folder),
        "pilots": list(summary.pilots),
        "trials": summary.trials,
        "complete_trials": summary.complete_trials,
        "data_messages": summary.data_messages,
        "events": summary.events,
        "states": summary.states,
        "parameters": summary.parameters,
        "streams": [
            {
                "pilot": stream.pilot,
                "name": stream.name,
                "length": stream.length,
                "form": f"{stream.dtype} {stream.item_shape}" if stream.item_shape else str(stream.dtype),
                "subject": stream.subject,
            }
            for stream in summary.streams
        ],
        "certificate": facts.get(CERTIFICATE),
        "software": facts.get("software"),
    }
