"""RRDBNet, the generator of ESRGAN and Real-ESRGAN: dense blocks at the small size, then twice twice as large.

Source: Wang et al. 2018 (arXiv:1809.00219), 2021 (arXiv:2107.10833); reference code xinntao/BasicSR.
Weights: RealESRGAN_x4plus, RealESRNet_x4plus, RealESRGAN_x4plus_anime_6B, RealESRGAN_x2plus, and ESRGAN's older files.
    Parameters carry BasicSR's names (`body.0.rdb1.conv1.weight`, ...).
Parity: tests/parity/test_upscale.py; within 2e-5 of the original.
Differs: pads a picture itself where its sides are no multiple of `fold`, by mirroring right and below.

The network always enlarges four times. For scale 2 and 1 it works on pixels folded 2 x 2 and 4 x 4 into channels.
Shapes: B batch, C channels, H W pixels, s scale, h w grid (H W divided by `fold`), D features.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .stages import Around, Stage, missing, reflect, run_whole

SLOPE = 0.2  # of the leaky ReLU
RESIDUAL = 0.2  # share of what a block computes that is added
ENLARGES = 4
BLOCK_REACH = 15  # convolutions of a block one after the other
TAIL_REACH = 3  # 3 pixels at the full size, which see 3 at half of it, which see 2 grid points, and one more


@dataclass(frozen=True)
class RRDBConfig:
    """Sizes; the defaults are those of RealESRGAN_x4plus."""

    channels: int = 3  # of the picture
    features: int = 64
    blocks: int = 23
    growth: int = 32  # channels that each convolution of a dense block adds
    scale: int = 4

    def __post_init__(self) -> None:
        for name in ("channels", "features", "blocks", "growth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.scale not in (1, 2, 4):
            raise ValueError(f"scale must be 1, 2 or 4, got {self.scale}")


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees what all before it gave."""

    def __init__(self, features: int, growth: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(features + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(features + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(features + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(features + 4 * growth, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) -> the same."""
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat([seen, F.leaky_relu(conv(seen), SLOPE)], 1)  # (B, D + growth * ..., h, w)
        out: Tensor = x + RESIDUAL * self.conv5(seen)
        return out


class RRDB(nn.Module):
    """Three dense blocks and a way around them."""

    def __init__(self, features: int, growth: int):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(features, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) -> the same."""
        out: Tensor = x + RESIDUAL * self.rdb3(self.rdb2(self.rdb1(x)))
        return out


class RRDBNet(nn.Module):
    def __init__(self, config: RRDBConfig | None = None):
        super().__init__()
        self.config = config = config or RRDBConfig()
        self.channels, self.scale, self.fold = config.channels, config.scale, ENLARGES // config.scale
        features = config.features
        self.conv_first = nn.Conv2d(config.channels * self.fold**2, features, 3, padding=1)
        self.body = nn.Sequential(*(RRDB(features, config.growth) for _ in range(config.blocks)))
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up2 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, config.channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, C, H*s, W*s), not clamped."""
        return run_whole(self, pixels)

    def prepare(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C * fold * fold, h, w)."""
        right, bottom = missing(pixels.shape[3], self.fold), missing(pixels.shape[2], self.fold)
        return F.pixel_unshuffle(reflect(pixels, right, bottom), self.fold)

    def stages(self) -> tuple[Stage, ...]:
        """The first convolution, each block, the rest; between them (B, 2D, h, w): as it is, and as it was first."""
        config = self.config
        width, block_floats = 2 * config.features, 3 * (config.features + 5 * config.growth)
        first = Stage(self._first, 1, width, 2 * width)
        blocks = [
            Stage(Around(block, config.features), BLOCK_REACH, width, block_floats + width) for block in self.body
        ]
        tail = Stage(self._tail, TAIL_REACH, config.channels, (3 * ENLARGES**2 + 4) * config.features, ENLARGES)
        return (first, *blocks, tail)

    def _first(self, folded: Tensor) -> Tensor:
        """(B, C * fold * fold, h, w) -> (B, 2D, h, w)."""
        x = self.conv_first(folded)
        return torch.cat([x, x], 1)

    def _tail(self, state: Tensor) -> Tensor:
        """(B, 2D, h, w) -> (B, C, 4h, 4w)."""
        x, first = state.chunk(2, 1)
        x = first + self.conv_body(x)  # (B, D, h, w)
        for conv in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="nearest")), SLOPE)  # (B, D, 2h, 2w), 4h 4w
        out: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))
        return out
