"""What files a diffusers pipeline is made of, looked at before any of them is used.

Source: the layout that diffusers' `save_pretrained` writes: `model_index.json` names the pipeline's class and, for each
part, a library and a class; each part has a folder of its name. A single file of weights (`.safetensors`, `.ckpt`) has
no configuration in it, so it needs such a folder beside it, of which only the small files are read.

Code in a folder is never run: a pipeline or part that is not one of diffusers' or transformers' is refused. Weights are
safetensors, or pickles that hold nothing but tensors.
"""

import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch

from ..errors import OptionError, WeightsError
from .disk import read_json
from .safetensors_file import DTYPES, open_safetensors
from .torch_file import read_torch

INDEX = "model_index.json"
SMALL = (".json", ".txt", ".model", ".jinja")  # configurations, vocabularies, templates of prompts
DENOISERS = ("transformer", "unet", "prior", "decoder")  # whose number type is the pipeline's; else the largest part's
# diffusion_pytorch_model.safetensors, model.fp16.safetensors, pytorch_model-00001-of-00002.bin, ...
WEIGHTS_FILE = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)"
    r"(?:\.(?P<variant>\w+))?(?:-\d+-of-\d+)?(?:\.(?P<late_variant>\w+))?\.(?P<form>safetensors|bin)"
)
CODE_MAPS = ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json")  # may name code to import


@dataclass(frozen=True)
class PartFiles:
    """One part of a pipeline: a network, a tokenizer, a scheduler, ..."""

    library: str
    class_name: str
    weights: tuple[Path, ...] = ()
    variant: str | None = None  # "fp16" where the weights are there under such a name only
    small: tuple[Path, ...] = ()

    @property
    def is_pickled(self) -> bool:
        return any(file.suffix == ".bin" for file in self.weights)


@dataclass(frozen=True)
class PipelineFiles:
    folder: Path  # with model_index.json
    class_name: str
    parts: Mapping[str, PartFiles] = field(default_factory=dict)
    single: Path | None = None  # the file with all weights, where they are not in the parts' folders

    @property
    def by_part(self) -> dict[str, list[Path]]:
        """Every file that has a say in the pictures, by the part it belongs to: many are named alike."""
        parts = {f"pipeline/{name}": [*part.small, *part.weights] for name, part in self.parts.items()}
        return {"pipeline": [self.folder / INDEX, *([self.single] if self.single else [])], **parts}

    def stored_dtype(self) -> torch.dtype:
        """The number type of the denoising network's file.

        Raises:
            WeightsError: it is one that is not computed with, such as 8-bit floats.
        """
        if self.single:
            return _dtype_of(self.single)
        sizes = {n: sum(file.stat().st_size for file in part.weights) for n, part in self.parts.items() if part.weights}
        if not sizes:
            raise WeightsError(f"{self.folder}: no part of this pipeline has weights; fetch the whole of it.")
        name = next((name for name in DENOISERS if name in sizes), max(sizes, key=lambda name: sizes[name]))
        return _dtype_of(self.parts[name].weights[0])


def read_pipeline(path: Path, config: Path | None = None) -> PipelineFiles:
    """The files of a pipeline in a folder, or of one in a single file with its configuration folder.

    Args:
        config: for a single file the folder with its model_index.json; None: a folder of the file's name beside it, or
            the folder that the file is in.

    Raises:
        WeightsError: something is missing or damaged, or it wants code of its own to be run.
        OptionError: `config` is given for a folder, which has its own.
    """
    if path.is_dir():
        if config is not None:
            raise OptionError(f"weights role 'config' is for single files; {path} is a folder", field="weights")
        return _read_folder(path, with_weights=True)
    if not path.is_file():
        raise WeightsError(
            f"{path}: there is no such folder or file; give the folder of a pipeline (with {INDEX}), one file of its "
            "weights, or hub:OWNER/NAME."
        )
    _check_weights(path)
    folders = [config] if config else [path.with_suffix(""), path.parent]
    folder = next((folder for folder in folders if (folder / INDEX).is_file()), None)
    if folder is None:
        raise WeightsError(
            f"{path}: a single file holds no configuration, and there is no {INDEX} in {' or '.join(map(str, folders))}"
            f"; get the small files of its pipeline: hf download OWNER/NAME --include '*.json' '*.txt' '*.model' "
            f"--local-dir {path.with_suffix('')}"
        )
    found = _read_folder(folder, with_weights=False)
    return PipelineFiles(found.folder, found.class_name, found.parts, single=path)


