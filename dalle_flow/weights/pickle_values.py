"""What a pickle read as data consists of: names, shells, places of tensors; and the few calls that make them.

Source: torch/_utils.py and torch/serialization.py for what torch writes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


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


class OrderedDict(dict[Any, Any]):
    """An OrderedDict; attributes given to it are dropped (torch puts `_metadata` there)."""


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


def checked_key(value: Any) -> Any:
    if not isinstance(value, KEY_TYPES):
        raise ValueError(f"a key of type {type(value).__name__}")
    return value


def _rebuild_tensor(args: tuple[Any, ...]) -> TensorRef:
    storage, offset, shape, stride = args[:4]
    fine = isinstance(storage, StorageRef) and is_dimension(offset) and type(shape) is type(stride) is tuple
    if not fine or len(shape) != len(stride) or len(shape) > 16 or not all(map(is_dimension, shape + stride)):
        raise ValueError("a tensor without a proper storage and shape")
    return TensorRef(storage, offset, shape, stride)


def _rebuild_parameter(args: tuple[Any, ...]) -> Any:
    return args[0]


def _ordered_dict(args: tuple[Any, ...]) -> OrderedDict:
    return OrderedDict((checked_key(key), value) for key, value in (args[0] if args else ()))


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
