"""Pictures to latents and back: one face for the two autoencoders that latent diffusion comes with.

`KLCodec` is diffusers' AutoencoderKL (kl-f8 of GLID-3 XL and Stable Diffusion), `VQCodec` the embedded family's VQGAN,
whose latents are rounded to its codebook before they become pixels (VQ-regularised, Rombach et al. 2022).

Shapes: B batch, C latent channels, h w latent grid, H W pixels; H = h * downscale. Pixels in [0, 1].
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from .vqgan import VQGAN

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

LOG_VARIANCE = (-30.0, 20.0)  # what CompVis clamps the posterior's log variance to


class LatentCodec(ABC, nn.Module):
    """`downscale`: pixels per latent along one side; `channels` of a latent. Latents are as the codec has them."""

    downscale: int
    channels: int

    @abstractmethod
    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, 3, H, W) in [0, 1] -> mean (B, C, h, w) and standard deviation of the same shape, None where it is 0."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W) in [0, 1]."""


class KLCodec(LatentCodec):
    def __init__(self, autoencoder: "AutoencoderKL"):
        super().__init__()
        self.autoencoder = autoencoder
        config: Any = autoencoder.config
        self.downscale = 2 ** (len(config.block_out_channels) - 1)
        self.channels = config.latent_channels

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        found = self.autoencoder._encode(pixels * 2 - 1)  # (B, 2C, h, w): means, then log variances
        mean, log_variance = found.chunk(2, dim=1)  # (B, C, h, w) each
        return mean, (0.5 * log_variance.clamp(*LOG_VARIANCE)).exp()

    def decode(self, latents: Tensor) -> Tensor:
        pixels = self.autoencoder.decode(latents, return_dict=False)[0]  # (B, 3, H, W) in [-1, 1]
        return cast(Tensor, ((pixels + 1) / 2).clamp(0, 1))


class VQCodec(LatentCodec):
    def __init__(self, vqgan: VQGAN):
        super().__init__()
        self.vqgan = vqgan
        self.downscale, self.channels = vqgan.config.downscale, vqgan.config.code_dim

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.rounded(self.vqgan.encode_prequant(pixels)), None

    def decode(self, latents: Tensor) -> Tensor:
        return self.vqgan.decode(self.rounded(latents)).clamp(0, 1)

    def rounded(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> the nearest row of the codebook at each place."""
        book = self.vqgan.quantize.embedding.weight  # (codes, C)
        rows = rearrange(latents, "b c h w -> (b h w) c")
        nearest = torch.addmm(book.square().sum(1), rows, book.T, alpha=-2).argmin(1)  # (B*h*w,)
        return rearrange(book[nearest], "(b h w) c -> b c h w", b=latents.shape[0], h=latents.shape[2])
