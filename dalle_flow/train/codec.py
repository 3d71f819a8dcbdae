"""Training the codec: a small VQGAN whose codebook is a fixed grid (FSQ), exported as an ordinary one.

Source: Mentzer et al. 2023, finite scalar quantization (arXiv:2309.15505). Each of the code's dimensions is rounded to
a few levels in [-1, 1]; the product of the levels is the codebook. Nearest row of that codebook and rounding are the
same thing, so the trained model runs in the plain VQGAN class with nothing added. Differs from the paper: no tanh;
what leaves [-1, 1] is pulled back by a penalty, which keeps nearest neighbour and rounding equal.

Shapes: B batch, C code dimensions, H W pixels, h w code grid.
"""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.vqgan import VQGAN, VQGANConfig
from .batches import draw_pixels
from .data import Dataset
from .judge import Judge, perceptual_distance
from .loop import Lesson

LEVELS = (8, 8, 6, 5)  # 1,920 codes
RANGE_WEIGHT = 0.25
GRADIENT_WEIGHT = 0.5
SQUARE_WEIGHT = 1.0
PERCEPTUAL_WEIGHT = 0.1  # embedded-family.md's study


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


class CodecLesson(Lesson):
    """Reconstruct scenes. With `frozen_codes` the encoder stays as it is and only the decoder goes on learning,
    so that a generator can already be trained on its codes."""

    def __init__(
        self, scenes: Dataset, held_out: Dataset, size_px: int, judge: Judge | None = None, frozen_codes: bool = False
    ):
        self.scenes, self.held_out = scenes, held_out
        self.model: VQGAN = VQGAN(codec_config(size_px))
        self.model.quantize.embedding.weight.data.copy_(grid_codebook())
        self.model.quantize.requires_grad_(False)
        if frozen_codes:
            self.model.encoder.requires_grad_(False)
            self.model.quant_conv.requires_grad_(False)
        self.frozen_codes = frozen_codes
        self.judge = None if judge is None else judge.eval().requires_grad_(False)

    def batch(self, size: int, generator: torch.Generator) -> Tensor:
        indices = torch.randint(len(self.scenes), (size,), generator=generator)
        return draw_pixels(self.scenes, indices)

    def loss(self, batch: Tensor, step: int) -> tuple[Tensor, dict[str, float]]:
        with torch.set_grad_enabled(not self.frozen_codes):
            z = self.model.encode_prequant(batch).float()  # (B, C, h, w)
        outside = (z.abs() - 1).clamp(min=0).square().mean()
        ours = self.model.decode(round_to_grid(z)).float()  # (B, 3, H, W)
        difference = ours - batch
        total = (
            difference.abs().mean()
            + GRADIENT_WEIGHT * edge_difference(ours, batch)
            + SQUARE_WEIGHT * difference.square().mean()
            + RANGE_WEIGHT * outside
        )
        figures = {"absolute": float(difference.detach().abs().mean()), "outside": float(outside.detach())}
        if self.judge is not None:
            distance = perceptual_distance(self.judge, ours, batch)
            total = total + PERCEPTUAL_WEIGHT * distance
            figures["perceptual"] = float(distance.detach())
        return total, figures

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


def peak_signal_to_noise(ours: Tensor, theirs: Tensor) -> float:
    """Mean over pictures of the PSNR in dB; both (B, 3, H, W) in [0, 1]."""
    squares = F.mse_loss(ours, theirs, reduction="none").flatten(1).mean(1)
    return float((-10 * squares.clamp(min=1e-10).log10()).mean())
