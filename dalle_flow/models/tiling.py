"""Runs a network that enlarges pictures tile by tile, within a given amount of memory, as if it saw the whole picture.

Each stage of the network is run over all of the picture, one tile at a time, before the next stage begins; a tile is
given as many grid points around it as its stage sees. So the result equals that of the whole picture, but for rounding,
however deep the network is. What a stage gave is kept on the CPU, which costs memory for each point of the picture.
Where that would be too much, the picture is cut into regions first, each with as much around it as all stages see.

Where fewer points around are asked for (`overlap`), regions are run whole, one after the other: the memory is that of a
region, and results differ near the cuts, which are blended into each other.

Shapes: C channels, H W pixels, s scale, h w grid: H W divided by the network's `fold`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

from ..errors import FailureError
from .stages import Network, Stage

LEAST_SIDE = 32  # grid points of a tile, whatever the budget, and as many as are around it on each side


@dataclass(frozen=True)
class Span:
    """A part of one axis: what a tile gives (`start` to `stop`), and what it is given (`seen_from` to `seen_to`)."""

    start: int
    stop: int
    seen_from: int
    seen_to: int

    @property
    def seen(self) -> slice:
        return slice(self.seen_from, self.seen_to)

    def inner(self, scale: int) -> slice:
        """Where in the enlarged result of what it is given is what it gives."""
        return slice((self.start - self.seen_from) * scale, (self.stop - self.seen_from) * scale)

    def outer(self, scale: int) -> slice:
        """Where what it gives stands in the whole."""
        return slice(self.start * scale, self.stop * scale)


@dataclass(frozen=True)
class Tile:
    y: Span
    x: Span


def cut(length: int, side: int, around: int, align: int) -> list[Span]:
    """An axis in parts of about equal length, at most `side` and multiples of `align` but for the last one."""
    number = -(-length // max(align, side // align * align))
    even = -(-length // number)
    even += -even % align
    starts = range(0, length, even)
    ends = [min(start + even, length) for start in starts]
    return [
        Span(start, end, max(0, start - around), min(length, end + around))
        for start, end in zip(starts, ends, strict=True)
    ]


def tiles(height: int, width: int, side: int, around: int, align: int) -> list[Tile]:
    columns = cut(width, side, around, align)
    return [Tile(y, x) for y in cut(height, side, around, align) for x in columns]


@dataclass(frozen=True)
class Budget:
    """Bytes. About: they are estimated from the sizes of a network, and tiles are not made smaller than makes sense."""

    tile: int  # for what a network computes at a time
    picture: int  # for what is kept between stages, on the CPU


@dataclass(frozen=True)
class Tiling:
    """How one picture is cut up."""

    stages: tuple[Stage, ...]
    regions: tuple[Tile, ...]
    sides: tuple[int, ...]  # of the tiles of each stage, in grid points
    blend: int  # grid points on each side of a cut between regions over which they go over into each other

    @property
    def steps(self) -> int:
        """Tiles of all stages and regions."""
        return sum(len(part) for region in self.regions for _, part in self.work(region))

    def work(self, region: Tile) -> Iterator[tuple[Stage, list[Tile]]]:
        """Each stage with its tiles of that region."""
        height, width = region.y.seen_to - region.y.seen_from, region.x.seen_to - region.x.seen_from
        for stage, side in zip(self.stages, self.sides, strict=True):
            yield stage, tiles(height, width, side, stage.reach, stage.align)


def reach_of(network: Network) -> int:
    """Pixels on each side of a pixel that the network can see at most."""
    return network.fold * sum(stage.reach for stage in network.stages())


def plan_tiles(
    network: Network,
    height: int,
    width: int,
    budget: Budget,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    bytes_per_number: int = 4,
) -> Tiling:
    """How to run a network on a picture of `height` x `width` pixels.

    Args:
        tile: side of a tile in pixels, without what is around it; None: as large as the budget allows.
        overlap: pixels that a tile sees around it; None: as many as make no difference to the whole picture.
    """
    stages, fold = network.stages(), network.fold
    align = max(stage.align for stage in stages)
    rows, columns = (-(-size // (fold * align)) * align for size in (height, width))
    whole = max(rows, columns)
    if overlap is not None:
        around = -(-overlap // (fold * align)) * align
        floats = max(stage.floats for stage in stages)
        side = _side(floats, around, budget.tile // bytes_per_number, rows, columns) if tile is None else tile // fold
        regions = tiles(rows, columns, max(align, side), around, align)
        shortest = min(min(t.y.stop - t.y.start, t.x.stop - t.x.start) for t in regions)
        exact = len(regions) == 1 or overlap >= reach_of(network)
        return Tiling(stages, tuple(regions), (whole,) * len(stages), 0 if exact else min(around, shortest) // 2)
    floats_kept = [_kept(network, stages, i) for i in range(len(stages))]
    around = sum(stage.reach for stage in stages)
    side = _side(max(floats_kept), around, budget.picture // bytes_per_number, rows, columns)
    sides = [
        _side(stage.floats, stage.reach, budget.tile // bytes_per_number, rows, columns)
        if tile is None
        else tile // fold
        for stage in stages
    ]
    return Tiling(stages, tuple(tiles(rows, columns, side, around, align)), tuple(max(align, s) for s in sides), 0)


def _kept(network: Network, stages: tuple[Stage, ...], i: int) -> int:
    """Numbers per grid point that stand on the CPU while a stage is run: what it is given and what it gives."""
    given = stages[i - 1].channels if i else network.channels * network.fold**2
    return given + stages[i].channels * stages[i].scale ** 2


def _side(floats: int, around: int, numbers: int, rows: int, columns: int) -> int:
    """Side of the largest tile, without what is around it, that holds at most so many numbers; all if that fits."""
    if floats * rows * columns <= numbers:
        return max(rows, columns)
    return max(LEAST_SIDE, around, isqrt(numbers // floats) - 2 * around)


class Enlargement:
    """One picture being enlarged. Call `step` until it says that it is done; then `result` is whole."""

    def __init__(self, network: Network, pixels: Tensor, tiling: Tiling, device: torch.device, dtype: torch.dtype):
        """`pixels`: (C, H, W) float32 in [0, 1] on the CPU."""
        self.network, self.tiling, self.device, self.dtype = network, tiling, device, dtype
        channels, height, width = pixels.shape
        self.size = height * network.scale, width * network.scale
        rows, columns = tiling.regions[-1].y.stop, tiling.regions[-1].x.stop
        self.per_point = network.scale * network.fold
        self._canvas = torch.zeros(channels, rows * self.per_point, columns * self.per_point)
        self._work = self._run(pixels)

    def step(self) -> bool:
        """Compute one tile of one stage; whether it was the last."""
        return next(self._work)

    @property
    def result(self) -> Tensor:
        """(C, H*s, W*s) float32 on the CPU, not clamped."""
        return self._canvas[:, : self.size[0], : self.size[1]]

    @torch.inference_mode()
    def _run(self, pixels: Tensor) -> Iterator[bool]:
        """After each tile, whether it was the last."""
        prepared = self.network.prepare(pixels[None])  # (1, C', h, w)
        left = self.tiling.steps
        for region in self.tiling.regions:
            x = prepared[..., region.y.seen, region.x.seen]
            for stage, parts in self.tiling.work(region):
                out = self._room(stage, x)
                for tile in parts:
                    out[..., tile.y.outer(stage.scale), tile.x.outer(stage.scale)] = self._tile(stage, x, tile)
                    left -= 1
                    if left:
                        yield False
                x = out
            if len(self.tiling.regions) > 1:
                self._put(region, x[0])
        yield True

    def _room(self, stage: Stage, x: Tensor) -> Tensor:
        """Where the results of a stage are put together; those of the last one in their final place, if it is free."""
        if stage is self.tiling.stages[-1] and len(self.tiling.regions) == 1:
            return self._canvas[None]
        dtype = torch.float32 if stage is self.tiling.stages[-1] else self.dtype
        size = (1, stage.channels, x.shape[2] * stage.scale, x.shape[3] * stage.scale)
        return torch.empty(size, dtype=dtype, memory_format=torch.channels_last)

    def _tile(self, stage: Stage, x: Tensor, tile: Tile) -> Tensor:
        """(1, C, h, w) of all of the region -> what the stage gives for one tile, on the device."""
        seen = x[..., tile.y.seen, tile.x.seen].to(self.device, self.dtype, memory_format=torch.channels_last)
        out = stage.run(seen)[..., tile.y.inner(stage.scale), tile.x.inner(stage.scale)]
        if not out.isfinite().all():
            cure = "the weights are damaged" if self.dtype == torch.float32 else "use dtype float32"
            raise FailureError(f"the network gave a number that is not finite in {self.dtype}; {cure}")
        return out

    def _put(self, region: Tile, x: Tensor) -> None:
        """Put (C, .., ..) of a region, with what is around it, into its place."""
        scale, blend = self.per_point, self.tiling.blend
        if not blend:
            core = x[:, region.y.inner(scale), region.x.inner(scale)]
            self._canvas[:, region.y.outer(scale), region.x.outer(scale)] = core
            return
        rows, columns = self._canvas.shape[1], self._canvas.shape[2]
        weight = _ramp(region.y, rows, scale, blend)[:, None] * _ramp(region.x, columns, scale, blend)
        place = slice(region.y.seen_from * scale, region.y.seen_to * scale)
        self._canvas[:, place, region.x.seen_from * scale : region.x.seen_to * scale] += x * weight


def _ramp(span: Span, length: int, scale: int, blend: int) -> Tensor:
    """How much of each pixel seen by a region is the region's: 1 inside, sloping to 0 across the cuts."""
    at = torch.arange(span.seen_from * scale, span.seen_to * scale) + 0.5
    weight = torch.ones(len(at))
    if span.start:
        weight = weight.minimum(((at - span.start * scale) / (2 * blend * scale) + 0.5).clamp(0, 1))
    if span.stop * scale < length:
        weight = weight.minimum(((span.stop * scale - at) / (2 * blend * scale) + 0.5).clamp(0, 1))
    return weight
