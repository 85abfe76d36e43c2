"""Operator: whoever asks a running Terminal for something, from the same computer or another.

Law: each question ends, in an answer or an error; nobody waits for a Terminal that isn't there.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Mapping
from typing import Any, Self

from pilotage.net.keys import KeyFolder
from pilotage.net.node import Net_Node
from pilotage.net.pref_keys import TERMINAL_ID, Prefs
from pilotage.net.security import Security
from pilotage.protocol.errors import Expired, InvalidPref, Refused

ANSWER_TIMEOUT_S = 2.5
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 75.0
CHANGE_TIMEOUT_S = 20.0
END_TIMEOUT_S = 120.0
LOOK_S = 0.2
RELEASE_S = 1.0


class Operator:
    """A short-lived node that asks the Terminal. For one thread.

    Args:
        settings: TERMINALIP and PUSHPORT (or TERMINALPORT) say where the Terminal is.
        timeout_s: how long the Terminal may take to answer at first.

    Raises:
        InvalidPref: the port is 0.
        InvalidKey: a file of our keys can't be used.
        Refused: the Terminal there wants a key that we don't have, or speaks in clear.
        Expired: no Terminal answers there.
    """

    def __init__(self, settings: Prefs, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self.host, self.port = settings.terminalip, settings.terminal_listen_port
        if not self.port:
            raise InvalidPref("PUSHPORT is 0, which can only be listened on: name the Terminal's port")
        self._answer_s = timeout_s
        security = Security.of(settings)
        name = f"{_owner(settings, security)}cli_{os.getpid()}_{secrets.token_hex(4)}"
        node_log = logging.getLogger(f"pilotage.node.{name}")
        if not node_log.isEnabledFor(logging.INFO):
            # Whoever asks is told of a refusal by an error; once is enough.
            node_log.setLevel(logging.ERROR)
        self._node = Net_Node(name, TERMINAL_ID, self.port, {}, upstream_ip=self.host, security=security)
        try:
            self._node.wait_connected(timeout_s)
        except TimeoutError as error:
            locked = self._node.locked_out
            self._node.release(RELEASE_S)
            if locked:
                raise Refused(locked) from error
            raise Expired(
                f"no Terminal answers at {self.host}:{self.port}; start one with `pilotage terminal`, "
                "or say where it is with --at HOST:PORT"
            ) from error
        except BaseException:
            self._node.release(RELEASE_S)
            raise

    def close(self) -> None:
        """Let go of the connection."""
        self._node.release(RELEASE_S)

    def __enter__(self) -> Self:
        """Use it as a context that closes it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def pilots(self) -> dict[str, dict[str, Any]]:
        """Give all pilots by name, with what is known of each.

        Raises:
            Expired: the Terminal gave no answer (this holds for every question).
            Refused: it refused; the text says why (so does this).
        """
        return dict(self._ask("PILOTS", {}, self._answer_s) or {})

    def status(self, session: str = "") -> dict[str, Any]:
        """Give what is open, and a session's facts if one is named."""
        return dict(self._ask("STATUS", {"session": session}, max(self._answer_s, 10.0)) or {})

    def start(
        self,
        pilot: str,
        task: str,
        params: Mapping[str, Any],
        subject: str = "",
        session: str = "",
        parent: str = "",
        current_trial: int | None = None,
    ) -> dict[str, Any]:
        """Start a task on a pilot; see `Terminal.start`."""
        asked = {
            "pilot": pilot,
            "task_type": task,
            "params": dict(params),
            "subject": subject,
            "session": session,
            "parent": parent,
            "current_trial": current_trial,
        }
        return dict(self._ask("RUN", asked, START_TIMEOUT_S) or {})

    def stop(self, pilot: str) -> None:
        """Stop a pilot's task and wait until it has ended."""
        self._ask("HALT", {"pilot": pilot}, STOP_TIMEOUT_S)

    def stop_all(self) -> None:
        """Stop all pilots' tasks and wait until they have ended."""
        self._ask("HALT", {}, STOP_TIMEOUT_S)

    def change(self, pilot: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Change parameters of a pilot's running task; give what they are now."""
        return dict(self._ask("SET", {"pilot": pilot, "params": dict(params)}, CHANGE_TIMEOUT_S) or {})

    def end(self, session: str = "") -> dict[str, Any]:
        """End a session, the current one if none is named; give its certificate."""
        return dict(self._ask("END", {"session": session}, END_TIMEOUT_S) or {})

    def rekey(self, public: str) -> dict[str, str]:
        """Name the key that is to follow ours; give what those said to it who push to us."""
        return dict(self._ask("REKEY", {"public": public}, STOP_TIMEOUT_S) or {})

    def _ask(self, key: str, value: Mapping[str, Any], timeout_s: float) -> Any:
        receipt = self._node.send(f"_{TERMINAL_ID}", key, dict(value))
        deadline = time.monotonic() + timeout_s
        while not receipt.is_settled:
            # In short looks, since Windows tells of a Ctrl-C only between two of them.
            try:
                receipt.wait_settled(LOOK_S)
            except TimeoutError as error:
                if time.monotonic() > deadline:
                    text = f"the Terminal at {self.host}:{self.port} gave no answer to {key} within {timeout_s:g} s"
                    raise Expired(text) from error
        return receipt.result(0)


def _owner(settings: Prefs, security: Security) -> str:
    """Give what our name has to begin with, so that a key of this machine may speak for it; "" where there is none."""
    names = [pair.name for pair in KeyFolder(security.keys).own()] if security.keys is not None else []
    likely = [name for name in (settings.name, TERMINAL_ID) if name in names]
    return f"{(likely or names)[0]}_" if names else ""
