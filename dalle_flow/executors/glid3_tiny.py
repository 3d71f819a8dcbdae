"""GLID-3 XL at toy size with random weights and no files, for tests: the real classes, few steps by default."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from pydantic import Field

from ..models.latent_codec import KLCodec
from ..models.latent_text import LatentTextConfig, LatentTextEncoder
from ..models.latent_unet import LatentUNet, LatentUNetConfig
from ..models.text.bpe import DalleTokenizer
from ..types import RoundKind
from .base import StrictOptions
from .glid3 import Glid3Generator


class TinyOptions(Glid3Generator.Options):
    num_inference_steps: int = Field(5, ge=1, le=1000, description="steps from noise to picture; plms makes 9 more")


class TinyRefineOptions(TinyOptions, Glid3Generator.RefineOptions):
    """With a strength."""


class TinyInpaintOptions(TinyOptions, Glid3Generator.InpaintOptions):
    """With a strength."""


class TinyGlid3(Glid3Generator):
    Options: ClassVar[type[StrictOptions]] = TinyOptions  # type: ignore[assignment]
    verbs: ClassVar[Mapping[RoundKind, type[StrictOptions]]] = {
        RoundKind.GENERATE: TinyOptions,
        RoundKind.REFINE: TinyRefineOptions,
        RoundKind.INPAINT: TinyInpaintOptions,
        RoundKind.INTERPOLATE: TinyOptions,
    }


def tiny_parts() -> tuple[LatentUNet, LatentTextEncoder, KLCodec, DalleTokenizer]:
    """Pictures of 16 pixels, by a UNet that sees what is kept."""
    tokenizer = DalleTokenizer.of_bytes(max_length=24)
    unet = LatentUNetConfig(
        channels=(8, 16), attention=(True, True), res_blocks=1, heads=2, norm_groups=4, context_width=16,
        clip_width=None, sees_picture=True, size_px=16, blank="",
    )  # fmt: skip
    text = LatentTextConfig(tokenizer.vocab_size, 24, width=16, layers=1, heads=2, head_width=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        autoencoder = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4,
        )  # fmt: skip
        models = LatentUNet(unet), LatentTextEncoder(text), KLCodec(autoencoder)
    for model in models:
        model.eval().requires_grad_(False)
    return *models, tokenizer
