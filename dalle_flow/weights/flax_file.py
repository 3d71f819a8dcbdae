"""Walks over one Flax msgpack file and notes where each array lies; its bytes are read only when asked for.

Source: flax/serialization.py (google/flax). A file is nested msgpack maps with string keys. A leaf is an extension of
type 1 (array) or 3 (numpy scalar) whose payload is msgpack again: [shape, dtype name, little-endian bytes in C order].
An array over 2^30 bytes is a map {"__msgpack_chunked_array__": true, "shape": {...}, "chunks": {...}} instead.

Why not the msgpack package: it needs the whole file in memory. Here only the headers are read (a few kilobytes, however
large the file), every length is held against the size of the file before anything is allocated, and reading one layer
of a stacked array touches that layer's bytes alone.
"""

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

from ..errors import WeightsError
from .disk import reading

MAX_DEPTH = 32  # published files nest 8 deep
MAX_ITEMS = 1_000_000  # published files hold a few hundred
MAX_NAME_BYTES = 1024
MAX_DIMENSIONS = 8
MAX_LENGTH = 1 << 40  # of one axis

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
ARRAY, COMPLEX, SCALAR = 1, 2, 3  # Flax's extension types
CHUNKED = "__msgpack_chunked_array__"


class Span(NamedTuple):
    offset: int
    size: int


@dataclass(frozen=True)
class FlaxArray:
    """One array of a file that stays on the disk until it is read."""

    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    spans: tuple[Span, ...]  # where its bytes are, in order

    def read(self, layer: int | None = None) -> Tensor:
        """A fresh tensor with all of it, or with one entry of its first axis."""
        shape = self.shape if layer is None else self.shape[1:]
        tensor = torch.empty(shape, dtype=self.dtype)
        size = tensor.numel() * tensor.element_size()
        if size:
            self._fill(memoryview(tensor.reshape(-1).view(torch.uint8).numpy().data), (layer or 0) * size)
        return tensor

    def _fill(self, target: memoryview, skip: int) -> None:
        with reading(self.path) as file:
            for offset, size in self.spans:
                begin = min(skip, size)
                skip -= begin
                want = min(size - begin, len(target))
                file.seek(offset + begin)
                if want and file.readinto(target[:want]) != want:  # type: ignore[attr-defined]  # BinaryIO has it
                    raise WeightsError(f"{self.path}: became shorter while it was read; fetch it again.")
                target = target[want:]


Leaf = FlaxArray | int | float | str | bool | None
Tree = dict[str, "Tree"] | Leaf


# First byte of a msgpack value -> (kind, bytes of its length or value); other first bytes carry it themselves.
_HEADS = {
    0xC0: ("nil", 0), 0xC2: ("false", 0), 0xC3: ("true", 0),
    0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4), 0xC7: ("ext", 1), 0xC8: ("ext", 2), 0xC9: ("ext", 4),
    0xCA: ("float", 4), 0xCB: ("float", 8), 0xCC: ("uint", 1), 0xCD: ("uint", 2), 0xCE: ("uint", 4), 0xCF: ("uint", 8),
    0xD0: ("int", 1), 0xD1: ("int", 2), 0xD2: ("int", 4), 0xD3: ("int", 8), 0xD9: ("str", 1), 0xDA: ("str", 2),
    0xDB: ("str", 4), 0xDC: ("array", 2), 0xDD: ("array", 4), 0xDE: ("map", 2), 0xDF: ("map", 4),
}  # fmt: skip


def walk(path: Path) -> Tree:
    """What a file holds, with every array left on the disk."""
    with reading(path) as file:
        walker = _Walker(path, file)
        tree = walker.tree(0)
        if walker.at != walker.size:
            raise walker.bad(f"{walker.size - walker.at} bytes too many at the end")
    return tree


