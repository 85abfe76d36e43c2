"""The table of preferences: each key once, with its type, default, reader and meaning.

Law: a key is declared here and nowhere else; documentation, files, environment and the frozen
`Prefs` all follow from the fields of one class.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.net import pref_values as values
from pilotage.net.pref_values import Lineage, LogLevel, Reader, optional
from pilotage.protocol.errors import InvalidPref

TERMINAL_ID = "T"

SECRET = re.compile(r"secret|password|passwd|passphrase|token|credential|private", re.IGNORECASE)
"""Names of preferences whose values go into no record, message or log."""


def _pref(kind: str, reader: Reader, default: object, meaning: str) -> Any:
    metadata = {"kind": kind, "reader": reader, "default": default, "meaning": meaning}
    return dataclasses.field(default_factory=_maker(reader, default), metadata=metadata)


def _maker(reader: Reader, default: object) -> Callable[[], object]:
    # Read late, so that `~` is the home of whoever runs, not of whoever imported first.
    return lambda: reader(default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefs:
    """All preferences at one moment, frozen: what objects below floor 3 are configured from.

    It is plain data and can be pickled, so a station's process gets what its parent had.
    A field's name is its key in lower case.
    """

    name: str | None = _pref(
        "text", optional(values.read_pilot_name), None, "This pilot's name: its address and its folder."
    )
    terminalip: str = _pref(
        "host", values.read_host, "127.0.0.1", "Where the Terminal runs, as seen from a pilot."
    )
    pushport: int = _pref(
        "port",
        values.read_port,
        5560,
        "The Terminal's port to which pilots push; the Terminal listens there.",
    )
    terminalport: int | None = _pref(
        "port",
        optional(values.read_port),
        None,
        "Where the Terminal listens and streams reach it directly, if that isn't PUSHPORT.",
    )
    msgport: int = _pref(
        "port", values.read_port, 5565, "Where a pilot's own station listens for its nodes and children."
    )
    lineage: Lineage = _pref(
        "NONE, PARENT or CHILD",
        values.read_lineage,
        "NONE",
        "Whether this pilot has children (PARENT) or answers to one (CHILD).",
    )
    childid: tuple[str, ...] = _pref(
        "list of text", values.read_names, (), "The names of this pilot's children."
    )
    childip: str | None = _pref(
        "host",
        optional(values.read_host),
        None,
        "Where this pilot's child runs, for a lab's own tasks; Pilotage itself finds children by name.",
    )
    childport: int | None = _pref(
        "port", optional(values.read_port), None, "Where this pilot's child listens, for the same."
    )
    parentid: str | None = _pref(
        "text", optional(values.read_pilot_name), None, "The name of the pilot that this child answers to."
    )
    parentip: str = _pref(
        "host", values.read_host, "127.0.0.1", "Where the parent runs, as seen from its child."
    )
    parentport: int = _pref(
        "port", values.read_port, 5565, "The parent's MSGPORT, to which its child pushes."
    )
    subject: str | None = _pref(
        "text", optional(values.read_name), None, "Who is being run; a START sets it."
    )
    drawfps: float = _pref(
        "number > 0, per second", values.read_positive, 20.0, "How often a plot is fed at most."
    )
    ping_interval: float = _pref(
        "number > 0, seconds", values.read_positive, 5.0, "How often a pilot tells that it is alive."
    )
    sounddir: Path = _pref(
        "path", values.read_path, "~/pilotage/sounds", "Sound files: served by the Terminal, kept by a pilot."
    )
    datadir: Path = _pref("path", values.read_path, "~/pilotage/data", "Where sessions are stored.")
    pilot_db: Path = _pref(
        "path", values.read_path, "~/pilotage/pilot_db.json", "The Terminal's list of its pilots."
    )
    keydir: Path = _pref(
        "path",
        values.read_path,
        "~/pilotage/keys",
        "The folder of the keys: our own, and in `known` those of whom we know.",
    )
    pairport: int = _pref(
        "port",
        values.read_port,
        5561,
        "Where `pilotage keys accept` waits for `pilotage join`; open only meanwhile.",
    )
    insecure: bool = _pref(
        "true or false",
        values.read_switch,
        False,
        "Speak in clear with other machines, too; warned of wherever state is shown.",
    )
    originals: tuple[str, ...] = _pref(
        "list of NAME@ADDRESS or NAME@ADDRESS=ROLE",
        values.read_originals,
        (),
        "Original Autopilot peers that may come in clear, each with its address and role (pilot or node).",
    )
    originalport: int = _pref(
        "port",
        values.read_port,
        5570,
        "Where those of ORIGINALS come in; listened on only if there are some.",
    )
    maxrate: float | None = _pref(
        "number > 0, per second",
        optional(values.read_positive),
        None,
        "How many transmissions a station takes from one connection, on average over ten seconds; no bound if not set.",
    )
    loglevel: LogLevel = _pref(
        "DEBUG, INFO, WARNING, ERROR or CRITICAL",
        values.read_log_level,
        "WARNING",
        "The least severe message that is logged.",
    )

    @property
    def terminal_listen_port(self) -> int:
        """The port on which a Terminal's station listens: TERMINALPORT, else PUSHPORT."""
        return self.pushport if self.terminalport is None else self.terminalport

    def require(self, key: str) -> Any:
        """Return the value of `key`, which must be set.

        Raises:
            InvalidPref: There is no such key, or it has no value; the text says how to give one.
        """
        value = getattr(self, find_key(key).attribute)
        if value is None or value == ():
            raise InvalidPref(
                f"{key} is not set: put it into the preferences file, into the environment as "
                f"PILOTAGE_{key}, or call prefs.set({key!r}, …)"
            )
        return value

    def upstream(self) -> tuple[str, str, int]:
        """Return whom a pilot's station pushes to, as (id, host, port).

        That is its parent if LINEAGE is CHILD, and the Terminal otherwise.

        Raises:
            InvalidPref: A child lacks PARENTID, or the port is 0, which can only be listened on.
        """
        if self.lineage is Lineage.CHILD:
            key, peer = "PARENTPORT", (self.require("PARENTID"), self.parentip, self.parentport)
        else:
            key, peer = "PUSHPORT", (TERMINAL_ID, self.terminalip, self.pushport)
        if peer[2] == 0:
            raise InvalidPref(f"{key} is 0, which can only be listened on: name the port to connect to")
        return peer


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the table."""

    name: str
    kind: str
    reader: Reader
    default: object
    meaning: str

    @property
    def attribute(self) -> str:
        """The name of this key's field in `Prefs`."""
        return self.name.lower()

    def read(self, raw: object, source: str) -> object:
        """Return `raw` in this key's type.

        Raises:
            InvalidPref: It can't be; the text names the key, the value, and `source`.
        """
        try:
            return self.reader(raw)
        except ValueError as error:
            raise InvalidPref(f"{self.name} = {_shorten(raw)} ({source}): {error}") from error


