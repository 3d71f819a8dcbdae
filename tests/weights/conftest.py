"""Flax files written from scratch, and where the parity data is."""

import os
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
CHECKPOINTS = [
    *(f"dalle/tiny_{name}/flax_model.msgpack" for name in ("dalle_bart", "dalle_bart_mini", "vqgan")),
    *("dalle/tiny_min_dalle/vqgan/detoker.pt", "clip/ViT-tiny.jit.pt"),
]


def parity_folder() -> Path | None:
    """The folder with the originals' files and answers; a plain clone has a subset in tests/data."""
    named = os.environ.get("DALLE_FLOW_PARITY")
    for folder in [Path(named)] if named else [ROOT.parent / "shared" / "parity", ROOT / "tests" / "data" / "parity"]:
        if folder.is_dir():
            return folder
    return None


@pytest.fixture
def parity() -> Path:
    folder = parity_folder()
    if folder is None:
        pytest.skip("no parity data: set DALLE_FLOW_PARITY")
    if missing := [name for name in CHECKPOINTS if not (folder / name).is_file()]:
        pytest.skip(f"{folder} has no {missing[0]}")
    return folder


def ext(array: "np.ndarray | torch.Tensor", code: int = 1) -> msgpack.ExtType:
    """An array as Flax writes it."""
    if isinstance(array, torch.Tensor):
        name, data = str(array.dtype).removeprefix("torch."), array.contiguous().reshape(-1).view(torch.uint8).numpy()
    else:
        name, data = array.dtype.name, np.ascontiguousarray(array)
    return msgpack.ExtType(code, msgpack.packb([list(array.shape), name, data.tobytes()], use_bin_type=True))


def chunked(array: "np.ndarray", size: int) -> dict[str, Any]:
    """A large array as Flax writes it, in chunks of `size` elements."""
    flat = array.reshape(-1)
    chunks = [flat[i : i + size] for i in range(0, flat.size, size)]
    return {
        "__msgpack_chunked_array__": True,
        "shape": {str(i): n for i, n in enumerate(array.shape)},
        "chunks": {str(i): ext(chunk) for i, chunk in enumerate(chunks)},
    }


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """{"a/b": x} -> {"a": {"b": x}}, arrays packed."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *above, name = key.split("/")
        at = tree
        for part in above:
            at = at.setdefault(part, {})
        at[name] = ext(value) if isinstance(value, np.ndarray | torch.Tensor) else value
    return tree


class Flax:
    """Writes Flax files into a folder."""

    ext = staticmethod(ext)
    chunked = staticmethod(chunked)

    def __init__(self, folder: Path):
        self.folder = folder

    def write(self, flat: dict[str, Any], folder: Path | None = None, name: str = "flax_model.msgpack") -> Path:
        path = (folder or self.folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgpack.packb(nested(flat), use_bin_type=True, strict_types=True))
        return path


@pytest.fixture
def flax(tmp_path: Path) -> Flax:
    return Flax(tmp_path)
