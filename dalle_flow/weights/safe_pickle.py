"""Reads a pickle as data. Nothing in it is imported, looked up or called, so nothing in it can run.

A pickle is a program for a small stack machine; its danger is that GLOBAL fetches any Python object and REDUCE calls
it. Here GLOBAL only makes a note of the two names, and the few calls that files of weights need (rebuild a tensor, an
OrderedDict) are carried out by this file on plain data. Every other global is refused by name, or, where the caller
says that its module is expected (a pickled network, a TorchScript archive), becomes an inert `Shell`.

Own machine rather than a restricted `pickle.Unpickler`: that one still offers a crafted file the memo table to exhaust
memory with, hashing of any nested key, and attributes of what it was given.

Source: CPython `Lib/pickletools.py` for the opcodes; torch/serialization.py and torch/_utils.py for what torch writes.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dalle_flow.errors import WeightsError


class Global(NamedTuple):
    """The name of a Python object, as text only."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Shell:
    """An object of a class that was not looked up: what it was made from, and its state."""

    of: Global
    args: tuple[Any, ...] = ()
    state: Any = None


@dataclass(frozen=True, eq=False)
class StorageRef:
    """Bytes that lie elsewhere in the archive."""

    kind: str  # torch's class name, such as "HalfStorage"
    key: str
    size: int  # elements


@dataclass(frozen=True, eq=False)
class TensorRef:
    """A tensor over some bytes of the archive."""

    storage: StorageRef
    offset: int  # elements
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Dict(dict[Any, Any]):
    """An OrderedDict; attributes given to it are dropped (torch puts `_metadata` there)."""


MARK = object()
TORCH, UTILS, COLLECTIONS = "torch", "torch._utils", "collections"
DATA_ONLY = {Global(TORCH, "device"), Global(TORCH, "Size"), Global("torch.serialization", "_get_layout")}
DTYPES = {"float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"}
STORAGES = {
    *("DoubleStorage", "FloatStorage", "HalfStorage", "BFloat16Storage", "BoolStorage"),
    *("LongStorage", "IntStorage", "ShortStorage", "CharStorage", "ByteStorage"),
}
KEY_TYPES = (str, int, Global)


def is_dimension(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _rebuild_tensor(args: tuple[Any, ...]) -> TensorRef:
    storage, offset, shape, stride = args[:4]
    fine = isinstance(storage, StorageRef) and is_dimension(offset) and type(shape) is type(stride) is tuple
    if not fine or len(shape) != len(stride) or len(shape) > 16 or not all(map(is_dimension, shape + stride)):
        raise ValueError("a tensor without a proper storage and shape")
    return TensorRef(storage, offset, shape, stride)


def _rebuild_parameter(args: tuple[Any, ...]) -> Any:
    return args[0]


def _ordered_dict(args: tuple[Any, ...]) -> _Dict:
    return _Dict((_key(key), value) for key, value in (args[0] if args else ()))


def _plain_list(args: tuple[Any, ...]) -> list[Any]:
    return list(args[0]) if args and isinstance(args[0], list | tuple) else []


CALLS: dict[Global, Callable[[tuple[Any, ...]], Any]] = {
    Global(UTILS, "_rebuild_tensor"): _rebuild_tensor,
    Global(UTILS, "_rebuild_tensor_v2"): _rebuild_tensor,
    Global(UTILS, "_rebuild_parameter"): _rebuild_parameter,
    Global(UTILS, "_rebuild_parameter_with_state"): _rebuild_parameter,
    Global(COLLECTIONS, "OrderedDict"): _ordered_dict,
    Global("__builtin__", "set"): _plain_list,
    Global("builtins", "set"): _plain_list,
    Global("torch.jit._pickle", "build_intlist"): _plain_list,
    Global("torch.jit._pickle", "build_doublelist"): _plain_list,
    Global("torch.jit._pickle", "build_boollist"): _plain_list,
    Global("torch.jit._pickle", "restore_type_tag"): _rebuild_parameter,
}


def read_pickle(data: bytes, where: str, shells: Sequence[str] = ()) -> Any:
    """What a pickle holds.

    Args:
        where: names the file in errors.
        shells: beginnings of module names whose classes become inert `Shell`s, such as "torch.nn.modules.".

    Returns:
        numbers, strings, lists, tuples and dicts, with `TensorRef` and `Shell` for the rest.

    Raises:
        WeightsError: it asks for a global that is not allowed, or it is damaged.
    """
    machine = _Machine(data, where, tuple(shells))
    try:
        return machine.run()
    except WeightsError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, struct.error, RecursionError) as error:
        raise WeightsError(f"{where}: the pickle is damaged at byte {machine.at} ({error}); fetch it again.") from None


def _key(value: Any) -> Any:
    if not isinstance(value, KEY_TYPES):
        raise ValueError(f"a key of type {type(value).__name__}")
    return value


@dataclass
class _Machine:
    data: bytes
    where: str
    shells: tuple[str, ...]
    at: int = 0
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

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
        end = self.data.index(b"\n", self.at)
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
        elif not isinstance(target, _Dict):
            raise ValueError(f"a state for a {type(target).__name__}")

    def storage(self) -> None:
        kind, storage, key, _device, size = self.pop()[:5]
        if kind != "storage" or not isinstance(storage, Global) or storage.name not in STORAGES:
            raise ValueError("an unknown kind of storage")
        if type(key) is not str or not is_dimension(size):
            raise ValueError("a storage without a proper name and size")
        self.push(StorageRef(storage.name, key, size))

    def set_items(self, items: Sequence[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError(f"entries for a {type(target).__name__}")
        target.update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))

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
