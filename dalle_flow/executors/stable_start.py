"""What a picture of Stable Diffusion starts from: the given picture, its transparency as a mask, its size."""

from dataclasses import replace
from typing import NamedTuple

from PIL import Image, ImageChops
from torch import Tensor

from .base import Task
from .diffusion import size_like

COARSE = 4  # latents: a given picture is made as large as it is, in multiples of this
LEAST_SIDE, MOST_AREA = 0.75, 2.25  # of what the weights are used to; beyond, a picture is made larger or smaller

Posterior = tuple[Tensor, Tensor | None]  # mean and deviation of latents, (C, h, w) each, unscaled


class Given(NamedTuple):
    """What a task's picture and mask become, for all its pictures alike."""

    clean: Posterior | None  # of the picture
    new: Tensor | None  # (1, h, w): 1 where it is made new
    shown: Posterior | None  # of what the UNet is shown: the picture, grey where it is made new


def with_mask(task: Task) -> Task:
    """A picture that is transparent in places, given without a mask: what is transparent is made new."""
    if task.init is None or "A" not in task.init.getbands():
        return task
    rgba = task.init.convert("RGBA")
    mask = ImageChops.invert(rgba.getchannel("A"))
    seen_whole = task.mask is not None or max(mask.tobytes()) < 128
    return replace(task, init=rgba.convert("RGB"), mask=task.mask if seen_whole else mask)


def size_of_picture(image: Image.Image, size_px: int, downscale: int) -> tuple[int, int]:
    """As large as it is, rounded down; of about `size_px` squared pixels where it is much smaller or larger.

    For weights of 512 pixels that is: sides of 384 at least, 589,824 pixels at most, as in 2022.
    """
    width, height = image.size
    coarse = COARSE * downscale
    if min(width, height) >= LEAST_SIDE * size_px and width * height <= MOST_AREA * size_px**2:
        return width // coarse * coarse, height // coarse * coarse
    return size_like(image, (size_px, size_px), coarse)
