"""Message: the formatted message that every object of the network sends and receives.

Law: its instance dictionary holds the fields of the wire and nothing else but `changed` and
`serialized`; what came from a peer is checked once, here, and can't shadow a method.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Self

from pilotage.protocol.arrays import MAX_NESTING, ArrayForm, collapse_leaf, encode_array, expand_arrays
from pilotage.protocol.bounds import check_json
from pilotage.protocol.errors import ArrayRefused, InvalidMessage, MalformedFrame, PilotageError
from pilotage.protocol.late import np

Fault = Callable[[str], PilotageError]


class Flag(StrEnum):
    """Flags of a message; that one is present is what counts, not its value."""

    NOREPEAT = "NOREPEAT"
    MINPRINT = "MINPRINT"
    NOLOG = "NOLOG"


class Message:
    """A formatted message: `id`, `to`, `sender` and `key` are required, any other field is carried along.

    It can be indexed like a dictionary. Not for several threads at once.

    Args:
        msg: JSON text or UTF-8 bytes, or a dict of the fields, from any peer; None for a new message.
        expand_arrays: unpack the arrays in `value` at once, see `expand`.
        **kwargs: fields to set (over those of `msg`); extra ones become attributes.

    Attributes:
        id: what identifies the message, `{sender}_{number}`.
        to: the recipient's name, or the names on the way with the recipient last.
        sender: the name of the object where it originates.
        key: the type of message, which selects the listen.
        value: the body: whatever JSON can say, and numpy arrays.
        flags: see `Flag`.
        timestamp: its creation, local time, ISO 8601 without zone.
        ttl: how many times it is transmitted at most.
        blosc: True to send arrays packed, False to send their plain bytes.
        changed: a field was assigned since the last `serialize`.
        serialized: what the last `serialize` gave.

    Raises:
        InvalidMessage: a field given as keyword has the wrong type or a reserved name.
        MalformedFrame: `msg` is no message: not UTF-8, not a JSON object, wrong types, nested too deep.
        MalformedArray: `expand_arrays` met a broken array.

    Example:
        >>> message = Message(id="rig_0", to="T", sender="rig", key="DATA", value={"trial_num": 3})
        >>> Message(message.serialize())["value"]
        {'trial_num': 3}
    """

    __slots__ = ("__dict__", "__weakref__", "_hidden", "_sent_flags")

    id: str | None = None
    to: str | list[str] | None = None
    sender: str | None = None
    key: str | None = None
    value: Any = None
    changed: bool = False
    flags: dict[str, Any] = {}  # noqa: RUF012 the documented default; each instance gets its own
    timestamp: str | None = None
    ttl: int = 2
    serialized: str | None = None
    blosc: bool = True

    _hidden: dict[str, Any]
    _sent_flags: dict[str, Any]

    def __init__(self, msg: object = None, expand_arrays: bool = False, **kwargs: Any) -> None:
        simple = _CORE.issuperset(kwargs) and _are_plain(kwargs)
        if not simple:
            _check_names(kwargs)
            _check_fields(kwargs, InvalidMessage)
        if msg is not None:
            self._read(msg, kwargs)
        else:
            if not simple:
                _drop_defaults(kwargs)
            _set(self, "__dict__", {"flags": {}, "timestamp": _now().isoformat(), "ttl": 2, **kwargs})
        if expand_arrays:
            self.expand()

    @classmethod
    def from_parts(cls, **fields: Any) -> Self:
        """Make a message of fields that were checked already, without copying or stamping them.

        Args:
            **fields: as for the constructor; `flags`, if given, is kept, not copied.

        Returns:
            The message.
        """
        message = cls.__new__(cls)
        if "flags" not in fields:
            fields["flags"] = {}
        _set(message, "__dict__", fields)
        return message

    def _read(self, msg: object, extra: dict[str, Any]) -> None:
        fields = _parse(msg)
        _check_fields(fields, MalformedFrame)
        fields = {**fields, **extra}
        fields["flags"] = dict(fields.get("flags") or ())
        if not fields.keys() <= _SIMPLE:
            hidden = {name: fields.pop(name) for name in [*fields] if _is_reserved(name)}
            if hidden:
                _set(self, "_hidden", hidden)
        _set(self, "__dict__", {n: v for n, v in fields.items() if v is not None or n not in _DEFAULTED})

    def __getitem__(self, key: str) -> Any:
        """Give a field. Raises KeyError if the message hasn't got it."""
        fields = self.__dict__
        return fields[key] if key in fields else getattr(self, "_hidden", {})[key]

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a field. Raises InvalidMessage for a reserved name or a wrong type."""
        setattr(self, key, value)

    def __delitem__(self, key: str) -> None:
        """Remove a field. Raises KeyError if the message hasn't got it."""
        fields = self.__dict__
        if key not in fields:
            del getattr(self, "_hidden", {})[key]
            return
        del fields[key]
        fields["changed"] = True
        fields.setdefault("flags", {})

    def __contains__(self, key: object) -> bool:
        """Tell whether the message has a field of that name."""
        return key in self.__dict__ or key in getattr(self, "_hidden", ())

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field and forget what was serialized. Raises InvalidMessage as `__setitem__`."""
        fields = self.__dict__
        if name in _OWN:
            _set(self, name, value)
            return
        if name not in _SIMPLE:
            _check_names((name,))
        _check_fields({name: value}, InvalidMessage)
        fields[name] = {} if name == "flags" and value is None else value
        fields["changed"] = True

    def __delattr__(self, name: str) -> None:
        """Remove a field. Raises AttributeError if the message hasn't got it."""
        if name not in self.__dict__:
            raise AttributeError(f"this message has no field {name!r}")
        del self[name]

    def __repr__(self) -> str:
        """Show the envelope, never the value."""
        return f"<Message {self.id} {self.key}: {self.sender} -> {self.to}>"

    def get_timestamp(self) -> str:
        """Give the present local time in ISO 8601, as the original stamps its messages."""
        return _now().isoformat()

    def validate(self) -> bool:
        """Tell whether id, to, sender and key are all defined."""
        return (
            self.id is not None and self.to is not None and self.sender is not None and self.key is not None
        )

    def expand(self) -> None:
        """Unpack the arrays in `value` and in extra fields, however deep; until then they are documents.

        It costs time and memory, so that who merely passes a message on doesn't do it.

        Raises:
            MalformedArray: one of them is broken, too large, or more than plain numbers.
            MachineError: one is compressed and blosc2 isn't installed.
        """
        fields = self.__dict__
        for name in ("value", *(fields.keys() - _SIMPLE - {"changed", "serialized"})):
            if name in fields:
                fields[name] = expand_arrays(fields[name])

    def serialize(self) -> str:
        """Write all fields as JSON; kept in `serialized` until a field is assigned.

        What is changed *inside* `value` after that is not noticed: assign it anew.

        Returns:
            JSON text in ASCII; not-a-number as bare NaN, as the original does.

        Raises:
            InvalidMessage: something in it can't be sent; the text says where.
            ArrayRefused: an array of objects, or too large; the text says where.
        """
        fields = self.__dict__
        text: str | None = fields.get("serialized")
        if text is not None and not self.changed and getattr(self, "_sent_flags", None) == self.flags:
            return text
        document = {"blosc": self.blosc, **fields}
        document.pop("changed", None)
        document.pop("serialized", None)
        text = self._encode(document)
        fields["serialized"], fields["changed"] = text, False
        _set(self, "_sent_flags", dict(self.flags))
        return text

    def _encode(self, document: dict[str, Any]) -> str:
        try:
            text = json.dumps(document, default=self._serialize_numpy)
        except (TypeError, ValueError, RecursionError) as cause:
            raise _explain(document, self._serialize_numpy, cause) from cause
        if _may_be_deep(text) and _is_deep(document):
            raise InvalidMessage(f"value is nested deeper than {MAX_NESTING} levels; flatten it")
        return text

    def _serialize_numpy(self, array: Any) -> Any:
        """Give a numpy array or scalar as JSON may carry it, in the form that `blosc` chooses.

        Raises:
            TypeError: something that is not numpy's.
            ArrayRefused: an array of objects, or too large.
        """
        form = ArrayForm.AUTOPILOT_05 if self.blosc else ArrayForm.RAW
        if isinstance(array, np.generic):
            return collapse_leaf(array, form)
        if isinstance(array, np.ndarray):
            return encode_array(array, form)
        raise TypeError(f"{type(array).__name__} can't be sent as JSON")


