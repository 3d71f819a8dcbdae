"""RRDBNet: published sizes, folding of pixels into channels."""

import pytest
import torch

from dalle_flow.models.rrdb import RRDBConfig, RRDBNet


@pytest.mark.parametrize(
    ("config", "number", "reach"),
    [
        (RRDBConfig(), 16_697_987, 1 + 23 * 15 + 3),
        (RRDBConfig(blocks=6), 4_467_779, 1 + 6 * 15 + 3),
        (RRDBConfig(scale=2), 16_703_171, 1 + 23 * 15 + 3),
    ],
    ids=["x4plus", "anime_6B", "x2plus"],
)
def test_the_published_sizes(config: RRDBConfig, number: int, reach: int) -> None:
    with torch.device("meta"):
        model = RRDBNet(config)
    assert sum(p.numel() for p in model.parameters()) == number
    assert sum(stage.reach for stage in model.stages()) == reach


@pytest.mark.parametrize(("scale", "fold"), [(4, 1), (2, 2), (1, 4)])
def test_pixels_are_folded_in_torchs_order(scale: int, fold: int) -> None:
    model = RRDBNet(RRDBConfig(features=4, blocks=1, growth=2, scale=scale))
    pixels = torch.rand(1, 3, 8, 8)
    folded = model.prepare(pixels)
    assert folded.shape == (1, 3 * fold**2, 8 // fold, 8 // fold)
    assert torch.equal(folded[0, 1, 0, 1], pixels[0, 1 // fold**2, (1 % fold**2) // fold, fold + 1 % fold])


def test_refuses_other_scales() -> None:
    with pytest.raises(ValueError, match="scale must be 1, 2 or 4, got 3"):
        RRDBConfig(scale=3)
