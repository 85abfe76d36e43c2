"""Read packed arrays: a machine for the few pickle opcodes and symbols that describe an array.

Law: nothing here imports, looks up or calls anything that the bytes name. A symbol is a member of an
enumeration, a call is a branch of `_call`, and what the table does not hold is refused by its name.
Every size is checked against the bytes that are there before it is used.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final

from pilotage.protocol.drafts import DtypeDraft
from pilotage.protocol.dtypes import shorten
from pilotage.protocol.errors import MalformedArray
from pilotage.protocol.late import np
from pilotage.protocol.layout import check_shape, lay_out

MAX_BYTES: Final = 256 * 2**20
MAX_OPCODES: Final = 20_000
MAX_STACK: Final = 4_096
MAX_MEMO: Final = 16_384


class Symbol(Enum):
    """The names that a packed array may mention; each stands for itself and does nothing."""

    NDARRAY = auto()
    DTYPE = auto()
    RECONSTRUCT = auto()
    FROMBUFFER = auto()
    SCALAR = auto()
    ENCODE = auto()


_GLOBALS: Final[dict[tuple[str, str], Symbol]] = {
    ("numpy", "ndarray"): Symbol.NDARRAY,
    ("numpy", "dtype"): Symbol.DTYPE,
    ("numpy.core.multiarray", "_reconstruct"): Symbol.RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): Symbol.RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): Symbol.FROMBUFFER,
    ("numpy._core.numeric", "_frombuffer"): Symbol.FROMBUFFER,
    ("numpy.core.multiarray", "scalar"): Symbol.SCALAR,
    ("numpy._core.multiarray", "scalar"): Symbol.SCALAR,
    ("_codecs", "encode"): Symbol.ENCODE,
}
_REFUSED: Final[dict[int, str]] = {
    0x69: "INST",
    0x6F: "OBJ",
    0x81: "NEWOBJ",
    0x92: "NEWOBJ_EX",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    0x50: "PERSID",
    0x51: "BINPERSID",
    0x97: "NEXT_BUFFER",
    0x5D: "EMPTY_LIST",
    0x61: "APPEND",
    0x65: "APPENDS",
    0x30: "POP",
    0x31: "POP_MARK",
    0x32: "DUP",
}


class ArrayDraft:
    """An array as its bytes describe it, before anything is allocated for it."""

    __slots__ = ("content", "dtype", "fortran", "shape")

    def __init__(self) -> None:
        """Start without content: `_reconstruct` describes an array that its BUILD completes."""
        self.shape: tuple[int, ...] = ()
        self.dtype: DtypeDraft | None = None
        self.fortran = False
        self.content: bytes | memoryview = b""

    def fill(self, content: object, dtype: object, shape: object, fortran: object) -> ArrayDraft:
        """Complete the description once; MalformedArray for anything that is not of an array."""
        if self.dtype is not None:
            raise MalformedArray("a second BUILD for one array")
        if not isinstance(content, bytes | memoryview) or not isinstance(dtype, DtypeDraft):
            raise MalformedArray("an array's content is no bytes, or its dtype is none")
        dtype.ready()
        self.content, self.dtype = content, dtype
        self.shape, self.fortran = check_shape(shape), fortran is True
        return self

    def lay(self, max_bytes: int) -> np.ndarray[Any, Any]:
        """Make the array, a writeable copy of the bytes; MalformedArray if they don't fit it."""
        if self.dtype is None:
            raise MalformedArray("an array was announced but never described (no BUILD)")
        dtype, order = self.dtype.ready(), "F" if self.fortran else "C"
        lay_out(self.content, dtype, self.shape, order, max_bytes)
        return lay_out(bytearray(self.content), dtype, self.shape, order, max_bytes)


