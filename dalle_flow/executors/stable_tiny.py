"""Stable Diffusion at toy size with random weights and no files, for tests: the real classes, few steps by default."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from pydantic import Field

from ..models.clip_text import ClipText, ClipTextConfig
from ..models.latent_codec import KLCodec
from ..models.text.clip_bpe import ClipTokenizer
from ..types import RoundKind
from ..weights.stable_diffusion import StableDiffusion, TextReader
from .base import StrictOptions
from .stable import StableGenerator
from .stable_options import StableInpaintOptions, StableInterpolateOptions, StableOptions, StableRefineOptions

CHANNELS, WIDTH = (8, 16), 16
STEPS = Field(5, ge=1, le=250, description="steps from noise to picture")


class TinyOptions(StableOptions):
    num_inference_steps: int = STEPS


class TinyRefineOptions(StableRefineOptions):
    num_inference_steps: int = STEPS


class TinyInpaintOptions(StableInpaintOptions):
    num_inference_steps: int = STEPS


class TinyInterpolateOptions(StableInterpolateOptions):
    num_inference_steps: int = STEPS


class TinyStable(StableGenerator):
    Options: ClassVar[type[StrictOptions]] = TinyOptions
    verbs: ClassVar[Mapping[RoundKind, type[StrictOptions]]] = {
        RoundKind.GENERATE: TinyOptions,
        RoundKind.REFINE: TinyRefineOptions,
        RoundKind.INPAINT: TinyInpaintOptions,
        RoundKind.INTERPOLATE: TinyInterpolateOptions,
    }


def tiny_parts(*, sees_picture: bool = False) -> StableDiffusion:
    """Pictures of 16 pixels; `sees_picture`: a UNet for inpainting."""
    tokenizer = ClipTokenizer.of_bytes(context_length=24)
    text = ClipTextConfig(
        width=WIDTH, layers=2, heads=2, mlp_width=32, vocab_size=tokenizer.vocab_size, context_length=24
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = ClipText(text)
        unet = UNet2DConditionModel(
            in_channels=9 if sees_picture else 4, out_channels=4, block_out_channels=CHANNELS, layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=WIDTH, attention_head_dim=2,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), norm_num_groups=4,
        )  # fmt: skip
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=CHANNELS, layers_per_block=1, latent_channels=4, norm_num_groups=4,
        )  # fmt: skip
    for model in (encoder, unet, vae):
        model.eval().requires_grad_(False)
    reader = TextReader(encoder, tokenizer, tokenizer.eot_token_id)
    return StableDiffusion(unet, KLCodec(vae), (reader,), 0.18215, 16, "epsilon", None, False, {})
