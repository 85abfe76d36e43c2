"""Arrays that are compressed on their way: a blosc2 container, see `container`, in the place of an array's bytes.

Law of this room: what a message's arrays take once they aren't compressed any more is bounded before any is made.
"""

from __future__ import annotations

from pilotage.protocol.container import MAX_CHUNK_BYTES, compress, decompress, is_plain
from pilotage.protocol.errors import MalformedArray
from pilotage.protocol.late import Array, np

MAX_INFLATED_BYTES = 256 * 2**20
"""Bytes that the compressed arrays of one message may have together."""

WORTHWHILE = 0.9
"""An array of which compression leaves more than this part is sent as it is."""


class Squeezed:
    """A compressed array, on its way out; it arrives as the array. No tuple or record: those travel as lists.

    Args:
        array: what it was made from; none of its bytes travel.
        content: a blosc2 container.
    """

    __slots__ = ("array", "content")

    def __init__(self, array: Array, content: Array) -> None:
        self.array = array
        self.content = content

    @property
    def size(self) -> int:
        """Bytes that travel."""
        return self.content.nbytes


def squeeze(array: Array) -> Squeezed | None:
    """Compress an array; None where that gains little, or blosc2 isn't installed."""
    if not 0 < array.nbytes <= min(MAX_CHUNK_BYTES, MAX_INFLATED_BYTES):
        return None
    flat = array.T if array.flags.f_contiguous and not array.flags.c_contiguous else array
    content = compress(np.ascontiguousarray(flat).reshape(-1).view(np.uint8).data, array.dtype.itemsize)
    if len(content) > WORTHWHILE * array.nbytes or not is_plain(content):
        return None
    return Squeezed(array, np.frombuffer(content, np.uint8))


class Inflation:
    """What the compressed arrays of one message have taken so far."""

    def __init__(self) -> None:
        self._left = MAX_INFLATED_BYTES

    def inflate(self, content: bytes | memoryview, size: int) -> memoryview:
        """Give an array's bytes, which its description says are so many.

        Raises:
            MalformedArray: no container of that many bytes, or more than one message may have.
            MachineError: blosc2 isn't installed.
        """
        if size > self._left:
            raise MalformedArray(
                f"a message's compressed arrays exceed the limit of {MAX_INFLATED_BYTES} bytes"
            )
        self._left -= size
        inflated = decompress(content, size)
        if len(inflated) != size:
            raise MalformedArray(f"a compressed array of {size} bytes has {len(inflated)}")
        return inflated
