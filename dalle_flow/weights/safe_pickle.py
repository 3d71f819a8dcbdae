"""Reads a pickle as data. Nothing in it is imported, looked up or called, so nothing in it can run.

A pickle is a program for a small stack machine; its danger is that GLOBAL fetches any Python object and REDUCE calls
it. Here GLOBAL only makes a note of the two names, and the few calls that files of weights need (rebuild a tensor, an
OrderedDict) are carried out by `pickle_values.py` on plain data. Every other global is refused by name, or, where the
caller says that its module is expected (a pickled network, a TorchScript archive), becomes an inert `Shell`.

Own machine rather than a restricted `pickle.Unpickler`: that one still offers a crafted file the memo table to exhaust
memory with, hashing of any nested key, and attributes of what it was given.

Source: CPython `Lib/pickletools.py` for the opcodes.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from mmap import mmap
from typing import Any, NamedTuple

from ..errors import WeightsError
from .pickle_values import (
    CALLS,
    DATA_ONLY,
    DTYPES,
    STORAGES,
    TORCH,
    Global,
    OrderedDict,
    Shell,
    StorageRef,
    checked_key,
    is_dimension,
)

Data = bytes | mmap
MARK = object()
MAX_LINE_BYTES = 4096


def read_pickle(data: Data, where: str, shells: Sequence[str] = ()) -> Any:
    """What a pickle holds.

    Args:
        where: names the file in errors.
        shells: beginnings of module names whose classes become inert `Shell`s, such as "torch.nn.modules.".

    Returns:
        numbers, strings, lists, tuples and dicts, with `TensorRef` and `Shell` for the rest.

    Raises:
        WeightsError: it asks for a global that is not allowed, or it is damaged.
    """
    return read_pickle_at(data, 0, where, shells).value


class Unpickled(NamedTuple):
    value: Any
    end: int  # the byte after it
    storages: dict[str, StorageRef]  # all it mentions, by key


def read_pickle_at(data: Data, at: int, where: str, shells: Sequence[str] = ()) -> Unpickled:
    """As `read_pickle`, for a pickle that begins at a byte within the data."""
    machine = _Machine(data, where, tuple(shells), at)
    try:
        return Unpickled(machine.run(), machine.at, machine.storages)
    except WeightsError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, struct.error, RecursionError) as error:
        raise WeightsError(f"{where}: the pickle is damaged at byte {machine.at} ({error}); fetch it again.") from None


@dataclass
class _Machine:
    data: Data
    where: str
    shells: tuple[str, ...]
    at: int
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, StorageRef] = field(default_factory=dict)

    def run(self) -> Any:
        while True:
            opcode = self.take(1)[0]
            if opcode == 0x2E:  # STOP
                (result,) = self.stack
                return result
            if opcode not in OPCODES:
                raise ValueError(f"opcode 0x{opcode:02x}, which no file of weights has")
            OPCODES[opcode](self)

    def take(self, size: int) -> bytes:
        if size < 0 or self.at + size > len(self.data):
            raise ValueError("cut off")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def line(self) -> str:
        if (end := self.data.find(b"\n", self.at, self.at + MAX_LINE_BYTES)) < 0:
            raise ValueError("cut off")
        text = self.take(end - self.at).decode()
        self.at += 1
        return text

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is MARK:
            raise ValueError("a mark where a value should be")
        return value

    def pop_mark(self) -> list[Any]:
        """All values above the last mark; both are taken off."""
        values: list[Any] = []
        while (value := self.stack.pop()) is not MARK:
            values.append(value)
        return values[::-1]

    def pop_tuple(self, size: int) -> None:
        self.push(tuple(self.pop() for _ in range(size))[::-1])

    def put(self, place: int) -> None:
        if self.stack[-1] is MARK:
            raise ValueError("a mark where a value should be")
        self.memo[place] = self.stack[-1]

    def is_shell(self, name: Global) -> bool:
        return name.module.startswith(self.shells) if self.shells else False

    def find(self) -> None:
        name = Global(self.line(), self.line())
        dtype_or_storage = name.module == TORCH and (name.name in DTYPES or name.name in STORAGES)
        if not (name in CALLS or name in DATA_ONLY or dtype_or_storage or self.is_shell(name)):
            raise WeightsError(
                f"{self.where}: the pickle asks for {name}, which is not needed to hold weights and could run code. "
                "Nothing was run. Use a safetensors file of the same weights."
            )
        self.push(name)

    def call(self) -> None:
        args, function = self.pop(), self.pop()
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise ValueError("a call of something that is no function")
        if function in CALLS:
            self.push(CALLS[function](args))
        elif function in DATA_ONLY or self.is_shell(function):
            self.push(Shell(function, args))
        else:
            raise ValueError(f"a call of {function}")

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, Shell):
            target.state = state
        elif not isinstance(target, OrderedDict):
            raise ValueError(f"a state for a {type(target).__name__}")

    def storage(self) -> None:
        kind, storage, key, _device, size = self.pop()[:5]
        if kind != "storage" or not isinstance(storage, Global) or storage.name not in STORAGES:
            raise ValueError("an unknown kind of storage")
        if type(key) is not str or not is_dimension(size):
            raise ValueError("a storage without a proper name and size")
        self.storages[key] = StorageRef(storage.name, key, size)
        self.push(self.storages[key])

    def set_items(self, items: Sequence[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError(f"entries for a {type(target).__name__}")
        target.update((checked_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))

    def append(self, items: Sequence[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError(f"elements for a {type(target).__name__}")
        target.extend(items)

    def push_long(self) -> None:
        self.push(int.from_bytes(self.take(self.number("<B")), "little", signed=True))

    def push_text(self, size: int) -> None:
        self.push(self.take(size).decode("utf-8", "surrogatepass"))

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items((key, value))

    def append_one(self) -> None:
        value = self.pop()
        self.append((value,))


OPCODES: dict[int, Callable[[_Machine], object]] = {
    0x80: lambda m: m.take(1),  # PROTO
    0x95: lambda m: m.take(8),  # FRAME
    ord("("): lambda m: m.push(MARK),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("K"): lambda m: m.push(m.number("<B")),
    ord("M"): lambda m: m.push(m.number("<H")),
    ord("J"): lambda m: m.push(m.number("<i")),
    0x8A: lambda m: m.push_long(),  # LONG1
    ord("G"): lambda m: m.push(m.number(">d")),
    ord("X"): lambda m: m.push_text(m.number("<I")),
    0x8C: lambda m: m.push_text(m.number("<B")),  # SHORT_BINUNICODE
    ord("U"): lambda m: m.push_text(m.number("<B")),  # SHORT_BINSTRING: Python 2's str
    ord("C"): lambda m: m.push(m.take(m.number("<B"))),  # SHORT_BINBYTES
    ord("B"): lambda m: m.push(m.take(m.number("<I"))),  # BINBYTES
    ord(")"): lambda m: m.push(()),
    ord("]"): lambda m: m.push([]),
    ord("}"): lambda m: m.push({}),
    ord("t"): lambda m: m.push(tuple(m.pop_mark())),
    0x85: lambda m: m.pop_tuple(1),
    0x86: lambda m: m.pop_tuple(2),
    0x87: lambda m: m.pop_tuple(3),
    ord("a"): lambda m: m.append_one(),
    ord("e"): lambda m: m.append(m.pop_mark()),
    ord("s"): lambda m: m.set_item(),
    ord("u"): lambda m: m.set_items(m.pop_mark()),
    ord("q"): lambda m: m.put(m.number("<B")),
    ord("r"): lambda m: m.put(m.number("<I")),
    0x94: lambda m: m.put(len(m.memo)),  # MEMOIZE
    ord("h"): lambda m: m.push(m.memo[m.number("<B")]),
    ord("j"): lambda m: m.push(m.memo[m.number("<I")]),
    ord("c"): lambda m: m.find(),
    ord("R"): lambda m: m.call(),
    0x81: lambda m: m.call(),  # NEWOBJ
    ord("b"): lambda m: m.build(),
    ord("Q"): lambda m: m.storage(),  # BINPERSID
}
