"""Pictures as CLIP wants them: short side resized, centre cropped, normalised.

Source: openai/CLIP, `clip/clip.py` (`_transform`), which runs torchvision on PIL pictures.
Parity: tests/parity/test_clip.py; equal to the reference to 1e-6.
Differs: PIL and numpy only. The crop starts at round((side - crop) / 2) with ties to even, as torchvision's does;
    transformers' processor rounds down, which moves the crop by a pixel when the margin is odd.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)  # RGB, of OpenAI's training pictures in [0, 1]
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class CLIPPreprocess:
    """Callable: PIL pictures of any size -> (N, 3, size, size) float32, normalised."""

    size: int = 336
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        if not images:
            return torch.empty(0, 3, self.size, self.size)
        arrays = [np.asarray(self.resize_and_crop(image), dtype=np.uint8) for image in images]
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)  # (N, 3, H, W)
        return self.normalize(pixels.float() / 255)

    def resize_and_crop(self, image: Image.Image) -> Image.Image:
        """Short side to `size` by PIL's bicubic filter, then the centre; to RGB last, as the reference does."""
        width, height = image.size
        short, long = min(width, height), max(width, height)
        if short != self.size:
            long = int(self.size * long / short)
            width, height = (self.size, long) if width <= height else (long, self.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return image.crop((left, top, left + self.size, top + self.size)).convert("RGB")

    def normalize(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same, less the mean, by the deviation; any device, differentiable."""
        mean, std = (pixels.new_tensor(x).view(3, 1, 1) for x in (self.mean, self.std))
        return (pixels - mean) / std
