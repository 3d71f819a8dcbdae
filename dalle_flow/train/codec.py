"""Training the codec: a small VQGAN whose codebook is a fixed grid (FSQ), exported as an ordinary one.

Source: Mentzer et al. 2023, finite scalar quantization (arXiv:2309.15505). Each of the code's dimensions is rounded to
a few levels in [-1, 1]; the product of the levels is the codebook. Nearest row of that codebook and rounding are the
same thing, so the trained model runs in the plain VQGAN class with nothing added. Differs from the paper: no tanh;
what leaves [-1, 1] is pulled back by a penalty, which keeps nearest neighbour and rounding equal.

Shapes: B batch, C code dimensions, H W pixels, h w code grid.
"""

from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models.vqgan import VQGAN, VQGANConfig
from .batches import draw_pixels
from .data import Dataset
from .judge import Judge, perceptual_distance
from .loop import Lesson
from .verdict import judge_scenes

LEVELS = (8, 8, 6, 5)  # 1,920 codes
RANGE_WEIGHT = 0.25
GRADIENT_WEIGHT = 0.5
SQUARE_WEIGHT = 1.0
PERCEPTUAL_WEIGHT = 0.1
DECODER_PERCEPTUAL_WEIGHT = 0.25  # what a picture shows counts more once the codes are settled


def codec_config(size_px: int = 64) -> VQGANConfig:
    """The embedded codec: 1/8 of the size, 1,920 codes."""
    return VQGANConfig(
        base_channels=16,
        channel_mults=(1, 2, 4, 8),
        num_res_blocks=1,
        attn_resolutions=(size_px // 8,),
        resolution=size_px,
        z_channels=64,
        code_dim=len(LEVELS),
        num_codes=len(grid_codebook()),
        norm_groups=4,
    )


def grid_codebook(levels: tuple[int, ...] = LEVELS) -> Tensor:
    """(codes, C) float32: every combination of evenly spaced values in [-1, 1], the last dimension fastest."""
    return torch.tensor(list(product(*(torch.linspace(-1, 1, n).tolist() for n in levels))))


def round_to_grid(z: Tensor, levels: tuple[int, ...] = LEVELS) -> Tensor:
    """(B, C, h, w) -> the nearest grid values; the gradient passes straight through."""
    steps = torch.tensor([n - 1 for n in levels], dtype=z.dtype, device=z.device).view(1, -1, 1, 1)
    unit = (z.clamp(-1, 1) + 1) / 2  # in [0, 1]
    rounded = (unit * steps).round() / steps * 2 - 1
    return z + (rounded - z).detach()


def edge_difference(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal and vertical pixel steps: what makes edges crisp."""
    difference = ours - theirs
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()


def picture_loss(
    ours: Tensor, theirs: Tensor, judge: Judge | None, perceptual_weight: float
) -> tuple[Tensor, dict[str, float]]:
    """How far our pictures (B, 3, H, W) are from theirs: in pixels, in edges, and to the judge's eye."""
    difference = ours - theirs
    total = (
        difference.abs().mean()
        + GRADIENT_WEIGHT * edge_difference(ours, theirs)
        + SQUARE_WEIGHT * difference.square().mean()
    )
    figures = {"absolute": float(difference.detach().abs().mean())}
    if judge is not None:
        distance = perceptual_distance(judge, ours, theirs)
        total = total + perceptual_weight * distance
        figures["perceptual"] = float(distance.detach())
    return total, figures


class CodecLesson(Lesson):
    """Reconstruct scenes through the grid."""

    def __init__(self, scenes: Dataset, held_out: Dataset, size_px: int, judge: Judge | None = None):
        self.scenes, self.held_out = scenes, held_out
        self.model: VQGAN = VQGAN(codec_config(size_px))
        self.model.quantize.embedding.weight.data.copy_(grid_codebook())
        self.model.quantize.requires_grad_(False)
        self.judge = None if judge is None else judge.eval().requires_grad_(False)

    def batch(self, size: int, generator: torch.Generator) -> Tensor:
        indices = torch.randint(len(self.scenes), (size,), generator=generator)
        return draw_pixels(self.scenes, indices)

    def loss(self, batch: Tensor, step: int) -> tuple[Tensor, dict[str, float]]:
        z = self.model.encode_prequant(batch).float()  # (B, C, h, w)
        outside = (z.abs() - 1).clamp(min=0).square().mean()
        ours = self.model.decode(round_to_grid(z)).float()  # (B, 3, H, W)
        total, figures = picture_loss(ours, batch, self.judge, PERCEPTUAL_WEIGHT)
        return total + RANGE_WEIGHT * outside, {**figures, "outside": float(outside.detach())}

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        assert isinstance(model, VQGAN)
        pixels = draw_pixels(self.held_out, torch.arange(min(512, len(self.held_out))))
        codes = torch.cat([model.encode(p) for p in torch.split(pixels, 64)])
        ours = torch.cat([model.decode_codes(c) for c in torch.split(codes, 64)])
        used = torch.bincount(codes.flatten(), minlength=model.config.num_codes).float()
        share = used / used.sum()
        perplexity = float(torch.exp(-(share * share.clamp(min=1e-9).log()).sum()))
        return {"psnr": peak_signal_to_noise(ours, pixels), "codes": float((used > 0).sum()), "perplexity": perplexity}


class DecoderLesson(Lesson):
    """Turn codes into better pictures, the codes staying what they are: a generator trained on them stays valid."""

    def __init__(
        self,
        codec: VQGAN,
        scenes: Dataset,
        codes: NDArray[np.uint16],
        held_out: Dataset,
        held_out_codes: NDArray[np.uint16],
        judge: Judge,
    ):
        self.model: VQGAN = codec.requires_grad_(False)
        self.model.decoder.requires_grad_(True)
        self.model.post_quant_conv.requires_grad_(True)
        self.scenes, self.codes, self.held_out, self.held_out_codes = scenes, codes, held_out, held_out_codes
        self.judge = judge.eval().requires_grad_(False)

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        indices = torch.randint(len(self.scenes), (size,), generator=generator)
        return draw_pixels(self.scenes, indices), torch.from_numpy(self.codes[indices.numpy()].astype(np.int64))

    def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        pixels, codes = batch
        ours = self.model.decode(self.model.lookup(codes)).float()  # (B, 3, H, W)
        return picture_loss(ours, pixels, self.judge, DECODER_PERCEPTUAL_WEIGHT)

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        assert isinstance(model, VQGAN)
        number = min(512, len(self.held_out))
        pixels = draw_pixels(self.held_out, torch.arange(number))
        codes = torch.from_numpy(self.held_out_codes[:number].astype(np.int64))
        ours = torch.cat([model.decode_codes(c) for c in torch.split(codes, 64)])
        scenes = [self.held_out.scene(i) for i in range(number)]
        return {
            "psnr": peak_signal_to_noise(ours, pixels),
            **judge_scenes(self.judge, ours, scenes, self.held_out.world),
        }


def peak_signal_to_noise(ours: Tensor, theirs: Tensor) -> float:
    """Mean over pictures of the PSNR in dB; both (B, 3, H, W) in [0, 1]."""
    squares = F.mse_loss(ours, theirs, reduction="none").flatten(1).mean(1)
    return float((-10 * squares.clamp(min=1e-10).log10()).mean())
