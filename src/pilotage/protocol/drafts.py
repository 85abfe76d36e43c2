"""A dtype under construction while a packed array is read.

Law: it is built from checked parts only, its state may come once, and the number and depth of its
fields are bounded, however often they share parts.
"""

from __future__ import annotations

import re
from typing import Any

from pilotage.protocol.dtypes import MAX_DEPTH, MAX_FIELDS, make_record, shorten
from pilotage.protocol.errors import MalformedArray
from pilotage.protocol.late import np
from pilotage.protocol.layout import check_shape, extent, is_int

_ALIGNED = 0x80
_UNITS = frozenset({"generic", "as", "fs", "ps", "ns", "us", "ms", "s", "m", "h", "D", "W", "M", "Y"})
_CODE = re.compile(r"[biufcSUMmV](?:0|[1-9][0-9]{0,9})")


class DtypeDraft:
    """A dtype on its way through a packed array: named first, then completed by its state.

    It is shared by reference, as in the bytes that describe it: whoever holds the draft sees it complete.
    """

    __slots__ = ("code", "depth", "dtype", "weight")

    def __init__(self, code: object) -> None:
        """Take a dtype's code such as `f8`; MalformedArray if it is none that travels."""
        if not isinstance(code, str) or _CODE.fullmatch(code) is None:
            raise MalformedArray(f"numpy.dtype({shorten(code)}) is no dtype that travels")
        self.code = code
        self.dtype: np.dtype[Any] | None = None
        self.weight = 1
        self.depth = 1

    def ready(self) -> np.dtype[Any]:
        """Give the finished dtype; MalformedArray if its state never came."""
        if self.dtype is None:
            raise MalformedArray(f"numpy.dtype({self.code!r}) is used before its BUILD")
        return self.dtype

    def build(self, state: object) -> None:
        """Complete the dtype from its state tuple, once.

        Args:
            state: (3 or 4, byteorder, subdtype, names, fields, itemsize, alignment, flags[, metadata]).

        Raises:
            MalformedArray: a second state, a state of another form, or one that contradicts the code.
        """
        if self.dtype is not None:
            raise MalformedArray(f"a second BUILD for numpy.dtype({self.code!r})")
        if not isinstance(state, tuple) or len(state) not in (8, 9) or state[0] not in (3, 4):
            raise MalformedArray(f"numpy.dtype({self.code!r}) has a state of unknown form")
        try:
            self.dtype = self._from_state(*state[1:8], metadata=state[8] if len(state) == 9 else None)
        except (TypeError, ValueError, OverflowError, KeyError) as cause:
            raise MalformedArray(f"numpy.dtype({self.code!r}) can't be built: {cause}") from cause

    def _from_state(
        self,
        byteorder: object,
        subdtype: object,
        names: object,
        fields: object,
        itemsize: object,
        _alignment: object,
        flags: object,
        *,
        metadata: object,
    ) -> np.dtype[Any]:
        if self.code[0] == "V":
            if metadata is not None:
                raise MalformedArray(f"numpy.dtype({self.code!r}) carries metadata")
            dtype = (
                self._record(names, fields, itemsize, flags) if subdtype is None else self._subarray(subdtype)
            )
            if dtype.itemsize != int(self.code[1:]):
                raise MalformedArray(f"numpy.dtype({self.code!r}) has {dtype.itemsize} bytes per item")
            return dtype
        if subdtype is not None or names is not None or fields is not None:
            raise MalformedArray(f"numpy.dtype({self.code!r}) carries fields")
        dtype = self._simple(metadata)
        if itemsize not in (-1, dtype.itemsize):
            raise MalformedArray(f"numpy.dtype({self.code!r}) claims another size per item")
        return dtype.newbyteorder(_byteorder(byteorder))

    def _simple(self, metadata: object) -> np.dtype[Any]:
        if self.code[0] in "Mm":
            return np.dtype(self.code + _time_unit(metadata))
        if metadata is not None:
            raise MalformedArray(f"numpy.dtype({self.code!r}) carries metadata")
        dtype = np.dtype(self.code)
        if dtype.kind != self.code[0]:
            raise MalformedArray(f"numpy.dtype({self.code!r}) is no dtype that travels")
        return dtype

    def _subarray(self, subdtype: object) -> np.dtype[Any]:
        if not (isinstance(subdtype, tuple) and len(subdtype) == 2 and isinstance(subdtype[0], DtypeDraft)):
            raise MalformedArray(f"numpy.dtype({self.code!r}) has a subarray of unknown form")
        self._adopt([subdtype[0]], own=0)
        base, shape = subdtype[0].ready(), check_shape(subdtype[1])
        if base.subdtype is not None or extent(shape) * max(base.itemsize, 1) > max(int(self.code[1:]), 1):
            raise MalformedArray(f"numpy.dtype({self.code!r}) has a subarray that doesn't fit it")
        return np.dtype((base, shape))

    def _record(self, names: object, fields: object, itemsize: object, flags: object) -> np.dtype[Any]:
        if not isinstance(names, tuple) or not isinstance(fields, dict) or not is_int(itemsize):
            raise MalformedArray(f"numpy.dtype({self.code!r}) has no fields: bare bytes are refused")
        if len(names) > MAX_FIELDS:
            raise MalformedArray(f"numpy.dtype({self.code!r}) has {len(names)} fields, over {MAX_FIELDS}")
        rows = [_field(name, fields) for name in names]
        self._adopt([draft for draft, _, _ in rows], own=1)
        aligned = is_int(flags) and bool(flags & _ALIGNED)
        parts = [draft.ready() for draft, _, _ in rows]
        return make_record(
            [str(name) for name in names],
            parts,
            [r[1] for r in rows],
            [r[2] for r in rows],
            itemsize,
            aligned,
        )

    def _adopt(self, drafts: list[DtypeDraft], own: int) -> None:
        self.weight = own + sum(draft.weight for draft in drafts)
        self.depth = 1 + max((draft.depth for draft in drafts), default=0)
        if self.weight > MAX_FIELDS or self.depth > MAX_DEPTH:
            raise MalformedArray(
                f"numpy.dtype({self.code!r}) has {self.weight} fields, {self.depth} deep: too many"
            )


