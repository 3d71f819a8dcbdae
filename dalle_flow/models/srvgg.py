"""SRVGGNetCompact: a small convolution network that enlarges pictures, all its work done at the small size.

Source: Wang et al. 2021 (arXiv:2107.10833); reference code xinntao/Real-ESRGAN.
Weights: realesr-animevideov3, realesr-general-x4v3 and -wdn-x4v3; the embedded family's, in our layout.
    Parameters carry the published names (`body.0.weight`, ...).
Parity: tests/parity/test_upscale.py; within 2e-5 of the original.
Differs: PReLU only, which all published files have.

Shapes: B batch, C channels, H W pixels, s scale.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from .stages import Stage


@dataclass(frozen=True)
class SRVGGConfig:
    """Sizes; the defaults are those of realesr-animevideov3."""

    channels: int = 3  # of the picture
    features: int = 64
    convolutions: int = 16  # between the first and the last
    scale: int = 4

    def __post_init__(self) -> None:
        for name in ("channels", "features", "convolutions", "scale"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")


class SRVGG(nn.Module):
    fold = 1

    def __init__(self, config: SRVGGConfig | None = None):
        super().__init__()
        self.config = config = config or SRVGGConfig()
        self.channels, self.scale = config.channels, config.scale
        body: list[nn.Module] = [nn.Conv2d(config.channels, config.features, 3, padding=1), nn.PReLU(config.features)]
        for _ in range(config.convolutions):
            body += [nn.Conv2d(config.features, config.features, 3, padding=1), nn.PReLU(config.features)]
        body.append(nn.Conv2d(config.features, config.channels * config.scale**2, 3, padding=1))
        self.body = nn.Sequential(*body)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, C, H*s, W*s), not clamped."""
        details = F.pixel_shuffle(self.body(pixels), self.scale)  # (B, C, H*s, W*s)
        return details + F.interpolate(pixels, scale_factor=self.scale, mode="nearest")

    def prepare(self, pixels: Tensor) -> Tensor:
        return pixels

    def stages(self) -> tuple[Stage, ...]:
        """One: every convolution sees one pixel further."""
        config = self.config
        floats = 3 * max(config.features, config.channels * config.scale**2)
        return (Stage(self.forward, config.convolutions + 2, config.channels, floats, config.scale),)
