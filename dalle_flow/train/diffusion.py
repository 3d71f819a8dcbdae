"""Training the latent diffusion model: noised latents in, v out, told by the caption and sometimes by a part kept.

Latents are the codec's codebook rows (the VQ-regularised variant of Rombach et al. 2022, arXiv:2112.10752); the
prediction is v (Salimans and Ho 2022, arXiv:2202.00512), on the schedule that GLID-3 XL and Stable Diffusion share.
One model generates, refines and inpaints: for a share of the pictures it sees the latents outside a random mask.

Shapes: B batch, T text length, C latent channels, h w latent grid.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models.diffusion_schedule import alphas_cumprod
from ..models.latent_text import LatentTextConfig, LatentTextEncoder
from ..models.latent_unet import LatentUNet, LatentUNetConfig
from ..models.text.bpe import DalleTokenizer
from ..models.text.normalize import TextNormalizer
from ..models.vqgan import VQGAN
from .captions import caption
from .data import Dataset
from .loop import Lesson

BLANK = 0.12  # share of captions replaced by "", for guidance
SEES_PART = 0.3  # share of pictures of which a part is shown
SAID_WIDTH = 192  # of the text states


def unet_config(size_px: int, latent_scale: float) -> LatentUNetConfig:
    """The embedded UNet: two levels with attention, no CLIP vector, all channels guided."""
    return LatentUNetConfig(
        channels=(128, 128),
        attention=(True, True),
        heads=4,
        context_width=SAID_WIDTH,
        clip_width=None,
        sees_picture=True,
        prediction="v",
        guided_channels=4,
        latent_scale=latent_scale,
        size_px=size_px,
        blank="",
    )


def text_config(vocab_size: int, max_length: int) -> LatentTextConfig:
    """The embedded text encoder."""
    return LatentTextConfig(vocab_size, max_length, width=SAID_WIDTH, layers=3, heads=4, head_width=48)


class Painter(nn.Module):
    """The two that are trained together."""

    def __init__(self, text: LatentTextEncoder, unet: LatentUNet):
        super().__init__()
        self.text, self.unet = text, unet

    def forward(self, tokens: Tensor, latents: Tensor, timesteps: Tensor, kept: Tensor) -> Tensor:
        states = self.text(tokens)  # (B, T, D)
        out: Tensor = self.unet(latents, timesteps, states, kept=kept)  # (B, C, h, w)
        return out


@dataclass
class Noised:
    """A batch of captions and latents."""

    tokens: Tensor  # (B, T) int64
    latents: Tensor  # (B, C, h, w), clean and scaled
    timesteps: Tensor  # (B,) int64
    noise: Tensor  # (B, C, h, w)
    kept: Tensor  # (B, C, h, w): latents that are shown, zero elsewhere


class DiffusionLesson(Lesson):
    """Predict v of a noised picture."""

    def __init__(
        self,
        model: Painter,
        tokenizer: DalleTokenizer,
        codec: VQGAN,
        scenes: Dataset,
        codes: NDArray[np.uint16],
        held_out: Dataset,
        held_out_codes: NDArray[np.uint16],
    ):
        self.model: Painter = model
        self.tokenizer = tokenizer
        self.normalize = TextNormalizer()
        self.book = codec.quantize.embedding.weight.detach() * model.unet.config.latent_scale  # (codes, C)
        self.scenes, self.codes = scenes, codes
        self.held_out, self.held_out_codes = held_out, held_out_codes
        self.signal = alphas_cumprod().float()  # (1000,)

    def batch(self, size: int, generator: torch.Generator) -> Noised:
        indices = torch.randint(len(self.scenes), (size,), generator=generator)
        return self._noised(self.scenes, self.codes, indices, generator)

    def loss(self, batch: Noised, step: int) -> tuple[Tensor, dict[str, float]]:
        return self._error(self.model, batch), {}

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        errors = []
        for indices in torch.split(torch.arange(min(512, len(self.held_out))), 64):
            batch = self._noised(self.held_out, self.held_out_codes, indices, generator)
            errors.append(float(self._error(model, batch)))
        return {"loss": float(np.mean(errors))}

    def _noised(
        self, scenes: Dataset, codes: NDArray[np.uint16], indices: Tensor, generator: torch.Generator
    ) -> Noised:
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        tokens, _ = self.tokenizer([self._caption(scenes, int(i), rng) for i in indices])
        rows = torch.from_numpy(codes[indices.numpy()].astype(np.int64))  # (B, K)
        side = round(rows.shape[1] ** 0.5)
        latents = rearrange(self.book[rows], "b (h w) c -> b c h w", h=side).contiguous()
        timesteps = torch.randint(len(self.signal), (len(rows),), generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        return Noised(tokens, latents, timesteps, noise, latents * shown(rng, len(rows), side))

    def _caption(self, scenes: Dataset, index: int, rng: np.random.Generator) -> str:
        return "" if rng.random() < BLANK else self.normalize(caption(scenes.scene(index), scenes.world, rng))

    def _error(self, model: nn.Module, batch: Noised) -> Tensor:
        signal = self.signal[batch.timesteps].sqrt()[:, None, None, None]  # (B, 1, 1, 1)
        noise = (1 - self.signal[batch.timesteps]).sqrt()[:, None, None, None]
        noised = signal * batch.latents + noise * batch.noise  # (B, C, h, w)
        v = signal * batch.noise - noise * batch.latents
        return F.mse_loss(model(batch.tokens, noised, batch.timesteps.float(), batch.kept).float(), v)


def shown(rng: np.random.Generator, number: int, side: int) -> Tensor:
    """(B, 1, h, w): 1 where a picture's latents are shown; nowhere for most, outside a rectangle for the others."""
    mask = np.zeros((number, 1, side, side), np.float32)
    for row in np.flatnonzero(rng.random(number) < SEES_PART):
        height, width = rng.integers(2, side, size=2, endpoint=True)
        top, left = rng.integers(side - height + 1), rng.integers(side - width + 1)
        mask[row] = 1
        mask[row, :, top : top + height, left : left + width] = 0
    return torch.from_numpy(mask)
