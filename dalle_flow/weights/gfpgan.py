"""Loads GFPGAN's published files, or our own layout. All sizes follow from the shapes of the tensors."""

from pathlib import Path

import torch

from ..errors import WeightsError
from ..models.gfpgan import GFPGAN, SMALLEST, GFPGANConfig
from .files import Checkpoint, Device, on_meta, open_ours
from .ours import is_ours
from .plan import Shape, check_floating, check_plan, plan_as_is, shapes_of
from .upscale import read_unwrapped, weights_file

# The generator's own way from noise to styles: here the styles come from the encoder (`input_is_latent`).
UNUSED = "stylegan_decoder.style_mlp."


def load_gfpgan(path: str | Path, *, dtype: torch.dtype | None = torch.float32, device: Device = "cpu") -> GFPGAN:
    """A GFPGAN of the clean kind (v1.3, v1.4) from a file or folder.

    Raises:
        WeightsError: there is none, it is of another model or kind, or it is damaged.
    """
    return open_gfpgan(path).load(dtype, device)


def open_gfpgan(path: str | Path) -> Checkpoint[GFPGAN]:
    """As `load_gfpgan`, without reading the weights."""
    path = Path(path)
    if path.is_dir() and is_ours(path):
        return open_ours(path, GFPGAN, GFPGANConfig)
    file = weights_file(path, "GFPGAN")
    stored = {name: tensor for name, tensor in read_unwrapped(file).items() if not name.startswith(UNUSED)}
    config = _config(file, shapes_of(stored))
    model, plan = on_meta(GFPGAN, config), plan_as_is(stored)
    check_plan(file, plan, shapes_of(stored), shapes_of(model))
    check_floating(file, stored)
    return Checkpoint("published", model, stored, plan, (file,))


def _config(where: Path, shapes: dict[str, Shape]) -> GFPGANConfig:
    if "stylegan_decoder.constant_input.weight" not in shapes or "conv_body_first.weight" not in shapes:
        some = ", ".join(sorted(shapes)[:3]) or "none"
        raise WeightsError(f"{where}: holds no GFPGAN of the clean kind (v1.3, v1.4); its tensors: {some}, ...")
    levels = sum(name.startswith("toRGB.") and name.endswith(".weight") for name in shapes)
    try:
        decoder = [f"stylegan_decoder.style_convs.{2 * i}.modulated_conv.weight" for i in range(levels)]
        return GFPGANConfig(
            size_px=SMALLEST << levels,
            style_width=shapes["stylegan_decoder.style_conv1.modulated_conv.modulation.weight"][1],
            encoder_widths=(
                shapes["final_conv.weight"][0],
                *(shapes[f"conv_body_up.{i}.conv2.weight"][0] for i in range(levels)),
            ),
            decoder_widths=(
                shapes["stylegan_decoder.constant_input.weight"][1],
                *(shapes[name][1] for name in decoder),
            ),
        )
    except (KeyError, IndexError, ValueError) as error:
        raise WeightsError(f"{where}: looks like a GFPGAN, but its tensors do not fit together ({error}).") from None
