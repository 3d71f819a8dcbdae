"""Tiles give what the whole picture gives, whatever their size, and within their memory."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dalle_flow.errors import FailureError
from dalle_flow.models.rrdb import RRDBConfig, RRDBNet
from dalle_flow.models.srvgg import SRVGG, SRVGGConfig
from dalle_flow.models.stages import Network, run_whole
from dalle_flow.models.swinir import SwinIR, SwinIRConfig
from dalle_flow.models.tiling import Budget, Enlargement, Tiling, cut, plan_tiles, reach_of

CPU = torch.device("cpu")
PLENTY = Budget(2**40, 2**40)
NEAR = 2e-5

NETWORKS = {
    "srvgg": lambda: SRVGG(SRVGGConfig(features=6, convolutions=3)),
    "rrdb x4": lambda: RRDBNet(RRDBConfig(features=6, blocks=2, growth=3)),
    "rrdb x2": lambda: RRDBNet(RRDBConfig(features=6, blocks=1, growth=3, scale=2)),
    "swinir": lambda: SwinIR(SwinIRConfig(3, 8, (6, 3), (2, 2), 4, 12, 3, "pixelshuffledirect", "3conv")),
    "swinir tail": lambda: SwinIR(SwinIRConfig(3, 8, (2,), (2,), 4, 12, 2, "nearest+conv", "1conv")),
    "swinir 7": lambda: SwinIR(SwinIRConfig(1, 8, (4,), (2,), 7, 12, 1, "none", "1conv")),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    """Weights so large that every pixel that a stage sees makes a difference."""
    torch.manual_seed(0)
    network = NETWORKS[request.param]()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.15)
    return network.eval().requires_grad_(False)


def picture(network: Network, height: int = 61, width: int = 83) -> Tensor:
    return torch.rand(network.channels, height, width, generator=torch.Generator().manual_seed(3))


def run(network: Network, pixels: Tensor, tiling: Tiling) -> Tensor:
    work, steps = Enlargement(network, pixels, tiling, CPU, torch.float32), 1
    while not work.step():
        steps += 1
    assert steps == tiling.steps
    return work.result


def plan(network: Network, pixels: Tensor, budget: Budget = PLENTY, **given: Any) -> Tiling:
    return plan_tiles(network, pixels.shape[1], pixels.shape[2], budget, **given)


@torch.inference_mode()
def whole(network: Network, pixels: Tensor) -> Tensor:
    return run_whole(network, pixels[None])[0]


def check(found: Tensor, wanted: Tensor) -> None:
    scale = float(wanted.std())
    assert scale > 0
    torch.testing.assert_close(found / scale, wanted / scale, atol=NEAR, rtol=0)


@pytest.mark.parametrize("length", [1, 7, 8, 61, 64, 200])
@pytest.mark.parametrize(("side", "around", "align"), [(1, 0, 1), (16, 5, 1), (20, 16, 8), (3, 8, 8), (300, 8, 4)])
def test_parts_cover_an_axis_once(length: int, side: int, around: int, align: int) -> None:
    parts = cut(length, side, around, align)
    assert [at for part in parts for at in range(part.start, part.stop)] == list(range(length))
    for part in parts:
        assert part.stop - part.start <= max(side, align)
        assert part.start % align == 0
        assert (part.seen_from, part.seen_to) == (max(0, part.start - around), min(length, part.stop + around))


@pytest.mark.parametrize(
    ("size", "tile", "one"),
    [((61, 83), 16, False), ((61, 83), 29, False), ((5, 15), 1, False), ((3, 2), 8, True), ((61, 83), 1000, True)],
)
def test_tiles_equal_the_whole(network: Network, size: tuple[int, int], tile: int, one: bool) -> None:
    pixels = picture(network, *size)
    tiling = plan(network, pixels, tile=tile)
    assert (tiling.steps == len(tiling.stages)) == one
    check(run(network, pixels, tiling), whole(network, pixels))


def test_regions_equal_the_whole(network: Network) -> None:
    """A picture too large for its stages to be kept whole."""
    around = reach_of(network) // network.fold
    pixels = picture(network, 2 * around * network.fold + 77, 21)
    tiling = plan(network, pixels, Budget(2**40, 1), tile=48)
    assert len(tiling.regions) > 1
    check(run(network, pixels, tiling), whole(network, pixels))


def test_an_overlap_of_the_reach_equals_the_whole(network: Network) -> None:
    pixels = picture(network)
    tiling = plan(network, pixels, tile=24, overlap=reach_of(network))
    assert len(tiling.regions) > 4
    assert tiling.blend == 0
    check(run(network, pixels, tiling), whole(network, pixels))


def test_a_smaller_overlap_does_not_and_is_blended(network: Network) -> None:
    """Near the cuts alone, and less than when the tiles are put side by side."""
    pixels = picture(network)
    wanted = whole(network, pixels)
    blended = plan(network, pixels, tile=28, overlap=8)
    assert blended.blend > 0 or reach_of(network) <= 8
    abrupt = plan(network, pixels, tile=28, overlap=0)
    errors = [(run(network, pixels, tiling) - wanted).abs() for tiling in (blended, abrupt)]
    assert errors[0].mean() < errors[1].mean()
    assert errors[1].max() > NEAR


def test_blending_keeps_what_is_equal() -> None:
    """Weights of neighbours sum to one at every pixel."""
    network = SRVGG(SRVGGConfig(features=4, convolutions=9, scale=2)).requires_grad_(False)
    nn.init.zeros_(network.body[-1].weight)
    nn.init.zeros_(network.body[-1].bias)
    pixels = picture(network, 61, 83)
    for tile, overlap in [(16, 8), (20, 3), (7, 7), (40, 10)]:
        tiling = plan(network, pixels, tile=tile, overlap=overlap)
        assert tiling.blend > 0
        torch.testing.assert_close(run(network, pixels, tiling), whole(network, pixels))


class Peak(TorchDispatchMode):
    """The most bytes that tensors made within it have taken at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor) and (key := tensor.untyped_storage()._cdata) not in self.known:
                size = tensor.untyped_storage().nbytes()
                self.known.add(key)
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(tensor.untyped_storage(), self.freed, key, size)
        return out

    def freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def test_a_stage_takes_about_the_memory_that_it_says(network: Network) -> None:
    with torch.inference_mode():
        x = network.prepare(picture(network, 56, 56)[None])
        for stage in network.stages():
            x = x.to(memory_format=torch.channels_last)
            with Peak() as peak:
                out = stage.run(x)
            measured = peak.most / 4 / (x.shape[2] * x.shape[3])
            assert measured <= 1.35 * stage.floats
            x = out


