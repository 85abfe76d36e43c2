"""Shapes from a peer, and arrays laid over a peer's bytes: every size is checked before numpy sees it."""

from __future__ import annotations

from typing import Any, TypeGuard

from pilotage.protocol.errors import MalformedArray
from pilotage.protocol.late import np

MAX_DIMENSIONS = 32


def is_int(value: object) -> TypeGuard[int]:
    """Tell an integer from everything else, booleans too."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_shape(shape: object) -> tuple[int, ...]:
    """Check a peer's shape.

    Args:
        shape: a tuple or list of sizes.

    Returns:
        It as a tuple.

    Raises:
        MalformedArray: no sequence of non-negative integers, or more than `MAX_DIMENSIONS`.
    """
    if not isinstance(shape, tuple | list) or len(shape) > MAX_DIMENSIONS:
        raise MalformedArray(f"a shape must be a list of at most {MAX_DIMENSIONS} sizes")
    if not all(is_int(size) and 0 <= size < 2**63 for size in shape):
        raise MalformedArray("a shape holds something other than sizes")
    return tuple(shape)


def extent(shape: tuple[int, ...]) -> int:
    """Count the items, empty axes taken as one: so that an empty array can't claim endless axes."""
    total = 1
    for size in shape:
        total *= max(size, 1)
    return total


def lay_out(
    content: bytes | bytearray | memoryview,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    order: str,
    max_bytes: int,
) -> np.ndarray[Any, Any]:
    """Lay an array over a buffer, if the two agree to the byte.

    Args:
        content: the array's bytes; the array is writeable if they are.
        dtype: its dtype.
        shape: its checked shape.
        order: `C` or `F`.
        max_bytes: the most bytes that it may have.

    Returns:
        The array, sharing the buffer.

    Raises:
        MalformedArray: too large, or the buffer's length isn't itemsize times items.
    """
    if extent(shape) * max(dtype.itemsize, 1) > max_bytes:
        raise MalformedArray(f"shape {shape} of {dtype.str} exceeds the limit of {max_bytes} bytes")
    wanted = dtype.itemsize * (0 if 0 in shape else extent(shape))
    if len(content) != wanted:
        raise MalformedArray(f"shape {shape} of {dtype.str} needs {wanted} bytes, {len(content)} came")
    try:
        return np.ndarray(shape, dtype, buffer=content or None, order="F" if order == "F" else "C")
    except (TypeError, ValueError, OverflowError) as cause:
        raise MalformedArray(f"shape {shape} of {dtype.str} can't be laid out: {cause}") from cause
