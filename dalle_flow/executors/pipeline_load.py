"""Builds a diffusers pipeline from its files, strictly: every weight of every part is there, and none is left over.

Of a single file, which holds more than one pipeline needs, what is left over is looked for where its names are known:
in Stable Diffusion's UNet and autoencoder.

diffusers and transformers fill what is missing with random numbers and say so in a warning; here that is an error.
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import DalleFlowError, WeightsError
from ..weights.pipeline_files import PartFiles, PipelineFiles
from ..weights.pipeline_single import left_over
from ..weights.safetensors_file import open_safetensors
from .quiet import quiet

DERIVED = ("position_ids", "inv_freq")  # buffers that old files hold and that are made anew
NAMED = 4  # weights named in a message


def load_pipeline(files: PipelineFiles, device: str) -> Any:
    """The pipeline on its device, without progress bars.

    Its numbers are of the type its denoising network is stored in; float16 becomes float32 on a CPU, which is slow in
    float16 or cannot do it.

    Raises:
        WeightsError: the files are of no pipeline that this diffusers has, do not fit, or are damaged.
    """
    dtype = files.stored_dtype()
    if torch.device(device).type == "cpu" and dtype == torch.float16:
        dtype = torch.float32
    with quiet(), _explained(files.single or files.folder):
        cls = _pipeline_class(files)
        if files.single is None:
            parts = {
                name: _load_part(files.folder / name, part, part_class, dtype)
                for name, part in files.parts.items()
                if (part_class := _network_class(files.folder / name, part))
            }
            pipeline = cls.from_pretrained(str(files.folder), local_files_only=True, **parts)
        else:
            pipeline = _load_single(cls, files.single, files.folder, dtype)
        pipeline = pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def add_lora(pipeline: Any, path: Path) -> Path:
    """Put a LoRA onto a pipeline, as the adapter "lora"; its file.

    Raises:
        WeightsError: the pipeline takes none, or not all of the file fits it.
    """
    file = _lora_file(path)
    open_safetensors(file)
    name = type(pipeline).__name__
    if not hasattr(pipeline, "load_lora_weights"):
        raise WeightsError(f"{file}: {name} takes no LoRA in this version of diffusers.")
    read: list[Any] = []
    original = pipeline.lora_state_dict

    def lora_state_dict(*args: Any, **options: Any) -> Any:
        """As the pipeline's own, and remembers what was read: under the pipeline's names, all files' dialects alike."""
        found = original(*args, **options)
        read.append(dict(found[0] if isinstance(found, tuple) else found))
        return found

    pipeline.lora_state_dict = lora_state_dict
    try:
        with quiet(), _explained(file):
            options = {"weight_name": file.name, "adapter_name": "lora", "local_files_only": True}
            pipeline.load_lora_weights(str(file.parent), **options)
    finally:
        del pipeline.lora_state_dict
    given = sum(_is_second_matrix(key) for key in read[0])
    taken = sum(_is_second_matrix(key) for part in networks(pipeline) for key, _ in part.named_parameters())
    if not given or taken != given:
        raise WeightsError(f"{file}: {taken} of its {given} pairs of matrices fit {name}; it is for another model.")
    return file


def networks(pipeline: Any) -> list[torch.nn.Module]:
    return [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]


def _is_second_matrix(key: str) -> bool:
    return any(name in key for name in ("lora_B", "lora.up", "lora_up", "lora_linear_layer.up"))


def _lora_file(path: Path) -> Path:
    found = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if len(found) != 1 or found[0].suffix != ".safetensors" or not found[0].is_file():
        raise WeightsError(f"{path}: a LoRA is one .safetensors file, or a folder that holds one; there is none here.")
    return found[0]


def _pipeline_class(files: PipelineFiles) -> Any:
    import diffusers

    cls = getattr(diffusers, files.class_name, None)
    if not isinstance(cls, type) or not issubclass(cls, diffusers.DiffusionPipeline):
        raise WeightsError(
            f"{files.folder}: is a {files.class_name}, which diffusers {diffusers.__version__} does not have; "
            "a newer one may."
        )
    return cls


def _network_class(place: Path, part: PartFiles) -> Any:
    """The class of a part that has weights; None for tokenizers, schedulers and the like."""
    import diffusers

    library = part.library if part.library in ("diffusers", "transformers") else f"diffusers.pipelines.{part.library}"
    cls = getattr(importlib.import_module(library), part.class_name, None)
    if isinstance(cls, type) and issubclass(cls, diffusers.DiffusionPipeline):
        raise WeightsError(f"{place}: is a pipeline inside a pipeline, which is not loaded here.")
    return cls if isinstance(cls, type) and issubclass(cls, torch.nn.Module) else None


def _load_part(place: Path, part: PartFiles, part_class: Any, dtype: torch.dtype) -> torch.nn.Module:
    from diffusers import ModelMixin

    if not part.weights:
        raise WeightsError(f"{place}: has no weights; fetch the whole pipeline.")
    kind = "torch_dtype" if issubclass(part_class, ModelMixin) else "dtype"  # the libraries' names for the same
    model, info = part_class.from_pretrained(
        str(place),
        variant=part.variant,
        use_safetensors=not part.is_pickled,
        local_files_only=True,
        output_loading_info=True,
        **{kind: dtype},
    )
    _check_names(place, "are missing", info["missing_keys"])
    _check_names(place, "fit nothing", [key for key in info["unexpected_keys"] if not key.endswith(DERIVED)])
    network: torch.nn.Module = model
    return network.eval().requires_grad_(False)


def _check_names(place: Path, how: str, keys: Sequence[str] | set[str]) -> None:
    if keys:
        names = ", ".join(sorted(keys)[:NAMED]) + (", ..." if len(keys) > NAMED else "")
        raise WeightsError(f"{place}: {len(keys)} weights {how}: {names}; the files are not of one model.")


def _load_single(cls: Any, file: Path, config: Path, dtype: torch.dtype) -> Any:
    if not hasattr(cls, "from_single_file"):
        raise WeightsError(f"{file}: a {cls.__name__} is not loaded from a single file; give the pipeline's folder.")
    pipeline = cls.from_single_file(str(file), config=str(config), local_files_only=True, torch_dtype=dtype)
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            absent = [key for key, value in part.named_parameters() if value.is_meta]
            _check_names(file, f"of the {name} are missing", absent)
            part.eval().requires_grad_(False)
            stray = [key for key in left_over(file, name, part.state_dict()) if not key.endswith(DERIVED)]
            _check_names(file, f"fit nothing in the {name}", stray)
    return pipeline


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Whatever the libraries raise is a WeightsError that begins with the path and says the first line of it."""
    try:
        yield
    except DalleFlowError:
        raise
    except Exception as error:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise WeightsError(f"{path}: could not be loaded: {type(error).__name__}: {said[:300]}") from error
