"""GFPGAN: restores one face, aligned and 512 pixels wide, by drawing it anew with a generator that knows faces.

Source: Wang et al. 2021 (arXiv:2101.04061), the "clean" version without its own CUDA kernels; Karras et al. 2020
    (arXiv:1912.04958) for the generator. Reference program TencentARC/GFPGAN.
Weights: GFPGANv1.4 and v1.3, whose parameter names these are.
Parity: tests/parity/test_gfpgan.py; within 1e-4 of the original with its stored noise.
Differs: the noise is always that which is stored with the weights, so the same face gives the same face; the original
    draws new noise in every call. The generator's mapping network, which these weights never use, is left out.

Shapes: B batch, H W pixels, w width of a style, C channels of a level, h w side of a level: 4, 8, ... H.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST = 4  # side that pictures are encoded to and drawn from
SLOPE = 0.2  # of the leaky ReLU
EPSILON = 1e-8  # keeps the norm of a kernel from zero


@dataclass(frozen=True)
class GFPGANConfig:
    """Sizes; the defaults are those of v1.3 and v1.4."""

    size_px: int = 512
    style_width: int = 512
    encoder_widths: tuple[int, ...] = (256, 256, 256, 256, 256, 128, 64, 32)  # at sides 4, 8, ... size_px
    decoder_widths: tuple[int, ...] = (512, 512, 512, 512, 512, 256, 128, 64)

    def __post_init__(self) -> None:
        levels = self.size_px.bit_length() - SMALLEST.bit_length() + 1
        if self.size_px != SMALLEST << (levels - 1) or levels < 2:
            raise ValueError(f"size_px must be a power of two from 8 on, got {self.size_px}")
        if len(self.encoder_widths) != levels or len(self.decoder_widths) != levels:
            raise ValueError(f"{self.size_px} px have {levels} levels; widths are given for others")

    @property
    def levels(self) -> int:
        return len(self.encoder_widths)

    @property
    def styles(self) -> int:
        """One for each convolution of the decoder, and one for the first and the last level's colours."""
        return 2 * self.levels


def double(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, 2h, 2w)."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def halve(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, h/2, w/2)."""
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)


class ResBlock(nn.Module):
    """Two convolutions with a change of size between them, and a way around."""

    def __init__(self, inside: int, outside: int, *, larger: bool):
        super().__init__()
        self.resize = double if larger else halve
        self.conv1 = nn.Conv2d(inside, inside, 3, padding=1)
        self.conv2 = nn.Conv2d(inside, outside, 3, padding=1)
        self.skip = nn.Conv2d(inside, outside, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', 2h, 2w) or (B, C', h/2, w/2)."""
        out = self.resize(F.leaky_relu(self.conv1(x), SLOPE))
        return cast(Tensor, F.leaky_relu(self.conv2(out), SLOPE) + self.skip(self.resize(x)))


class ModulatedConv(nn.Module):
    """A convolution whose kernel is scaled per input channel by a style."""

    def __init__(self, inside: int, outside: int, kernel: int, style_width: int, *, demodulate: bool):
        super().__init__()
        self.demodulate = demodulate
        self.modulation = nn.Linear(style_width, inside)
        self.weight = nn.Parameter(torch.randn(1, outside, inside, kernel, kernel))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, C, h, w), (B, w) -> (B, C', h, w)."""
        batch, inside, height, width = x.shape
        kernels = self.weight * self.modulation(style).view(batch, 1, inside, 1, 1)  # (B, C', C, k, k)
        if self.demodulate:
            kernels = kernels * torch.rsqrt(kernels.square().sum((2, 3, 4), keepdim=True) + EPSILON)
        out = F.conv2d(  # one picture per group, each with its own kernel
            x.reshape(1, batch * inside, height, width),
            kernels.flatten(0, 1),
            padding=kernels.shape[-1] // 2,
            groups=batch,
        )
        return out.view(batch, -1, height, width)


class StyleConv(nn.Module):
    def __init__(self, inside: int, outside: int, style_width: int):
        super().__init__()
        self.modulated_conv = ModulatedConv(inside, outside, 3, style_width, demodulate=True)
        self.weight = nn.Parameter(torch.zeros(1))  # of the noise
        self.bias = nn.Parameter(torch.zeros(1, outside, 1, 1))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """(B, C, h, w), (B, w), (1, 1, h, w) -> (B, C', h, w)."""
        out = self.modulated_conv(x, style) * 2**0.5 + self.weight * noise
        return F.leaky_relu(out + self.bias, SLOPE)


class ToRGB(nn.Module):
    def __init__(self, inside: int, style_width: int):
        super().__init__()
        self.modulated_conv = ModulatedConv(inside, 3, 1, style_width, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, style: Tensor, before: Tensor | None = None) -> Tensor:
        """(B, C, h, w), (B, w), (B, 3, h/2, w/2) of the level before -> (B, 3, h, w)."""
        out = self.modulated_conv(x, style) + self.bias
        return cast(Tensor, out if before is None else out + double(before))


