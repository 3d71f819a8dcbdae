"""The UNet of latent diffusion, conditioned on text and, where the weights have it, on a CLIP vector and a picture.

Source: Rombach et al. 2022 (arXiv:2112.10752); reference code openai/guided-diffusion, Jack000/glid-3-xl.
The network is diffusers' UNet2DConditionModel, which computes the same (measured: 1.6e-6 of 2.6).
Weights: finetune.pt and inpaint.pt of GLID-3 XL, renamed by weights/glid3.py; the embedded family's, in our layout.
Parity: tests/parity/test_glid3.py.

Shapes: B batch, C latent channels, h w latent grid, T text length, D width of the text states.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LatentUNetConfig:
    """Sizes and what the prediction means; the defaults are those of the published finetune.pt."""

    channels: tuple[int, ...] = (320, 640, 1280, 1280)  # of each level, finest first
    attention: tuple[bool, ...] = (True, True, True, False)  # which levels look at the text
    res_blocks: int = 2  # per level going down; one more going up
    heads: int = 8
    norm_groups: int = 32
    context_width: int = 1280  # of the text states
    clip_width: int | None = 768  # of the CLIP vector; None: none is taken
    sees_picture: bool = False  # four more channels: the latents that are kept, zero where the picture is new
    latent_channels: int = 4
    prediction: Literal["epsilon", "v"] = "epsilon"
    guided_channels: int = 3  # guidance acts on the first so many; the published model was always run so
    latent_scale: float = 0.18215  # the codec's latents times this are what the UNet sees
    size_px: int = 256  # the side of the pictures it was trained on
    blank: str = "a"  # the prompt that guidance leads away from; DALL·E Flow's was this

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.attention):
            raise ValueError(f"{len(self.channels)} levels of channels, but {len(self.attention)} of attention")
        if self.prediction not in ("epsilon", "v"):
            raise ValueError(f"prediction must be 'epsilon' or 'v', got {self.prediction!r}")


class LatentUNet(nn.Module):
    def __init__(self, config: LatentUNetConfig | None = None):
        super().__init__()
        # Here, not above: it takes 2.5 s, and commands that only look at an executor's options need none of it.
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        self.config = config = config or LatentUNetConfig()
        down = [("CrossAttnDownBlock2D" if a else "DownBlock2D") for a in config.attention]
        up = [("CrossAttnUpBlock2D" if a else "UpBlock2D") for a in reversed(config.attention)]
        self.unet = UNet2DConditionModel(
            in_channels=config.latent_channels * (1 + config.sees_picture),
            out_channels=config.latent_channels,
            block_out_channels=config.channels,
            layers_per_block=config.res_blocks,
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            cross_attention_dim=config.context_width,
            attention_head_dim=config.heads,  # diffusers' name; it means the number of heads here
            norm_num_groups=config.norm_groups,
            class_embed_type=None if config.clip_width is None else "simple_projection",
            projection_class_embeddings_input_dim=config.clip_width,
        )

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        context: Tensor,
        clip_vector: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """What the model predicts (B, C, h, w): the noise, or v (Salimans and Ho 2022), as `config.prediction` says.

        Args:
            latents: (B, C, h, w), times `latent_scale`, noised.
            timesteps: (B,) float in [0, 999]; fractions are allowed.
            context: (B, T, D) text states.
            clip_vector: (B, clip_width), not normalised; exactly where the config takes one.
            kept: (B, C, h, w) latents of a picture, zero where it is to be made new; for models that see a picture.
                None: everything is new.
        """
        if self.config.sees_picture:
            kept = torch.zeros_like(latents) if kept is None else kept
            latents = torch.cat([latents, kept], 1)  # (B, 2C, h, w)
        elif kept is not None:
            raise ValueError("this UNet takes no picture beside the latents; use inpainting weights")
        out = self.unet(latents, timesteps, context, class_labels=clip_vector, return_dict=False)[0]
        return cast(Tensor, out)  # (B, C, h, w)
