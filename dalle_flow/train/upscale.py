"""Training the upscaler: four times as large, sharp where the picture is, and without the pixels it came from.

The large pictures are scenes rendered large. Half of the small ones are these made smaller; the other half went
through the codec after that, as every generated picture did, so that its traces are not made worse.

Shapes: B batch, H W pixels of the small pictures; the large ones are 4H x 4W.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ..models.srvgg import SRVGG, SRVGGConfig
from ..models.vqgan import VQGAN
from .batches import as_pixels
from .codec import GRADIENT_WEIGHT, edge_difference, peak_signal_to_noise
from .data import Dataset
from .loop import Lesson

Bytes = NDArray[np.uint8]

SCALE = 4
CROP = 32  # side of what a step sees of a small picture: more pictures a step teach more than larger ones
JUDGED = 100  # held-out pictures that an evaluation looks at


def upscale_config() -> SRVGGConfig:
    """The embedded upscaler: 189 thousand weights."""
    return SRVGGConfig(features=48, convolutions=8, scale=SCALE)


@dataclass(frozen=True)
class Pairs:
    """Large pictures, and the small ones they are to be made of."""

    large: Bytes  # (N, 4H, 4W, 3)
    small: Bytes  # (N, H, W, 3): made smaller
    decoded: Bytes  # (N, H, W, 3): made smaller, then through the codec

    def __post_init__(self) -> None:
        number, height, width, _ = self.large.shape
        wanted = (number, height // SCALE, width // SCALE, 3)
        for name, found in (("small", self.small.shape), ("decoded", self.decoded.shape)):
            if found != wanted:
                raise ValueError(f"{name} pictures are {found}, expected {wanted}")


def shrink(large: Bytes) -> Bytes:
    """(N, 4H, 4W, 3) -> (N, H, W, 3): every pixel the mean of 4 x 4, rounded."""
    number, height, width, channels = large.shape
    blocks = large.reshape(number, height // SCALE, SCALE, width // SCALE, SCALE, channels)
    means: NDArray[np.float32] = blocks.mean((2, 4), dtype=np.float32)
    return means.round().astype(np.uint8)


def shrink_dataset(scenes: Dataset, batch_size: int = 64) -> Bytes:
    """(N, H, W, 3): all pictures of a data set made smaller."""
    starts = range(0, len(scenes), batch_size)
    return np.concatenate([shrink(scenes.images[start : start + batch_size]) for start in starts])


@torch.inference_mode()
def through_codec(small: Bytes, codec: VQGAN, batch_size: int = 64) -> Bytes:
    """(N, H, W, 3) -> the same after the codec: how a generated picture would show them."""
    decoded = []
    for start in range(0, len(small), batch_size):
        pixels = codec.decode_codes(codec.encode(as_pixels(small[start : start + batch_size])))  # (B, 3, H, W)
        decoded.append((pixels.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(decoded)


class UpscaleLesson(Lesson):
    """Make small pictures large."""

    def __init__(self, pairs: Pairs, held_out: Pairs):
        self.pairs, self.held_out = pairs, held_out
        self.model: SRVGG = SRVGG(upscale_config())

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Crops of small pictures (B, 3, H, W), every other one through the codec, and of what they are to become.

        That is the scene rendered large; for every other one of those through the codec the picture itself, enlarged
        smoothly: what the codec has lost nobody can know, and a soft picture must not show the pixels it came from.
        """
        pairs = self.pairs
        number, height, width, _ = pairs.small.shape
        crop = min(CROP, height, width)
        rows, tops, lefts = (
            torch.randint(high, (size,), generator=generator).tolist()
            for high in (number, height - crop + 1, width - crop + 1)
        )
        small, large = [], []
        for i, (row, top, left) in enumerate(zip(rows, tops, lefts, strict=True)):
            source = pairs.decoded if i % 2 else pairs.small
            small.append(source[row, top : top + crop, left : left + crop])
            down, across = slice(top * SCALE, (top + crop) * SCALE), slice(left * SCALE, (left + crop) * SCALE)
            large.append(pairs.large[row, down, across])
        given, wanted = as_pixels(np.stack(small)), as_pixels(np.stack(large))
        wanted[3::4] = F.interpolate(given[3::4], scale_factor=SCALE, mode="bicubic").clamp(0, 1)
        return given, wanted

    def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        small, large = batch
        ours = self.model(small).float()  # (B, 3, 4H, 4W)
        absolute = (ours - large).abs().mean()
        return absolute + GRADIENT_WEIGHT * edge_difference(ours, large), {"absolute": float(absolute.detach())}

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """PSNR in dB of the network and of Pillow's bicubic filter, on pictures made smaller and on decoded ones."""
        figures: dict[str, float] = {}
        number = min(JUDGED, len(self.held_out.large))
        for name, small in (("clean", self.held_out.small), ("decoded", self.held_out.decoded)):
            ours, theirs = [], []
            for i in range(number):
                large = as_pixels(self.held_out.large[i : i + 1].copy())  # (1, 3, 4H, 4W)
                enlarged = model(as_pixels(small[i : i + 1].copy())).float().clamp(0, 1)
                ours.append(peak_signal_to_noise(enlarged, large))
                theirs.append(peak_signal_to_noise(as_pixels(bicubic(small[i])[None]), large))
            figures[f"{name}_psnr"] = sum(ours) / number
            figures[f"{name}_bicubic_psnr"] = sum(theirs) / number
        return figures


def bicubic(small: Bytes) -> Bytes:
    """(H, W, 3) -> (4H, 4W, 3) by Pillow's bicubic filter: what the network has to beat."""
    image = Image.fromarray(small)
    size = (image.width * SCALE, image.height * SCALE)
    return np.array(image.resize(size, Image.Resampling.BICUBIC))