class Constant(nn.Module):
    """What the generator begins with, under its published name."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, width, SMALLEST, SMALLEST))


class Noises(nn.Module):
    """The stored noise: one for the first level, two for each after it."""

    def __init__(self, levels: int):
        super().__init__()
        for i in range(2 * levels - 1):
            side = SMALLEST << ((i + 1) // 2)
            self.register_buffer(f"noise{i}", torch.randn(1, 1, side, side))

    def forward(self, i: int) -> Tensor:
        """(1, 1, h, w) of convolution i."""
        return cast(Tensor, getattr(self, f"noise{i}"))


class Decoder(nn.Module):
    """StyleGAN2's generator, half of whose channels are scaled and shifted at each level by what the encoder saw."""

    def __init__(self, config: GFPGANConfig):
        super().__init__()
        widths, style = config.decoder_widths, config.style_width
        self.constant_input = Constant(widths[0])
        self.style_conv1 = StyleConv(widths[0], widths[0], style)
        self.to_rgb1 = ToRGB(widths[0], style)
        pairs = [
            (StyleConv(before, after, style), StyleConv(after, after, style)) for before, after in pairwise(widths)
        ]
        self.style_convs = nn.ModuleList(conv for pair in pairs for conv in pair)
        self.to_rgbs = nn.ModuleList(ToRGB(width, style) for width in widths[1:])
        self.noises = Noises(config.levels)

    def forward(self, styles: Tensor, conditions: list[tuple[Tensor, Tensor]]) -> Tensor:
        """(B, styles, w), and for each level after the first (scale, shift) of (B, C/2, h, w) -> (B, 3, H, W)."""
        x = self.constant_input.weight.expand(len(styles), -1, -1, -1)
        x = self.style_conv1(x, styles[:, 0], self.noises(0))
        rgb = self.to_rgb1(x, styles[:, 1])
        for level, (scale, shift) in enumerate(conditions):
            at = 2 * level + 1  # its first convolution; a level's colours share a style with the next level's first
            x = self.style_convs[2 * level](double(x), styles[:, at], self.noises(at))
            same, changed = x.chunk(2, 1)
            x = torch.cat([same, changed * scale + shift], 1)
            x = self.style_convs[2 * level + 1](x, styles[:, at + 1], self.noises(at + 1))
            rgb = self.to_rgbs[level](x, styles[:, at + 2], rgb)
        return cast(Tensor, rgb)


class GFPGAN(nn.Module):
    def __init__(self, config: GFPGANConfig | None = None):
        super().__init__()
        self.config = config = config or GFPGANConfig()
        widths = config.encoder_widths
        self.conv_body_first = nn.Conv2d(3, widths[-1], 1)
        self.conv_body_down = nn.ModuleList(ResBlock(*sizes, larger=False) for sizes in pairwise(widths[::-1]))
        self.final_conv = nn.Conv2d(widths[0], widths[0], 3, padding=1)
        self.conv_body_up = nn.ModuleList(ResBlock(*sizes, larger=True) for sizes in pairwise(widths))
        self.toRGB = nn.ModuleList(nn.Conv2d(width, 3, 1) for width in widths[1:])
        self.final_linear = nn.Linear(widths[0] * SMALLEST**2, config.styles * config.style_width)
        self.stylegan_decoder = Decoder(config)
        changed = [width // 2 for width in config.decoder_widths[1:]]
        levels = list(zip(widths[1:], changed, strict=True))
        self.condition_scale = nn.ModuleList(_condition(*sizes) for sizes in levels)
        self.condition_shift = nn.ModuleList(_condition(*sizes) for sizes in levels)

    def forward(self, face: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], H = W = `size_px` -> the same, not clamped."""
        styles, levels = self._encode(face)
        scales = [scale(x) for scale, x in zip(self.condition_scale, levels, strict=True)]
        shifts = [shift(x) for shift, x in zip(self.condition_shift, levels, strict=True)]
        return cast(Tensor, self.stylegan_decoder(styles, list(zip(scales, shifts, strict=True))))

    def restore(self, face: Tensor) -> Tensor:
        """(3, H, W) in [0, 1] -> the same, clamped."""
        restored: Tensor = self(face[None] * 2 - 1)[0]
        return (restored / 2 + 0.5).clamp(0, 1)

    def sketches(self, face: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> what the encoder itself makes of the face, (B, 3, h, w) of each level but the first."""
        _, levels = self._encode(face)
        return [head(x) for head, x in zip(self.toRGB, levels, strict=True)]

    def _encode(self, face: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) -> (B, styles, w) and (B, C, h, w) of each level but the first, smallest first."""
        if face.shape[2:] != (self.config.size_px, self.config.size_px):
            raise ValueError(f"a face must be {self.config.size_px} x {self.config.size_px}, got {face.shape[2:]}")
        x = F.leaky_relu(self.conv_body_first(face), SLOPE)
        seen: list[Tensor] = []
        for block in self.conv_body_down:
            x = block(x)
            seen.append(x)
        x = F.leaky_relu(self.final_conv(x), SLOPE)  # (B, C, 4, 4)
        styles = self.final_linear(x.flatten(1)).view(len(x), self.config.styles, self.config.style_width)
        levels: list[Tensor] = []
        for block, skip in zip(self.conv_body_up, reversed(seen), strict=True):
            x = block(x + skip)
            levels.append(x)
        return styles, levels


def _condition(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, inside, 3, padding=1),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(inside, outside, 3, padding=1),
    )
