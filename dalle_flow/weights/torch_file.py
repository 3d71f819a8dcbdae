"""Reads torch's files (`.pt`, `.pth`, `.ckpt`): names -> tensors, each read from the disk only when asked for.

Source: torch/serialization.py; torch/csrc/jit/serialization/import.cpp for TorchScript.
A file is a zip archive: `data.pkl` describes, `data/0`, `data/1`, ... hold the numbers. torch writes them uncompressed;
some published files (realesr-animevideov3.pth) were zipped again, with compression.
A TorchScript archive has code beside them, and a pickled network names classes; both are read as data
(`safe_pickle.py`) and nothing in them runs. Files from before torch 1.6 are five pickles and then the numbers.
"""

import errno
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import WeightsError
from .disk import reading, storage_error
from .pickle_values import Shell, StorageRef, TensorRef
from .plan import Shape
from .safe_pickle import Unpickled, read_pickle, read_pickle_at

TORCHSCRIPT = ("__torch__.",)
MAX_PICKLE_BYTES = 256 << 20  # published ones have at most a few hundred kB
OLD_MAGIC = 0x1950A86A20F9469CFC6C
# What zipfile raises for archives that are cut off, damaged, encrypted or packed in ways torch does not use.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, RuntimeError, ValueError)
MAX_NAMES, MAX_DEPTH = 100_000, 64
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class TorchTensor:
    """One tensor of an archive that stays on the disk until it is read."""

    path: Path
    shape: Shape
    stride: Shape
    dtype: torch.dtype
    offset: int  # bytes from the start of the file, or of the unpacked entry
    extent: int  # elements from its first to its last, counting both
    packed: str = ""  # name of the entry, if that is compressed

    def read(self, layer: int | None = None) -> Tensor:
        """A fresh tensor with all of it, or with one entry of its first axis."""
        flat = torch.empty(self.extent, dtype=self.dtype)
        if self.extent:
            self._fill(memoryview(flat.view(torch.uint8).numpy().data))
        tensor = flat.as_strided(self.shape, self.stride)
        return tensor if layer is None else tensor[layer]

    def _fill(self, target: memoryview) -> None:
        if self.packed:
            with _opened(self.path) as archive:
                target[:] = archive.read(self.packed)[self.offset : self.offset + len(target)]
            return
        with reading(self.path) as file:
            file.seek(self.offset)
            if file.readinto(target) != len(target):  # type: ignore[attr-defined]  # BinaryIO has it
                raise WeightsError(f"{self.path}: became shorter while it was read; fetch it again.")