def read_index(path: Path) -> tuple[str, dict[str, tuple[str, str]]]:
    """A model_index.json -> class of the pipeline, and part -> (library, class).

    Raises:
        WeightsError: it is not one, or names code that is neither diffusers' nor transformers'.
    """
    index = read_json(path)
    name = index.get("_class_name")
    if not isinstance(name, str) or not name.isidentifier():
        raise WeightsError(f"{path}: the pipeline is {name!r:.80}, {CUSTOM}")
    parts = {}
    for part, value in index.items():
        if part.startswith("_") or not _names_a_class(value) or value == [None, None]:
            continue
        library, class_name = value
        if not part.isidentifier() or not str(class_name).isidentifier() or not _is_known(library):
            raise WeightsError(f"{path}: the part {part!r:.40} is {value!r:.80}, {CUSTOM}")
        parts[part] = (library, class_name)
    if not parts:
        raise WeightsError(f"{path}: names no parts of a pipeline; is it the right file?")
    return name, parts


def weights_among(where: object, names: Iterable[str]) -> tuple[list[str], str | None]:
    """The files of weights to take from a part's folder, and their variant's name, such as "fp16".

    Safetensors before pickles, those without a variant's name before those with one.

    Raises:
        WeightsError: there are several variants and nothing else.
    """
    found: dict[str, dict[str, list[str]]] = {"safetensors": {}, "bin": {}}
    for name in names:
        if match := WEIGHTS_FILE.fullmatch(name):
            variant = match["variant"] or match["late_variant"] or ""
            found[match["form"]].setdefault(variant, []).append(name)
    for variants in found.values():
        if "" in variants:
            return variants[""], None
        if len(variants) > 1:
            raise WeightsError(f"{where}: has weights as {', '.join(variants)}; keep the files of one of them.")
        for variant, files in variants.items():
            return files, variant
    return [], None


CUSTOM = "not a class of diffusers or transformers; code that comes with weights is not run."


def _names_a_class(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(v is None or isinstance(v, str) for v in value)


def _is_known(library: Any) -> bool:
    """diffusers, transformers, or a module of diffusers.pipelines, which is where safety checkers are."""
    if library in ("diffusers", "transformers"):
        return True
    if not isinstance(library, str) or not library.isidentifier():
        return False
    return importlib.util.find_spec(f"diffusers.pipelines.{library}") is not None


def _read_folder(folder: Path, with_weights: bool) -> PipelineFiles:
    if not (folder / INDEX).is_file():
        raise WeightsError(f"{folder}: has no {INDEX}, so it is no folder of a diffusers pipeline.")
    class_name, named = read_index(folder / INDEX)
    parts = {}
    for name, (library, part_class) in named.items():
        place = folder / name
        if not place.is_dir():
            raise WeightsError(f"{folder}: {INDEX} names a {name}, but there is no such folder; fetch all of it.")
        if (place / f"{library}.py").exists():
            raise WeightsError(f"{place / library}.py: {CUSTOM}")
        small = tuple(sorted(file for file in place.iterdir() if file.suffix in SMALL and file.is_file()))
        for file in small:
            if file.name in CODE_MAPS and "auto_map" in read_json(file):
                raise WeightsError(f"{file}: names code of its own in 'auto_map', {CUSTOM}")
        names = sorted(file.name for file in place.iterdir()) if with_weights else []
        weights, variant = weights_among(place, names)
        paths = tuple(place / weight for weight in weights)
        for path in paths:
            _check_weights(path)
        parts[name] = PartFiles(library, part_class, paths, variant, small)
    return PipelineFiles(folder, class_name, parts)


def _check_weights(path: Path) -> None:
    """Refuse what is cut off, or a pickle that holds more than data, before another library reads it."""
    if path.suffix == ".safetensors":
        open_safetensors(path)
    elif path.suffix in (".bin", ".ckpt", ".pt", ".pth"):
        read_torch(path)
    else:
        raise WeightsError(f"{path}: weights are .safetensors, .ckpt or a folder; this is {path.suffix or 'neither'}.")


def _dtype_of(path: Path) -> torch.dtype:
    """The number type of most values in a file."""
    sizes: Counter[str] = Counter()
    if path.suffix == ".safetensors":
        file = open_safetensors(path)
        names = {str(dtype): name for name, dtype in DTYPES.items()}
        for key in file.keys():  # noqa: SIM118  # not a dict
            view = file.get_slice(key)
            sizes[view.get_dtype()] += prod(view.get_shape())
    else:
        names = {str(dtype): name for name, dtype in DTYPES.items()}
        for tensor in read_torch(path).values():
            sizes[names[str(tensor.dtype)]] += prod(tensor.shape)
    return _floating(path, (name for name, _ in sizes.most_common()))


def _floating(path: Path, most_common: Iterable[str]) -> torch.dtype:
    name = next(iter(most_common), None)
    dtype = DTYPES.get(name or "")
    if dtype is None or not dtype.is_floating_point:
        raise WeightsError(
            f"{path}: its numbers are {name or 'none'}, which is not computed with here; take the weights in bfloat16, "
            "float16 or float32."
        )
    return dtype