class _Machine:
    """One reading of one packed array: bytes, a stack, marks and a memo, all bounded."""

    __slots__ = ("data", "encodable", "marks", "memo", "position", "stack")

    def __init__(self, data: memoryview, max_bytes: int) -> None:
        self.data = data
        self.position = 0
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.encodable = max_bytes

    def run(self) -> object:
        """Carry out the opcodes up to STOP and give the one thing that is left."""
        if self.number(1) != 0x80 or not 2 <= self.number(1) <= 5:
            raise MalformedArray("a packed array must begin with PROTO 2 to 5")
        for _ in range(MAX_OPCODES):
            at, code = self.position, self.number(1)
            if code == _STOP:
                return self.finish()
            step = _STEPS.get(code)
            if step is None:
                name = _REFUSED.get(code, f"{code:#04x}")
                raise MalformedArray(f"opcode {name} at byte {at} has no place in a packed array")
            step(self)
            if len(self.stack) > MAX_STACK or len(self.memo) > MAX_MEMO:
                raise MalformedArray("a packed array overflows the stack or the memo")
        raise MalformedArray(f"a packed array has more than {MAX_OPCODES} opcodes")

    def finish(self) -> object:
        if self.position != len(self.data) or len(self.stack) != 1 or self.marks:
            raise MalformedArray("a packed array leaves something over at STOP")
        return self.stack[0]

    def take(self, size: int) -> memoryview:
        end = self.position + size
        if end > len(self.data):
            raise MalformedArray(f"a packed array ends at byte {len(self.data)}, {size} more were announced")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def line(self) -> str:
        window = bytes(self.data[self.position : self.position + 128])
        end = window.find(b"\n")
        if end < 0:
            raise MalformedArray("a symbol's name has no end")
        self.position += end + 1
        return _text(window[:end])

    def pop(self) -> object:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise MalformedArray(f"a packed array's stack is empty at byte {self.position}")
        return self.stack.pop()

    def since_mark(self) -> list[object]:
        if not self.marks:
            raise MalformedArray(f"a packed array lacks a MARK at byte {self.position}")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def push(self, value: object) -> None:
        self.stack.append(value)


def _text(raw: bytes | memoryview) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as cause:
        raise MalformedArray("a text in a packed array is not UTF-8") from cause


def _symbol(module: object, name: object) -> Symbol:
    symbol = _GLOBALS.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
    if symbol is None:
        raise MalformedArray(f"a packed array names {shorten(module)} {shorten(name)}; only arrays are read")
    return symbol


def _call(machine: _Machine, symbol: object, arguments: object) -> object:
    """Stand in for the call that the bytes ask for: describe its result, do nothing else."""
    match symbol, arguments:
        case Symbol.DTYPE, (code, False, True):
            return DtypeDraft(code)
        case Symbol.RECONSTRUCT, (Symbol.NDARRAY, (0,), bytes() | memoryview() as kind) if kind == b"b":
            return ArrayDraft()
        case Symbol.FROMBUFFER, (content, dtype, shape, "C" | "F" as order):
            return ArrayDraft().fill(content, dtype, shape, order == "F")
        case Symbol.SCALAR, (dtype, content):
            return ArrayDraft().fill(content, dtype, (), False)
        case Symbol.ENCODE, (str() as text, "latin1"):
            return _latin1(machine, text)
    name = symbol.name if isinstance(symbol, Symbol) else shorten(symbol)
    raise MalformedArray(f"REDUCE of {name} with arguments that no array has")


def _latin1(machine: _Machine, text: str) -> bytes:
    machine.encodable -= len(text)
    if machine.encodable < 0:
        raise MalformedArray("a packed array encodes more text than its limit")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as cause:
        raise MalformedArray("_codecs.encode of text that is not latin1") from cause


def _reduce(machine: _Machine) -> None:
    arguments = machine.pop()
    machine.push(_call(machine, machine.pop(), arguments))


def _build(machine: _Machine) -> None:
    state, target = machine.pop(), machine.pop()
    if isinstance(target, DtypeDraft):
        target.build(state)
    elif isinstance(target, ArrayDraft) and isinstance(state, tuple) and len(state) == 5 and state[0] == 1:
        target.fill(state[4], state[2], state[1], state[3])
    else:
        raise MalformedArray("BUILD of something that is no array or dtype, or of an unknown state")
    machine.push(target)


