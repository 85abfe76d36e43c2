"""Every error that Pilotage raises, in one tree.

    PilotageError
    ├── MisuseError                 the caller asked for something that can't be done
    │   ├── InvalidMessage          a message lacks what it needs, or its value can't be sent
    │   ├── ArrayRefused            an array that we don't put on a wire (object dtype, too large)
    │   ├── InvalidPref             an unknown preference, or a value it can't take
    │   ├── InvalidKey              a key's file that can't be used, or a key that isn't there
    │   ├── ListenNotPicklable      a listen that can't reach the station's process
    │   ├── TaskError               a task or its parameters can't be used as asked
    │   └── Closed                  the object was released already
    ├── PeerError                   what came from another process can't be used
    │   ├── MalformedFrame          bytes that are no message of the dialect they came in
    │   ├── Locked                  no common lock: it speaks in clear, or wants a key, or doesn't know ours
    │   └── MalformedArray          an array document that is broken, oversized or not plain numbers
    ├── MachineError                this machine does not let us
    │   ├── PortInUse               another program listens on that port
    │   ├── StoreError              a session's files can't be read or written
    │   ├── FileHeld                another process holds a file of ours; caught by who wanted it
    │   ├── JournalError            the journal of durable messages can't be opened
    │   │   └── JournalInUse        another process has it open
    │   └── StationDied             the station's process ended by itself
    └── DeliveryError               a send did not end as *delivered*
        ├── Expired                 its tries or its deadline ran out
        └── Refused                 somebody on its way refused it, and said why
            └── NameTaken           a live peer holds the name we asked for

Each message names what was wrong, where, and what to do about it.
"""

from __future__ import annotations


class PilotageError(Exception):
    """The root: catch this to catch everything that Pilotage raises on purpose."""


class MisuseError(PilotageError, ValueError):
    """The caller asked for something that can't be done; nothing was sent or changed."""


class InvalidMessage(MisuseError):
    """A message lacks what it needs, or its value can't be put on a wire."""


class ArrayRefused(MisuseError):
    """An array that Pilotage does not send: object dtype, or larger than the limits."""


class InvalidPref(MisuseError):
    """A preference that doesn't exist, or a value that it can't take."""


class InvalidKey(MisuseError):
    """A key's file that can't be used, or a key that isn't there."""


class ListenNotPicklable(MisuseError):
    """A listen that can't be handed to the station's process under this start method."""


class TaskError(MisuseError):
    """A task is not known, or its parameters or trial data don't fit its declaration."""


class Closed(MisuseError):
    """The object was released and can't send or receive any more."""


class PeerError(PilotageError):
    """Another process sent something that can't be used."""


class MalformedFrame(PeerError):
    """Bytes that are no message of the dialect in which they came."""


class Locked(PeerError):
    """The two ends have no lock in common: one speaks in clear, or has no key that the other knows."""


class MalformedArray(PeerError):
    """An array document that is broken, oversized, or more than plain numbers."""


class MachineError(PilotageError):
    """This machine does not let us: a port, a disk, a process."""


class PortInUse(MachineError):
    """Another program listens on that port already."""


class StoreError(MachineError):
    """A session's files can't be read or written."""


class FileHeld(MachineError):
    """Another process holds a file of ours; the text names it."""


class JournalError(MachineError):
    """The journal of durable messages can't be opened: rights, space, or a disk that won't do."""


class JournalInUse(JournalError):
    """Another process has the journal open, or this one has already."""


class StationDied(MachineError):
    """The station's process ended though nobody asked it to."""


class DeliveryError(PilotageError):
    """A send did not end as delivered."""


class Expired(DeliveryError):
    """No confirmation came within the message's tries or deadline; it was perhaps handled."""


class Refused(DeliveryError):
    """Somebody on the message's way refused it; the text says who and why.

    Attributes:
        reason: the refusal's kind, if it came from a settlement.
        told: its text without the kind.
    """

    def __init__(self, text: str, reason: str | None = None, told: str = "") -> None:
        super().__init__(text)
        self.reason = reason
        self.told = told or text


class NameTaken(Refused):
    """A live peer holds the name that we asked for."""