@pytest.mark.parametrize("given", [{}, {"overlap": 8}])
def test_the_budget_bounds_the_memory_of_a_tile(given: dict[str, Any]) -> None:
    """A picture four times as large takes more for itself, and no more for computing."""
    network = RRDBNet(RRDBConfig(features=8, blocks=2, growth=4)).eval().requires_grad_(False)
    budget = Budget(4 << 20, 2**40)
    most = []
    for side in (96, 192):
        pixels = picture(network, side, side)
        tiling = plan(network, pixels, budget, **given)
        work = Enlargement(network, pixels, tiling, CPU, torch.float32)
        picture_bytes, state_bytes = 3 * 16 * 4 * side**2, 16 * 4 * side**2
        kept = picture_bytes + (0 if given else 2 * state_bytes)
        with Peak() as peak:
            while not work.step():
                pass
        most.append(peak.most - kept)
    assert most[1] < 2 * budget.tile
    assert tiling.steps > len(tiling.stages)


def test_numbers_that_are_not_finite_are_an_error() -> None:
    network = SRVGG(SRVGGConfig(features=4, convolutions=1)).requires_grad_(False)
    nn.init.constant_(network.body[0].bias, torch.inf)
    pixels = picture(network, 8, 8)
    with pytest.raises(FailureError, match=r"not finite in torch\.float32; the weights are damaged"):
        run(network, pixels, plan(network, pixels))
    work = Enlargement(network.bfloat16(), pixels, plan(network, pixels), CPU, torch.bfloat16)
    with pytest.raises(FailureError, match="use dtype float32"):
        work.step()


def test_half_precision_is_near(network: Network) -> None:
    pixels = picture(network, 30, 40)
    wanted = whole(network, pixels)
    work = Enlargement(network.bfloat16(), pixels, plan(network, pixels, tile=16), CPU, torch.bfloat16)
    while not work.step():
        pass
    assert work.result.dtype == torch.float32
    assert (work.result - wanted).abs().mean() < 0.05 * wanted.std()
