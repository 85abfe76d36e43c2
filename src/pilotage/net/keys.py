"""Key files: our own keys, and the keys of those whom we know.

    KEYDIR/NAME.secret     a key of ours, whole; nobody else may read it (mode 0600)
    KEYDIR/NAME.key        its public half, to be given away
    KEYDIR/known/*.key     the public keys of others; what counts is the name inside, not the file's
    KEYDIR/roles.toml      what roles may send, where that isn't the built-in table (see `role_files`)

Each is TOML: `name`, `public`, and `secret` in the first; in the last also `role`, `via`, and `next`, the key that is
about to replace `public`.

Law of this room: a file is replaced whole or not at all, and one that can't be used is an error that names it.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import zmq
from zmq.utils import z85

from pilotage.net.pref_values import read_name
from pilotage.net.role_files import read_roles
from pilotage.protocol.authority import Grant, belongs_to
from pilotage.protocol.errors import InvalidKey
from pilotage.protocol.roles import ROLES
from pilotage.transport.curve import KeyPair, Keyring

KEY_CHARS = 40
MAX_FILE_BYTES = 4096
OWN, PUBLIC, KNOWN = ".secret", ".key", "known"
OTHERS = stat.S_IRWXG | stat.S_IRWXO

_Read = TypeVar("_Read")

Unfit = Callable[[InvalidKey], None]
"""Is told of a file that can't be used, which then counts as not there."""


@dataclass(frozen=True, slots=True)
class KnownKey:
    """Somebody whom we know by a key.

    Attributes:
        name: whom the key speaks for.
        public: the key, Z85.
        role: what its owner is here.
        via: the station through which its messages may come too; "" for none.
        next: the key that replaces `public` once it is used; "" for none.
    """

    name: str
    public: str
    role: str = "pilot"
    via: str = ""
    next: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys that are good now, the likeliest first."""
        return tuple(filter(None, (self.public, self.next)))


def make_pair(name: str) -> KeyPair:
    """Make a new key for a name.

    Raises:
        InvalidKey: that can't be a name.
    """
    public, secret = zmq.curve_keypair()
    return KeyPair(_name(name, "the name of a key"), public.decode(), secret.decode())


class KeyFolder:
    """The folder of the keys. Any thread; files of other programs are read anew each time.

    Args:
        folder: KEYDIR; it is made when the first key is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known_folder = folder / KNOWN

    # Our own

    def own(self, unfit: Unfit | None = None) -> list[KeyPair]:
        """Give our keys, by name.

        Raises:
            InvalidKey: a file can't be used, or others may read it; only if nobody is to be told of that instead.
        """
        files = sorted(self.folder.glob(f"*{OWN}")) if self.folder.is_dir() else []
        return [pair for file in files if (pair := _tolerantly(_read_own, file, unfit)) is not None]

    def keep(self, pair: KeyPair) -> Path:
        """Write a key of ours, in place of the one of its name if there is one; give the file of its public half.

        Raises:
            InvalidKey: the folder can't be written.
        """
        self._write(
            self._own_file(pair.name), {"name": pair.name, "public": pair.public, "secret": pair.secret}
        )
        public = self.folder / f"{_file_name(pair.name)}{PUBLIC}"
        self._write(public, {"name": pair.name, "public": pair.public})
        return public

    def _own_file(self, name: str) -> Path:
        return self.folder / f"{_file_name(name)}{OWN}"

    # Others

    def known(self, unfit: Unfit | None = None) -> list[KnownKey]:
        """Give whom we know, by name.

        Raises:
            InvalidKey: a file can't be used, or has the name or key of another; only if nobody is to be told instead.
        """
        found: dict[str, KnownKey] = {}

        def read(file: Path) -> KnownKey:
            known = _read_known(file)
            for other in found.values():
                if other.name == known.name or set(other.keys) & set(known.keys):
                    raise InvalidKey(f"{file} has the same name or key as {other.name!r}: keep one of them")
            return known

        for file in self._known_files():
            known = _tolerantly(read, file, unfit)
            if known is not None:
                found[known.name] = known
        return [found[name] for name in sorted(found)]

    def _known_files(self) -> list[Path]:
        return sorted(self.known_folder.glob(f"*{PUBLIC}")) if self.known_folder.is_dir() else []

    def find(self, name: str) -> KnownKey:
        """Give somebody whom we know.

        Raises:
            InvalidKey: nobody of that name is known, or a file can't be used.
        """
        known = {one.name: one for one in self.known()}
        if name not in known:
            raise InvalidKey(f"no key of {name!r} is known here; known are: {', '.join(known) or 'nobody'}")
        return known[name]

    def know(self, known: KnownKey) -> None:
        """Write whom we know from now on, over what was known of that name: nobody who looks meanwhile misses it.

        Raises:
            InvalidKey: the folder can't be written.
        """
        fields = {"name": known.name, "role": known.role, "public": known.public}
        more = {"via": known.via, "next": known.next}
        new = self.known_folder / f"{_file_name(known.name)}{PUBLIC}"
        file, *others = self._files_of(known.name) or [new]
        self._write(file, {**fields, **{name: text for name, text in more.items() if text}})
        self._remove(others)

    def forget(self, name: str) -> KnownKey:
        """Know somebody no longer; give who that was.

        Raises:
            InvalidKey: nobody of that name is known, or the file can't be removed.
        """
        known = self.find(name)
        self._remove(self._files_of(name))
        return known

    def promote(self, key: str) -> None:
        """A key that was to follow another has been used: the other one is good for nothing from now on.

        Raises:
            InvalidKey: the file can't be written.
        """
        for known in self.known(lambda error: None):
            if known.next == key:
                self.know(replace(known, public=key, next=""))

    def _files_of(self, name: str) -> list[Path]:
        read = [(file, _tolerantly(_read_known, file, lambda error: None)) for file in self._known_files()]
        return [file for file, known in read if known is not None and known.name == name]

    def _remove(self, files: list[Path]) -> None:
        for file in files:
            try:
                file.unlink()
            except OSError as error:
                raise InvalidKey(f"{file} can't be removed: {error}") from error

    # All together

    def keyring(self, name: str, unfit: Unfit, *, is_running: bool = False) -> Keyring:
        """Give what a station or node of that name has and knows.

        Args:
            name: whose.
            unfit: is told of files that can't be used; whoever has such a file isn't known.
            is_running: a file of our own that can't be used isn't there either.

        Raises:
            InvalidKey: a file of our own can't be used, or the roles'.
        """
        ours, known = self.own(unfit if is_running else None), self.known(unfit)
        grants = {key: Grant(one.name, one.role, one.via) for one in known for key in one.keys}
        stations = {one.name: one.keys for one in known}
        for pair in ours:
            # Whoever is on another machine with a key of ours is one of us.
            grants[pair.public] = Grant(pair.name, "admin")
            stations.setdefault(pair.name, (pair.public,))
        successors = frozenset(one.next for one in known if one.next)
        roles = _tolerantly(read_roles, self.folder, unfit if is_running else None)
        return Keyring(_fitting(ours, name), grants, stations, successors, roles)

    def stamp(self) -> tuple[tuple[str, int, int, int], ...]:
        """Give something that changes whenever a file does; none is read for it."""
        found = []
        for folder in (self.folder, self.known_folder):
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        facts = entry.stat()
                        found.append((entry.path, facts.st_ino, facts.st_mtime_ns, facts.st_size))
            except OSError:
                continue
        return tuple(sorted(found))

    def _write(self, file: Path, fields: dict[str, str]) -> None:
        text = "".join(
            f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items()
        )
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".")  # which nobody else may read
            try:
                with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())
                Path(temporary).replace(file)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise InvalidKey(f"the key's file {file} can't be written: {error}") from error