def _set_items(machine: _Machine, pairs: list[object]) -> None:
    target = machine.pop()
    if not isinstance(target, dict) or len(pairs) % 2:
        raise MalformedArray("SETITEMS on something that is no dict, or with half a pair")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not isinstance(key, str):
            raise MalformedArray(f"a dict in a packed array has the key {shorten(key)}, which is no text")
        target[key] = value
    machine.push(target)


def _set_item(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _set_items(machine, [key, value])


def _stack_global(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(_symbol(module, name))


def _global(machine: _Machine) -> None:
    module = machine.line()
    machine.push(_symbol(module, machine.line()))


def _frame(machine: _Machine) -> None:
    size = machine.number(8)
    there = len(machine.data) - machine.position
    if size > there:
        raise MalformedArray(f"FRAME announces {size} bytes, {there} are there")


def _memoize(machine: _Machine, index: int) -> None:
    value = machine.pop()
    machine.push(value)
    machine.memo[index] = value


def _recall(machine: _Machine, index: int) -> None:
    if index not in machine.memo:
        raise MalformedArray(f"a packed array recalls entry {index}, which was never stored")
    machine.push(machine.memo[index])


def _tuple(size: int) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        items = [machine.pop() for _ in range(size)]
        machine.push(tuple(reversed(items)))

    return step


def _constant(value: object) -> Callable[[_Machine], None]:
    return lambda machine: machine.push(value)


def _integer(size: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.push(machine.number(size))


def _bytes(size: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.push(machine.take(machine.number(size)))


def _unicode(size: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.push(_text(machine.take(machine.number(size))))


def _long1(machine: _Machine) -> None:
    size = machine.number(1)
    if size > 9:
        raise MalformedArray(f"LONG1 of {size} bytes: no size of an array is so large")
    machine.push(int.from_bytes(machine.take(size), "little", signed=True))


_STOP: Final = 0x2E
_STEPS: Final[dict[int, Callable[[_Machine], None]]] = {
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("N"): _constant(None),
    0x88: _constant(True),
    0x89: _constant(False),
    ord("K"): _integer(1),
    ord("M"): _integer(2),
    ord("J"): lambda m: m.push(struct.unpack("<i", m.take(4))[0]),
    0x8A: _long1,
    ord("C"): _bytes(1),
    ord("B"): _bytes(4),
    0x8E: _bytes(8),
    0x96: _bytes(8),
    0x8C: _unicode(1),
    ord("X"): _unicode(4),
    0x8D: _unicode(8),
    ord(")"): _constant(()),
    0x85: _tuple(1),
    0x86: _tuple(2),
    0x87: _tuple(3),
    ord("t"): lambda m: m.push(tuple(m.since_mark())),
    ord("}"): lambda m: m.push({}),
    ord("s"): _set_item,
    ord("u"): lambda m: _set_items(m, m.since_mark()),
    ord("c"): _global,
    0x93: _stack_global,
    ord("R"): _reduce,
    ord("b"): _build,
    ord("q"): lambda m: _memoize(m, m.number(1)),
    ord("r"): lambda m: _memoize(m, m.number(4)),
    0x94: lambda m: _memoize(m, len(m.memo)),
    ord("h"): lambda m: _recall(m, m.number(1)),
    ord("j"): lambda m: _recall(m, m.number(4)),
    0x95: _frame,
}


def unpack(data: bytes | bytearray | memoryview, max_bytes: int = MAX_BYTES) -> np.ndarray[Any, Any]:
    """Read the array that `pack_array` wrote, without running anything that its bytes name.

    Args:
        data: the decompressed content of a packed array, pickle protocol 2 to 5.
        max_bytes: the most bytes that the array may have.

    Returns:
        The array with its dtype, shape and order, writeable; a numpy scalar comes as a 0-d array.

    Raises:
        MalformedArray: an opcode or symbol that describes no array (named), sizes that contradict
            each other or exceed a bound, or bytes that end too early or too late.
    """
    result = _Machine(memoryview(data), max_bytes).run()
    if not isinstance(result, ArrayDraft):
        raise MalformedArray("the bytes describe no array")
    return result.lay(max_bytes)
