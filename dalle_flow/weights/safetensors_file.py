"""Reads and writes safetensors files, with matrices in 8 bits where asked.

Source: huggingface/safetensors, README "Format": 8 bytes of length, a JSON header, the numbers.
A matrix kept in 8 bits is two entries, `<name>.int8` and `<name>.scale`: weight-only, one float32 scale per row of the
first axis, value = int8 * scale, multiplied out while loading.
Writing is done here rather than by the package's `save_file`, which wants all tensors in memory at once.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import WeightsError
from .disk import writing
from .plan import Shape, Stored

INT8, SCALE = ".int8", ".scale"
NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
DTYPES = {name: dtype for dtype, name in NAMES.items()}


class Entry(NamedTuple):
    """One tensor of a file to be written."""

    dtype: torch.dtype
    shape: Shape


@dataclass(frozen=True)
class SafeTensor:
    """One tensor of a safetensors file."""

    file: Any  # what safe_open gives; it maps the file into memory
    key: str
    shape: Shape
    dtype: torch.dtype

    def read(self, layer: int | None = None) -> Tensor:
        tensor: Tensor = self.file.get_tensor(self.key)
        return tensor if layer is None else tensor[layer]


@dataclass(frozen=True)
class Int8Tensor:
    """A matrix kept in 8 bits with a scale per row."""

    values: SafeTensor
    scale: SafeTensor
    dtype: torch.dtype = torch.float32

    @property
    def shape(self) -> Shape:
        return self.values.shape

    def read(self, layer: int | None = None) -> Tensor:
        tensor = dequantize(self.values.read(), self.scale.read())
        return tensor if layer is None else tensor[layer]


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor of two axes or more -> int8 of the same shape and a float32 scale per row; off by half a scale at most.

    Raises:
        WeightsError: it holds NaN or infinity.
    """
    rows = weight.detach().float().flatten(1)
    if not rows.isfinite().all():
        raise WeightsError("a weight is NaN or infinite, which 8 bits cannot hold; the training has diverged.")
    scale = rows.abs().amax(1) / 127
    scale[scale == 0] = 1
    return (rows / scale[:, None]).round().to(torch.int8).view(weight.shape), scale


def dequantize(values: Tensor, scale: Tensor) -> Tensor:
    return (values.flatten(1).float() * scale[:, None].float()).view(values.shape)


def read_safetensors(path: Path) -> dict[str, Stored]:
    """The tensors of any safetensors file by name; pairs of 8-bit values and scales count as one."""
    file = open_safetensors(path)
    plain: dict[str, SafeTensor] = {}
    for key in file.keys():  # noqa: SIM118  # not a dict
        view = file.get_slice(key)
        if (dtype := DTYPES.get(view.get_dtype())) is None:
            raise WeightsError(f"{path}: {key} is of type {view.get_dtype()}; allowed: {', '.join(DTYPES)}.")
        plain[key] = SafeTensor(file, key, tuple(view.get_shape()), dtype)
    stored: dict[str, Stored] = {}
    for key, values in plain.items():
        name = key.removesuffix(INT8)
        scale = plain.get(name + SCALE)
        if key == name:
            if not (key.endswith(SCALE) and key.removesuffix(SCALE) + INT8 in plain):
                stored[key] = values
        elif scale is None or len(values.shape) < 2 or scale.shape != values.shape[:1] or values.dtype != torch.int8:
            raise WeightsError(f"{path}: {key} has no {name + SCALE} with a scale per row; the file is damaged.")
        else:
            stored[name] = Int8Tensor(values, scale)
    return stored


def open_safetensors(path: Path) -> Any:
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file; fetch or convert the weights again.")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({error}); fetch it again.") from None


@contextmanager
def safetensors_writer(
    path: Path, entries: Mapping[str, Entry], metadata: Mapping[str, str]
) -> Iterator[Callable[[str, Tensor], None]]:
    """A file that is written tensor by tensor, in any order; it appears under `path` when all are in."""
    places: dict[str, int] = {}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name in sorted(entries, key=lambda name: (-entries[name].dtype.itemsize, name)):  # keeps all of them aligned
        entry = entries[name]
        places[name], size = at, prod(entry.shape) * entry.dtype.itemsize
        header[name] = {"dtype": NAMES[entry.dtype], "shape": entry.shape, "data_offsets": (at, at + size)}
        at += size
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with writing(path) as file:
        file.write(len(head).to_bytes(8, "little") + head)

        def write(name: str, tensor: Tensor) -> None:
            if (tensor.dtype, tuple(tensor.shape)) != entries[name]:
                raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, announced was {entries[name]}")
            file.seek(8 + len(head) + places.pop(name))
            if tensor.numel():
                file.write(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)

        yield write
        if places:
            raise ValueError(f"not written: {sorted(places)}")
