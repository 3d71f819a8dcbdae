"""What a network that enlarges pictures looks like from outside: stages, each of which sees only a little way.

A pixel of the output of a deep network depends on hundreds of pixels around it, but a pixel of one stage only on a few.
Cut into stages, any of these networks can be run tile by tile and still give what it gives for the whole picture
(`tiling.py`): what one stage gives is put together before the next one sees it.

Shapes: B batch, C channels, H W pixels, h w grid: H W divided by the network's `fold`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Stage:
    """A part of a network: (B, C, h, w) -> (B, `channels`, h*`scale`, w*`scale`)."""

    run: Callable[[Tensor], Tensor]
    reach: int  # grid points on each side that a point of the result depends on; a multiple of `align`
    channels: int  # of the result
    floats: int  # numbers held at the same time per grid point of the input, about
    scale: int = 1
    align: int = 1  # tiles begin and end at multiples of this


class Network(Protocol):
    """SRVGG, RRDBNet and SwinIR."""

    @property
    def channels(self) -> int:
        """Channels of a picture, in and out."""

    @property
    def scale(self) -> int:
        """Output pixels per input pixel along one side."""

    @property
    def fold(self) -> int:
        """Pixels per grid point along one side."""

    def prepare(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1], any size -> (B, C', h, w), what the first stage takes."""

    def stages(self) -> tuple[Stage, ...]:
        """All of the network, in order."""


class Around:
    """A module that works on the first `width` channels and leads the others around."""

    def __init__(self, module: nn.Module, width: int):
        self.module, self.width = module, width

    def __call__(self, state: Tensor) -> Tensor:
        """(B, C, h, w) -> the same."""
        return torch.cat([self.module(state[:, : self.width]), state[:, self.width :]], 1)


def run_whole(network: Network, pixels: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1] -> (B, C, H*s, W*s), not clamped: all stages on all of the picture."""
    x = network.prepare(pixels)
    for stage in network.stages():
        x = stage.run(x)
    height, width = pixels.shape[2] * network.scale, pixels.shape[3] * network.scale
    return x[..., :height, :width]


def reflect(pixels: Tensor, right: int, bottom: int, *, edge_twice: bool = False) -> Tensor:
    """(B, C, H, W) -> (B, C, H + bottom, W + right), mirrored, again and again where the picture is small.

    Args:
        edge_twice: the pixel at the edge is part of its mirror image too.
    """
    for axis, more in ((2, bottom), (3, right)):
        if more:
            size = pixels.shape[axis]
            index = mirrored(torch.arange(size + more, device=pixels.device), size, edge_twice)
            pixels = pixels.index_select(axis, index)
    return pixels


def mirrored(index: Tensor, size: int, edge_twice: bool = False) -> Tensor:
    """Places on an endless line -> places 0 to size - 1 of the picture that is mirrored along it."""
    period = 2 * size if edge_twice else max(1, 2 * (size - 1))
    index = index.remainder(period)
    return torch.where(index < size, index, period - index - int(edge_twice))


def missing(size: int, multiple: int) -> int:
    """How much `size` lacks to the next multiple; 0 where it is one."""
    return -size % multiple
