"""Which dtypes travel: plain numbers, text and times, and records of them; never objects.

Law: a dtype from a peer is built here from checked parts, never from its text as a whole, and nothing
that could hold a reference (object fields, string arenas) exists on this side.
"""

from __future__ import annotations

import re
from typing import Any

from pilotage.protocol.errors import ArrayRefused, MalformedArray
from pilotage.protocol.late import np

KINDS = frozenset("biufcSUMm")
MAX_FIELDS = 1024
MAX_DEPTH = 8

_UNIT = "generic|as|fs|ps|ns|us|ms|Y|M|W|D|h|m|s"
_NAME = re.compile(
    r"bool|u?int(?:8|16|32|64)|float(?:16|32|64|96|128)|complex(?:64|128|192|256)"
    r"|[<>|=]?(?:[biufc][0-9]{1,2}|[SU][0-9]{1,10})"
    rf"|(?:datetime64|timedelta64|[<>=]?[Mm]8)(?:\[[0-9]{{0,9}}(?:{_UNIT})\])?"
)


def plain_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Give the dtype as it travels: without metadata and without classes of its own.

    Args:
        dtype: any dtype.

    Returns:
        An equal dtype that a peer can rebuild.

    Raises:
        ArrayRefused: it is or contains an object, a variable-width string, bare bytes without
            fields, or more fields than `MAX_FIELDS`.
    """
    weight, depth = _measure(dtype, dtype)
    if weight > MAX_FIELDS or depth > MAX_DEPTH:
        raise ArrayRefused(f"a dtype of {weight} fields, {depth} deep, is too much; split the array")
    return _strip(dtype)


def _measure(dtype: np.dtype[Any], whole: np.dtype[Any]) -> tuple[int, int]:
    if dtype.subdtype is not None:
        weight, depth = _measure(dtype.subdtype[0], whole)
        return weight, depth + 1
    if dtype.names is not None:
        parts = [_measure(dtype[name], whole) for name in dtype.names]
        return 1 + sum(w for w, _ in parts), 1 + max((d for _, d in parts), default=0)
    if dtype.kind not in KINDS:
        raise ArrayRefused(
            f"an array of dtype {whole} can't be sent, only numbers, booleans, fixed-width text and times; "
            "convert it, e.g. with .astype(float) or .astype('U')"
        )
    return 1, 1


def _strip(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.subdtype is not None:
        return np.dtype((_strip(dtype.subdtype[0]), dtype.subdtype[1]))
    if dtype.names is None or dtype.fields is None:
        return np.dtype(dtype.str)
    rows = [(name, *dtype.fields[name]) for name in dtype.names]
    titles = [row[3] if len(row) > 3 else None for row in rows]
    parts = [_strip(row[1]) for row in rows]
    return make_record(
        [r[0] for r in rows], parts, [r[2] for r in rows], titles, dtype.itemsize, dtype.isalignedstruct
    )


def make_record(
    names: list[str],
    parts: list[np.dtype[Any]],
    offsets: list[int],
    titles: list[str | None],
    itemsize: int,
    aligned: bool,
) -> np.dtype[Any]:
    """Build a structured dtype from its parts; numpy checks that they fit `itemsize` (ValueError)."""
    spec: dict[str, Any] = {"names": names, "formats": parts, "offsets": offsets, "itemsize": itemsize}
    if any(title is not None for title in titles):
        spec["titles"] = titles
    record: np.dtype[Any] = np.dtype(spec, align=aligned)  # type: ignore[call-overload]
    return record


def parse_dtype(text: object) -> np.dtype[Any]:
    """Read a dtype's name as `str(dtype)` writes it, from a peer.

    Args:
        text: for example `float64`, `<U5`, `datetime64[ns]`.

    Returns:
        The dtype.

    Raises:
        MalformedArray: no text, or no name of a dtype that travels by name (records don't).
    """
    if not isinstance(text, str) or _NAME.fullmatch(text) is None:
        raise MalformedArray(f"DTYPE {shorten(text)} names no dtype that travels")
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError, OverflowError) as cause:
        raise MalformedArray(f"DTYPE {shorten(text)} isn't known here: {cause}") from cause
    if dtype.kind not in KINDS:
        raise MalformedArray(f"DTYPE {shorten(text)} names no dtype that travels")
    return dtype


def shorten(value: object) -> str:
    """Show a peer's value in an error text: text and numbers shortened, anything else by its type."""
    if isinstance(value, str):
        return repr(value[:40])
    return repr(value) if isinstance(value, float | bool | None) else f"({type(value).__name__})"