_now: Final = datetime.now
_set: Final = object.__setattr__
_CORE: Final = frozenset({"id", "to", "sender", "key", "value"})
_OWN: Final = frozenset({"changed", "serialized", "_hidden", "_sent_flags"})
_SIMPLE: Final = frozenset({"id", "to", "sender", "key", "value", "flags", "timestamp", "ttl", "blosc"})
_DEFAULTED: Final = frozenset({"id", "to", "sender", "key", "timestamp", "ttl", "blosc", "changed"})
_RESERVED: Final = frozenset(dir(Message)) - _SIMPLE - {"changed"}


def _are_plain(fields: Mapping[str, Any]) -> bool:
    """Tell whether the envelope is plain ASCII text: the usual case, decided without a loop."""
    get = fields.get
    try:
        return "".join((get("id", ""), get("to", ""), get("sender", ""), get("key", ""))).isascii()
    except TypeError:
        return False


def _drop_defaults(fields: dict[str, Any]) -> None:
    """Prepare keywords to be laid over a new message's own: None stands for the default, flags are copied."""
    for name in ("flags", "timestamp", "ttl"):
        if name in fields and fields[name] is None:
            del fields[name]
    if "flags" in fields:
        fields["flags"] = dict(fields["flags"])


def _is_reserved(name: str) -> bool:
    return name.startswith("_") or name in _RESERVED


def _check_names(names: Iterable[object]) -> None:
    for name in names:
        if not isinstance(name, str) or _is_reserved(name):
            raise InvalidMessage(f"{name!r} can't be a field: Message uses that name; choose another")


