"""A small picture of what a diffusers pipeline has in its hands between two steps.

Shapes: 1 picture, C latent channels, h w latent grid, L = (h/2)(w/2) where a pipeline packs 2x2 places into one.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..images import to_image

SIDE_PX = 256  # previews are not larger: the latents are made smaller before they are decoded, which costs least
# Autoencoders whose latents we know how to read. Of others there are no previews.
KNOWN = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC", "AutoencoderKLQwenImage", "AutoencoderKLFlux2")


@torch.inference_mode()
def preview(pipeline: Any, latents: Tensor, width: int | None = None, height: int | None = None) -> Image.Image | None:
    """A picture of the first of these latents, at most SIDE_PX wide and high; None where we cannot read them.

    Args:
        latents: (1, C, h, w), (1, C, 1, h, w) or packed, (1, L, 4C), as the pipeline's callback gets them.
        width, height: of the finished picture, where known; a packed one of unknown size is taken for a square.
    """
    vae: Any = getattr(pipeline, "vae", None)
    if type(vae).__name__ not in KNOWN:
        return None
    grid = _unpacked(pipeline, latents[:1], width, height)
    if grid is None:
        return None
    frames = grid.shape[2:-2]  # () or, of a video's autoencoder, (1,)
    flat = _scaled(vae.config, grid.float()).flatten(1, -3)  # (1, C, h, w)
    most = max(1, SIDE_PX // int(pipeline.vae_scale_factor))
    shrink = min(1.0, most / max(flat.shape[-2:]))
    size = [max(1, round(side * shrink)) for side in flat.shape[-2:]]
    small = F.interpolate(flat, size, mode="area").reshape(1, -1, *frames, *size)  # (1, C[, 1], h', w')
    pixels = _decoded(vae, small).flatten(1, -3)  # (1, 3, H', W')
    return to_image(pixels[0] / 2 + 0.5)


def _unpacked(pipeline: Any, latents: Tensor, width: int | None, height: int | None) -> Tensor | None:
    if latents.ndim != 3:
        return latents if latents.ndim in (4, 5) else None
    factor = int(pipeline.vae_scale_factor)
    cell = 2 * factor  # pixels of a packed place, in each direction
    places = latents.shape[1]
    if width is None and height is None:
        rows = columns = math.isqrt(places)
    else:
        columns = width // cell if width else places // ((height or cell) // cell)
        rows = height // cell if height else places // columns
    if rows * columns != places:
        return None
    if hasattr(pipeline, "_unpack_latents"):
        grid: Tensor = pipeline._unpack_latents(latents, rows * cell, columns * cell, factor)
        return grid
    if hasattr(pipeline, "_unpatchify_latents"):  # FLUX.2: packed after its autoencoder's normalisation
        norm, packed = pipeline.vae.bn, latents.transpose(1, 2).reshape(1, -1, rows, columns)  # (1, 4C, h/2, w/2)
        mean, var = (stat.view(1, -1, 1, 1).to(packed) for stat in (norm.running_mean, norm.running_var))
        grid = pipeline._unpatchify_latents(packed * (var + pipeline.vae.config.batch_norm_eps).sqrt() + mean)
        return grid
    return None


def _scaled(config: Any, latents: Tensor) -> Tensor:
    """Undo what was done to the autoencoder's latents before the denoising network saw them."""
    latents = latents / (config.get("scaling_factor") or 1.0) + (config.get("shift_factor") or 0.0)
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        shape = (1, -1, *[1] * (latents.ndim - 2))
        latents = latents * latents.new_tensor(std).view(shape) + latents.new_tensor(mean).view(shape)
    return latents


def _decoded(vae: Any, latents: Tensor) -> Tensor:
    """(1, 3[, 1], H', W') float32 in about [-1, 1]."""
    dtype = vae.dtype
    overflows = dtype == torch.float16 and vae.config.get("force_upcast", False)
    if overflows:
        vae.to(torch.float32)
    try:
        pixels: Tensor = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
        return pixels.float()
    finally:
        if overflows:
            vae.to(dtype)