def _field(name: object, fields: dict[object, object]) -> tuple[DtypeDraft, int, str | None]:
    entry = fields.get(name) if isinstance(name, str) else None
    if not isinstance(entry, tuple) or len(entry) not in (2, 3):
        raise MalformedArray(f"a record names the field {shorten(name)} but doesn't describe it")
    draft, offset, title = (*entry, None)[:3]
    if not isinstance(draft, DtypeDraft) or not isinstance(offset, int) or offset < 0:
        raise MalformedArray(f"a record's field {shorten(name)} has no dtype or no offset")
    if title is not None and not isinstance(title, str):
        raise MalformedArray(f"a record's field {shorten(name)} has a title that is no text")
    return draft, offset, title


def _byteorder(mark: object) -> Any:
    if mark not in ("<", ">", "|", "="):
        raise MalformedArray(f"{shorten(mark)} is no byte order")
    return mark


def _time_unit(metadata: object) -> str:
    if not (isinstance(metadata, tuple) and len(metadata) == 2 and isinstance(metadata[1], tuple)):
        raise MalformedArray("a time dtype lacks its unit")
    if metadata[0] not in (None, {}) or len(metadata[1]) != 4:
        raise MalformedArray("a time dtype carries more than its unit")
    unit, count, divisor, _event = metadata[1]
    name = bytes(unit).decode("ascii", "replace") if isinstance(unit, bytes | memoryview) else unit
    if not isinstance(name, str) or name not in _UNITS or not is_int(count) or not is_int(divisor):
        raise MalformedArray(f"a time dtype has the unknown unit {shorten(name)}")
    if divisor != 1 or not 0 < count < 2**31:
        raise MalformedArray("a time dtype has a unit multiple out of range")
    return "" if name == "generic" else f"[{count}{name}]"
