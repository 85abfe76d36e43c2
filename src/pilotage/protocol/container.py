"""The blosc container around a packed array: read its header ourselves, decompress only what it may hold.

Law: no byte reaches a decompressor before its header was checked here: the declared sizes against the
bytes that came and the caller's bound, the codec and filters against the few that array writers use
(others would make the library look for plug-ins, or for files).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pilotage.protocol.errors import ArrayRefused, MachineError, MalformedArray

Buffer = bytes | memoryview

NO_BLOSC = "a compressed array came, but blosc2 is not installed"
"""What a recipient says that can't read what was compressed for it."""

V1_FORMAT = 2
V2_FORMAT = 5
V1_HEADER_BYTES = 16
V2_HEADER_BYTES = 32
MAX_CHUNK_BYTES = 2**31 - 1 - V2_HEADER_BYTES

_LAYOUT = struct.Struct("<BBBBIII")
_SHUFFLE, _STORED, _BITSHUFFLE = 0x01, 0x02, 0x04
_EXTENDED = _SHUFFLE | _BITSHUFFLE
_CODEC_SHIFT = 5
_LAST_CODEC = 4
_FILTERS = slice(16, 22)
_CODEC_BYTE = 22
_LAST_CODEC_ID = 5
_FLAGS2_BYTE = 31
_KNOWN_FILTERS = frozenset({0, 1, 2})
_LEVEL, _THREADS = 1, 1


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """What a container says of itself: sizes in bytes, `stored` if its content isn't compressed."""

    version: int
    stored: bool
    header_bytes: int
    nbytes: int


def is_chunk(data: Buffer) -> bool:
    """Tell whether `data` starts as a blosc container that spans it exactly."""
    if len(data) < V1_HEADER_BYTES:
        return False
    version, lz_version, _, typesize, _, _, cbytes = _LAYOUT.unpack_from(data)
    return version in (V1_FORMAT, V2_FORMAT) and lz_version == 1 and typesize > 0 and cbytes == len(data)


def read_header(data: Buffer) -> ChunkHeader:
    """Read and check a container's header without touching its content.

    Args:
        data: the whole container.

    Returns:
        Its sizes and whether it is merely stored.

    Raises:
        MalformedArray: no container, sizes that contradict each other, or a codec, filter or
            feature that no array writer uses.
    """
    if not is_chunk(data):
        raise MalformedArray(f"{len(data)} bytes are no blosc container, or not a whole one")
    version, _, flags, _, nbytes, blocksize, cbytes = _LAYOUT.unpack_from(data)
    extended = flags & _EXTENDED == _EXTENDED
    header_bytes = V2_HEADER_BYTES if extended else V1_HEADER_BYTES
    if cbytes < header_bytes or (extended and version == V1_FORMAT):
        raise MalformedArray(f"a blosc header (version {version}, flags {flags:#04x}) contradicts itself")
    if nbytes == 0 or not 0 < blocksize <= nbytes:
        raise MalformedArray(f"a blosc header declares {nbytes} bytes in blocks of {blocksize}")
    stored = bool(flags & _STORED)
    if stored and cbytes != nbytes + header_bytes:
        raise MalformedArray(f"a blosc header declares {nbytes} stored bytes, {cbytes - header_bytes} came")
    _check_features(data, flags, extended)
    return ChunkHeader(version, stored, header_bytes, nbytes)


def is_plain(data: Buffer) -> bool:
    """Tell whether a container of ours has no feature that `read_header` refuses: one of zeros alone has."""
    try:
        read_header(data)
    except MalformedArray:
        return False
    return True


def _check_features(data: Buffer, flags: int, extended: bool) -> None:
    codec = flags >> _CODEC_SHIFT
    if codec > _LAST_CODEC or (extended and data[_CODEC_BYTE] > _LAST_CODEC_ID):
        raise MalformedArray(f"a blosc container names codec {codec}, which is none of blosc's own")
    if not extended:
        return
    strange = set(data[_FILTERS]) - _KNOWN_FILTERS
    if strange:
        raise MalformedArray(f"a blosc container names filters {sorted(strange)}; only shuffles are known")
    if data[_FLAGS2_BYTE]:
        raise MalformedArray(f"a blosc container uses feature bits {data[_FLAGS2_BYTE]:#04x}, unknown here")


def decompress(data: Buffer, max_bytes: int) -> memoryview:
    """Give a container's content; the bound is checked before anything is allocated.

    Args:
        data: the whole container.
        max_bytes: the most bytes that its content may have.

    Returns:
        The content, read-only where it was merely stored.

    Raises:
        MalformedArray: a header that `read_header` refuses, more than `max_bytes`, or content that
            doesn't decompress to what the header says.
        MachineError: the content is compressed and blosc2 isn't installed.
    """
    header = read_header(data)
    if header.nbytes > max_bytes:
        raise MalformedArray(f"a blosc container declares {header.nbytes} bytes, the limit is {max_bytes}")
    if header.stored:
        return memoryview(data)[header.header_bytes :]
    return memoryview(_inflate(data, header.nbytes))


def _inflate(data: Buffer, nbytes: int) -> bytes | bytearray:
    try:
        import blosc2  # noqa: PLC0415 heavy, and optional
    except ImportError as cause:
        raise MachineError(f'{NO_BLOSC}: pip install "pilotage[blosc]"') from cause
    content = bytearray(nbytes)
    try:
        blosc2.decompress2(data, dst=content, nthreads=_THREADS)
    except (RuntimeError, ValueError, TypeError) as cause:
        raise MalformedArray(f"a blosc container of {len(data)} bytes doesn't decompress: {cause}") from cause
    return content


def store(content: Buffer, typesize: int) -> bytes:
    """Wrap bytes in a version 1 container without compressing them: every blosc reads it.

    Args:
        content: what to wrap, 1 byte to 2 GiB.
        typesize: bytes per item, 1 to 255 (a hint to readers; others are written as 1).

    Returns:
        The container: 16 bytes of header, then the content.

    Raises:
        ArrayRefused: the content is larger than a container can declare.
    """
    if len(content) > MAX_CHUNK_BYTES:
        raise ArrayRefused(f"{len(content)} bytes don't fit a blosc container; send the array in parts")
    size = len(content)
    header = _LAYOUT.pack(V1_FORMAT, 1, _STORED, _typesize(typesize), size, size, size + V1_HEADER_BYTES)
    return header + content


def compress(content: Buffer, typesize: int) -> bytes:
    """Wrap bytes in a version 2 container if blosc2 is installed, else in a stored version 1 one.

    Args:
        content: what to wrap, 1 byte to 2 GiB.
        typesize: bytes per item of the array inside, which steers the shuffle.

    Returns:
        A container that every blosc2 reads.

    Raises:
        ArrayRefused: the content is larger than a container can declare.
    """
    if len(content) > MAX_CHUNK_BYTES:
        raise ArrayRefused(f"{len(content)} bytes don't fit a blosc container; send the array in parts")
    try:
        import blosc2  # noqa: PLC0415 heavy, and optional
    except ImportError:
        return store(content, typesize)
    return bytes(
        blosc2.compress2(
            content,
            typesize=_typesize(typesize),
            codec=blosc2.Codec.LZ4,
            clevel=_LEVEL,
            nthreads=_THREADS,
        )
    )


def _typesize(itemsize: int) -> int:
    return itemsize if 0 < itemsize < 256 else 1
