"""What a single file of a Stable Diffusion pipeline holds for a part and the part has no place for.

diffusers takes from such a file the weights that it knows and is silent about the others, so one of another model of
the family, or one with parts of its own, would be loaded as if it fitted.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from .compvis_file import TRAINING_ONLY, UNET, VAE
from .ldm_layout import kl_names, unet_names
from .safetensors_file import open_safetensors
from .torch_file import read_torch

XL_SIZES = {"label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2"}


class Layout(NamedTuple):
    prefix: str
    names: Callable[[Iterable[str]], Mapping[str, str]]  # original key without prefix -> diffusers' key


def left_over(path: Path, part: str, taken: Collection[str]) -> list[str]:
    """The file's keys of a part ("unet", "vae") whose names are none of `taken`, diffusers' names of its weights.

    Of other parts, and of files in another layout than Stable Diffusion's, none are named.
    """
    layout = LAYOUTS.get(part)
    if layout is None:
        return []
    stored = open_safetensors(path).keys() if path.suffix == ".safetensors" else read_torch(path).keys()
    keys = (key.removeprefix("state_dict.") for key in stored)
    inside = [
        key.removeprefix(layout.prefix)
        for key in keys
        if key.startswith(layout.prefix) and not key.startswith(TRAINING_ONLY)
    ]
    names = layout.names(inside)
    return [layout.prefix + key for key in inside if names.get(key) not in taken]


def _unet_names(keys: Iterable[str]) -> dict[str, str]:
    """With what XL is told of sizes."""
    keys = list(keys)
    found = unet_names(keys)
    for key in keys:
        module, _, leaf = key.rpartition(".")
        if module in XL_SIZES:
            found[key] = f"{XL_SIZES[module]}.{leaf}"
    return found


LAYOUTS = {"unet": Layout(UNET, _unet_names), "vae": Layout(VAE, kl_names)}