def _check_fields(fields: Mapping[str, Any], fault: Fault) -> None:
    """Check the types of the fields that everything relies on; others may hold anything."""
    get = fields.get
    if not _are_plain(fields):
        _check_envelope(fields, fault)
    stamp = get("timestamp")
    if stamp is not None and type(stamp) is not str:
        _check_text("timestamp", stamp, fault)
    flags, ttl = get("flags"), get("ttl")
    if flags is not None and not isinstance(flags, dict):
        raise fault(f"flags must be a dict, not {type(flags).__name__}")
    if ttl is not None and type(ttl) is not int:
        raise fault(f"ttl must be a whole number, not {type(ttl).__name__}")
    for name in ("blosc", "changed"):
        if name in fields and not isinstance(fields[name], bool | None):
            raise fault(f"{name} must be true or false, not {type(fields[name]).__name__}")


def _check_envelope(fields: Mapping[str, Any], fault: Fault) -> None:
    for name in ("id", "sender", "key"):
        if fields.get(name) is not None:
            _check_text(name, fields[name], fault)
    to = fields.get("to")
    for hop in to if isinstance(to, list | tuple) else (to,):
        if hop is not None or to is not None:
            _check_text("to", hop, fault)


def _check_text(name: str, text: object, fault: Fault) -> None:
    if not isinstance(text, str):
        raise fault(f"{name} must be text, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        raise fault(f"{name} holds half a surrogate pair, which no frame can carry") from cause


def _parse(msg: object) -> dict[str, Any]:
    if isinstance(msg, Mapping):
        fields = dict(msg)
        if not all(isinstance(name, str) for name in fields):
            raise MalformedFrame("a message's field names must be text")
    else:
        fields = _parse_json(msg)
    if "value" in fields and isinstance(msg, Mapping) and _is_deep(fields):
        raise MalformedFrame(f"a message is nested deeper than {MAX_NESTING} levels")
    return fields


def _parse_json(msg: object) -> dict[str, Any]:
    if not isinstance(msg, str | bytes | bytearray | memoryview):
        raise InvalidMessage(f"msg must be JSON text, bytes or a dict, not {type(msg).__name__}")
    try:
        text = msg if isinstance(msg, str) else str(msg, "utf-8")
        check_json(text)
        fields = json.loads(text)
    except RecursionError as cause:
        raise MalformedFrame(f"a message is nested deeper than {MAX_NESTING} levels") from cause
    except UnicodeDecodeError as cause:
        raise MalformedFrame(f"a message is not UTF-8: {cause.reason} at byte {cause.start}") from cause
    except ValueError as cause:
        raise MalformedFrame(f"a message is not JSON: {cause}") from cause
    if not isinstance(fields, dict):
        raise MalformedFrame(f"a message must be a JSON object, not {type(fields).__name__}")
    if _may_be_deep(text) and _is_deep(fields):
        raise MalformedFrame(f"a message is nested deeper than {MAX_NESTING} levels")
    return fields


def _may_be_deep(text: str) -> bool:
    """Rule out deep nesting by counting brackets, which costs next to nothing."""
    return text.count("[") + text.count("{") > MAX_NESTING


def _is_deep(value: object) -> bool:
    """Measure level by level, for the next reader's stack must hold it."""
    level = [value]
    for _ in range(MAX_NESTING):
        below: list[object] = []
        for item in level:
            children = item.values() if isinstance(item, dict) else item
            below.extend(c for c in children if isinstance(c, dict | list | tuple))  # type: ignore[attr-defined]
        if not below:
            return False
        level = below
    return True


def _explain(document: dict[str, Any], encode: Callable[[Any], Any], cause: Exception) -> PilotageError:
    """Find what can't be sent and say where it is."""
    for name, item in document.items():
        found = _find(item, name, encode, 0)
        if found is not None:
            return found
    return InvalidMessage(f"a message can't be sent as JSON: {cause}")


def _find(item: object, path: str, encode: Callable[[Any], Any], depth: int) -> PilotageError | None:
    if depth > MAX_NESTING:
        return InvalidMessage(
            f"{path[:60]}... is deeper than {MAX_NESTING} levels; flatten it, or look for a loop"
        )
    if isinstance(item, dict):
        for key in item:
            if not isinstance(key, str | int | float | None):
                return InvalidMessage(f"{path} has a {type(key).__name__} as key, which JSON can't say")
        parts = [(f"{path}[{key!r}]", part) for key, part in item.items()]
    elif isinstance(item, list | tuple):
        parts = [(f"{path}[{index}]", part) for index, part in enumerate(item)]
    else:
        return _find_leaf(item, path, encode)
    found = (_find(part, place, encode, depth + 1) for place, part in parts)
    return next((fault for fault in found if fault is not None), None)


def _find_leaf(item: object, path: str, encode: Callable[[Any], Any]) -> PilotageError | None:
    try:
        json.dumps(item, default=encode)
    except ArrayRefused as cause:
        return ArrayRefused(f"{path}: {cause}")
    except (TypeError, ValueError) as cause:
        return InvalidMessage(f"{path}: {cause}")
    return None
