"""Rows of a rendered data set as tensors.

Shapes: B batch, H W pixels, G judge's grid (16).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .data import Dataset
from .targets import FACTS


@dataclass
class Batch:
    pixels: Tensor  # (B, 3, H, W) float32 in [0, 1]
    kinds: Tensor  # (B, G, G) int64, 0 = background
    colours: Tensor  # (B, G, G) int64, 0 = no colour said
    style: Tensor  # (B,) int64
    background: Tensor  # (B,)
    background_colour: Tensor  # (B,), 0 = not a plain background
    count: Tensor  # (B,) number of things


def draw_pixels(dataset: Dataset, indices: Tensor) -> Tensor:
    """(B,) indices -> (B, 3, H, W) float32 in [0, 1]."""
    return as_pixels(dataset.images[indices.numpy()])


def as_pixels(images: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255).contiguous()


def draw(dataset: Dataset, indices: Tensor) -> Batch:
    """(B,) indices -> pictures and what a judge should see in them."""
    rows = indices.numpy()
    facts = torch.from_numpy(np.ascontiguousarray(dataset.facts[rows])).long()  # (B, facts)
    return Batch(
        pixels=draw_pixels(dataset, indices),
        kinds=torch.from_numpy(np.ascontiguousarray(dataset.kinds[rows])).long(),
        colours=torch.from_numpy(np.ascontiguousarray(dataset.colors[rows])).long(),
        style=facts[:, FACTS.index("style")],
        background=facts[:, FACTS.index("background")],
        background_colour=facts[:, FACTS.index("background_color")],
        count=facts[:, FACTS.index("count")],
    )
