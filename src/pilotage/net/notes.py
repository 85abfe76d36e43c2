"""What a messenger says in its log, at a bounded rate: a flood of bad frames must not become a flood of text."""

from __future__ import annotations

import logging
import time
from collections import Counter

from pilotage.protocol.instructions import Level, Note, PeerChanged, PeerState
from pilotage.protocol.message import Flag, Message
from pilotage.protocol.settlement import Outcome, Settlement

LINES_A_SECOND = 20
VALUE_CHARS = 200
TEXT_CHARS = 1000
GIST_ITEMS, GIST_CHARS = 30, 200
SAME_AGAIN_S = 10.0
MAX_REMEMBERED = 200


class NoteLog:
    """A logger with a budget of lines; what goes beyond it is counted and told once a second.

    Args:
        logger: where the lines go.

    Attributes:
        counts: lines that were withheld.
        tells_all: the log wants every message.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.counts: Counter[str] = Counter()
        self.tells_all = logger.isEnabledFor(Level.DEBUG)
        self._logger = logger
        self._second = 0.0
        self._lines = 0
        self._withheld = 0
        self._said: dict[str, float] = {}

    def write(self, note: Note) -> None:
        """Log a note of the core."""
        self._write(int(note.level), note.text)

    def peer(self, change: PeerChanged) -> None:
        """Log that a neighbour came, went or fell silent."""
        is_news = change.state is PeerState.SUSPECT or change.text.startswith("silent")
        level = Level.WARNING if is_news else Level.INFO
        self._write(int(level), f"{change.name} is {change.state}{': ' if change.text else ''}{change.text}")

    def failed(self, message: Message, settlement: Settlement) -> None:
        """Log a send that was not delivered; quietly, where nobody asked for a confirmation."""
        quiet = Flag.NOREPEAT in message.flags and settlement.outcome is Outcome.EXPIRED
        reason = f" ({settlement.reason})" if settlement.reason else ""
        text = f"{message.key} to {message.to} {settlement.outcome}{reason}: {settlement.text}"
        self._write(int(Level.DEBUG if quiet else Level.WARNING), text)

    def listen_failed(self, name: str, key: str, error: BaseException) -> None:
        """Log the error that a listen has raised, with its traceback."""
        self._logger.error("the listen for %s of %s failed", shown(key), name, exc_info=error)

    def passing(self, what: str, message: Message) -> None:
        """Log a message at level DEBUG: not at all with NOLOG, without its value with MINPRINT."""
        flags = message.flags
        if Flag.NOLOG in flags:
            return
        value = "" if Flag.MINPRINT in flags else f" {message.value!r:.{VALUE_CHARS}}"
        self._logger.debug("%s: %r%s", what, message, value)

    def _write(self, level: int, text: str) -> None:
        if not self._logger.isEnabledFor(level):
            return
        text = shown(text)
        now = time.monotonic()
        if now - self._said.get(text, -SAME_AGAIN_S) < SAME_AGAIN_S:
            self.counts["log lines withheld"] += 1
            return
        if len(self._said) >= MAX_REMEMBERED:
            self._said.clear()
        self._said[text] = now
        if now - self._second >= 1.0:
            if self._withheld:
                self._logger.warning("%d more lines like these were not written", self._withheld)
            self._second, self._lines, self._withheld = now, 0, 0
        self._lines += 1
        if self._lines > LINES_A_SECOND:
            self._withheld += 1
            self.counts["log lines withheld"] += 1
        else:
            self._logger.log(level, "%s", text)


def shown(text: str) -> str:
    """Give a text that may hold a peer's words as one line of what can be seen: no escape codes, no line of its own."""
    if len(text) > TEXT_CHARS:
        text = f"{text[:TEXT_CHARS]}… ({len(text)} letters)"
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def gist(value: object) -> object:
    """Give the beginning of a message's value, small and plain, for a record of what was asked."""
    if isinstance(value, dict):
        return {shown(str(name))[:100]: _gist(item) for name, item in list(value.items())[:GIST_ITEMS]}
    return _gist(value)


def _gist(item: object) -> object:
    if isinstance(item, str):
        return shown(item[:GIST_CHARS])
    return item if isinstance(item, int | float | None) else f"({type(item).__name__})"
