"""Between a person's picture and a model's grid: fit it to the model, and put what was made new back into it."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops, ImageFilter
from torch import Tensor

FEATHER = 1 / 64  # of the longer side: how far inside the mask the new part fades in


def fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture in RGB at that width and height (Lanczos; its shape is not kept); transparency is dropped."""
    image = image.convert("RGB")
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def to_pixels(image: Image.Image) -> Tensor:
    """RGB picture -> (1, 3, H, W) float32 in [0, 1]."""
    array = torch.from_numpy(np.asarray(image).copy())  # (H, W, 3) uint8
    return array.permute(2, 0, 1)[None].float().div_(255).contiguous()


def latent_mask(mask: Image.Image, grid: tuple[int, ...]) -> Tensor:
    """ "L" mask -> (1, h, w) float: 1 for every cell of the grid that has any white in it, else 0."""
    white = torch.from_numpy((np.asarray(mask.convert("L")) > 127).astype(np.float32))[None, None]  # (1, 1, H, W)
    return (F.adaptive_max_pool2d(white, grid) > 0).float()[0]  # (1, h, w)


def pasted(made: Image.Image, image: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture with what was made in the mask's white part; everywhere else it is as it was, to the pixel.

    `made` is enlarged or reduced to the picture's size. Transparency goes where the picture is made new.
    """
    old = image.convert("RGB")
    new = made if made.size == old.size else made.resize(old.size, Image.Resampling.LANCZOS)
    mask = mask.convert("L").point(lambda value: 255 if value > 127 else 0)
    soft = mask.filter(ImageFilter.BoxBlur(max(1, round(FEATHER * max(old.size)))))
    return Image.composite(new, old, ImageChops.multiply(soft, mask))