def _fitting(pairs: list[KeyPair], name: str) -> KeyPair | None:
    """Give the key that speaks for a name: the longest name that it begins with."""
    fitting = [pair for pair in pairs if belongs_to(name, pair.name)]
    return max(fitting, key=lambda pair: len(pair.name), default=None)


def _tolerantly(read: Callable[[Path], _Read], file: Path, unfit: Unfit | None) -> _Read | None:
    """Read a file; None where it can't be used and somebody is told so."""
    try:
        return read(file)
    except InvalidKey as error:
        if unfit is None:
            raise
        unfit(error)
        return None


def _file_name(name: str) -> str:
    """Give what a key's file is called: the name, with what a file's name can't hold written as %XX."""
    return quote(name, safe=" ")


def _read_own(file: Path) -> KeyPair:
    fields = _read(file)
    if sys.platform != "win32" and stat.S_IMODE(file.stat().st_mode) & OTHERS:
        raise InvalidKey(f"{file} can be read by others: `chmod 600 '{file}'`, and think of a new key")
    secret = _key(fields, "secret", file)
    pair = KeyPair(_name(fields.get("name"), str(file)), _key(fields, "public", file), secret)
    if zmq.curve_public(pair.secret.encode()).decode() != pair.public:
        raise InvalidKey(f"{file}: `public` is not the public half of `secret`")
    return pair


def _read_known(file: Path) -> KnownKey:
    fields = _read(file)
    role, via = fields.get("role", ROLES[0]), fields.get("via", "")
    if role not in ROLES:
        raise InvalidKey(f"{file}: role must be one of {', '.join(ROLES)}, not {role!r:.80}")
    known = KnownKey(_name(fields.get("name"), str(file)), _key(fields, "public", file), role)
    if via:
        known = replace(known, via=_name(via, str(file)))
    return replace(known, next=_key(fields, "next", file)) if fields.get("next") else known


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise InvalidKey(f"{file} is too long for a key's file")
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidKey(f"the key's file {file} can't be read: {error}") from error


def _key(fields: dict[str, Any], field: str, file: Path) -> str:
    return checked_key(fields.get(field), f"{file}: `{field}`")


def checked_key(key: object, what: str) -> str:
    """Give a key that can be one.

    Raises:
        InvalidKey: it is no text of 40 characters of Z85.
    """
    if isinstance(key, str) and len(key) == KEY_CHARS and key.isascii():
        try:
            z85.decode(key)
        except (KeyError, ValueError):
            pass
        else:
            return key
    raise InvalidKey(f"{what} must be a key: {KEY_CHARS} characters of Z85")


def _name(name: object, what: str) -> str:
    try:
        return read_name(name)
    except ValueError as error:
        raise InvalidKey(f"{what}: a name {error}") from error
