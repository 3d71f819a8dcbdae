"""The judge: sees what a scene shows, so that quality is a number. Used in training and evaluation, never shipped.

A plain convolution net that reads a picture into dense maps (which kind, which colour, on a 16x16 grid) and
whole-picture answers (style, background, its colour, how many objects). `verdict.py` compares them with what a scene
asks for. Its activations also serve as the perceptual distance that trains the codec.

Shapes: B batch, C channels, H W pixels, G grid (16).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import WeightsError
from .batches import Batch, draw
from .data import Dataset
from .loop import CHECKPOINT, Lesson, averaged_state
from .targets import CELLS as GRID
from .world import World


@dataclass(frozen=True)
class JudgeConfig:
    """How many answers each head chooses from; index 0 of kinds and colours means none."""

    kinds: int
    colours: int
    styles: int
    backgrounds: int
    background_colours: int
    counts: int = 5  # 0 to 4 objects
    widths: tuple[int, int, int] = (48, 112, 160)

    @classmethod
    def of(cls, world: World) -> Self:
        """The answers there are in a world."""
        return cls(
            kinds=1 + len(world.kinds),
            colours=1 + len(world.colors),
            styles=len(world.styles),
            backgrounds=len(world.backgrounds),
            background_colours=1 + len(world.background_colors),
        )


@dataclass
class Sight:
    """What the judge sees, as logits."""

    kind: Tensor  # (B, kinds, G, G)
    colour: Tensor  # (B, colours, G, G)
    style: Tensor  # (B, styles)
    background: Tensor  # (B, backgrounds)
    background_colour: Tensor  # (B, background_colours)
    count: Tensor  # (B, counts)


def _convolution(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class ResidualBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = _convolution(channels, channels)
        self.conv2 = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(self.conv1(x)))


class Judge(nn.Module):
    """(B, 3, H, W) pictures in [0, 1], H = W a multiple of 16 -> `Sight`."""

    def __init__(self, config: JudgeConfig):
        super().__init__()
        self.config = config
        low, middle, high = config.widths
        self.stem = nn.Sequential(_convolution(3, low, stride=2), _convolution(low, low))
        self.fine = nn.Sequential(_convolution(low, middle, stride=2), ResidualBlock(middle), ResidualBlock(middle))
        self.coarse = nn.Sequential(_convolution(middle, high, stride=2), ResidualBlock(high), ResidualBlock(high))
        self.join = nn.Sequential(_convolution(middle + high, middle), ResidualBlock(middle))
        self.kind = nn.Conv2d(middle, config.kinds, 1)
        self.colour = nn.Conv2d(middle, config.colours, 1)
        self.style = nn.Linear(low + high, config.styles)
        self.background = nn.Linear(low + high, config.backgrounds)
        self.background_colour = nn.Linear(low + high, config.background_colours)
        self.count = nn.Sequential(nn.Linear(high * 16, 128), nn.ReLU(), nn.Linear(128, config.counts))

    def features(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Activations at 1/2, 1/4 and 1/8 of the size, for the perceptual distance."""
        low = self.stem((pixels - 0.5) * 4)  # (B, C0, H/2, W/2)
        fine = self.fine(low)  # (B, C1, H/4, W/4)
        return low, fine, self.coarse(fine)  # (B, C2, H/8, W/8)

    def forward(self, pixels: Tensor) -> Sight:
        low, fine, coarse = self.features(pixels)
        wide = F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")  # (B, C2, H/4, W/4)
        joined = self.join(torch.cat([fine, wide], 1))  # (B, C1, H/4, W/4)
        grid = joined if joined.shape[-1] == GRID else F.adaptive_avg_pool2d(joined, GRID)  # (B, C1, G, G)
        whole = torch.cat([low.mean((2, 3)), coarse.mean((2, 3))], 1)  # (B, C0 + C2)
        quarters = F.adaptive_max_pool2d(coarse, 4).flatten(1)  # (B, 16 * C2)
        return Sight(
            kind=self.kind(grid),
            colour=self.colour(grid),
            style=self.style(whole),
            background=self.background(whole),
            background_colour=self.background_colour(whole),
            count=self.count(quarters),
        )


def perceptual_distance(judge: Judge, ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean distance of unit-length activations at three depths, as in LPIPS (arXiv:1801.03924) without its weights.

    The judge should be in eval mode and frozen; the gradient flows to `ours` only.
    """
    with torch.no_grad():
        targets = [F.normalize(f, dim=1) for f in judge.features(theirs)]
    distance = torch.zeros((), device=ours.device)
    for feature, target in zip(judge.features(ours), targets, strict=True):
        distance = distance + (F.normalize(feature, dim=1) - target).float().square().sum(1).mean()
    return distance


def load_judge(folder: Path, world: World) -> Judge:
    """A trained judge, frozen; WeightsError saying how to train one when there is none."""
    if not (folder / CHECKPOINT).exists():
        raise WeightsError(f"no judge in {folder}; train one with: python -m dalle_flow.train judge")
    judge = Judge(JudgeConfig.of(world))
    judge.load_state_dict(averaged_state(folder))
    return judge.eval().requires_grad_(False)


class JudgeLesson(Lesson):
    """Learn to read scenes from their ground truth."""

    def __init__(self, scenes: Dataset, held_out: Dataset):
        self.scenes, self.held_out = scenes, held_out
        self.model: Judge = Judge(JudgeConfig.of(scenes.world))

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        indices = torch.randint(len(self.scenes), (size,), generator=generator)
        batch = draw(self.scenes, indices)
        # Generated pictures are softer and noisier than scenes; a judge that has only seen sharp ones misreads them.
        strength = torch.rand(size, 1, 1, 1, generator=generator) * 0.06
        noise = torch.randn(batch.pixels.shape, generator=generator) * strength
        soft = F.avg_pool2d(F.pad(batch.pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        blur = torch.rand(size, 1, 1, 1, generator=generator).sub(0.4).clamp(min=0)
        batch.pixels = batch.pixels.lerp(soft, blur) + noise
        return batch

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        sight = self.model(batch.pixels)
        cross = F.cross_entropy
        kind = cross(sight.kind.float(), batch.kinds)
        shown = batch.kinds > 0  # a colour is asked for only where there is a thing
        colour = cross(sight.colour.float().permute(0, 2, 3, 1)[shown], batch.colours[shown])
        whole = cross(sight.style.float(), batch.style) + cross(sight.background.float(), batch.background)
        whole = whole + 0.5 * cross(sight.background_colour.float(), batch.background_colour)
        count = cross(sight.count.float(), batch.count)
        figures = {"kind": float(kind.detach()), "colour": float(colour.detach()), "count": float(count.detach())}
        return 2 * kind + colour + 0.5 * whole + 0.5 * count, figures

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        assert isinstance(model, Judge)
        from .verdict import judge_scenes

        number = min(1000, len(self.held_out))
        batch = draw(self.held_out, torch.arange(number))
        scenes = [self.held_out.scene(i) for i in range(number)]
        return judge_scenes(model, batch.pixels, scenes, self.held_out.world)