def read_torch(path: Path, shells: Sequence[str] = ()) -> dict[str, TorchTensor]:
    """All tensors of a file, by the names a state dict of it would have: "visual.conv1.weight".

    A dict of dicts ({"state_dict": {...}}) gives names with the outer key in front.

    Args:
        shells: beginnings of the modules whose classes are expected; see `read_pickle`.

    Raises:
        WeightsError: damaged, no file of torch's, or the pickle in it asks for more than holding weights needs.
    """
    with reading(path) as file:
        head = file.read(4)
    if head[:2] != b"PK":
        return _read_old(path, shells)
    with _opened(path) as archive:
        return _read_archive(path, archive, shells)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DAMAGED as error:
        raise WeightsError(f"{path}: damaged or cut off ({error}); fetch it again.") from None
    except OSError as error:
        if error.errno == errno.EINVAL:  # a place that cannot be: the table of contents is damaged
            raise WeightsError(f"{path}: damaged or cut off; fetch it again.") from None
        raise storage_error("read it", path, error) from error


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: those have constants.pkl."""
    if not zipfile.is_zipfile(path):
        return False
    with _opened(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_archive(path: Path, archive: zipfile.ZipFile, shells: Sequence[str]) -> dict[str, TorchTensor]:
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError(f"{path}: a zip archive without data.pkl, so not a file that torch saved.")
    root = pickles[0].removesuffix("data.pkl")
    if (order := entries.get(root + "byteorder")) and archive.read(order) != b"little":
        raise WeightsError(f"{path}: was saved on a big-endian machine; save it again on a little-endian one.")
    if entries[pickles[0]].file_size > MAX_PICKLE_BYTES:
        raise WeightsError(f"{path}: data.pkl is over {MAX_PICKLE_BYTES >> 20} MiB, which no file of weights needs.")
    value = read_pickle(archive.read(pickles[0]), str(path), shells)
    return {
        name: _locate(path, name, tensor, entries.get(f"{root}data/{tensor.storage.key}"))
        for name, tensor in _named(path, value)
    }


def _locate(path: Path, name: str, tensor: TensorRef, entry: zipfile.ZipInfo | None) -> TorchTensor:
    """Where in the archive the numbers of a tensor are."""
    if entry is None:
        raise WeightsError(f"{path}: the numbers of {name} are missing; the file is damaged, fetch it again.")
    if entry.compress_type != zipfile.ZIP_STORED:
        return _placed(path, name, tensor, 0, entry.file_size, entry.filename)
    with reading(path) as file:  # the names in a local header may be padded, so its own lengths count
        file.seek(entry.header_offset)
        signature, name_size, extra_size = struct.unpack("<4s22xHH", file.read(30))
        end = file.seek(0, 2)
    start = entry.header_offset + 30 + name_size + extra_size
    if signature != b"PK\3\4" or start + entry.file_size > end:
        raise WeightsError(f"{path}: the numbers of {name} are cut off; fetch it again.")
    return _placed(path, name, tensor, start, entry.file_size)


def _placed(path: Path, name: str, tensor: TensorRef, start: int, size: int, packed: str = "") -> TorchTensor:
    """A tensor within the `size` bytes of its storage, after checking that it fits there."""
    dtype = DTYPES[tensor.storage.kind]
    steps = list(zip(tensor.shape, tensor.stride, strict=True))
    extent = 0 if 0 in tensor.shape else sum((length - 1) * step for length, step in steps) + 1
    offset = tensor.offset * dtype.itemsize
    if offset + extent * dtype.itemsize > size:
        raise WeightsError(f"{path}: the numbers of {name} are cut off; fetch it again.")
    if any(step == 0 and length > 1 for length, step in steps):
        raise WeightsError(f"{path}: {name} repeats its numbers, which no weights do; the file is damaged.")
    return TorchTensor(path, tensor.shape, tensor.stride, dtype, start + offset, extent, packed)


def _named(path: Path, value: Any) -> Iterator[tuple[str, TensorRef]]:
    """The tensors in nested dicts, modules and script objects, with their dotted names."""
    waiting, names = [("", value, 0)], 0
    while waiting:
        prefix, item, depth = waiting.pop()
        names += 1
        if names > MAX_NAMES or depth > MAX_DEPTH:
            raise WeightsError(f"{path}: nested deeper or holding more than any file of weights; is it one?")
        if isinstance(item, TensorRef):
            yield prefix.removesuffix("."), item
        elif isinstance(item, Shell):
            waiting.append((prefix, _children(item.state), depth + 1))
        elif isinstance(item, dict):
            waiting += [(f"{prefix}{key}.", child, depth + 1) for key, child in reversed(item.items())]


def _children(state: Any) -> dict[Any, Any]:
    """What hangs below an object: of a pickled network its parameters, buffers and modules, else its attributes."""
    if not isinstance(state, dict):
        return {}
    if "_modules" not in state:
        return state
    children: dict[Any, Any] = {}
    for group in ("_parameters", "_buffers", "_modules"):
        if isinstance(state.get(group), dict):
            children |= state[group]
    return children


def _read_old(path: Path, shells: Sequence[str]) -> dict[str, TorchTensor]:
    """A file from before torch 1.6: a magic number, a version, the machine, the value, its storages' names, numbers."""
    with reading(path) as file:
        if file.seek(0, 2) == 0:
            raise WeightsError(f"{path}: is empty; fetch it again.")
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            magic = read_pickle_at(data, 0, str(path)) if data[:1] == b"\x80" else None
            if magic is None or magic.value != OLD_MAGIC:
                raise WeightsError(f"{path}: begins with {data[:8]!r}, so torch did not save it; is it the right file?")
            version = read_pickle_at(data, magic.end, str(path))
            machine = read_pickle_at(data, version.end, str(path))
            saved = read_pickle_at(data, machine.end, str(path), shells)
            keys = read_pickle_at(data, saved.end, str(path))
            little = isinstance(machine.value, dict) and machine.value.get("little_endian") is True
            if not little or not isinstance(keys.value, list):
                raise WeightsError(f"{path}: damaged, or saved on a big-endian machine; fetch it again.")
            places = _old_places(path, data, keys, saved.storages)
            named = _named(path, saved.value)
            return {name: _placed(path, name, tensor, *places[tensor.storage.key]) for name, tensor in named}


def _old_places(path: Path, data: mmap, keys: Unpickled, storages: dict[str, StorageRef]) -> dict[str, tuple[int, int]]:
    """Where the numbers of each storage are: one after the other in the order of `keys`, after their length each."""
    places, at = {}, keys.end
    if not all(isinstance(key, str) for key in keys.value) or set(keys.value) != set(storages):
        raise WeightsError(f"{path}: does not list the storages it uses; the file is damaged, fetch it again.")
    for key in keys.value:
        size = int.from_bytes(data[at : at + 8], "little") * DTYPES[storages[key].kind].itemsize
        places[key] = at + 8, size
        at += 8 + size
        if at > len(data):
            raise WeightsError(f"{path}: cut off, {at} bytes or more expected and {len(data)} there; fetch it again.")
    return places