def _shorten(raw: object) -> str:
    text = repr(raw)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _rows() -> dict[str, Key]:
    rows = {}
    for field in dataclasses.fields(Prefs):
        facts, name = field.metadata, field.name.upper()
        rows[name] = Key(name, facts["kind"], facts["reader"], facts["default"], facts["meaning"])
    return rows


KEYS = _rows()

# Keys of the original's files that configure parts which Pilotage does in another way or not at all.
# A file may hold them, so that it can be shared with the original; they are listed by `prefs.unused()`.
ORIGINAL_ONLY = frozenset(
    {
        *("AGENT", "ALSA_NPERIODS", "AUDIOSERVER", "AUTOPLUGIN", "BASEDIR", "CALIBRATIONDIR", "CONFIG"),
        *("DLCDIR", "FS", "HARDWARE", "HASH", "JACKDSTRING", "LOGDIR", "LOGNUM", "LOGSIZE", "NCHANNELS"),
        *("OUTCHANNELS", "PIGPIOARGS", "PIGPIOD", "PIGPIOMASK", "PLUGINDIR", "PLUGIN_DB"),
        *("PORT_CALIBRATION", "PROTOCOLDIR", "PULLDOWNS", "PULLUPS", "REPODIR", "TERMINAL_CUSTOM_SIZE"),
        *("TERMINAL_SETTINGS_FN", "TERMINAL_WINSIZE_BEHAVIOR", "VENV", "VIZDIR"),
    }
)


def find_key(name: object, source: str = "") -> Key:
    """Return the row of `name`.

    Raises:
        InvalidPref: There is none; the text names `source` and the nearest key that exists.
    """
    row = KEYS.get(name) if isinstance(name, str) else None
    if row is None:
        where = f" ({source})" if source else ""
        raise InvalidPref(f"{_shorten(name)} is no preference{where}: {_suggest(name)}")
    return row


def _suggest(name: object) -> str:
    import difflib  # noqa: PLC0415 - only who mistypes a name needs it

    near = difflib.get_close_matches(str(name).upper(), KEYS, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(KEYS)}"


def public_values(prefs: object) -> dict[str, str]:
    """Give the preferences that may be told and kept, as text: those that are set and are no secret."""
    known = {field.name: getattr(prefs, field.name) for field in dataclasses.fields(prefs)}  # type: ignore[arg-type]
    return {
        name: str(value) for name, value in known.items() if value is not None and not SECRET.search(name)
    }
