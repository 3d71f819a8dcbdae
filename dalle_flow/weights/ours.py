"""Our own layout: a folder with `config.json` and `model.safetensors`, tokenizer files beside them where there are any.

The keys are the model's own parameter names, matrices in 8 bits where asked (`safetensors_file.py`).
The header's metadata says the format, the model's class, and of which files (sha256) it was converted.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from .disk import read_json, writing
from .plan import Plan, Stored, plan_as_is
from .safetensors_file import (
    INT8,
    SCALE,
    Entry,
    open_safetensors,
    quantize,
    read_safetensors,
    safetensors_writer,
)

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
FORMAT, VERSION = "dalle-flow", "1"


def is_ours(folder: Path) -> bool:
    """Whether a folder is in this layout."""
    if not (folder / CONFIG_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        return False
    return read_metadata(folder).get("format") == FORMAT


def read_metadata(folder: Path) -> dict[str, str]:
    """What the header says: format, version, model, source."""
    return dict(open_safetensors(folder / WEIGHTS_FILE).metadata() or {})


def read_ours(folder: Path, model_class: type[nn.Module]) -> tuple[dict[str, Any], dict[str, Stored], Plan]:
    """Config, tensors and plan of a folder in this layout that must hold a `model_class`."""
    metadata = read_metadata(folder)
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        got = f"{metadata.get('format')} {metadata.get('version')}"
        raise WeightsError(f"{folder}: the format is {got}, expected {FORMAT} {VERSION}; convert the weights again.")
    if metadata.get("model") != model_class.__name__:
        raise WeightsError(f"{folder}: holds a {metadata.get('model')}, expected a {model_class.__name__}.")
    stored = read_safetensors(folder / WEIGHTS_FILE)
    return read_json(folder / CONFIG_FILE), stored, plan_as_is(stored)


def config_from(where: object, config_class: Any, values: Mapping[str, Any]) -> Any:
    """The config a config.json describes; its own `from_dict` if it has one, else field by field, strictly."""
    values = {key: value for key, value in values.items() if not key.startswith("_")}
    try:
        if hasattr(config_class, "from_dict"):
            return config_class.from_dict(values)
        known = {field.name for field in fields(config_class)}
        if unknown := sorted(values.keys() - known):
            raise WeightsError(f"unknown: {', '.join(unknown[:4])}; allowed: {', '.join(sorted(known))}")
        return config_class(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
    except (WeightsError, TypeError, ValueError) as error:
        raise WeightsError(f"{where}: config.json does not fit {config_class.__name__}: {error}") from None


def config_to_dict(config: Any) -> dict[str, Any]:
    """What `config_from` reads back."""
    if hasattr(config, "to_dict"):
        return dict(config.to_dict())
    if not is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"a config must be a dataclass, got {config!r}")
    return asdict(config)


def write_config(folder: Path, model: nn.Module) -> None:
    values = {"_format": FORMAT, "_model": type(model).__name__, **config_to_dict(model.config)}
    with writing(folder / CONFIG_FILE) as file:
        file.write(json.dumps(values, indent=2).encode() + b"\n")


def metadata_for(model: nn.Module, source: str = "") -> dict[str, str]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": type(model).__name__,
        **({"source": source} if source else {}),
    }


def save_ours(
    model: nn.Module, folder: Path, *, int8: bool = False, dtype: torch.dtype | None = None, source: str = ""
) -> None:
    """Write a model in this layout; what was there before is replaced only once the new files are whole.

    Args:
        int8: keep every tensor of two axes or more in 8 bits.
        dtype: of the others; None: as they are.
        source: where the weights come from, for the header.
    """
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    kinds = {name: Entry(tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()}
    with weights_writer(folder, model, kinds, int8=int8, dtype=dtype, source=source) as write:
        for name, tensor in state.items():
            write(name, tensor)


@contextmanager
def weights_writer(
    folder: Path,
    model: nn.Module,
    kinds: Mapping[str, Entry],
    *,
    int8: bool = False,
    dtype: torch.dtype | None = None,
    source: str = "",
) -> Iterator[Callable[[str, Tensor], None]]:
    """The files of a model whose tensors come one by one; arguments as `save_ours`, types before the change of type."""
    in_8_bits = {name for name, kind in kinds.items() if int8 and kind.dtype.is_floating_point and len(kind.shape) > 1}
    entries: dict[str, Entry] = {}
    for name, kind in kinds.items():
        if name in in_8_bits:
            entries[name + INT8] = Entry(torch.int8, kind.shape)
            entries[name + SCALE] = Entry(torch.float32, kind.shape[:1])
        else:
            entries[name] = Entry(dtype if dtype and kind.dtype.is_floating_point else kind.dtype, kind.shape)
    with safetensors_writer(folder / WEIGHTS_FILE, entries, metadata_for(model, source)) as put:

        def write(name: str, tensor: Tensor) -> None:
            if name in in_8_bits:
                values, scale = quantize(tensor)
                put(name + INT8, values)
                put(name + SCALE, scale)
            else:
                put(name, checked_cast(name, tensor, entries[name].dtype))

        yield write
    write_config(folder, model)


def checked_cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in another type.

    Raises:
        WeightsError: a number became infinite on the way.
    """
    cast = tensor.to(dtype)
    if dtype == torch.float16 and tensor.dtype != dtype and not cast.isfinite().all() and tensor.isfinite().all():
        raise WeightsError(f"{name} holds {tensor.abs().max().item():.4g}, too large for float16; use bfloat16.")
    return cast
