"""Rewrites weights of any layout as ours, tensor by tensor.

Memory: one tensor at a time, whatever the size of the model; reading and writing go through the system's file cache.
Disk: the target folder appears under its name when it is complete; until then it has a temporary name beside it, which
goes away on any failure.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import OptionError, WeightsError
from . import min_dalle
from .disk import Progress, read_json, sha256_of, storage_error
from .files import Checkpoint, find_flax, open_clip, open_dalle_bart, open_vqgan
from .lock import lock_files
from .ours import is_ours, read_metadata, weights_writer
from .safetensors_file import Entry

# What lies beside published weights and is needed to use them; mini's files may carry "_mini" in their names.
TOKENIZER_FILES = (
    *("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("enwiki-words-frequency.txt", "preprocessor_config.json", "bpe_simple_vocab_16e6.txt.gz"),
)
SPARE_BYTES = 64 << 20  # left free on the disk


def convert(
    source: str | Path,
    target: str | Path,
    *,
    dtype: torch.dtype | None = None,
    int8: bool = False,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the weights of a folder or file in any layout as a folder in ours, tokenizer files included.

    Args:
        target: a folder that does not exist or is empty.
        dtype: of the numbers; None: as stored.
        int8: keep matrices in 8 bits.
        overrides: entries of the config to replace or add; see `load_dalle_bart`.

    Returns:
        The target.

    Raises:
        OptionError: the target is in use.
        WeightsError: the source has no weights, or they do not fit or are damaged.
        StorageError: the target cannot be written, such as a full disk. Nothing is left of it then.
    """
    source, target = Path(source), Path(target)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise OptionError(
            f"target {target} is in use; choose a folder that does not exist or is empty.", field="target"
        )
    checkpoint = open_any(source, overrides)
    place = target.resolve()  # where the target is a link, that of which it is one
    building = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        building.mkdir(parents=True)
        write_ours(checkpoint, building, dtype, int8, progress)
        for name, file in tokenizer_files(source, checkpoint.files).items():
            shutil.copyfile(file, building / name)
        lock_files(building, source.name)
        if place.is_dir():
            place.rmdir()
        building.rename(place)
    except OSError as error:
        raise storage_error("write it", target, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def write_ours(
    checkpoint: Checkpoint[Any], folder: Path, dtype: torch.dtype | None, int8: bool, progress: Progress | None
) -> None:
    """Read each tensor and write it, after making sure that there is room for all."""
    kinds = {}
    for name, piece in checkpoint.plan.items():
        kinds[name] = Entry(checkpoint.stored[piece.sources[0]].dtype, piece.shape)
    size = sum(torch.Size(kind.shape).numel() * _width(kind, dtype, int8) for kind in kinds.values())
    free = shutil.disk_usage(folder).free
    if free < size + SPARE_BYTES:
        error = OSError(28, "")  # ENOSPC, before anything is written
        raise storage_error(f"write {size / 1e9:.2f} GB where {free / 1e9:.2f} GB are free", folder, error)
    tell = _teller(progress, sum(file.stat().st_size for file in checkpoint.files) + size)
    hashes = {file.name: sha256_of(file, tell()) for file in checkpoint.files}
    with weights_writer(folder, checkpoint.model, kinds, int8=int8, dtype=dtype, source=json.dumps(hashes)) as write:
        done, report = 0, tell()
        for name, piece in checkpoint.plan.items():
            write(name, piece.read(checkpoint.stored))
            done += torch.Size(piece.shape).numel() * _width(kinds[name], dtype, int8)
            report(done, size)


def _width(kind: Entry, dtype: torch.dtype | None, int8: bool) -> int:
    return 1 if int8 and len(kind.shape) > 1 else (dtype or kind.dtype).itemsize


def _teller(progress: Progress | None, total: int) -> Callable[[], Progress]:
    """Joins the progress of several jobs, one after the other, into one."""
    before, last = 0, 0

    def begin() -> Progress:
        nonlocal before, last
        before, last = before + last, 0

        def report(done: int, _total: int) -> None:
            nonlocal last
            last = done
            if progress:
                progress(min(before + done, total), total)

        return report

    return begin


def open_any(path: Path, overrides: Mapping[str, Any] | None = None) -> Checkpoint[Any]:
    """The one model at a path, whatever it is.

    Raises:
        WeightsError: there is none, or more than one.
    """
    names = _models_at(path)
    if len(names) > 1:
        raise WeightsError(f"{path}: holds several models ({', '.join(names)}); name the folder or file of one.")
    name = names[0] if names else "CLIP"
    if overrides and name != "DalleBart":
        raise OptionError(f"{path} is a {name}; only DALL·E's config can be overridden.", field="overrides")
    if name == "DalleBart":
        return open_dalle_bart(path, overrides)
    if name not in ("VQGAN", "CLIP"):
        raise WeightsError(f"{path}: holds a {name} in our layout; there is nothing to convert.")
    return open_vqgan(path) if name == "VQGAN" else open_clip(path)


def _models_at(path: Path) -> list[str]:
    """Names of the classes whose weights are at a path; empty where that shows only on opening."""
    folder = path.parent if path.is_file() else path
    if is_ours(folder):
        return [read_metadata(folder).get("model", "")]
    if find_flax(path):
        config = folder / "config.json"
        is_vqgan = config.is_file() and "n_embed" in read_json(config)
        return ["VQGAN" if is_vqgan else "DalleBart"]
    bart = path.name != "detoker.pt" and min_dalle.find_bart(path)
    detoker = (path.is_dir() or path.name == "detoker.pt") and min_dalle.find_detoker(path)
    return [name for name, found in (("DalleBart", bart), ("VQGAN", detoker)) if found]


def tokenizer_files(source: Path, weights: tuple[Path, ...]) -> dict[str, Path]:
    """Name in our layout -> file beside the weights."""
    folder = weights[0].parent
    mini = any(file.stem.endswith("_mini") for file in weights)
    found = {}
    for name in TOKENIZER_FILES:
        stem, dot, ending = name.partition(".")
        tries = [folder / f"{stem}_mini{dot}{ending}"] * mini + [folder / name]
        if file := next((file for file in tries if file.is_file()), None):
            found[name] = file
    return found