class _Walker:
    """Walks over the values of a msgpack file, reading headers and names and stepping over the bytes of arrays."""

    def __init__(self, path: Path, file: BinaryIO):
        self.path = path
        self.file = file
        self.size = os.fstat(file.fileno()).st_size
        self.at = 0
        self.items = 0

    def bad(self, why: str) -> WeightsError:
        return WeightsError(f"{self.path}: damaged at byte {self.at} of {self.size}: {why}; fetch it again.")

    def need(self, size: int) -> None:
        if size > self.size - self.at:
            raise self.bad(f"cut off, {size} bytes expected and {self.size - self.at} left")

    def take(self, size: int) -> bytes:
        self.need(size)
        data = self.file.read(size)
        self.at += len(data)
        if len(data) != size:
            raise self.bad("it became shorter while it was read")
        return data

    def skip(self, size: int) -> None:
        self.need(size)
        self.at += size
        self.file.seek(self.at)

    def head(self) -> tuple[str, int]:
        """Kind of the next value, and its length (containers, strings, extensions) or value (numbers)."""
        first = self.take(1)[0]
        if first < 0x80 or first >= 0xE0:
            return "int", first if first < 0x80 else first - 0x100
        if first < 0xC0:
            kind = "map" if first < 0x90 else "array" if first < 0xA0 else "str"
            return kind, first & (0x1F if kind == "str" else 0x0F)
        if 0xD4 <= first <= 0xD8:
            return "ext", 1 << (first - 0xD4)
        if first not in _HEADS:
            raise self.bad(f"no msgpack value begins with 0x{first:02x}")
        kind, size = _HEADS[first]
        if kind == "float":
            self.skip(size)
            return "float", 0
        value = int.from_bytes(self.take(size), "big", signed=kind == "int")
        return ("int" if kind == "uint" else kind), value

    def tree(self, depth: int) -> Tree:
        """The next value: a map as dict, a list as dict with keys "0", "1", ..., an array, or a plain value."""
        kind, value = self.head()
        if kind in ("map", "array"):
            return self._container(kind, value, depth)
        if kind == "ext":
            return self._extension(value)
        if kind in ("str", "bin"):
            self.skip(value)
            return ""  # whatever it says, it is no array
        return {"nil": None, "true": True, "false": False, "float": 0.0, "int": value}[kind]

    def _container(self, kind: str, count: int, depth: int) -> Tree:
        if depth >= MAX_DEPTH:
            raise self.bad(f"nested more than {MAX_DEPTH} deep, which no file of weights is")
        self.items += count
        if self.items > MAX_ITEMS:
            raise self.bad(f"more than {MAX_ITEMS} entries, which no file of weights has")
        self.need(count * (2 if kind == "map" else 1))
        tree: dict[str, Tree] = {}
        for number in range(count):
            name = self._name() if kind == "map" else str(number)
            if name in tree:
                raise self.bad(f"the key {name!r} is there twice")
            tree[name] = self.tree(depth + 1)
        return self._join_chunks(tree) if CHUNKED in tree else tree

    def _name(self) -> str:
        kind, size = self.head()
        if kind != "str" or size > MAX_NAME_BYTES:
            raise self.bad(f"a key must be a string of at most {MAX_NAME_BYTES} bytes, got {kind} {size}")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise self.bad("a key is not UTF-8") from None

    def _extension(self, size: int) -> FlaxArray:
        code = int.from_bytes(self.take(1), "big", signed=True)
        self.need(size)
        end = self.at + size
        if code not in (ARRAY, SCALAR):
            what = "a complex number" if code == COMPLEX else f"of the unknown extension type {code}"
            raise self.bad(f"a value is {what}, expected an array")
        if self.head() != ("array", 3):
            raise self.bad("an array must be [shape, dtype, bytes]")
        shape = self._shape()
        dtype = DTYPES.get(name := self._name())
        if dtype is None:
            raise self.bad(f"an array is of type {name!r}; allowed: {', '.join(DTYPES)}")
        kind, length = self.head()
        if kind != "bin" or length != prod(shape) * dtype.itemsize:
            raise self.bad(f"an array of shape {list(shape)} and type {name} cannot have {length} bytes")
        span = Span(self.at, length)
        self.skip(length)
        if self.at != end:
            raise self.bad("an array does not end where it says")
        return FlaxArray(self.path, shape, dtype, (span,))

    def _shape(self) -> tuple[int, ...]:
        kind, count = self.head()
        if kind != "array" or count > MAX_DIMENSIONS:
            raise self.bad(f"a shape must be a list of at most {MAX_DIMENSIONS} numbers")
        heads = [self.head() for _ in range(count)]
        if any(kind != "int" or not 0 <= value < MAX_LENGTH for kind, value in heads):
            raise self.bad(f"a shape must be a list of numbers from 0 to {MAX_LENGTH}")
        return tuple(value for _, value in heads)

    def _join_chunks(self, tree: dict[str, Tree]) -> FlaxArray:
        shape, chunks = _listed(tree.get("shape")), _listed(tree.get("chunks"))
        if set(tree) != {CHUNKED, "shape", "chunks"} or not chunks or len(shape) > MAX_DIMENSIONS:
            raise self.bad("an array in chunks must have shape and chunks")
        arrays = [chunk for chunk in chunks if isinstance(chunk, FlaxArray) and len(chunk.shape) == 1]
        sizes = [size for size in shape if type(size) is int and 0 <= size < MAX_LENGTH]
        if len(arrays) != len(chunks) or len(sizes) != len(shape) or len({array.dtype for array in arrays}) != 1:
            raise self.bad("the chunks of an array must be flat arrays of one type, its shape numbers from 0")
        if sum(array.shape[0] for array in arrays) != prod(sizes):
            raise self.bad(f"the chunks of an array do not fill its shape {sizes}")
        spans = tuple(span for array in arrays for span in array.spans)
        return FlaxArray(self.path, tuple(sizes), arrays[0].dtype, spans)


def _listed(tree: Tree) -> list[Tree]:
    """The values of {"0": a, "1": b, ...} in order; an empty list where the keys are others."""
    if not isinstance(tree, dict) or set(tree) != {str(number) for number in range(len(tree))}:
        return []
    return [tree[str(number)] for number in range(len(tree))]
