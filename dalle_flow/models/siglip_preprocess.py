"""Pictures as SigLIP wants them: RGB, both sides resized whatever the shape, normalised.

Source: google-research/big_vision (`resize`, `value_range(-1, 1)`), as transformers' SiglipImageProcessor runs it.
Parity: tests/executors/test_siglip.py; equal to transformers' processor to 1e-6.
Differs: PIL and numpy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class SiglipPreprocess:
    """Callable: PIL pictures of any size and mode -> (N, 3, size, size) float32, normalised."""

    size: int
    filter: str = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        if not images:
            return torch.empty(0, 3, self.size, self.size)
        sides = (self.size, self.size)
        resized = [image.convert("RGB").resize(sides, FILTERS[self.filter]) for image in images]
        pixels = torch.from_numpy(np.stack([np.asarray(image, np.uint8) for image in resized]))  # (N, H, W, 3)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std  # (N, 3, H, W)
