"""One object of the original, driven by JSON lines: run it with the interpreter that `make_venv.py` prints.

The first line on standard input opens it, each further line is one request, and each gets one line on
standard output; the end of standard input closes it. `objects.py` says how requests reach the original.

    {"op": "open", "role": "node" | "station" | "terminal" | "pilot", "prefs": {…}, "listens": ["KEY", …],
     "options": {constructor arguments}}
    {"op": "send" | "push", "to": …, "key": …, "values": […], and if wanted
     "repeat": …, "flags": {…}, "force_to": …, "blosc": …}
    {"op": "open_stream", "name": …, "options": {get_stream arguments}}
    {"op": "put_stream", "name": …, "items": […]}
    {"op": "received", "since": 0}      {"op": "state"}      {"op": "set", "name": …, "value": …}

Its home must be a scratch folder (the harness sees to that): the original writes logs there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Without it the original keeps its preferences in one more process, which outlives a crash.
os.environ["AUTOPILOT_NO_PREFS_MANAGER"] = "1"

from autopilot import prefs
from autopilot.networking import Net_Node
from objects import STATIONS, Recorder, Request, Requests, ignore


def open_station(request: Request) -> tuple[Callable[[Request], dict[str, Any]], Callable[[], None]]:
    """Start a Station's process and return how to ask it and how to end it."""
    station = STATIONS[request["role"]](**request["options"])
    station.listens.update(dict.fromkeys(request["listens"], ignore))
    station.attach(Recorder())
    station.start()

    def close() -> None:
        station.release()
        station.join(5)

    return station.answer, close


def open_node(request: Request) -> tuple[Callable[[Request], dict[str, Any]], Callable[[], None]]:
    """Make a Net_Node and return how to ask it and how to end it."""
    recorder = Recorder()
    node = Net_Node(
        listens={key: recorder.wrap(key, ignore) for key in request["listens"]}, **request["options"]
    )
    node.listens["CONFIRM"] = recorder.wrap("CONFIRM", node.l_confirm)
    return Requests(node, recorder).answer, node.release


def take_over_stdout() -> Any:
    """Keep standard output for answers: the original logs there, and now logs to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return answers


def main() -> None:
    """Open what the first line asks for, then answer until standard input ends."""
    answers = take_over_stdout()
    request = json.loads(sys.stdin.readline())
    home = Path.home() / "autopilot"
    prefs.init({"BASEDIR": str(home), "LOGDIR": str(home / "logs"), **request["prefs"]})
    answer, close = (open_node if request["role"] == "node" else open_station)(request)
    answers.write(json.dumps(answer({"op": "state"})) + "\n")
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
    close()
    answers.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
